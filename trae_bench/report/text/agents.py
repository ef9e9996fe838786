"""The absolute figures of agents as tables for a terminal and for Markdown."""

import math
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from trae_bench._util.toml_writer import toml_text
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Metric
from trae_bench.model.run import AgentUsed, RunFile
from trae_bench.report.escape import for_terminal, markdown_text
from trae_bench.report.text.listing import count
from trae_bench.report.text.terminal import lay_out, quantity
from trae_bench.run.agent_check import CheckedAgent
from trae_bench.stats.figures import MIN_VALUES, Figure, figures

_MAX_NAME = 24
_Place = tuple[str, str]
"""Scenario and metric."""
_Figures = dict[_Place, Figure]


def figures_text(run: RunFile, width: int) -> str:
    """The figures of each scenario, one line per metric and agent; empty if there are none."""
    found = figures(run)
    blocks = []
    for scenario in run.header.scenarios:
        of_scenario = [figure for figure in found if figure.scenario == scenario]
        if of_scenario:
            blocks.append("\n".join(_block(scenario, of_scenario, run, width)))
    return "\n\n".join(blocks)


def _block(scenario: str, found: Sequence[Figure], run: RunFile, width: int) -> Iterator[str]:
    title = f"Figures of {for_terminal(scenario, 40)}: median and 95 % interval"
    few = any(figure.trials < MIN_VALUES for figure in found)
    yield f"{title} (range if under {MIN_VALUES} trials)" if few else title
    metrics = dict.fromkeys(figure.metric for figure in found)
    ordered = [figure for name in metrics for figure in found if figure.metric == name]
    rows = [
        (
            figure.metric,
            *_cells(figure, run.header.metrics[figure.metric]),
            str(figure.trials),
            _name(figure),
        )
        for figure in ordered
    ]
    yield from lay_out([("metric", "median", "[interval]", "trials", "agent"), *rows], width)


def _name(figure: Figure) -> str:
    return for_terminal(figure.agent, _MAX_NAME)


def _cells(figure: Figure, metric: Metric) -> tuple[str, str]:
    return _cells_of(figure, for_terminal(metric.unit, 10))


def _cells_of(figure: Figure, unit: str) -> tuple[str, str]:
    low, high = (quantity(value, unit) for value in (figure.low, figure.high))
    interval = "exactly" if figure.low == figure.high else f"[{low} {high}]"
    return quantity(figure.median, unit), interval


_SPEAKS = {True: "streamed", False: "complete"}


_MAX_LINE = 300
"""Characters of a line of an agent's output."""


def check_lines(checked: CheckedAgent, width: int) -> Iterator[str]:
    """What `trae-bench agents check` says; the agent's output keeps its lines."""
    for sentence in _sentences(checked):
        # Paths and command lines stay whole.
        yield textwrap.fill(
            sentence, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
        )
    if checked.problem:
        reason, *output = checked.problem.splitlines()
        said = f"It cannot be measured: {for_terminal(reason, 3000)}"
        yield textwrap.fill(said, width, subsequent_indent="  ", break_on_hyphens=False)
        yield from (f"  {for_terminal(line.rstrip(), _MAX_LINE)}" for line in output)
        return
    if checked.varying:
        yield "Only what usually varies from run to run differs. Add to the scenario:"
        entries = {"normalise": [msgspec.structs.asdict(one) for one in checked.varying]}
        yield f"\n{toml_text(entries)}"
    scenario = shlex.quote(for_terminal(checked.scenario or _FIRST_SCENARIO, 300))
    agent = shlex.quote(for_terminal(checked.requested, 1000))
    # Not wrapped, for a reader to copy.
    yield f"Measure it: trae-bench run {scenario} --agent {agent}"


_FIRST_SCENARIO = "bugfix"


def _sentences(checked: CheckedAgent) -> Iterator[str]:
    yield f"Agent {for_terminal(checked.name, _MAX_NAME)}: {_command(checked)}"
    if (speaks := checked.interface) is not None:
        replies = _SPEAKS[speaks.stream]
        yield f"It speaks {speaks.protocol} and asks for {replies} replies."
        tools = ", ".join(for_terminal(name, 60) for name in checked.offered) or "no tools"
        yield f"Its first request has {quantity(checked.first_request_bytes, 'B')}. Tools: {tools}."
        for action, mapping in speaks.tools.items():
            how = f"the tool {mapping.tool}" if mapping.tool else "the text of the reply"
            yield f"{action}: by {for_terminal(how, 80)}"
    for how in checked.by_shell.values():
        yield for_terminal(how, 200)
    if checked.side_calls:
        calls = count(checked.side_calls, "request")
        yield f"It sends {calls} beside the session, such as the list of models."
    if checked.hosts:
        hosts = ", ".join(for_terminal(host, 100) for host in checked.hosts)
        yield f"It asks other hosts, and is refused: {hosts}"
    if not checked.problem:
        yield from _played(checked)


def _played(checked: CheckedAgent) -> Iterator[str]:
    shown = (
        f"{name} {quantity(checked.metrics[name], METRICS[name].unit)}"
        for name in _SHOWN
        if name in checked.metrics
    )
    yield f"It plays the session to its end: {', '.join(shown)}."
    reuse = checked.metrics.get("prefix_reuse")
    if checked.prompt_break:
        breaks = count(int(checked.metrics.get("prefix_breaks", 1)), "request")
        yield (
            f"A prompt cache misses in {breaks}, because the prompt does not begin with the one "
            f"before: {for_terminal(checked.prompt_break, 600)}."
        )
    elif reuse is not None:
        yield (
            "Each prompt begins with the one before, so a prompt cache can hold "
            f"{100 * reuse:.0f} % of all prompt bytes."
        )
    if checked.drift:
        yield f"Note: {for_terminal(checked.drift, 1000)}"
    elif checked.compared:
        yield "Its requests are those of the recording."
    elif checked.scenario:
        yield "There is no recorded request to compare with: `trae-bench record` stores one."


_SHOWN = (
    "time_to_first_request",
    "wall",
    "cpu",
    "peak_rss",
    "requests",
    "processes_started",
    "files_written",
)


def _command(checked: CheckedAgent) -> str:
    # Braces need no quotes for a reader.
    quoted = (shlex.quote(word) if " " in word else word for word in checked.command)
    return for_terminal(" ".join(quoted), 300)


class Column(Struct, frozen=True):
    """A column of a table of agents: a metric in a scenario, or a quotient of two figures."""

    heading: str
    place: _Place
    divisor: _Place | None = None
    optional: bool = False
    """Few agents can have it, so its absence is no fault."""
    is_share: bool = False
    """It is shown in percent."""


_SHORT, _MIDDLE, _LONG = "agent-steps", "agent-steps@50", "agent-steps@200"
_OVERHEAD = "step_overhead_net"
_INSTALLED = ""
"""Stands for a size in the header, which is no metric."""
AGENTS = (
    Column("overhead a step, 10 steps", (_SHORT, _OVERHEAD)),
    Column("50 steps", (_MIDDLE, _OVERHEAD)),
    Column("200 steps", (_LONG, _OVERHEAD)),
    Column("growth 10 to 200", (_LONG, _OVERHEAD), (_SHORT, _OVERHEAD)),
    Column("to the first request", (_SHORT, "time_to_first_request_net")),
    Column("CPU time, 50 steps", (_MIDDLE, "cpu")),
    Column("peak memory: largest process", (_MIDDLE, "peak_rss")),
    Column("all processes", (_MIDDLE, "peak_tree")),
    Column("bytes a step", (_MIDDLE, "request_bytes"), (_MIDDLE, "requests")),
    Column("connections", (_MIDDLE, "connections")),
    Column("sessions a second", ("throughput", "sessions_per_second"), optional=True),
    Column("installed", (_MIDDLE, _INSTALLED)),
)
PROMPTS = (
    Column("first prompt", (_MIDDLE, "first_request_bytes")),
    Column("added a step", (_MIDDLE, "bytes_per_step")),
    Column("all prompts", (_MIDDLE, "prompt_bytes")),
    Column("repeated", (_MIDDLE, "prefix_reuse"), is_share=True),
    Column("breaks", (_MIDDLE, "prefix_breaks")),
    Column("input tokens", (_MIDDLE, "input_tokens")),
    Column("from the cache", (_MIDDLE, "cached_tokens"), (_MIDDLE, "input_tokens"), is_share=True),
    Column("cost", (_MIDDLE, "cost")),
)
TABLES: Mapping[str, Sequence[Column]] = {"agents": AGENTS, "prompts": PROMPTS}
"""The tables of agents by name. Rows are in order of the table's `_ORDER`."""
_ORDER = {"agents": (_MIDDLE, _OVERHEAD), "prompts": (_MIDDLE, "cost")}


def has_figures(run: RunFile, table: str) -> bool:
    """Whether a run can fill a cell of a table."""
    places = {column.place for column in TABLES[table]}
    return any(
        (cell.scenario, name) in places for cell in run.header.cells for name in cell.metrics
    )


def markdown(runs: Sequence[RunFile], table: str = "agents") -> Iterator[str]:
    """A table of agents, from the newest run that has each figure; the newest run is first."""
    newest: dict[str, _Figures] = {}
    described: dict[str, AgentUsed] = {}
    units: dict[str, str] = {}
    for run in runs:
        units |= {name: metric.unit for name, metric in run.header.metrics.items()}
        for name, used in (run.header.agents or {}).items():
            described.setdefault(name, used)
        for figure in figures(run):
            place = (figure.scenario, figure.metric)
            newest.setdefault(figure.agent, {}).setdefault(place, figure)
    columns = TABLES[table]
    headings = ("agent", *(column.heading for column in columns))
    yield f"| {' | '.join(headings)} |"
    yield f"|---|{'---:|' * (len(headings) - 1)}"
    for name in sorted(newest, key=lambda one: _sort_key(newest[one], table)):
        used = described[name]
        cells = [
            _installed_cell(used)
            if column.place[1] == _INSTALLED
            else _column_cell(column, newest[name], units)
            for column in columns
        ]
        yield f"| {_agent_cell(name, used)} | {' | '.join(cells)} |"


def _sort_key(found: _Figures, table: str) -> float:
    figure = found.get(_ORDER[table])
    return figure.median if figure is not None else math.inf


def _installed_cell(used: AgentUsed) -> str:
    return markdown_text(quantity(used.installed, "B")) if used.installed else "-"


def _agent_cell(name: str, used: AgentUsed) -> str:
    """Its name, and its version if its entry installs it and not only what it needs."""
    word = name.partition("-")[0]
    version = next((one for one in used.requirements if word in one), "")
    return f"**{markdown_text(name)}**{f'<br>{markdown_text(version)}' if version else ''}"


def _column_cell(column: Column, found: _Figures, units: Mapping[str, str]) -> str:
    figure = found.get(column.place)
    if figure is None:
        return "-" if column.optional else "not measured"
    unit = units[figure.metric]
    if column.divisor is None and column.is_share:
        return f"{figure.median:.0%}"
    if column.divisor is None:
        median, interval = _cells_of(figure, unit)
        return markdown_text(median) + ("" if interval == "exactly" else f"<br>{interval}")
    divisor = found.get(column.divisor)
    if divisor is None or not divisor.median:
        return "not measured"
    quotient = figure.median / divisor.median
    if column.is_share:
        return f"{quotient:.0%}"
    if units[divisor.metric] == unit:
        return f"{quotient:.2f} x"
    return markdown_text(quantity(quotient, unit))
