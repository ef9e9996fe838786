"""The head of a run: what it comes to, how noisy it was, and where it was taken."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec import Struct

from trae_bench.model.result import Comparison
from trae_bench.model.run import Facts, Header, RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.html.source import ORDER, Source, place
from trae_bench.report.text import gate as gate_text
from trae_bench.report.text.listing import count
from trae_bench.report.text.markdown import (
    MAX_STANDING_OUT,
    STANDING_OUT,
    compared,
    headline,
    heeded,
)
from trae_bench.report.text.progress import clock
from trae_bench.report.text.terminal import (
    cells_of_floor,
    change_in,
    closing,
    effect_shown,
    machine_name,
    noise_line,
    of_so_many,
    standing_lines,
)
from trae_bench.verdicts.caveats import caveats_of

MAX_LISTED = 500
"""Of what a file may have any number of."""


class Told(Struct, frozen=True):
    """A row that stands out."""

    verdict: str
    kind: str
    place: str
    change: str


class Overview(Struct, frozen=True):
    """A run before its details. Texts are as the file has them: a template escapes them."""

    headline: str
    counts: tuple[tuple[str, str, int], ...]
    """Verdict, its class and how many; empty where none is claimed."""
    standing_out: tuple[Told, ...]
    more: int
    """Rows that stand out, too, but are only in the table."""
    closing: str
    noise: str
    warnings: tuple[str, ...]
    """What a reader must know beside the table."""
    facts: tuple[tuple[str, str], ...]
    all_facts: tuple[tuple[str, str], ...]
    floors: tuple[tuple[str, ...], ...]
    """Scenario, metric, mode, pairs, spread, mean, smallest effect, standing."""


def overview(source: Source) -> Overview:
    run = source.run
    rows = compared(run)
    found = Counter(row.judgement.verdict for row in rows if row.gated)
    kinds = [_differing(rows), *(_with_verdict(source, name) for name in STANDING_OUT)]
    told = [each for kind in kinds for each in kind[:MAX_STANDING_OUT]]
    return Overview(
        headline=_headline(source),
        counts=tuple(
            (of_so_many(name, found[name]), name.replace(" ", "-"), found[name])
            for name in ORDER
            if source.judged and found[name]
        ),
        standing_out=tuple(told),
        more=sum(map(len, kinds)) - len(told),
        closing=closing(run, claimed=source.claimed),
        noise=noise_line(run),
        warnings=(
            *islice(gate_text.details(run), MAX_LISTED),
            *standing_lines(run.noise),
            *caveats_of(run),
        ),
        facts=tuple(_facts(source)),
        all_facts=tuple(islice(_all_facts(run.header), MAX_LISTED)),
        floors=tuple(_floors(run)),
    )


def _headline(source: Source) -> str:
    """As everywhere; but where rows have no verdicts, nor has the whole."""
    said = headline(source.run, claimed=source.claimed)
    if source.claimed and not source.judged and "regression" in said:
        return "A two-level design: effects of toggles, no verdicts"
    return said[0].upper() + said[1:]


# -- what stands out --------------------------------------------------------------------


def _differing(rows: Sequence[Comparison]) -> list[Told]:
    """Once for each contrast whose sides gave different answers."""
    found = {(row.scenario, row.contrast): row for row in rows if row.pairs.answers_differ}
    return [Told("answers differ", "regression", place(r), _share(r)) for r in found.values()]


def _share(row: Comparison) -> str:
    pairs = row.pairs
    asked = pairs.measured + pairs.answers_differ + pairs.not_measured
    reason = f": {for_terminal(pairs.reasons[0])}" if pairs.reasons else ""
    return f"in {pairs.answers_differ} of {asked} pairs{reason}"


def _with_verdict(source: Source, verdict: str) -> list[Told]:
    """The largest effect first."""
    rows = heeded(source.run) if source.judged else []
    found = [row for row in rows if row.judgement.verdict == verdict]
    return [
        Told(verdict, verdict, place(row, row.metric), change_in(source.texts(row)))
        for row in sorted(found, key=_size, reverse=True)
    ]


def _size(row: Comparison) -> float:
    return abs(row.estimate.log_ratio or 0.0) if row.estimate is not None else 0.0


# -- facts ------------------------------------------------------------------------------


def _facts(source: Source) -> Iterator[tuple[str, str]]:
    header = source.run.header
    yield "File", source.name
    yield "Command", header.command
    yield "Taken", f"{header.created}, {clock(min(source.run.elapsed, 1e9))} minutes of measuring"
    yield "Commit", _commit(header.code)
    yield "Machine", machine_name(header.machine)
    versions = sorted(header.versions.items(), key=lambda item: (item[0] != "trae-bench", item[0]))
    yield "Versions", ", ".join(f"{name} {version}" for name, version in versions)
    plan, limits = header.limits, [f"profile {header.profile}", f"design {header.design}"]
    limits += [f"seed {header.seed}"]
    limits += [f"budget {plan.budget:g} s"] if plan.budget is not None else []
    limits += (
        [f"at most {count(header.limits.pairs, 'pair')} each"]
        if header.limits.pairs is not None
        else []
    )
    yield "Plan", ", ".join(limits)
    if source.run.resumed:
        yield "Resumed", ", ".join(each.created for each in source.run.resumed[:MAX_LISTED])


def _commit(code: Facts) -> str:
    states = {True: ", with changes that are not committed", False: ", all committed"}
    dirty = code.get("dirty")
    return f"{code.get('commit') or 'unknown'}{states[dirty] if isinstance(dirty, bool) else ''}"


def _all_facts(header: Header) -> Iterator[tuple[str, str]]:
    kinds = (("machine", header.machine), ("code", header.code), ("version of", header.versions))
    for kind, facts in kinds:
        for name, value in sorted(facts.items()):
            yield f"{kind} {name}", "unknown" if value is None else str(value)
    yield from ((f"digest of {name}", used.digest) for name, used in header.scenarios.items())


def _floors(run: RunFile) -> Iterator[tuple[str, ...]]:
    for floor in run.noise[:MAX_LISTED]:
        mode = run.header.metrics[floor.metric].mode
        cells = cells_of_floor(floor, effect_shown(run, floor))
        yield floor.scenario, floor.metric, mode, *cells
