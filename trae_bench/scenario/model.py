"""Records of a scenario file, one for each table of the file. Data only."""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

Protocol = Literal["openai_chat", "openai_responses", "anthropic_messages", "gemini", "ollama_chat"]
Transport = Literal["loopback", "respx"]
Distribution = Literal["fixed", "uniform", "lognormal"]
FaultKind = Literal["status", "reset", "cut", "garbage", "close"]
# `$` alone accepts a trailing newline.
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)")]
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]

FINISH_TOOL = "task_done"
"""The tool that ends a session."""
MAX_TURNS = 100_000
"""Maximum turns of a script, including repeats."""
DEFAULT_FAULT_STATUS = 503
"""HTTP status of an error reply if the scenario gives none."""
MAX_THINK_SECONDS = 3600.0
"""Maximum think time; longer values of a distribution are reduced to it."""


class ScriptedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One tool call of a scripted turn. `{workspace}` in a string is the session's folder."""

    tool: str
    arguments: dict[str, Any] = {}
    arguments_json: str = ""
    """A JSON object instead of `arguments`, for values that TOML does not have, such as null."""


class Turn(Struct, frozen=True, forbid_unknown_fields=True):
    """One reply of the scripted model."""

    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()
    repeat: Annotated[int, Meta(ge=1, le=MAX_TURNS)] = 1
    """Number of times the turn is played. If above 1, `{n}` in a string is the count, from 1."""


class SubAgent(Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation beside the main one, such as that of a sub-agent.

    A request belongs to the conversation whose messages it repeats. One without a reply begins
    the first conversation with its prompt that has not begun.
    """

    prompt: str
    """First message of the user. `{workspace}` is the session's folder."""
    turns: tuple[Turn, ...]
    """Replies of the scripted model, one for each request."""


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """A fault that the provider injects into one request.

    status   sends an error reply; the client's next request gets the turn
    reset    resets the connection before any reply; the next request gets the turn
    cut      sends half of the reply, then closes; the next request gets the whole turn
    garbage  sends bytes that are not HTTP; the next request gets the turn
    close    sends the whole reply, then closes the connection without `Connection: close`
    """

    request: Annotated[int, Meta(ge=1, le=MAX_TURNS)]
    """Number of the request in the session, from 1 in order of arrival, including retries."""
    kind: FaultKind
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    """HTTP status of `kind = "status"`. Default: 503."""
    retry_after: Annotated[float, Meta(ge=0, le=3600)] | None = None
    """`Retry-After` header of `kind = "status"`, in seconds."""


class ProviderConditions(Struct, frozen=True, forbid_unknown_fields=True):
    """Protocol, timing, network conditions and faults of the scripted provider."""

    protocol: Protocol = "openai_chat"
    think_seconds: Annotated[float, Meta(ge=0, le=MAX_THINK_SECONDS)] = 0.0
    """Mean think time before each reply, in seconds."""
    think_distribution: Distribution = "fixed"
    """Distribution of think times around their mean, drawn from `seed`; equal for both sides."""
    think_spread: Annotated[float, Meta(ge=0, le=3)] = 0.0
    """uniform: half the width as a fraction of the mean; lognormal: sigma of the logarithm."""
    seed: Seed = 1
    """Seed of the think times."""
    transport: Transport = "loopback"
    """loopback: a server in a separate process; respx: a mock in process, without sockets."""
    rtt_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Round-trip time to the provider. Opening a connection costs one, as in TCP."""
    bandwidth_bytes_per_second: Annotated[int, Meta(ge=1000)] | None = None
    """Bandwidth of each connection in each direction. Default: no limit."""
    tls: bool = False
    http: Literal["1.1", "2"] = "1.1"
    """Highest HTTP version of the provider. Over TLS a client can still choose 1.1."""
    stream: bool = False
    """Replies are streamed, and the agent's config requests streaming."""
    chunk_characters: Annotated[int, Meta(ge=1)] = 20
    """Characters of text or arguments in one event of a streamed reply."""
    chunk_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Delay between two events of a streamed reply, in seconds."""
    faults: tuple[Fault, ...] = ()


class ToggleUse(Struct, frozen=True, forbid_unknown_fields=True):
    """Toggles that this scenario compares, and toggles held at one value in every arm."""

    vary: tuple[str, ...]
    hold: dict[str, bool] = {}


class GeneratedFiles(Struct, frozen=True, forbid_unknown_fields=True):
    """Generated files of program text; equal fields generate equal files."""

    files: Annotated[int, Meta(ge=1, le=100_000)]
    bytes_low: Annotated[int, Meta(ge=0, le=1 << 30)] = 2_000
    bytes_high: Annotated[int, Meta(ge=0, le=1 << 30)] = 40_000
    """Sizes are log-uniform between `bytes_low` and `bytes_high`, so most files are small."""
    seed: Seed = 1
    pattern: str = "src/file_{n}.py"
    """Relative path of each file. `{n}` is its number, from 1."""


class WorkspaceFixture(Struct, frozen=True, forbid_unknown_fields=True):
    """Initial content of the session's folder: a copied folder, generated files, single files.

    They are written in this order; a later file replaces an earlier one.
    """

    files: dict[str, str] = {}
    """Text of single files by relative path."""
    folder: str = ""
    """Folder to copy, as a relative path below the scenario file's folder."""
    generate: GeneratedFiles | None = None
    ignore: tuple[str, ...] = ("__pycache__", "*.pyc")
    """Shell patterns of files that the digest of the final workspace leaves out."""


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """Number of sessions in one trial, all in one process of the subject.

    Each session has a separate workspace and script. closed: `concurrency` sessions run at a
    time, and the next begins when one ends. steady: a session begins every
    `1 / sessions_per_second` seconds, and waits while `concurrency` sessions are running.
    """

    sessions: Annotated[int, Meta(ge=1, le=10_000)] = 1
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 1
    arrival: Literal["closed", "steady"] = "closed"
    sessions_per_second: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    """Arrival rate of `arrival = "steady"`."""


class Extras(Struct, frozen=True, forbid_unknown_fields=True):
    """Optional dependencies of the agent's distribution, by name of the extra."""

    off: tuple[Name, ...] = ()
    """Extras that the agent needs while the toggle is off."""
    on: tuple[Name, ...] = ()
    """Extras that the agent needs while the toggle is on."""


class SubjectSetup(Struct, frozen=True, forbid_unknown_fields=True):
    """Config file and command line with which the subject starts."""

    models: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Number of models in the config file; the session uses one."""
    format: Literal["json", "yaml"] = "json"
    """Format of the config file."""
    command: tuple[str, ...] = ()
    """Arguments of the agent's command line, which runs instead of a session. The scenario then
    has no turns and no provider, and the oracle searches the output for `final_text`.
    `{toggles}` expands to the options that set the arm's toggles."""
    runs: Annotated[int, Meta(ge=1, le=10)] = 1
    """Number of processes, run one after another in one home directory. Each runs the whole
    session in a fresh workspace; the last one is measured. 2 measures a warm start."""
    install: Extras | None = None
    """Measures the size of an installation instead of a session: the extras for each side of
    one toggle."""

    @property
    def has_session(self) -> bool:
        """Return True if the agent runs a session with a provider."""
        return not self.command and self.install is None


class Oracle(Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions that must hold after the session, in every arm."""

    command: str = ""
    """Shell command, run by `sh -c` in the workspace after the session; it must exit with 0."""
    files: dict[str, str] = {}
    """Exact content of files by relative path."""
    final_text: str = ""
    """Text that the agent's final text must contain."""


class Normalise(Struct, frozen=True, forbid_unknown_fields=True):
    """A pattern of tool output that may vary between runs, such as a test runner's duration."""

    pattern: str
    """Regular expression of Python's `re`."""
    replace: str
    r"""Replacement text; `\1` is the first group."""


class Variant(Struct, frozen=True, forbid_unknown_fields=True):
    """Named changes to the scenario, selected as `scenario@variant`.

    A key in a table replaces that key of the scenario's table; other keys stay. Any other value
    replaces the scenario's value.
    """

    name: Name
    about: str = ""
    task: str = ""
    turns: tuple[Turn, ...] = ()
    metrics: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    toggles: dict[str, Any] = {}
    provider: dict[str, Any] = {}
    workspace: dict[str, Any] = {}
    load: dict[str, Any] = {}
    subject: dict[str, Any] = {}
    oracle: dict[str, Any] = {}


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """One scripted session, its conditions and its metrics."""

    name: Name
    """Lower-case words joined by dashes. The file is named `<name>.toml`."""
    about: str
    """What the scenario measures, and what it cannot show."""
    task: str
    """The agent's task. `{workspace}` is the session's folder."""
    turns: tuple[Turn, ...]
    """Replies of the scripted model, one for each request."""
    toggles: ToggleUse
    metrics: tuple[str, ...]
    provider: ProviderConditions = ProviderConditions()
    workspace: WorkspaceFixture = WorkspaceFixture()
    oracle: Oracle = Oracle()
    normalise: tuple[Normalise, ...] = ()
    timeout_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    load: Load = Load()
    subject: SubjectSetup = SubjectSetup()
    variants: tuple[Variant, ...] = ()
    """Variants of the scenario in the same file."""
    # Unset is not encoded, so the digests of scenarios without an agent stay as they were.
    sub_agents: tuple[SubAgent, ...] | UnsetType = UNSET
    """Further conversations of the recorded agent, which may run at the same time."""
    agent: Name | UnsetType = UNSET
    """Name of the agent whose tools the calls use, as in a recorded session. Default: the tools
    are agent_core's, and calls are adapted to other agents."""
