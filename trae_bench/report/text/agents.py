"""The absolute figures of agents as tables for a terminal and for Markdown."""

import shlex
from collections.abc import Iterator, Sequence

from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Metric
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.listing import count
from trae_bench.report.text.terminal import lay_out, quantity
from trae_bench.run.agent_check import CheckedAgent
from trae_bench.stats.figures import Figure, figures

_MAX_NAME = 24


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
    trials = max(figure.trials for figure in found)
    title = f"Figures of {for_terminal(scenario, 40)}: the median of {count(trials, 'trial')}"
    yield f"{title} with its 95 % interval"
    metrics = dict.fromkeys(figure.metric for figure in found)
    ordered = [figure for name in metrics for figure in found if figure.metric == name]
    rows = [
        (figure.metric, *_cells(figure, run.header.metrics[figure.metric]), _name(figure))
        for figure in ordered
    ]
    yield from lay_out([("metric", "median", "[interval]", "agent"), *rows], width)


def _name(figure: Figure) -> str:
    return for_terminal(figure.agent, _MAX_NAME)


def _cells(figure: Figure, metric: Metric) -> tuple[str, str]:
    unit = for_terminal(metric.unit, 10)
    low, high = (quantity(value, unit) for value in (figure.low, figure.high))
    interval = "exactly" if figure.low == figure.high else f"[{low} {high}]"
    return quantity(figure.median, unit), interval


_SPEAKS = {True: "streamed", False: "complete"}


def check_lines(checked: CheckedAgent) -> Iterator[str]:
    """What `trae-bench agents check` says, one sentence a line."""
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
    yield from _outcome(checked)


def _outcome(checked: CheckedAgent) -> Iterator[str]:
    if checked.problem:
        yield f"It cannot be measured: {for_terminal(checked.problem, 3000)}"
        return
    shown = (
        f"{name} {quantity(checked.metrics[name], METRICS[name].unit)}"
        for name in _SHOWN
        if name in checked.metrics
    )
    yield f"It plays a session of three replies: {', '.join(shown)}."
    yield f"Measure it: trae-bench run bugfix --agent {shlex.quote(checked.requested)}"


_SHOWN = ("time_to_first_request", "wall", "cpu", "peak_rss", "requests")


def _command(checked: CheckedAgent) -> str:
    # Braces need no quotes for a reader.
    quoted = (shlex.quote(word) if " " in word else word for word in checked.command)
    return for_terminal(" ".join(quoted), 300)
