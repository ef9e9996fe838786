"""Attributes a change to toggles, as a report for a terminal.

`0.80 ±3 %` is a ratio with half of its interval: from 0.80 / 1.03 to 0.80 x 1.03.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trae_bench.design.contrasts import is_fixed
from trae_bench.model.experiment import Better, Metric
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.listing import count, fill
from trae_bench.report.text.terminal import percent, signed
from trae_bench.stats.analysis import Attributions, attributions
from trae_bench.stats.attribution import (
    Attribution,
    Effect,
    EffectSum,
    Interaction,
    ToggleEffects,
)
from trae_bench.stats.decision import MAX_LOG_RATIO
from trae_bench.verdicts.caveats import MAX_NOTE

MAX_HALF_WIDTH = 0.995
"""Half of an interval (a fraction) above which it is printed as `>99 %`."""
MAX_AGREEMENT = 0.10
"""Half of an interval (a fraction) above which agreement within it shows nothing."""
MAX_PAIRS = 6
"""Pairs of toggles shown for each metric; the JSON output has all of them."""

_COLUMNS: Mapping[str, Callable[[ToggleEffects], Effect | None]] = {
    "alone": lambda toggle: toggle.alone,
    "others on": lambda toggle: toggle.last,
    "on/alone": lambda toggle: toggle.change,
    "on average": lambda toggle: toggle.mean,
}
_OPTIONAL = ("on/alone", "others on", "alone")
"""Columns that a narrow terminal leaves out, the least needed first."""
MIN_NAME, USUAL_NAME = 8, 16
"""Width of the column of names at least, and before other columns are left out."""


def of_run(run: RunFile) -> Attributions:
    """Computes the attributions of a run from its samples."""
    header = run.header
    return attributions(
        run.samples,
        header.cells,
        header.metrics,
        fixed=is_fixed(header.design),
        max_pairs=header.limits.pairs,
    )


def text(attributions: Attributions, metrics: Mapping[str, Metric], *, width: int = 80) -> str:
    """All attributions of a run, with notes on how to read them."""
    if not attributions.found:
        why = "; ".join(untrusted(attributions)) or "no toggle was compared on any metric."
        return fill(f"Nothing to attribute: {for_terminal(why, MAX_NOTE)}", width, "", "")
    blocks = [
        "\n".join(_block(found, metrics[found.metric].better, attributions.limit, width))
        for found in attributions.found
    ]
    reading = (fill(for_terminal(note, MAX_NOTE), width, "", "") for note in notes(attributions))
    return "\n\n".join([*blocks, "\n".join(reading)])


class StarRule(NamedTuple):
    """When an effect gets a star."""

    max_p: float
    min_size: float
    """On the log scale."""

    def applies(self, effect: Effect) -> bool:
        small_p = effect.p is not None and effect.p <= self.max_p
        return small_p and abs(effect.log_ratio) >= self.min_size


def star_rule(found: Attribution, limit: float) -> StarRule:
    """The rule for one metric. `limit` is the p-value limit of the whole run."""
    return StarRule(limit, math.log1p(found.threshold))


def _block(found: Attribution, better: Better, limit: float, width: int) -> Iterator[str]:
    rule = star_rule(found, limit)
    name = f"{for_terminal(found.scenario, 40)} / {for_terminal(found.metric, 40)}"
    yield fill(f"{name}  ({about(found, better)})", width, "")
    yield from _table(found.toggles, rule, width)
    for line in (*_pairs(found, rule), *compared_with_all_on(found, better, rule)):
        yield fill(line, width)
    if found.missing:
        names = ", ".join(for_terminal(name, 60) for name in found.missing[:MAX_PAIRS])
        yield fill(f"Left out, without a ratio: {names}{_and_more(found.missing)}.", width)


def _and_more(items: Sequence[object]) -> str:
    more = len(items) - MAX_PAIRS
    return f" and {more} more" if more > 0 else ""


def about(found: Attribution, better: Better) -> str:
    """The number of pairs, the better direction and the threshold of one metric."""
    low, high = found.pairs
    pairs = count(high, "pair") if low == high else f"{low} to {high} pairs"
    counts = f"counts from {percent(found.threshold)}" if found.threshold else "any change counts"
    return f"{pairs} per contrast; {better} is better; {counts}"


# -- the table: one line for each toggle


def _table(toggles: Sequence[ToggleEffects], rule: StarRule, width: int) -> Iterator[str]:
    """Effects by toggle. The names are cut to the width that the effects leave.

    A narrow terminal gets fewer columns and a line that names the others.
    """
    columns = {
        heading: [heading, *(figure(effect, rule) for effect in effects)]
        for heading, effects in columns_of(toggles).items()
    }
    left_out = []
    for heading in _OPTIONAL:
        if heading in columns and len(columns) > 1 and _room(columns, width) < USUAL_NAME:
            left_out.append(heading)
            del columns[heading]
    room = max(MIN_NAME, _room(columns, width))
    names = ["toggle", *(for_terminal(toggle.toggle)[:room] for toggle in toggles)]
    size = max(map(len, names))
    for number, name in enumerate(names):
        cells = (column[number].ljust(max(map(len, column))) for column in columns.values())
        yield f" {name.ljust(size)}  {'  '.join(cells)}".rstrip()
    if left_out:
        yield fill(f"Columns left out to fit {width}: {', '.join(left_out)}.", width)


def _room(columns: Mapping[str, Sequence[str]], width: int) -> int:
    """The width that is left for names."""
    return width - 1 - sum(2 + max(map(len, column)) for column in columns.values())


def columns_of(toggles: Sequence[ToggleEffects]) -> dict[str, list[Effect | None]]:
    """Effects by heading, one for each toggle. Columns without any effect are left out."""
    return {
        heading: [pick(toggle) for toggle in toggles]
        for heading, pick in _COLUMNS.items()
        if any(pick(toggle) is not None for toggle in toggles)
    }


def figure(effect: Effect | None, rule: StarRule) -> str:
    """`0.80 ±3 %*`: a ratio, half of its interval, and a star if `rule` applies."""
    if effect is None:
        return "-"
    ratio = _ratio(effect.log_ratio)
    if effect.interval is None or effect.p is None:
        return f"{ratio} (one pair)"
    half = (effect.interval.high - effect.interval.low) / 2
    star = "*" if rule.applies(effect) else ""
    percents = 100 * math.expm1(min(half, MAX_LOG_RATIO))
    shown = f"{percents:.1f}" if percents < 9.95 else f"{percents:.0f}"
    if percents >= 100 * MAX_HALF_WIDTH:
        # Such an interval shows nothing, so its digits would only widen the table.
        shown = ">99"
    return f"{ratio} ±{shown} %{star}"


def _ratio(log_ratio: float) -> str:
    value = math.exp(min(log_ratio, MAX_LOG_RATIO))
    return f"{value:.3f}" if 0.0995 <= value < 10 else f"{value:.3g}"


# -- pairs of toggles


def _pairs(found: Attribution, rule: StarRule) -> Iterator[str]:
    """The strongest interactions, those with a star first."""
    ranked = sorted(found.interactions, key=lambda pair: not rule.applies(pair.change))
    for pair in ranked[:MAX_PAIRS]:
        yield f"{_name(pair)}: {figure(pair.change, rule)}{_conditional(found, pair)}"
    rest = ranked[MAX_PAIRS:]
    if rest:
        starred = sum(rule.applies(pair.change) for pair in rest)
        yield f"and {len(rest)} weaker, {starred or 'none'} of them with a star."


def _name(interaction: Interaction) -> str:
    names = (f"{for_terminal(a, 24)} x {for_terminal(b, 24)}" for a, b in interaction.pairs)
    joint = " (one figure: this design cannot separate them)" if _is_joint(interaction) else ""
    return " + ".join(names) + joint


def _is_joint(interaction: Interaction) -> bool:
    """Whether one figure belongs to several pairs of toggles."""
    return len(interaction.pairs) > 1


def _conditional(found: Attribution, interaction: Interaction) -> str:
    """The effect of the stronger toggle with the other one off and on."""
    if not interaction.conditional:
        return ""
    sizes = {one.toggle: abs(one.mean.log_ratio) for one in found.toggles if one.mean}
    effect = max(interaction.conditional, key=lambda one: sizes.get(one.toggle, 0.0))
    toggle, other = for_terminal(effect.toggle, 24), for_terminal(effect.given, 24)
    off, on = _change(effect.off), _change(effect.on)
    return f"; {toggle} gives {off} with {other} off, {on} with it on"


def _change(effect: Effect) -> str:
    """`-20 % [-22 -18]`."""
    middle = f"{signed(effect.log_ratio)} %"
    if effect.interval is None:
        return middle
    return f"{middle} [{signed(effect.interval.low)} {signed(effect.interval.high)}]"


# -- all toggles on, and the product of single effects


def compared_with_all_on(found: Attribution, better: Better, rule: StarRule) -> Iterator[str]:
    """Sentences that compare the product of single effects with the effect of all toggles."""
    whole = found.whole
    if whole is None:
        if len(found.toggles) > 1:
            yield "The contrast of all toggles on was not measured, so there is nothing to compare."
        return
    yield f"All on: {figure(whole.measured, rule)}."
    if whole.alone is not None:
        product = _product(whole.alone, rule, _joint_effect(whole.alone, better))
        yield f"Each alone, multiplied: {product}"
    if whole.mean is not None and whole.mean.gap is not None:
        higher_order = "three or more toggles together cause the difference"
        yield f"Mean effects, multiplied: {_product(whole.mean, rule, higher_order)}"


def _product(parts: EffectSum, rule: StarRule, explanation: str) -> str:
    """A product of effects and whether it agrees with all on; if it does not, `explanation`."""
    product = figure(parts.total, rule)
    gap = parts.gap
    if gap is None or gap.interval is None:
        return f"{product}."
    compared = f"{product}; all on is {figure(gap, rule)} of that: "
    if gap.interval.low <= 0 <= gap.interval.high:
        narrow = gap.interval.high - gap.interval.low <= 2 * math.log1p(MAX_AGREEMENT)
        agree = "they agree within the interval" if narrow else "the interval is too wide to tell"
        return f"{compared}{agree}."
    if abs(gap.log_ratio) < rule.min_size:
        return f"{compared}the difference is too small to count."
    return f"{compared}{explanation}."


def _joint_effect(parts: EffectSum, better: Better) -> str:
    worse = parts.gap is not None and (parts.gap.log_ratio > 0) == (better == "lower")
    amount = "less" if worse else "more"
    return f"the toggles give {amount} together than each alone"


# -- notes


def untrusted(found: Attributions) -> list[str]:
    """A sentence on the metrics that are left out because their A/A sides differ."""
    names = ", ".join(f"{name} {metric}" for name, metric in found.untrusted[:MAX_PAIRS])
    more = _and_more(found.untrusted)
    return [f"Left out, because the A/A sides differ: {names}{more}."] if names else []


def notes(attributions: Attributions) -> list[str]:
    """Sentences on how to read the figures."""
    sentences = untrusted(attributions)
    sentences += ["Ratios are on to off, with half of the 95 % interval of each single ratio."]
    if attributions.family:
        sentences[-1] += (
            f" * marks an effect that is significant among all {attributions.family} effects of "
            "this run (Holm, 5 %) and large enough to count."
        )
    found = attributions.found
    if any(attribution.looks > 1 for attribution in found):
        sentences.append("Intervals are wider because the run could have stopped at several looks.")
    if any(_is_joint(pair) for attribution in found for pair in attribution.interactions):
        sentences.append(
            "This design separates single toggles from pairs, but not from three toggles that act "
            "together; --design factorial separates the pairs."
        )
    return sentences
