"""What a scenario file holds, as records: one a table of the file. Data only."""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

Protocol = Literal["openai_chat", "openai_responses", "anthropic_messages", "gemini", "ollama_chat"]
Transport = Literal["loopback", "respx"]
Distribution = Literal["fixed", "uniform", "lognormal"]
FaultKind = Literal["status", "reset", "cut", "garbage", "close"]
# `$` alone would let a trailing newline through.
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$(?!\n)")]
Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]

FINISH = "task_done"
"""The tool that ends a session."""
MAX_TURNS = 100_000
"""A script longer than this, repeats counted, is a slip of the keyboard."""
USUAL_STATUS = 503
"""Of an error reply whose status the scenario leaves open."""
MAX_THOUGHT = 3600.0
"""Seconds; longer think times are cut to this, whatever the distribution says."""


class ScriptedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One tool call of a scripted turn; `{workspace}` in a string is the session's folder."""

    tool: str
    arguments: dict[str, Any] = {}
    arguments_json: str = ""
    """In place of `arguments`, for what TOML cannot say, such as null: a JSON object."""


class Turn(Struct, frozen=True, forbid_unknown_fields=True):
    """One reply of the scripted model."""

    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()
    repeat: Annotated[int, Meta(ge=1, le=MAX_TURNS)] = 1
    """Played so many times; where this is more than 1, `{n}` in a string is the count, from 1."""


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong with one request.

    status   an error reply; the turn is played at the client's next try
    reset    the connection is reset before any reply; the turn is played at the next try
    cut      half of the reply, then the end of the connection; played whole at the next try
    garbage  bytes that are no HTTP; the turn is played at the next try
    close    the reply is whole, then the connection is closed without having said so
    """

    request: Annotated[int, Meta(ge=1, le=MAX_TURNS)]
    """Which of the session's requests, from 1 in order of arrival; further tries count, too."""
    kind: FaultKind
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    """HTTP status of `kind = "status"`; 503 where it is not given."""
    retry_after: Annotated[float, Meta(ge=0, le=3600)] | None = None
    """Seconds that the reply of `kind = "status"` asks the client to wait, by `Retry-After`."""


class ProviderConditions(Struct, frozen=True, forbid_unknown_fields=True):
    """How the scripted provider behaves."""

    protocol: Protocol = "openai_chat"
    think_seconds: Annotated[float, Meta(ge=0, le=MAX_THOUGHT)] = 0.0
    """Mean of what is waited before each reply."""
    think_distribution: Distribution = "fixed"
    """How think times spread around their mean; drawn by `seed`, the same for both sides."""
    think_spread: Annotated[float, Meta(ge=0, le=3)] = 0.0
    """uniform: half the width, as a share of the mean; lognormal: sigma of the logarithm."""
    seed: Seed = 1
    """Of the think times."""
    transport: Transport = "loopback"
    """loopback: a server in a process of its own; respx: in process, without any socket."""
    rtt_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Round trip to the provider; opening a connection costs one, as it does in TCP."""
    bandwidth_bytes_per_second: Annotated[int, Meta(ge=1000)] | None = None
    """Of each connection, each way; no limit where it is not given."""
    tls: bool = False
    http: Literal["1.1", "2"] = "1.1"
    """Highest version that the provider speaks; over TLS a client may still pick 1.1."""
    stream: bool = False
    """Replies are streamed, and the agent is told to ask for that."""
    chunk_characters: Annotated[int, Meta(ge=1)] = 20
    """Of text or arguments in one event of a streamed reply."""
    chunk_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Waited between two events of a streamed reply."""
    faults: tuple[Fault, ...] = ()


class ToggleUse(Struct, frozen=True, forbid_unknown_fields=True):
    """Which optimisations this scenario can feel, and which are held on or off in every arm."""

    vary: tuple[str, ...]
    hold: dict[str, bool] = {}


class GeneratedFiles(Struct, frozen=True, forbid_unknown_fields=True):
    """Files of made-up program text; the same numbers always make the same files."""

    files: Annotated[int, Meta(ge=1, le=100_000)]
    bytes_low: Annotated[int, Meta(ge=0, le=1 << 30)] = 2_000
    bytes_high: Annotated[int, Meta(ge=0, le=1 << 30)] = 40_000
    """Sizes are spread evenly on a logarithmic scale, so that most files are small."""
    seed: Seed = 1
    pattern: str = "src/file_{n}.py"
    """Relative path of each file; `{n}` is its number, from 1."""


class WorkspaceFixture(Struct, frozen=True, forbid_unknown_fields=True):
    """What lies in the session's folder at the start: a copied folder, then generated files,
    then single files, later ones over earlier ones."""

    files: dict[str, str] = {}
    """Text by relative path."""
    folder: str = ""
    """A folder to copy, relative to the scenario file and below its folder."""
    generate: GeneratedFiles | None = None
    ignore: tuple[str, ...] = ("__pycache__", "*.pyc")
    """Names that do not count in the digest of what the session left."""


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """How many sessions one trial runs, all in one process of the subject.

    Each has a workspace and a script of its own. closed: the next one begins when one ends,
    `concurrency` at a time; steady: one begins every `1 / sessions_per_second`, and waits
    where `concurrency` are already running.
    """

    sessions: Annotated[int, Meta(ge=1, le=10_000)] = 1
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 1
    arrival: Literal["closed", "steady"] = "closed"
    sessions_per_second: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    """Of `arrival = "steady"`."""


class Extras(Struct, frozen=True, forbid_unknown_fields=True):
    """Optional dependencies of the agent's distribution, by the name of the extra."""

    off: tuple[Name, ...] = ()
    """Those that the agent needs while the toggle is off."""
    on: tuple[Name, ...] = ()
    """Those that it needs while it is on."""


class SubjectSetup(Struct, frozen=True, forbid_unknown_fields=True):
    """What the subject finds when it starts."""

    models: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """Entries in its config file; one of them is used."""
    format: Literal["json", "yaml"] = "json"
    """Of its config file."""
    command: tuple[str, ...] = ()
    """Arguments of the agent's own command line, run in place of a session: then there are no
    turns and no provider, and `final_text` of the oracle is looked for in what was printed.
    `{toggles}` stands for the options that set the arm's toggles."""
    runs: Annotated[int, Meta(ge=1, le=10)] = 1
    """Processes, one after another in one home, each with the whole session and a fresh
    workspace; the last one is measured. 2 is a warm start."""
    install: Extras | None = None
    """In place of a session, what has to be installed for the agent is weighed: one toggle,
    and the extras of each of its sides."""

    @property
    def has_session(self) -> bool:
        """The agent works with a provider."""
        return not self.command and self.install is None


class Oracle(Struct, frozen=True, forbid_unknown_fields=True):
    """What must be true after the session, whatever was switched on."""

    command: str = ""
    """Run by `sh -c` in the workspace after the session; must exit 0."""
    files: dict[str, str] = {}
    """Exact content by relative path."""
    final_text: str = ""
    """Must occur in the agent's final text."""


class Normalise(Struct, frozen=True, forbid_unknown_fields=True):
    """A pattern in tool output that legitimately varies (a test runner's clock, say)."""

    pattern: str
    """A regular expression of Python's `re`."""
    replace: str
    r"""What stands there instead; `\1` is the first group."""


class Variant(Struct, frozen=True, forbid_unknown_fields=True):
    """The scenario with some things changed, asked for as `scenario@variant`.

    The keys of a table replace those of the scenario's own table and leave its others as
    they are; any other value replaces the scenario's.
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
    """One scripted session and how it is to be measured."""

    name: Name
    """Lower-case words joined by dashes; the file is called `<name>.toml`."""
    about: str
    """What it can show and what it cannot."""
    task: str
    """What the agent is told to do; `{workspace}` is the session's folder."""
    turns: tuple[Turn, ...]
    """What the scripted model answers, one turn a request."""
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
    """What else this file stands for."""
