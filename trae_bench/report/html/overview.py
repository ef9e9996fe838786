"""The summary of a run: its verdicts, its noise and its facts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from trae_bench.model.result import Comparison
from trae_bench.model.run import Facts, Header, RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.html.source import ORDER, Source, css_class, place
from trae_bench.report.text import gate as gate_text
from trae_bench.report.text.listing import count
from trae_bench.report.text.markdown import (
    MAX_STANDING_OUT,
    STANDING_OUT,
    compared,
    headline,
    reported_rows,
)
from trae_bench.report.text.progress import clock
from trae_bench.report.text.terminal import (
    cells_of_floor,
    change_in,
    count_compared,
    effect_shown,
    machine_name,
    pluralized,
    standing_lines,
)
from trae_bench.verdicts.caveats import caveats_of

MAX_LISTED = 500
"""Maximum items of a list that a file may have any number of."""


class StandingOut(NamedTuple):
    """A row that stands out."""

    verdict: str
    kind: str
    place: str
    change: str


def counts(source: Source) -> list[tuple[str, str, int]]:
    """Verdict, its CSS class and its count; empty if no verdicts are claimed."""
    counted = Counter(row.judgement.verdict for row in compared(source.run) if row.gated)
    shown = [name for name in ORDER if source.judged and counted[name]]
    return [(pluralized(name, counted[name]), css_class(name), counted[name]) for name in shown]


def standing_out(source: Source) -> tuple[list[StandingOut], int]:
    """Rows that stand out, and the number of those that are only in the table."""
    differing = _differing(compared(source.run))
    kinds = [differing, *(_with_verdict(source, name) for name in STANDING_OUT)]
    shown = [row for kind in kinds for row in kind[:MAX_STANDING_OUT]]
    return shown, sum(map(len, kinds)) - len(shown)


def warnings(run: RunFile) -> list[str]:
    """Sentences that the table does not show."""
    details = islice(gate_text.details(run), MAX_LISTED)
    return [*details, *standing_lines(run.noise), *caveats_of(run)]


def headline_of(source: Source) -> str:
    """The verdict on the whole run; none if its rows have no verdicts."""
    text = headline(source.run, claimed=source.claimed)
    if source.claimed and not source.judged and "regression" in text:
        return "A two-level design: effects of toggles, no verdicts"
    return text[0].upper() + text[1:]


# -- rows that stand out ----------------------------------------------------------------


def _differing(rows: Sequence[Comparison]) -> list[StandingOut]:
    """One entry for each contrast whose sides gave different answers."""
    differing = {(row.scenario, row.contrast): row for row in rows if row.pairs.answers_differ}
    return [
        StandingOut("answers differ", "regression", place(r), _share(r)) for r in differing.values()
    ]


def _share(row: Comparison) -> str:
    pairs = row.pairs
    total = pairs.measured + pairs.answers_differ + pairs.not_measured
    reason = f": {for_terminal(pairs.reasons[0])}" if pairs.reasons else ""
    return f"in {pairs.answers_differ} of {total} pairs{reason}"


def _with_verdict(source: Source, verdict: str) -> list[StandingOut]:
    """Rows with this verdict, the largest effect first."""
    rows = reported_rows(source.run) if source.judged else []
    matching = [row for row in rows if row.judgement.verdict == verdict]
    return [
        StandingOut(verdict, verdict, place(row, row.metric), change_in(source.texts(row)))
        for row in sorted(matching, key=_size, reverse=True)
    ]


def _size(row: Comparison) -> float:
    return abs(row.estimate.log_ratio or 0.0) if row.estimate is not None else 0.0


# -- facts ------------------------------------------------------------------------------


def facts(source: Source) -> Iterator[tuple[str, str]]:
    header = source.run.header
    yield "File", source.name
    yield "Command", header.command
    yield "Taken", f"{header.created}, measured for {clock(min(source.run.elapsed, 1e9))} minutes"
    yield "Commit", _commit(header.code)
    yield "Machine", machine_name(header.machine)
    versions = sorted(header.versions.items(), key=lambda item: (item[0] != "trae-bench", item[0]))
    yield "Versions", ", ".join(f"{name} {version}" for name, version in versions)
    limits, plan = header.limits, [f"profile {header.profile}", f"design {header.design}"]
    plan.append(f"seed {header.seed}")
    if limits.budget is not None:
        plan.append(f"budget {limits.budget:g} s")
    if limits.pairs is not None:
        plan.append(f"at most {count(limits.pairs, 'pair')} per contrast")
    yield "Plan", ", ".join(plan)
    if source.run.resumed:
        yield "Resumed", ", ".join(part.created for part in source.run.resumed[:MAX_LISTED])


def _commit(code: Facts) -> str:
    states = {True: ", with uncommitted changes", False: ", all committed"}
    dirty = code.get("dirty")
    return f"{code.get('commit') or 'unknown'}{states[dirty] if isinstance(dirty, bool) else ''}"


def all_facts(header: Header) -> Iterator[tuple[str, str]]:
    return islice(_all_facts(header), MAX_LISTED)


def _all_facts(header: Header) -> Iterator[tuple[str, str]]:
    kinds = (("machine", header.machine), ("code", header.code), ("version of", header.versions))
    for kind, facts in kinds:
        for name, value in sorted(facts.items()):
            yield f"{kind} {name}", "unknown" if value is None else str(value)
    yield from ((f"digest of {name}", used.digest) for name, used in header.scenarios.items())


def floors(run: RunFile) -> Iterator[tuple[str, ...]]:
    """Scenario, metric, mode, pairs, spread, mean, smallest effect, standing."""
    family = count_compared(run)
    for floor in run.noise[:MAX_LISTED]:
        mode = run.header.metrics[floor.metric].mode
        cells = cells_of_floor(floor, effect_shown(run, floor, family))
        yield floor.scenario, floor.metric, mode, *cells
