"""Explains one verdict in sentences, computed again from the samples of a run.

Every figure comes from the functions of `stats` that decide verdicts; this module decides nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

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
from trae_bench.report.text.time_shares import text as share_text
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
from trae_bench.stats.stopping import (
    GIVE_UP,
    MIN_CHANCE,
    answered,
    family_of,
    settling_chance,
    target,
)
from trae_bench.stats.time_shares import TimeShares, time_shares
from trae_bench.verdicts.prompt_breaks import PREFIX_METRICS, PromptBreaks, prompt_breaks

MAX_LISTED = 10
"""Lost pairs and toggles listed one by one; the others are counted."""


class LostPair(Struct, frozen=True):
    """A pair that is not counted."""

    pair: int
    outcome: PairOutcome
    reason: str


class PairCounts(Struct, frozen=True):
    """The outcomes of the pairs of a row, without the warm-up pair 0."""

    counted: int
    without_a_value: int
    """Counted pairs without a value of this metric."""
    a_first: int
    """Counted pairs in which side A started first."""
    lost: tuple[LostPair, ...]
    given_up: bool
    """So many pairs were lost that the run took no more."""


class ExplainedLook(Struct, frozen=True):
    """One look at the row."""

    look: Look
    least_effect: float | None
    """See `stats.decision.least_effect`."""


class Explanation(Struct, frozen=True, kw_only=True):
    """Everything that a verdict depends on."""

    row: Comparison
    """Computed from the samples."""
    in_the_file: Verdict | None
    """The verdict in the run file; None if the file does not have the row."""
    claimed: bool
    """False if the run was too short for verdicts."""
    metric: Metric
    names: tuple[str, str]
    a: Arm
    b: Arm
    compared: RevisionPair | None
    """The revisions, if the run compares revisions."""
    pairs: PairCounts
    rule: Rule
    margin: float
    """Effects (a fraction) within it count as equivalent."""
    minimum: float
    """A difference up to this, in the metric's unit, counts as no difference."""
    family: int
    """The number of gated rows of the run."""
    looks: tuple[ExplainedLook, ...]
    floor: NoiseEstimate | None
    """The A/A noise of the metric in this scenario."""
    floor_sd: float
    """The spread of the A/A pairs, as the rule used it."""
    visible: float | None
    """Smallest effect (a fraction) that a row with this spread shows at the last look in 95 % of
    cases."""
    ended: str
    """Why the run took no more pairs."""
    shares: tuple[TimeShares | None, TimeShares | None]
    """How the time of each side divides; None if the samples do not tell it."""
    broken: PromptBreaks | None = None
    """Where side B breaks the prefix of a prompt, if the metric depends on it."""


def rows(run: RunFile) -> list[RowKey]:
    """Every row that can be explained, in the order of the plan."""
    planned = (key for cell in run.header.cells if not cell.confirms for key in row_keys(cell))
    return list(dict.fromkeys(planned))


def explain(run: RunFile, key: RowKey, limits: Limits, *, claimed: bool = True) -> Explanation:
    """Explains the verdict of one of `rows`. `limits` are those of the run."""
    header = run.header
    all_rows = rows_of(run.samples, header.cells, header.metrics)
    judged = {
        key_of_row(row): row for row in comparisons(run.samples, header.cells, header.metrics)
    }
    row, compared = all_rows[key], judged[key]
    # If a plan has the row twice, `rows_of` uses the last one.
    cell = [cell for cell in header.cells if not cell.confirms and key in row_keys(cell)][-1]
    in_the_file = [row.judgement.verdict for row in run.comparisons if key_of_row(row) == key]
    family = sum(one.gated for one in all_rows.values())
    floors = {(f.scenario, f.metric): f for f in noise_floor([*judged.values()], header.metrics)}
    pairs = _pair_counts(group_samples(run.samples).get(key_of(cell), {}), key.metric)
    return Explanation(
        row=compared,
        in_the_file=in_the_file[0] if in_the_file else None,
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
        looks=tuple(
            ExplainedLook(one, critical_effect(one)) for of, one in looks(all_rows) if of == key
        ),
        floor=floors.get((key.scenario, key.metric)),
        floor_sd=row.floor_sd,
        visible=_visible(row, compared, family),
        ended=_ended(run, cell, compared, limits, pairs),
        shares=_time_shares(run, cell),
        broken=_broken(run, key),
    )


def _broken(run: RunFile, key: RowKey) -> PromptBreaks | None:
    if key.metric not in PREFIX_METRICS:
        return None
    found = prompt_breaks(run)
    return next(
        (b for b in found if (b.scenario, b.contrast) == (key.scenario, key.contrast)), None
    )


def _time_shares(run: RunFile, cell: Cell) -> tuple[TimeShares | None, TimeShares | None]:
    found, (a, b) = time_shares(run.samples), (cell.contrast.a.name, cell.contrast.b.name)
    return found.get((cell.scenario, a)), found.get((cell.scenario, b))


def _pair_counts(pairs: Mapping[int, PairOfSamples], metric: str) -> PairCounts:
    outcomes = {number: pair_outcome(*pair) for number, pair in sorted(pairs.items())}
    counted = [n for n, (outcome, _) in outcomes.items() if n > 0 and outcome == "measured"]
    with_a_value = [n for n in counted if all(s and metric in s.metrics for s in pairs[n])]
    lost = [LostPair(n, *outcome) for n, outcome in outcomes.items() if outcome[0] != "measured"]
    return PairCounts(
        counted=len(counted),
        without_a_value=len(counted) - len(with_a_value),
        a_first=sum(a is not None and a.slot == 0 for a, _ in (pairs[n] for n in counted)),
        lost=tuple(pair for pair in lost if pair.pair > 0),
        # The scheduler counts the warm-up pair, too.
        given_up=len(lost) - len(counted) >= GIVE_UP,
    )


def _visible(row: Row, compared: Comparison, family: int) -> float | None:
    estimate = compared.estimate
    if estimate is None or estimate.log_ratio is None or estimate.n < 2:
        return None
    sd = min(max(estimate.sd, row.floor_sd / 2), MAX_SD)
    return max(compared.threshold, minimum_detectable_effect(sd, row.rule, family))


def _ended(run: RunFile, cell: Cell, row: Comparison, limits: Limits, pairs: PairCounts) -> str:
    metrics, judgement = run.header.metrics, row.judgement
    more = row.estimate.n - judgement.look if row.estimate is not None else 0
    if row.contrast == NOISE_FLOOR:
        return (
            f"A/A pairs come first, at most {limits.noise_pairs} of each kind; they measure the "
            "noise and get no verdict."
        )
    if limits.fixed:
        return "The number of pairs was fixed before the run, equal for all contrasts."
    if limits.precision is not None and answered(row, limits):
        return f"The interval reached the requested precision, ±{percent(limits.precision)}."
    if judgement.settled and limits.precision is None and judgement.look:
        last = judgement.look == rule_of(metrics[row.metric]).looks[-1]
        why = "That was the last look of the rule" if last else "A settled row takes no more pairs"
        if not more:
            return f"{why}."
        return (
            f"{why}. Other metrics of the same pairs needed {more} more pairs: the figures above "
            "include them, the verdict does not."
        )
    if pairs.given_up:
        return f"The run stopped this row because {GIVE_UP} more pairs were lost than counted."
    if pairs.counted >= target(cell, limits, metrics):
        return f"The run allowed {count(pairs.counted, 'pair')}."
    chance = settling_chance(row, limits, metrics[row.metric], family_of(run.comparisons))
    if run.stopped == "done" and chance is not None and chance < MIN_CHANCE:
        return (
            "The row took no more pairs: with this noise, the chance of a verdict at its last "
            f"look was {chance:.0%}."
        )
    return {
        "budget": "The time budget of the run was used up.",
        "interrupted": "The run was interrupted.",
        "error": "An error stopped the run.",
    }.get(run.stopped, "No more pairs were requested.")


# -- sentences


def text(found: Explanation, width: int = 80) -> str:
    """The whole explanation, wrapped to `width` columns."""
    blocks = (f"{title}\n{bullets(sentences, width)}" for title, sentences in story(found).items())
    return "\n\n".join([for_terminal(headline(found), 1000), *blocks])


def headline(found: Explanation) -> str:
    """The row and its verdict. Names are not escaped."""
    row = found.row
    verdict = row.judgement.verdict if found.claimed else "too few pairs for a verdict"
    return f"{row.scenario} / {row.contrast} / {row.metric}: {verdict}"


def story(found: Explanation) -> dict[str, list[str]]:
    """Sentences by heading. Names are not escaped."""
    sections = {
        "What was compared": _compared(found),
        "Pairs": _pairs(found),
        "Figures": chain(_figures(found), _shares(found)),
        "Noise": _noise(found),
        "Rule": _rule(found),
        "Looks": _looks(found),
        "Conclusion": _conclusion(found),
    }
    return {title: list(sentences) for title, sentences in sections.items()}


HEADINGS = ("scenario", "toggle", "metric", "verdict")


def lines(run: RunFile, keys: Sequence[RowKey]) -> list[tuple[str, ...]]:
    """Rows that can be explained, one text for each of `HEADINGS`; verdicts are from the file."""
    verdicts = {key_of_row(row): row.judgement.verdict for row in run.comparisons}
    return [(*key, verdicts.get(key, "")) for key in keys]


def table(run: RunFile, keys: Sequence[RowKey], width: int = 80) -> str:
    """`lines` as a table for a terminal."""
    return columns(HEADINGS, lines(run, keys), width)


def _compared(found: Explanation) -> Iterator[str]:
    metric, (a, b) = found.metric, found.names
    unit = f"in {metric.unit}" if metric.unit else "a count"
    yield f"{metric.name}: {metric.about} ({unit}, {metric.better} is better)."
    differing = [name for name, on in found.a.toggles.items() if found.b.toggles.get(name) != on]
    if found.a == found.b:
        yield f"Both sides are the same, so every difference is noise: {_switches(found.a)}."
    elif found.b.revision is not None or found.a.revision is not None:
        if found.compared is not None:
            yield revisions(found.compared)
        else:
            yield f"Side A, {a}, is revision {found.a.revision}; side B, {b}, {found.b.revision}."
        yield f"Toggles of head: {_switches(found.b)}."
    elif found.a.agent:
        yield f"Side A, {a}: the agent {found.a.agent}. Side B, {b}: the agent {found.b.agent}."
    else:
        yield (
            f"Side A, {a}: {_switches(found.a, differing)}. "
            f"Side B, {b}: {_switches(found.b, differing)}."
        )
        same = [name for name in found.a.toggles if name not in differing]
        if same:
            yield f"Same on both sides: {_switches(found.a, same)}."


def _switches(arm: Arm, only: Sequence[str] | None = None) -> str:
    names = list(arm.toggles if only is None else only)
    parts = [f"{name} {'on' if arm.toggles.get(name) else 'off'}" for name in names[:MAX_LISTED]]
    parts += [f"and {len(names) - MAX_LISTED} more"] if len(names) > MAX_LISTED else []
    return ", ".join(parts) or "no toggles"


_MODES: Mapping[Mode, str] = {
    "duet": "both at the same time on one core, so that a disturbance slows both",
    "serial": "one after the other, because the metric includes waiting",
    "exact": "both at the same time; counts do not need a quiet machine",
}


def _pairs(found: Explanation) -> Iterator[str]:
    pairs, metric = found.pairs, found.metric
    yield f"A pair is two fresh processes, {_MODES[metric.mode]}."
    if metric.probe != "plain":
        yield f"The probe {metric.probe} slows both sides, so these pairs serve only its metrics."
    first = f"; {found.names[0]} started first in {pairs.a_first} of them"
    yield (
        f"{count(pairs.counted, 'pair')} counted{first if pairs.counted else ''}. Pair 0 warms "
        "up the machine and is not counted."
    )
    if pairs.without_a_value:
        yield f"{count(pairs.without_a_value, 'of these pairs', '')} had no value of this metric."
    if pairs.counted and not pairs.lost:
        yield "No pair was lost: in each, both sides gave the same, correct answers."
    for lost in pairs.lost[:MAX_LISTED]:
        yield f"Pair {lost.pair} was lost, {lost.outcome}: {lost.reason}."
    if len(pairs.lost) > MAX_LISTED:
        yield f"{len(pairs.lost) - MAX_LISTED} more pairs were lost."


def _figures(found: Explanation) -> Iterator[str]:
    estimate, unit = found.row.estimate, found.metric.unit
    if found.broken is not None:
        yield (
            f"The requests of a session that break the prefix of the prompt: {found.names[0]} "
            f"{found.broken.counts[0]}, {found.names[1]} {found.broken.counts[1]}. First break "
            f"of {found.names[1]}: {found.broken.place}."
        )
    if estimate is None:
        yield "There are none, because no pair counted."
        return
    a, b = found.names
    yield (
        f"Medians: {a} {quantity(estimate.a, unit)}, {b} {quantity(estimate.b, unit)}. The median "
        f"of the pairs' differences, {b} minus {a}, is {quantity(estimate.difference, unit)}."
    )
    if estimate.log_ratio is None:
        yield "There is no ratio, because some values are zero or negative."
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
            f"{tail} of cases, at whichever look the row stopped."
        )


def _shares(found: Explanation) -> Iterator[str]:
    named = list(zip(found.names, found.shares, strict=True))
    # The sides of A/A are one arm.
    shown = named[:1] if found.a == found.b else named
    if texts := [share_text(name, shares) for name, shares in shown if shares is not None]:
        yield f"Time of the trials: {'; '.join(texts)}."


def _trimmed(rule: Rule, n: int) -> str:
    cut = rule.trimmed(n)
    return f", without the {cut} lowest and the {cut} highest" if cut else ""


def _noise(found: Explanation) -> Iterator[str]:
    estimate, floor = found.row.estimate, found.floor
    if floor is None:
        exact = found.metric.mode == "exact"
        yield (
            "Counts have no noise floor." if exact else "Unknown, because there are no A/A pairs."
        )
        return
    yield (
        f"{count(floor.pairs, 'A/A pair')}, with equal sides, scatter by {percent(floor.sd)} "
        f"around {signed(floor.mean)} %. With {count(found.rule.looks[-1], 'pair')} this metric "
        f"can show effects of {percent(floor.smallest_effect)} or more in this scenario."
    )
    if estimate is not None and estimate.log_ratio is not None and found.floor_sd > 2 * estimate.sd:
        yield (
            "The pairs of this row scatter by less than half of that, so the rule uses half of "
            f"the noise floor, {percent(found.floor_sd / 2)}, as their spread."
        )


def _rule(found: Explanation) -> Iterator[str]:
    rule, threshold = found.rule, found.row.threshold
    if rule.exact_at:
        yield (
            f"{rule.name}: after {rule.exact_at} pairs, sides that do not vary are compared "
            "exactly; other sides are judged as follows."
        )
    looks = ", ".join(map(str, rule.looks))
    yield (
        f"{rule.name} looks after {looks} pairs. An improvement or a regression needs a mean of "
        f"at least {percent(threshold)} and a one-sided p-value within the level. Equivalent needs "
        f"an interval within {percent(found.margin)} of a ratio of 1."
    )
    if found.minimum:
        minimum = quantity(found.minimum, found.metric.unit)
        yield f"A difference of up to {minimum} counts as none, whatever its ratio."
    if threshold == found.metric.threshold:
        yield (
            "The threshold is set by the project's settings, which do not change the margin; "
            f"the rule's is {percent(rule.threshold)}."
        )
    elif threshold != rule.threshold:
        source = "set by the metric" + (" or by that difference" if found.minimum else "")
        yield f"The threshold is {source}; the rule's is {percent(rule.threshold)}."
    level = rule.level / max(found.family, 1)
    yield (
        f"The level is alpha / (K M) = {rule.alpha:g} / ({len(rule.looks)} looks x {found.family} "
        f"gated rows) = {level:.2g}. By Holm's method, each change that is found raises the level "
        "of the open rows."
    )
    yield _gated(found)


def _gated(found: Explanation) -> str:
    floor = found.floor
    if found.row.gated:
        return "This row is gated: its verdict counts and uses a share of the level."
    if found.row.contrast == NOISE_FLOOR:
        return "This row is not gated, because its sides are equal: its verdict is for information."
    if floor is not None and floor.reliability == "sides differ":
        return "This row is not gated: the A/A sides differ, so the metric is not judged."
    limit = percent(max(MAX_THRESHOLD, found.metric.threshold or 0.0))
    if floor is not None and is_biased(floor):
        return (
            f"This row is not gated: the A/A sides differ by {signed(floor.mean)} %, and three "
            f"times that is over {limit}. Its verdict is for information and uses no share of "
            "the level."
        )
    return (
        "This row is not gated: its A/A pairs show that the metric cannot detect effects under "
        f"{limit} here. Its verdict is for information and uses no share of the level."
    )


def _looks(found: Explanation) -> Iterator[str]:
    if not found.looks:
        first = found.rule.stops[0]
        yield f"None: the first look is after {first} pairs, and {found.pairs.counted} counted."
    for explained in found.looks:
        yield f"After {explained.look.judgement.look} pairs: {_look(found, explained)}"


def _look(found: Explanation, explained: ExplainedLook) -> str:
    look, evidence = explained.look, explained.look.evidence
    verdict = look.judgement.verdict
    if evidence is None:
        ignored = ", because the difference is within the threshold of the settings only"
        why = ignored if verdict == "inconclusive" else ""
        return f"neither side varies, so they are compared exactly: {verdict}{why}."
    if evidence.fit is None:
        within = "no pair differs" if evidence.within else "some pairs differ"
        by = quantity(found.minimum, found.metric.unit)
        return f"there is no ratio, and {within} by more than {by}: {verdict}."
    fit = evidence.fit
    interval = Interval(fit.mean - fit.half_width, fit.mean + fit.half_width)
    return (
        f"ratio {as_ratio(fit.mean)} {as_interval(interval)}, p = {evidence.p_direction:.2g} for "
        f"{_AN[evidence.direction]}; the level was {look.level:.2g}{_shared(found, look)}. "
        f"{_decision(found, explained, evidence)}"
    )


_AN: Mapping[Direction, str] = {"improvement": "an improvement", "regression": "a regression"}


def _shared(found: Explanation, look: Look) -> str:
    settled = found.family - look.claims
    if settled <= 0:
        return ""
    return f", shared by {look.claims} rows, because {settled} were settled before"


def _decision(found: Explanation, explained: ExplainedLook, evidence: LookStatistics) -> str:
    judgement = explained.look.judgement
    small = f"under the threshold of {percent(evidence.threshold)}"
    if judgement.verdict == evidence.direction:
        return (
            f"The p-value is within the level and the mean reaches {percent(evidence.threshold)}: "
            f"{judgement.verdict}."
        )
    over = "" if evidence.p_direction <= explained.look.level else "the p-value is over the level"
    reasons = [text for text in (over, "" if evidence.large else f"the mean is {small}") if text]
    no_change = " and ".join(reasons)
    if judgement.verdict == "equivalent":
        return (
            f"{_sentence(no_change)}; the interval is within {percent(evidence.margin)}: "
            "equivalent."
        )
    needed = percent(explained.least_effect or 0.0)
    end = "inconclusive, because that was the last look" if judgement.settled else "open"
    return (
        f"{_sentence(no_change)}, and the interval extends beyond {percent(evidence.margin)}: "
        f"{end}. With this spread, a mean of {needed} or more would be a change."
    )


def _conclusion(found: Explanation) -> Iterator[str]:
    yield found.ended
    row = found.row
    if row.estimate is None:
        yield "No pair counted, so there is nothing to judge: not measured."
    elif found.floor and found.floor.reliability == "sides differ" and row.contrast != NOISE_FLOOR:
        yield (
            f"In the A/A pairs, B differs from an equal A by {signed(found.floor.mean)} %. That is "
            "too much for chance, so no verdict on this metric is reliable: not measured."
        )
    elif row.confirmation is not None:
        yield _confirmed(row.confirmation)
    elif row.judgement.verdict == "inconclusive" and found.visible and row.contrast != NOISE_FLOOR:
        yield (
            f"The last look, after {found.rule.looks[-1]} pairs, detects effects of "
            f"{percent(found.visible)} or more in 95 % of rows with this scatter. Smaller effects "
            "need a quieter machine (`trae-bench doctor`)."
        )
    if not found.claimed:
        yield "The run claims no verdicts, because its profile takes too few pairs."
    if found.in_the_file != row.judgement.verdict:
        yield (
            f"The file says {found.in_the_file or 'nothing'}, but its samples give "
            f"{row.judgement.verdict}; run `trae-bench verify` for details."
        )


def _confirmed(again: Confirmation) -> str:
    ratio = again.estimate.log_ratio if again.estimate is not None else None
    shown = "" if ratio is None else f", with a ratio of {as_ratio(ratio)}"
    result = "confirmed" if again.stands else "not confirmed, so the row is inconclusive"
    if again.pairs.measured < again.wanted:
        result = "too few to confirm it, so the row is inconclusive"
    elif shown:
        shown += f" and p = {again.p:.2g}"
    return (
        f"A regression must show again in as many fresh pairs. {again.pairs.measured} of "
        f"{again.wanted} were measured{shown}: {result}."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
