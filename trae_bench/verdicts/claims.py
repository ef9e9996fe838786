"""Checks claims of documents against runs. Pure, except `quote_locations`.

A claim states a range for the ratio of a metric with its toggles on to the metric with them off,
in one or more places (a scenario and a metric). A run file holds the measured ratio with its
confidence interval. In one place a claim

    holds         if the interval lies within the range or beyond its far end: 90 % less also
                  satisfies a claim of 60-80 % less
    refuted       if the interval and the range (with all beyond its far end) are disjoint
    undecided     if the interval contains the near end of the range
    not measured  if no given run has a row with an interval

A claim of no change (`within 1 %`) has two near ends. Over all its places a claim

    holds         if it holds in every place
    refuted       if it is refuted in every place
    holds partly  if it holds in at least one place
    not measured  if no place is measured
    undecided     otherwise

So a wider interval, or a place without a row, can only remove a `holds` or a `refuted`. Each end
of an interval is wrong with a probability of at most 5 % (docs/statistics.md), without a
correction for the number of claims: of thirty claims whose true ratio is at the near end, one or
two get a wrong verdict.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from msgspec import Struct

from trae_bench._util import bounded_io
from trae_bench.design.contrasts import is_fixed
from trae_bench.errors import UsageError
from trae_bench.model.experiment import Contrast, Metric
from trae_bench.model.result import Comparison, Interval
from trae_bench.model.run import RunFile
from trae_bench.scenario.diagnostics import raise_for
from trae_bench.scenario.loader import text_of
from trae_bench.verdicts.claim_range import LogRange, parse_range
from trae_bench.verdicts.claims_file import ClaimsFile, OwnClaim, RatioClaim, ScenarioMetric

PlaceVerdict = Literal["holds", "refuted", "undecided", "not measured"]
Verdict = Literal["holds", "holds partly", "refuted", "undecided", "not measured", "not measurable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_ROUNDING_ERROR = 1e-12
"""Logarithms of equal ratios can differ in their last digits."""


# Evidence: rows of runs


class Source(Struct, frozen=True):
    """A run and the name of its file."""

    name: str
    """Without folders."""
    run: RunFile
    claimed: bool = True
    """False if the run was too short for verdicts."""

    @property
    def judged(self) -> bool:
        """Whether single rows have verdicts. Rows of a two-level design have none."""
        return self.claimed and not is_fixed(self.run.header.design)


class EvidenceKey(NamedTuple):
    """What a row measures, independent of its run."""

    scenario: str
    toggles: frozenset[str]
    """Switched on, with all others off."""
    metric: str


class Measurement(Struct, frozen=True):
    """A row with an interval, and its run."""

    row: Comparison
    source: Source

    @property
    def metric(self) -> Metric:
        return self.source.run.header.metrics[self.row.metric]


def newest_measurements(sources: Iterable[Source]) -> dict[EvidenceKey, Measurement]:
    """The measurement of each scenario, set of toggles and metric, from the newest run.

    A run without verdicts is used only if no other run has the row. Rows without an interval,
    and rows whose A/A sides differ, are ignored.
    """
    newest: dict[EvidenceKey, Measurement] = {}
    for source in sorted(sources, key=lambda source: (source.judged, source.run.header.created)):
        header = source.run.header
        switched = {
            (cell.scenario, cell.contrast.name): _switched_on(cell.contrast)
            for cell in header.cells
        }
        for row in source.run.comparisons:
            toggles = switched.get((row.scenario, row.contrast))
            if toggles and interval_of(row) is not None:
                newest[EvidenceKey(row.scenario, toggles, row.metric)] = Measurement(row, source)
    return newest


def interval_of(row: Comparison) -> Interval | None:
    """None if the row has no interval or was not measured."""
    if row.estimate is None or row.judgement.verdict == "not measured":
        return None
    return row.estimate.interval


def _switched_on(contrast: Contrast) -> frozenset[str]:
    """Toggles that are on in B only; empty if more differs, or if A is not the baseline."""
    a, b = contrast.a, contrast.b
    if a.name != "none" or a.revision != b.revision:
        return frozenset()
    on = {name for name, value in b.toggles.items() if value and not a.toggles.get(name)}
    same = all(b.toggles.get(name) == value for name, value in a.toggles.items() if name not in on)
    return frozenset(on) if same else frozenset()


# Verdicts

ClaimT = TypeVar("ClaimT", bound=RatioClaim)


class PlaceResult(Struct, frozen=True):
    """Verdict on a claim in one place."""

    place: ScenarioMetric
    verdict: PlaceVerdict
    evidence: Measurement | None


class ClaimResult(Struct, Generic[ClaimT], frozen=True):
    """A claim, its verdict, and the verdict in each place."""

    claim: ClaimT
    verdict: Verdict
    found: tuple[PlaceResult, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands that measure the places that are not measured."""
        metrics: dict[str, list[str]] = {}
        for result in self.found:
            if result.verdict == "not measured":
                metrics.setdefault(result.place.scenario, []).append(result.place.metric)
        scenarios: dict[tuple[str, ...], list[str]] = {}
        for scenario, names in metrics.items():
            scenarios.setdefault(tuple(names), []).append(scenario)
        return tuple(_command(s, self.claim.toggles, names) for names, s in scenarios.items())


def judge(
    claims: Iterable[ClaimT], evidence: Mapping[EvidenceKey, Measurement]
) -> list[ClaimResult[ClaimT]]:
    """Check each claim against the measurements, in the order of the file."""
    return [_judge_claim(claim, evidence) for claim in claims]


def _judge_claim(claim: ClaimT, evidence: Mapping[EvidenceKey, Measurement]) -> ClaimResult[ClaimT]:
    toggles = frozenset(claim.toggles)
    results = tuple(
        _judge_place(place, claim, evidence.get(EvidenceKey(place.scenario, toggles, place.metric)))
        for place in claim.places
    )
    return ClaimResult(claim, overall_verdict([result.verdict for result in results]), results)


def _judge_place(
    place: ScenarioMetric, claim: RatioClaim, evidence: Measurement | None
) -> PlaceResult:
    interval = interval_of(evidence.row) if evidence is not None else None
    if evidence is None or interval is None:
        return PlaceResult(place, "not measured", None)
    claimed = parse_range(claim.claimed, evidence.metric.better)
    return PlaceResult(place, place_verdict(interval, claimed), evidence)


def place_verdict(measured: Interval, claimed: LogRange) -> PlaceVerdict:
    """Verdict in one place. Both arguments are on the log scale."""
    low, high = claimed.low - _ROUNDING_ERROR, claimed.high + _ROUNDING_ERROR
    if low <= measured.low and measured.high <= high:
        return "holds"
    if measured.low > high or measured.high < low:
        return "refuted"
    return "undecided"


def overall_verdict(verdicts: Collection[PlaceVerdict]) -> Verdict:
    """Verdict on a claim from its verdicts in all places."""
    distinct = set(verdicts)
    if len(distinct) == 1:
        return distinct.pop()
    if "holds" in distinct:
        return "holds partly"
    return "undecided" if distinct else "not measurable"


def _command(scenarios: Sequence[str], toggles: Sequence[str], metrics: Sequence[str]) -> str:
    words = ["trae-bench", "run", *scenarios]
    for name in toggles:
        words += ["--toggle", name]
    if len(toggles) > 1:
        # This design has a contrast of all toggles on against none.
        words += ["--design", "both"]
    for name in metrics:
        words += ["--metric", name]
    return shlex.join(words)


# Sentences of this project's documents


def is_unsupported(result: ClaimResult[OwnClaim]) -> bool:
    """Whether a run measured the claim and does not support it."""
    return any(place.verdict in ("refuted", "undecided") for place in result.found)


def quote_locations(file: ClaimsFile, source: Path) -> list[str]:
    """`document:line` of each own claim; `source` is the claims file.

    Raises `ScenarioError` if a quote is not in its document, `UsageError` if a document cannot
    be read.
    """
    locations, missing = [], []
    texts: dict[str, str] = {}
    for index, claim in enumerate(file.own):
        document = source.parent / claim.document
        if claim.document not in texts:
            texts[claim.document] = _read_document(document)
        line = line_of_quote(texts[claim.document], claim.quote)
        if line is None:
            problem = f"{claim.quote!r} is not in {claim.document}; quote its present text"
            missing.append((("own", index, "quote"), problem))
        locations.append(f"{_relative(document)}:{line}")
    raise_for(missing, str(source), text_of(source) if missing else "")
    return locations


def line_of_quote(text: str, quote: str) -> int | None:
    """Line number, from 1, at which the quote begins; white space may differ."""
    match = re.search(r"\s+".join(map(re.escape, quote.split())), text)
    return text.count("\n", 0, match.start()) + 1 if match else None


def _read_document(path: Path) -> str:
    try:
        return bounded_io.text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: {error}; own claims quote documents of a source checkout: give its claims "
            "file with --file"
        ) from error


def _relative(path: Path) -> Path:
    """Relative to the current folder if the document is below it."""
    full, here = path.resolve(), Path.cwd()
    return full.relative_to(here) if full.is_relative_to(here) else full
