"""What documents claim, held to what was measured. Pure but for `load` and `sentences`.

A claim gives a range for the ratio of a metric with its toggles on to it with them off, at one
place (a scenario and a metric) or at several. What was measured is the same ratio with its
interval, as the run file has it. At one place a claim

    holds       where the whole interval lies within the range, or beyond its far end: who
                promises 60-80 % less and gives 90 has kept the promise
    refuted     where the interval and that have no point in common
    undecided   where the interval lies across the near end
    not measured  where no run that was given has a row with an interval

A claim of no change (`within 1 %`) has two near ends. Over all its places a claim

    holds         where it holds at every one
    refuted       where it is refuted at every one
    holds partly  where it holds at one at least
    not measured  where none is measured
    undecided     otherwise

Thus a wider interval, or a place without a row, can only take a `holds` or a `refuted` away.
Each end of an interval is wrong with a chance of at most 5 % (docs/statistics.md), each for
itself: among thirty claims whose truth lies at the near end, one or two verdicts will be wrong.
"""

import math
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from trae_bench._util import bounded_io
from trae_bench.design.contrasts import is_fixed
from trae_bench.errors import UsageError
from trae_bench.model.experiment import Better, Contrast, Metric
from trae_bench.model.result import Comparison, Interval
from trae_bench.model.run import RunFile
from trae_bench.scenario import scenario_folder
from trae_bench.scenario.diagnostics import Diagnostic, raise_for, suggestion
from trae_bench.scenario.loader import text_of
from trae_bench.scenario.model import Name
from trae_bench.scenario.toml_errors import explain, read_toml

AtPlace = Literal["holds", "refuted", "undecided", "not measured"]
Verdict = Literal["holds", "holds partly", "refuted", "undecided", "not measured", "not measurable"]
VERDICTS: tuple[Verdict, ...] = (
    "holds",
    "holds partly",
    "refuted",
    "undecided",
    "not measured",
    "not measurable",
)
Words = Annotated[str, Meta(min_length=1, max_length=1000)]


# -- claims files


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a claim can be looked at."""

    scenario: str
    """`name` or `name@variant`."""
    metric: str


class Figure(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is claimed, and where that can be looked at."""

    claimed: str = ""
    """`64 % less`, `60-80 % less`, `10 % more`, `3-5x faster`, or `within 1 %`."""
    toggles: tuple[str, ...] = ()
    """Switched on together, all others off."""
    places: tuple[Place, ...] = ()
    note: Annotated[str, Meta(max_length=1000)] = ""
    """How the words were taken, where they leave room."""


class Said(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a claim is made, and in which words."""

    section: Words
    words: Words


class Claim(Figure, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A claim of somebody else's."""

    id: Name
    said: Annotated[tuple[Said, ...], Meta(min_length=1, max_length=20)]
    not_measurable: Annotated[str, Meta(max_length=1000)] = ""
    """Why it cannot be measured; then there is nothing else."""


class OwnClaim(Figure, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sentence of our own, which the runs must bear out."""

    document: Words
    """Path from the claims file's folder."""
    quote: Words
    """Words that stand in the document; its line breaks do not count."""


class ClaimsFile(Struct, frozen=True, forbid_unknown_fields=True):
    """All that a claims file holds."""

    about: Words
    """Whose claims these are."""
    claims: Annotated[tuple[Claim, ...], Meta(max_length=1000)] = ()
    own: Annotated[tuple[OwnClaim, ...], Meta(max_length=1000)] = ()


def claims_file() -> Path:
    """The one that ships with the package."""
    return scenario_folder() / "claims.toml"


def load(path: Path) -> ClaimsFile:
    """Raises `ScenarioError`: `file:line: path: what; remedy`."""
    return parse(text_of(path), str(path))


def parse(text: str, source: str = "<claims>") -> ClaimsFile:
    """As `load`, from a text; `source` names it in errors."""
    try:
        found = msgspec.convert(read_toml(text, source), ClaimsFile)
    except msgspec.ValidationError as error:
        path, problem = explain(str(error), ClaimsFile)
        raise_for([(path, problem)], source, text)
        raise
    raise_for(list(_contradictions(found)), source, text)
    return found


def check(
    file: ClaimsFile,
    *,
    scenarios: Mapping[str, Collection[str]],
    metrics: Collection[str],
    source: Path,
) -> None:
    """Hold a file's names to the known ones; `scenarios` says which toggles each can vary.

    `source` is the file it came from, for the lines. Raises `ScenarioError`.
    """
    raise_for(list(_unknown(file, scenarios, metrics)), str(source), text_of(source))


def _figures(file: ClaimsFile) -> Iterator[tuple[str, int, Figure]]:
    for table, figures in (("claims", file.claims), ("own", file.own)):
        for index, figure in enumerate(figures):
            yield table, index, figure


def _contradictions(file: ClaimsFile) -> Iterator[Diagnostic]:
    ids: set[str] = set()
    for index, claim in enumerate(file.claims):
        if claim.id in ids:
            yield ("claims", index, "id"), f"{claim.id!r} is there twice; call one another name"
        ids.add(claim.id)
    for table, index, figure in _figures(file):
        for field, problem in _wrong(figure):
            yield (table, index, field), problem


def _wrong(figure: Figure) -> Iterator[tuple[str, str]]:
    """Field and problem."""
    if isinstance(figure, Claim) and figure.not_measurable:
        for field in ("claimed", "toggles", "places"):
            if getattr(figure, field):
                yield field, f"cannot stand beside `not_measurable`; take one of `{field}` and that"
        return
    try:
        region(figure.claimed)
    except ValueError as error:
        yield "claimed", str(error)
    for field in ("toggles", "places"):
        values = getattr(figure, field)
        if not values:
            yield field, f"nothing there; add `{field} = [...]`"
        elif len(set(values)) < len(values):
            yield field, "one is there twice; remove one"


def _unknown(
    file: ClaimsFile, scenarios: Mapping[str, Collection[str]], metrics: Collection[str]
) -> Iterator[Diagnostic]:
    for table, index, figure in _figures(file):
        for number, place in enumerate(figure.places):
            path = (table, index, "places", number)
            if place.metric not in metrics:
                yield path, f"no metric {place.metric!r}{suggestion(place.metric, metrics)}"
            if place.scenario not in scenarios:
                known = suggestion(place.scenario, scenarios)
                yield path, f"no scenario {place.scenario!r}{known}"
                continue
            varied = scenarios[place.scenario]
            for toggle in figure.toggles:
                if toggle not in varied:
                    yield path, f"{place.scenario} cannot vary {toggle}{suggestion(toggle, varied)}"


# -- ranges


class Region(NamedTuple):
    """Logarithms of the ratios with which a claim holds; an end may be infinite."""

    low: float
    high: float


_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,3})?"
_RANGE = re.compile(
    rf"(?P<low>{_NUMBER})(?:-(?P<high>{_NUMBER}))?(?P<form> % less| % more|x faster)"
    rf"|within (?P<margin>{_NUMBER}) %"
)
_FORMS = "`64 % less`, `60-80 % less`, `10 % more`, `3-5x faster` or `within 1 %`"
_ROUNDING = 1e-12
"""Logarithms of equal ratios can differ in their last digits."""


def region(claimed: str, better: Better = "lower") -> Region:
    """What keeps the promise. "Less" is without a lower bound and "more" without an upper one.

    `3x faster` is a third of the time, or three times the rate. Raises `ValueError` with the
    remedy.
    """
    match = _RANGE.fullmatch(claimed)
    if match is None:
        raise ValueError(f"{claimed!r} is no range; write it as {_FORMS}")
    if match["margin"]:
        margin = math.log1p(float(match["margin"]) / 100)
        return Region(-margin, margin)
    low, high, form = float(match["low"]), float(match["high"] or match["low"]), match["form"]
    if form == "x faster" and 1 < low <= high:
        times = math.log(low)
        return Region(-math.inf, -times) if better == "lower" else Region(times, math.inf)
    if form == " % less" and 0 < low <= high <= 100 and low < 100:
        return Region(-math.inf, math.log1p(-low / 100))
    if form == " % more" and 0 < low <= high:
        return Region(math.log1p(low / 100), math.inf)
    raise ValueError(f"{claimed!r} is no range; its ends must rise, from more than no change")


def at_place(measured: Interval, promised: Region) -> AtPlace:
    """Both on the log scale."""
    low, high = promised.low - _ROUNDING, promised.high + _ROUNDING
    if low <= measured.low and measured.high <= high:
        return "holds"
    if measured.low > high or measured.high < low:
        return "refuted"
    return "undecided"


def overall(found: Collection[AtPlace]) -> Verdict:
    """Of the verdicts at all places of a claim."""
    seen = set(found)
    if len(seen) == 1:
        return seen.pop()
    if "holds" in seen:
        return "holds partly"
    return "undecided" if seen else "not measurable"


# -- what was measured


class Source(Struct, frozen=True):
    """A run, and where it came from."""

    name: str
    """Of its file, without folders."""
    run: RunFile
    claimed: bool = True
    """Off where it was too short for verdicts."""

    @property
    def judged(self) -> bool:
        """Whether single rows have verdicts: the runs of a two-level design answer together."""
        return self.claimed and not is_fixed(self.run.header.design)


class Question(NamedTuple):
    """What a row answers."""

    scenario: str
    toggles: frozenset[str]
    """Switched on, all others off."""
    metric: str


class Measurement(Struct, frozen=True):
    """A row with an interval, and the run that it is from."""

    row: Comparison
    source: Source

    @property
    def metric(self) -> Metric:
        return self.source.run.header.metrics[self.row.metric]


def newest(sources: Iterable[Source]) -> dict[Question, Measurement]:
    """The row that answers each question: of several, that of the newest run.

    Runs whose rows have no verdicts count only where no other run has the row. Rows without an
    interval, or whose equal sides did not come out equal, answer nothing.
    """
    found: dict[Question, Measurement] = {}
    for source in sorted(sources, key=lambda one: (one.judged, one.run.header.created)):
        header = source.run.header
        switched = {(c.scenario, c.contrast.name): _switched(c.contrast) for c in header.cells}
        for row in source.run.comparisons:
            toggles = switched.get((row.scenario, row.contrast))
            if toggles and interval_of(row) is not None:
                found[Question(row.scenario, toggles, row.metric)] = Measurement(row, source)
    return found


def interval_of(row: Comparison) -> Interval | None:
    """None where the row shows nothing."""
    if row.estimate is None or row.judgement.verdict == "not measured":
        return None
    return row.estimate.interval


def _switched(contrast: Contrast) -> frozenset[str]:
    """What is on in B only; empty where more than that differs, or A is not the baseline."""
    a, b = contrast.a, contrast.b
    if a.name != "none" or a.revision != b.revision:
        return frozenset()
    on = {name for name, value in b.toggles.items() if value and not a.toggles.get(name)}
    same = all(b.toggles.get(name) == value for name, value in a.toggles.items() if name not in on)
    return frozenset(on) if same else frozenset()


# -- verdicts

FigureT = TypeVar("FigureT", bound=Figure)


class Found(Struct, frozen=True):
    """What a place says."""

    place: Place
    verdict: AtPlace
    evidence: Measurement | None


class Judged(Struct, Generic[FigureT], frozen=True):
    """A claim and its verdict."""

    claim: FigureT
    verdict: Verdict
    found: tuple[Found, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """What measures the places that are not measured."""
        missing: dict[str, list[str]] = {}
        for one in self.found:
            if one.verdict == "not measured":
                missing.setdefault(one.place.scenario, []).append(one.place.metric)
        alike: dict[tuple[str, ...], list[str]] = {}
        for scenario, metrics in missing.items():
            alike.setdefault(tuple(metrics), []).append(scenario)
        return tuple(_command(s, self.claim.toggles, metrics) for metrics, s in alike.items())


def judge(
    claims: Iterable[FigureT], evidence: Mapping[Question, Measurement]
) -> list[Judged[FigureT]]:
    """Each claim held to the rows, in the order of the file."""
    return [_judged(claim, evidence) for claim in claims]


def _judged(claim: FigureT, evidence: Mapping[Question, Measurement]) -> Judged[FigureT]:
    toggles = frozenset(claim.toggles)
    found = tuple(
        _at(place, claim, evidence.get(Question(place.scenario, toggles, place.metric)))
        for place in claim.places
    )
    return Judged(claim, overall([one.verdict for one in found]), found)


def _at(place: Place, claim: Figure, evidence: Measurement | None) -> Found:
    interval = interval_of(evidence.row) if evidence is not None else None
    if evidence is None or interval is None:
        return Found(place, "not measured", None)
    promised = region(claim.claimed, evidence.metric.better)
    return Found(place, at_place(interval, promised), evidence)


def _command(scenarios: Sequence[str], toggles: Sequence[str], metrics: Sequence[str]) -> str:
    words = ["trae-bench", "run", *scenarios]
    for name in toggles:
        words += ["--toggle", name]
    if len(toggles) > 1:
        # All on against none is a contrast of this design.
        words += ["--design", "both"]
    for name in metrics:
        words += ["--metric", name]
    return shlex.join(words)


# -- sentences of our own


def unsupported(judged: Judged[OwnClaim]) -> bool:
    """Whether the runs speak of the sentence and do not bear it out."""
    return any(one.verdict in ("refuted", "undecided") for one in judged.found)


def sentences(file: ClaimsFile, source: Path) -> list[str]:
    """`document:line` of each own claim. Raises `ScenarioError` for those that are not there."""
    found, missing = [], []
    texts: dict[str, str] = {}
    for index, claim in enumerate(file.own):
        document = source.parent / claim.document
        if claim.document not in texts:
            texts[claim.document] = _document(document)
        line = line_of_words(texts[claim.document], claim.quote)
        if line is None:
            problem = f"{claim.quote!r} is not in {claim.document}; quote what it says now"
            missing.append((("own", index, "quote"), problem))
        found.append(f"{_shortest(document)}:{line}")
    raise_for(missing, str(source), text_of(source) if missing else "")
    return found


def line_of_words(text: str, words: str) -> int | None:
    """Line, from 1, on which the words begin, whatever white space is between them."""
    match = re.search(r"\s+".join(map(re.escape, words.split())), text)
    return text.count("\n", 0, match.start()) + 1 if match else None


def _document(path: Path) -> str:
    try:
        return bounded_io.text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: {error}; own claims are about the documents of a checkout, give its claims "
            "file with --file"
        ) from error


def _shortest(path: Path) -> Path:
    """From the current folder, where the document is below it."""
    full, here = path.resolve(), Path.cwd()
    return full.relative_to(here) if full.is_relative_to(here) else full
