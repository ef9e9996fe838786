"""The settings of a project: the table `[tool.trae-bench]` of its pyproject.toml.

    [tool.trae-bench]
    default-branch = "main"
    scenarios = ["bugfix", "fan-out"]
    profile = "quick"

    [tool.trae-bench.thresholds]
    cpu = 0.03
    wall = 0.10

    [tool.trae-bench.agents.my-agent]
    command = "{python} {folder}/agent.py --base-url {base_url} {task}"
    requirements = ["openai>=3"]

Options on the command line override it. A comparison with a commit uses the table of that
commit, see `gate_base`. The table is read strictly, because a misspelt key would have
no effect and no message.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from trae_bench._util.toml_positions import TomlPath
from trae_bench.errors import UsageError
from trae_bench.metrics import METRICS
from trae_bench.model.aliases import current_metric
from trae_bench.model.experiment import Metric
from trae_bench.scenario import ALL, find
from trae_bench.scenario.diagnostics import Diagnostic, error_at, raise_for, suggestion
from trae_bench.scenario.loader import text_of
from trae_bench.scenario.schema import field_docs
from trae_bench.scenario.toml_errors import explain, read_toml
from trae_bench.stats.metric_rules import metric_threshold
from trae_bench.subject.agents import entry as agent_entry
from trae_bench.subject.agents.catalog import FoundAgent, find_agents
from trae_bench.subject.agents.entry import NAME, AgentEntry, entry_problems

FILE = "pyproject.toml"
TABLE = ("tool", "trae-bench")
THRESHOLDS = (*TABLE, "thresholds")
AGENTS = (*TABLE, "agents")

Fraction = Annotated[float, Meta(gt=0, lt=1)]


class Settings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The table `[tool.trae-bench]`. Every key has a default."""

    default_branch: Annotated[str, Meta(min_length=1)] | None = None
    """The branch that changes are merged into, and compared with. By default git tells."""
    scenarios: tuple[str, ...] = ()
    """Names, or paths of .toml files, to run if the command names none."""
    profile: Literal["smoke", "quick", "full"] | None = None
    """The profile if the command names none."""
    agents: dict[str, AgentEntry] = {}
    """The agents of the project by name; see `trae_bench.subject.agents.entry`."""
    prices: Annotated[str, Meta(min_length=1)] | None = None
    """A file of prices for `cost` and `trae-bench bill`, in place of the one that ships; relative
    to the folder where the command runs."""
    thresholds: dict[str, Fraction] = {}
    """The smallest effect of each metric that gets a verdict, as a fraction: 0.03 is 3 %.

    It can be larger than the threshold of the metric's rule, not smaller: smaller effects cannot
    be told from the memory layout of a build, with any number of pairs. A difference below it is
    no regression. It is `equivalent` only within the margin of the rule, else `inconclusive`.
    """


class _Tool(Struct, frozen=True, rename="kebab"):
    trae_bench: Settings = Settings()


class _Project(Struct, frozen=True):
    tool: _Tool = _Tool()


def find_agents_here(requested: Sequence[str]) -> dict[str, FoundAgent]:
    """The agents that a user in the current folder names, the baseline first.

    Those of the project come before those that ship. Raises `UsageError`.
    """
    here = Path.cwd()
    found = _with_table(_texts(here))
    if found is None:
        return find_agents(requested, {}, here)
    return find_agents(requested, _settings(*found).agents, Path(found[1]).parent)


def load(folder: Path) -> Settings:
    """The settings of the project that a folder belongs to; the defaults if it has none.

    They come from the nearest pyproject.toml with the table, in this folder or above it, up to
    the root of the repository. Raises `UsageError`: `file:line: path: problem; remedy`.
    """
    return load_texts(_texts(folder.absolute()))


def load_texts(texts: Iterable[tuple[str, str]]) -> Settings:
    """The settings of the first text with the table; each comes with the name of its file."""
    found = _with_table(texts)
    return Settings() if found is None else _settings(*found)


def _with_table(texts: Iterable[tuple[str, str]]) -> tuple[dict[str, Any], str, str] | None:
    """The first document with the table, the name of its file, and its text."""
    for source, text in texts:
        document = read_toml(text, source)
        if TABLE[1] in _table(document.get(TABLE[0])):
            return document, source, text
    return None


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for place in (folder, *folder.parents):
        path = place / FILE
        if path.is_file():
            yield str(path), text_of(path)
        if (place / ".git").exists():
            return


def parse(text: str, source: str = FILE) -> Settings:
    """The settings in the text of a pyproject.toml. Raises `UsageError`."""
    return _settings(read_toml(text, source), source, text)


def _settings(document: Mapping[str, Any], source: str, text: str) -> Settings:
    try:
        settings = msgspec.convert(document, _Project).tool.trae_bench
    except msgspec.ValidationError as error:
        path, problem = _located(explain(str(error), _Project), document)
        raise error_at(source, text, path, problem) from error
    raise_for(list(_problems(settings)), source, text)
    thresholds = {current_metric(name): value for name, value in settings.thresholds.items()}
    return msgspec.structs.replace(settings, thresholds=thresholds)


def apply(settings: Settings, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics, with the thresholds of the project."""
    return {
        name: msgspec.structs.replace(metric, threshold=settings.thresholds[name])
        if name in settings.thresholds
        else metric
        for name, metric in metrics.items()
    }


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the table; `trae-bench schema settings` prints it."""
    return _schema_of(Settings, "trae-bench settings")


def agent_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an agent's file; `trae-bench schema agent` prints it."""
    return _schema_of(AgentEntry, "trae-bench agent")


def _schema_of(record: type[Struct], title: str) -> dict[str, Any]:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    # By way of JSON, where a default of () is an empty array.
    found: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(head | msgspec.json.schema(record))
    )
    docs = field_docs(Path(__file__)) | field_docs(Path(agent_entry.__file__))
    for struct in (Settings, AgentEntry):
        if (table := found["$defs"].get(struct.__name__)) is None:
            continue
        table["description"] = cleandoc(table["description"])
        names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
        for (owner, field), text in docs.items():
            if owner == struct.__name__:
                table["properties"][names[field]]["description"] = cleandoc(text)
    return found


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _located(finding: Diagnostic, document: Mapping[str, Any]) -> Diagnostic:
    """Names the wrong threshold or agent; msgspec says only that one is wrong."""
    # An unknown field is the last step of its path.
    if finding[0][: len(AGENTS)] == AGENTS:
        for name, value in _table(document[TABLE[0]][TABLE[1]]["agents"]).items():
            try:
                msgspec.convert(value, AgentEntry)
            except msgspec.ValidationError as error:
                place, problem = explain(str(error), AgentEntry)
                return (*AGENTS, name, *place), problem
    if finding[0] != THRESHOLDS:
        return finding
    for name, value in _table(document[TABLE[0]][TABLE[1]]["thresholds"]).items():
        try:
            msgspec.convert(value, Fraction)
        except msgspec.ValidationError:
            said = f"expected a fraction between 0 and 1 (0.03 is 3 %), got {value!r}"
            return (*THRESHOLDS, name), said
    return finding


def _problems(settings: Settings) -> Iterator[Diagnostic]:
    for index, name in enumerate(settings.scenarios):
        if name in settings.scenarios[:index]:
            yield (*TABLE, "scenarios", index), f"{name!r} is listed twice; remove one"
        # A path is relative to the folder where the command runs.
        if name != ALL and not name.endswith(".toml"):
            try:
                find(name)
            except UsageError as error:
                yield (*TABLE, "scenarios", index), str(error)
    for name, entry in settings.agents.items():
        if not NAME.fullmatch(name):
            problem = f"{name!r} cannot name an agent; use lower-case words joined by dashes"
            yield (*AGENTS, name), problem
        yield from entry_problems(entry, (*AGENTS, name))
    for name, threshold in settings.thresholds.items():
        path: TomlPath = (*THRESHOLDS, name)
        metric = METRICS.get(current_metric(name))
        if metric is None:
            yield path, f"no metric {name!r}{suggestion(name, METRICS)}"
        elif metric.mode != "exact" and threshold < metric_threshold(metric):
            own = metric_threshold(metric)
            yield path, f"{threshold:g} is less than {own:g}, the smallest threshold of {name}"
