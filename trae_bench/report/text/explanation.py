"""How one verdict came about, in sentences: worked out again from the samples of a run.

Every figure comes from the functions that judge (`compare`, `stats`); nothing is decided here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Arm, Cell, Limits, Metric, Mode
from trae_bench.model.result import Comparison, Confirmation, Interval, NoiseEstimate, Rule, Verdict
from trae_bench.model.run import RevisionPair, RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.gate import revisions
from trae_bench.report.text.listing import bullets, columns, count
from trae_bench.report.text.terminal import (
    as_interval,
    as_ratio,
    percent,
    quantity,
    side_names,
    signed,
)
from trae_bench.stats.analysis import comparisons, rows_of
from trae_bench.stats.decision import (
    Direction,
    Look,
    LookStatistics,
    Row,
    critical_effect,
    looks,
    minimum_detectable_effect,
    threshold_and_margin,
)
from trae_bench.stats.metric_rules import rule_of
from trae_bench.stats.noise import MAX_SD, MAX_THRESHOLD, is_biased, noise_floor
from trae_bench.stats.pairs import (
    PairOfSamples,
    PairOutcome,
    RowKey,
    group_samples,
    key_of,
    key_of_row,
    pair_outcome,
    row_keys,
)
from trae_bench.stats.stopping import GIVE_UP, answered, target

MAX_TOLD = 10
"""Lost pairs, and toggles that are alike on both sides, told one by one; the rest is counted."""


class Lost(Struct, frozen=True):
    """A pair that counts for nothing."""

    pair: int
    outcome: PairOutcome
    reason: str


class Taken(Struct, frozen=True):
    """What became of the pairs of a row; the warming pair 0 is left out."""

    counted: int
    without_a_value: int
    """Of those: they tell nothing of this metric."""
    a_first: int
    """Of those: side A was started first."""
    lost: tuple[Lost, ...]
    given_up: bool
    """So many were lost that no more were taken."""


class Seen(Struct, frozen=True):
    """One look at the row."""

    look: Look
    least_effect: float | None
    """See `stats.least_effect`."""


class Explanation(Struct, frozen=True, kw_only=True):
    """All that a verdict rests on."""

    row: Comparison
    """As worked out from the samples."""
    in_the_file: Verdict | None
    """None where the file has no such row."""
    claimed: bool
    """Off where the run was too short for verdicts."""
    metric: Metric
    names: tuple[str, str]
    a: Arm
    b: Arm
    compared: RevisionPair | None
    """The revisions, where these are the sides."""
    pairs: Taken
    rule: Rule
    margin: float
    """Effects (a fraction) within it count as none."""
    minimum: float
    """A difference up to this, in the metric's unit, is nothing."""
    family: int
    """Gated rows of the run."""
    looks: tuple[Seen, ...]
    floor: NoiseEstimate | None
    """What A/A pairs say of the metric in this scenario."""
    floor_sd: float
    """Their spread, as the rule used it."""
    visible: float | None
    """Smallest effect (a fraction) that rows with this spread show at the rule's last look, in
    95 % of cases."""
    ended: str
    """Why no more pairs were taken."""


def rows(run: RunFile) -> list[RowKey]:
    """Every row that can be explained, in the plan's order."""
    planned = (key for cell in run.header.cells if not cell.confirms for key in row_keys(cell))
    return list(dict.fromkeys(planned))


def explain(run: RunFile, key: RowKey, limits: Limits, *, claimed: bool = True) -> Explanation:
    """How this row, one of `rows`, came to its verdict. `limits` are the run's."""
    header = run.header
    all_rows = rows_of(run.samples, header.cells, header.metrics)
    judged = comparisons(run.samples, header.cells, header.metrics)
    row, compared = all_rows[key], _of(judged, key)
    assert compared is not None, key
    # The last one, as in `rows_of`, should a plan have it twice.
    cell = [cell for cell in header.cells if not cell.confirms and key in row_keys(cell)][-1]
    in_the_file = _of(run.comparisons, key)
    family = sum(each.gated for each in all_rows.values())
    floors = {(f.scenario, f.metric): f for f in noise_floor(judged, header.metrics)}
    pairs = _taken(group_samples(run.samples).get(key_of(cell), {}), key.metric)
    return Explanation(
        row=compared,
        in_the_file=in_the_file.judgement.verdict if in_the_file is not None else None,
        claimed=claimed,
        metric=header.metrics[key.metric],
        names=side_names(run),
        a=cell.contrast.a,
        b=cell.contrast.b,
        compared=header.revisions,
        pairs=pairs,
        rule=row.rule,
        margin=threshold_and_margin(row, len(row.a))[1],
        minimum=row.minimum,
        family=family,
        looks=tuple(Seen(look, critical_effect(look)) for of, look in looks(all_rows) if of == key),
        floor=floors.get((key.scenario, key.metric)),
        floor_sd=row.floor_sd,
        visible=_visible(row, compared, family),
        ended=_ended(run.stopped, cell, compared, limits, pairs, header.metrics),
    )


def _of(found: Iterable[Comparison], key: RowKey) -> Comparison | None:
    return next((row for row in found if key_of_row(row) == key), None)


def _taken(pairs: Mapping[int, PairOfSamples], metric: str) -> Taken:
    fates = {number: pair_outcome(*pair) for number, pair in sorted(pairs.items())}
    counted = [n for n, (found, _) in fates.items() if n > 0 and found == "measured"]
    with_a_value = [n for n in counted if all(one and metric in one.metrics for one in pairs[n])]
    lost = [Lost(n, *found) for n, found in fates.items() if found[0] != "measured"]
    return Taken(
        counted=len(counted),
        without_a_value=len(counted) - len(with_a_value),
        a_first=sum(a is not None and a.slot == 0 for a, _ in (pairs[n] for n in counted)),
        lost=tuple(each for each in lost if each.pair > 0),
        # The warming pair counts here, as it does for the session.
        given_up=len(lost) - len(counted) >= GIVE_UP,
    )


def _visible(row: Row, compared: Comparison, family: int) -> float | None:
    found = compared.estimate
    if found is None or found.log_ratio is None or found.n < 2:
        return None
    sd = min(max(found.sd, row.floor_sd / 2), MAX_SD)
    return max(compared.threshold, minimum_detectable_effect(sd, row.rule, family))


def _ended(
    stopped: str,
    cell: Cell,
    row: Comparison,
    limits: Limits,
    pairs: Taken,
    metrics: Mapping[str, Metric],
) -> str:
    judgement = row.judgement
    more = row.estimate.n - judgement.look if row.estimate is not None else 0
    if row.contrast == NOISE_FLOOR:
        return (
            f"A/A pairs come before all others, {limits.noise_pairs} of each kind at most; they "
            "are not taken for a verdict."
        )
    if limits.fixed:
        return "The number of pairs was set beforehand, alike for all contrasts."
    if limits.precision is not None and answered(row, limits):
        return f"The interval was as narrow as asked for, {percent(limits.precision)} to each side."
    if judgement.settled and limits.precision is None and judgement.look:
        last = judgement.look == rule_of(metrics[row.metric]).looks[-1]
        why = "That is the rule's last look" if last else "A settled row asks for no more pairs"
        if not more:
            return f"{why}."
        return (
            f"{why}. The {more} that came after were taken for other metrics of the same pairs: "
            "they are in the figures above, but change no verdict."
        )
    if pairs.given_up:
        return f"So many pairs were lost, {GIVE_UP} more than counted, that no more were taken."
    if pairs.counted >= target(cell, limits, metrics):
        return f"The run allowed {count(pairs.counted, 'pair')}."
    return {
        "budget": "The budget of the run was spent.",
        "interrupted": "The run was interrupted.",
        "error": "The run was broken off by an error.",
    }.get(stopped, "No more pairs were asked for.")


# In sentences


def text(found: Explanation, width: int = 80) -> str:
    """The whole story, wrapped to `width` columns."""
    blocks = (f"{title}\n{bullets(told, width)}" for title, told in story(found).items())
    return "\n\n".join([for_terminal(headline(found), 1000), *blocks])


def headline(found: Explanation) -> str:
    row = found.row
    verdict = row.judgement.verdict if found.claimed else "no verdict is claimed"
    return f"{row.scenario} / {row.contrast} / {row.metric}: {verdict}"


def story(found: Explanation) -> dict[str, list[str]]:
    """Sentences under their headings. Names are as they are in the file."""
    told = {
        "What was compared": _compared(found),
        "Pairs": _pairs(found),
        "Figures": _figures(found),
        "Noise": _noise(found),
        "Rule": _rule(found),
        "Looks": _looks(found),
        "Why it ended so": _conclusion(found),
    }
    return {title: list(sentences) for title, sentences in told.items()}


HEADS = ("scenario", "toggle", "metric", "verdict")


def lines(run: RunFile, keys: Sequence[RowKey]) -> list[tuple[str, ...]]:
    """Rows that can be explained, one text for each of `HEADS`; the verdicts are the file's."""
    verdicts = {key_of_row(row): row.judgement.verdict for row in run.comparisons}
    return [(*key, verdicts.get(key, "")) for key in keys]


def table(run: RunFile, keys: Sequence[RowKey], width: int = 80) -> str:
    """`lines`, for a terminal."""
    return columns(HEADS, lines(run, keys), width)


def _compared(found: Explanation) -> Iterator[str]:
    metric, (a, b) = found.metric, found.names
    unit = f"in {metric.unit}" if metric.unit else "a count"
    yield f"{metric.name}: {metric.about} ({unit}, {metric.better} is better)."
    differing = [name for name, on in found.a.toggles.items() if found.b.toggles.get(name) != on]
    if found.a == found.b:
        yield f"Both sides are the same, so that what differs is noise: {_switches(found.a)}."
    elif found.b.revision is not None or found.a.revision is not None:
        if found.compared is not None:
            yield revisions(found.compared)
        else:
            yield f"Side A, {a}, is revision {found.a.revision}; side B, {b}, {found.b.revision}."
        yield f"Toggles of head: {_switches(found.b)}."
    else:
        sides = [_switches(arm, differing) for arm in (found.a, found.b)]
        yield " ".join(
            f"Side {side}, {name}: {switches}."
            for side, name, switches in zip("AB", found.names, sides, strict=True)
        )
        alike = [name for name in found.a.toggles if name not in differing]
        if alike:
            yield f"Alike on both sides: {_switches(found.a, alike)}."


def _switches(arm: Arm, only: Sequence[str] | None = None) -> str:
    names = list(arm.toggles if only is None else only)
    told = [f"{name} {'on' if arm.toggles.get(name) else 'off'}" for name in names[:MAX_TOLD]]
    told += [f"and {len(names) - MAX_TOLD} more"] if len(names) > MAX_TOLD else []
    return ", ".join(told) or "no toggle at all"


_MODES: Mapping[Mode, str] = {
    "duet": "both at once on one core, so that whatever slows one slows the other",
    "serial": "one after the other, for waiting is part of what is measured",
    "exact": "both at once; a count needs no quiet machine",
}


def _pairs(found: Explanation) -> Iterator[str]:
    pairs, metric = found.pairs, found.metric
    yield f"A pair is two fresh processes, {_MODES[metric.mode]}."
    if metric.probe != "plain":
        yield f"Watched by {metric.probe}, which slows both sides; these pairs serve nothing else."
    first = f"; {found.names[0]} was started first in {pairs.a_first} of them"
    yield (
        f"{count(pairs.counted, 'pair')} counted{first if pairs.counted else ''}. Pair 0 warms "
        "the machine and is never counted."
    )
    if pairs.without_a_value:
        yield f"{count(pairs.without_a_value, 'of these pairs', '')} had no value of this metric."
    if pairs.counted and not pairs.lost:
        yield "No pair was lost: both sides gave equal answers, and the right ones, in each."
    for each in pairs.lost[:MAX_TOLD]:
        yield f"Pair {each.pair} was lost, {each.outcome}: {each.reason}."
    if len(pairs.lost) > MAX_TOLD:
        yield f"{len(pairs.lost) - MAX_TOLD} more pairs were lost."


def _figures(found: Explanation) -> Iterator[str]:
    estimate, unit = found.row.estimate, found.metric.unit
    if estimate is None:
        yield "There are none: no pair counted."
        return
    a, b = found.names
    yield (
        f"Medians: {a} {quantity(estimate.a, unit)}, {b} {quantity(estimate.b, unit)}. The median "
        f"of the pairs' differences, {b} less {a}, is {quantity(estimate.difference, unit)}."
    )
    if estimate.log_ratio is None:
        yield "Some value is zero or less, so that there is no ratio."
        return
    pairs = "the one pair" if estimate.n == 1 else f"all {estimate.n} pairs"
    yield (
        f"The mean log ratio of {pairs} is {estimate.log_ratio:+.4f}"
        f"{_trimmed(found.rule, estimate.n)}: a ratio of {as_ratio(estimate.log_ratio)}, "
        f"{signed(estimate.log_ratio)} %."
    )
    if estimate.interval is not None:
        tail = percent(found.rule.alpha_equivalence)
        yield (
            f"The pairs scatter by {percent(estimate.sd)} (standard deviation of their log ratios)."
            f" The interval is {as_interval(estimate.interval)}; each end is wrong in at most "
            f"{tail} of cases, whichever look the row stopped at."
        )


def _trimmed(rule: Rule, n: int) -> str:
    cut = int(rule.trim * n)
    return f", without the {cut} lowest and the {cut} highest" if cut else ""


def _noise(found: Explanation) -> Iterator[str]:
    estimate, floor = found.row.estimate, found.floor
    if floor is None:
        exact = found.metric.mode == "exact"
        yield ("Counts have no noise floor." if exact else "Unknown, for want of A/A pairs.")
        return
    yield (
        f"{count(floor.pairs, 'A/A pair')}, both sides the same, scatter by {percent(floor.sd)} "
        f"around {signed(floor.mean)} %. In {count(found.rule.looks[-1], 'pair')} this metric can "
        f"show effects from {percent(floor.smallest_effect)} on in this scenario."
    )
    if estimate is not None and estimate.log_ratio is not None and found.floor_sd > 2 * estimate.sd:
        yield (
            "The pairs of this row look calmer than half of that; half of the noise floor, "
            f"{percent(found.floor_sd / 2)}, stands in for their spread."
        )


def _rule(found: Explanation) -> Iterator[str]:
    rule, threshold = found.rule, found.row.threshold
    if rule.exact_at:
        yield (
            f"{rule.name}: after {rule.exact_at} pairs, sides that have not varied are compared as "
            "they are; others are looked at as follows."
        )
    looks = ", ".join(map(str, rule.looks))
    yield (
        f"{rule.name} looks after {looks} pairs. An improvement or a regression takes a mean of "
        f"at least {percent(threshold)} and a one-sided p-value within the level. Equivalent takes "
        f"an interval within {percent(found.margin)} of a ratio of 1."
    )
    if found.minimum:
        least = quantity(found.minimum, found.metric.unit)
        yield f"A difference of up to {least} is nothing, whatever its ratio."
    if threshold != rule.threshold:
        why = "the metric's own" + (", or what that difference comes to" if found.minimum else "")
        yield f"The threshold is {why}; the rule's is {percent(rule.threshold)}."
    level = rule.level / max(found.family, 1)
    yield (
        f"The level is alpha / (K M) = {rule.alpha:g} / ({len(rule.looks)} looks x {found.family} "
        f"gated rows) = {level:.2g}. By Holm's method, each change that is found leaves more of it "
        "to the rows that are still open."
    )
    yield _gated(found)


def _gated(found: Explanation) -> str:
    floor = found.floor
    if found.row.gated:
        return "This row is gated: its verdict counts, and it has its share of the level."
    if found.row.contrast == NOISE_FLOOR:
        return "This row is not gated, for its sides are equal: its verdict is for information."
    if floor is not None and floor.reliability == "sides differ":
        return "This row is not gated: equal sides do not come out equal, so nothing is judged."
    least = percent(max(MAX_THRESHOLD, found.metric.threshold or 0.0))
    if floor is not None and is_biased(floor):
        return (
            f"This row is not gated: equal sides came out {signed(floor.mean)} % apart, and three "
            f"times that is over {least}. Its verdict is for information, and takes nothing from "
            "the others."
        )
    return (
        "This row is not gated: by its A/A pairs the metric cannot show effects under "
        f"{least} here. Its verdict is for information, and takes nothing from the others."
    )


def _looks(found: Explanation) -> Iterator[str]:
    if not found.looks:
        first = found.rule.stops[0]
        yield f"None: the first look is after {first} pairs, and {found.pairs.counted} counted."
    for seen in found.looks:
        yield f"After {seen.look.judgement.look} pairs: {_look(found, seen)}"


def _look(found: Explanation, seen: Seen) -> str:
    look, evidence = seen.look, seen.look.evidence
    verdict = look.judgement.verdict
    if evidence is None:
        return f"neither side has varied; they are compared as they are: {verdict}."
    if evidence.fit is None:
        within = "no pair differs" if evidence.within else "some pairs differ"
        by = quantity(found.minimum, found.metric.unit)
        return f"there is no ratio, and {within} by more than {by}: {verdict}."
    fit = evidence.fit
    interval = Interval(fit.mean - fit.half_width, fit.mean + fit.half_width)
    return (
        f"ratio {as_ratio(fit.mean)} {as_interval(interval)}, p = {evidence.p_direction:.2g} for "
        f"{_AN[evidence.direction]}; the level was {look.level:.2g}{_shared(found, look)}. "
        f"{_decided(found, seen, evidence)}"
    )


_AN: Mapping[Direction, str] = {"improvement": "an improvement", "regression": "a regression"}


def _shared(found: Explanation, look: Look) -> str:
    before = found.family - look.claims
    if before <= 0:
        return ""
    return f", shared by {look.claims} rows, for {before} had been found before"


def _decided(found: Explanation, seen: Seen, evidence: LookStatistics) -> str:
    judgement = seen.look.judgement
    small = f"under the threshold of {percent(evidence.threshold)}"
    if judgement.verdict == evidence.direction:
        return (
            f"The p-value is within the level and the mean reaches {percent(evidence.threshold)}: "
            f"{judgement.verdict}."
        )
    over = "" if evidence.p_direction <= seen.look.level else "the p-value is over the level"
    reasons = [each for each in (over, "" if evidence.large else f"the mean is {small}") if each]
    no_change = " and ".join(reasons)
    if judgement.verdict == "equivalent":
        return (
            f"{_sentence(no_change)}; the interval lies within {percent(evidence.margin)}: "
            "equivalent."
        )
    reach = percent(seen.least_effect or 0.0)
    end = "inconclusive, and that was the last look" if judgement.settled else "open"
    return (
        f"{_sentence(no_change)}, and the interval reaches beyond {percent(evidence.margin)}: "
        f"{end}. With this spread, a mean from {reach} on would have been a change."
    )


def _conclusion(found: Explanation) -> Iterator[str]:
    yield found.ended
    row = found.row
    if row.estimate is None:
        yield "Without a pair that counts there is nothing to judge: not measured."
    elif found.floor and found.floor.reliability == "sides differ" and row.contrast != NOISE_FLOOR:
        yield (
            f"Both sides of the A/A pairs are the same, and yet B is {signed(found.floor.mean)} % "
            "off A. That is no chance, so that no verdict on this metric can be trusted: not "
            "measured."
        )
    elif row.confirmation is not None:
        yield _confirmed(row.confirmation)
    elif row.judgement.verdict == "inconclusive" and found.visible and row.contrast != NOISE_FLOOR:
        yield (
            f"The last look, after {found.rule.looks[-1]} pairs, shows effects from "
            f"{percent(found.visible)} on in 95 % of rows that scatter like this one. Smaller ones "
            "take a quieter machine (`trae-bench doctor`)."
        )
    if not found.claimed:
        yield "No verdict is claimed: this run's profile takes too few pairs for that."
    if found.in_the_file != row.judgement.verdict:
        yield (
            f"The file says {found.in_the_file or 'nothing'}, its samples say "
            f"{row.judgement.verdict}; `trae-bench verify` tells more."
        )


def _confirmed(again: Confirmation) -> str:
    ratio = again.estimate.log_ratio if again.estimate is not None else None
    shown = "" if ratio is None else f", with a ratio of {as_ratio(ratio)}"
    stands = "it stands" if again.stands else "it does not stand, and is inconclusive"
    if again.pairs.measured < again.wanted:
        stands = "too few to tell, so that it is inconclusive"
    elif shown:
        shown += f" and p = {again.p:.2g}"
    return (
        f"A regression of this run has to show in as many fresh pairs. {again.pairs.measured} of "
        f"{again.wanted} were measured{shown}: {stands}."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
