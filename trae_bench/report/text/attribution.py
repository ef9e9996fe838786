"""Whose doing a change is, in words and figures for a terminal of 80 columns.

A ratio stands with half of its interval: `0.80 ±3 %` is from 0.80 / 1.03 to 0.80 x 1.03.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from trae_bench.design.contrasts import is_fixed
from trae_bench.model.experiment import Better, Metric
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.listing import TABLE, count
from trae_bench.report.text.terminal import percent, signed
from trae_bench.stats.analysis import Attributions, attributions
from trae_bench.stats.attribution import (
    Attribution,
    Conditional,
    Effect,
    EffectSum,
    Interaction,
    ToggleEffects,
)
from trae_bench.stats.decision import MAX_LOG_RATIO
from trae_bench.verdicts.caveats import MAX_NOTE

MAX_HALF = 0.995
"""Half of an interval (a fraction) that is still told in figures."""

MIN_SURE = 0.10
"""Half of an interval (a fraction) from which on agreement within it says nothing."""

MAX_PAIRS = 6
"""Pairs of toggles that are told of each metric; JSON has them all."""

_COLUMNS: Mapping[str, Callable[[ToggleEffects], Effect | None]] = {
    "alone": lambda toggle: toggle.alone,
    "others on": lambda toggle: toggle.last,
    "on/alone": lambda toggle: toggle.change,
    "on average": lambda toggle: toggle.mean,
}


def of_run(run: RunFile) -> Attributions:
    """Worked out from the samples of a run."""
    header = run.header
    return attributions(
        run.samples,
        header.cells,
        header.metrics,
        fixed=is_fixed(header.design),
        max_pairs=header.limits.pairs,
    )


def text(found: Attributions, metrics: Mapping[str, Metric], *, width: int = 80) -> str:
    """All attributions of a run, and how to read them."""
    if not found.found:
        why = "; ".join(untrusted(found)) or "no toggle was compared on any metric."
        return _wrapped(f"Nothing to attribute: {for_terminal(why, MAX_NOTE)}", width, "", "")
    blocks = [
        "\n".join(_block(each, metrics[each.metric].better, found.limit, width))
        for each in found.found
    ]
    return "\n\n".join([*blocks, "\n".join(_reading(found, width))])


class Bar(NamedTuple):
    """What an effect must reach to get a star."""

    p: float
    """At most."""
    size: float
    """At least, on the log scale."""

    def reached(self, effect: Effect) -> bool:
        return effect.p is not None and effect.p <= self.p and abs(effect.log_ratio) >= self.size


def bar_of(found: Attribution, limit: float) -> Bar:
    """`limit` is that of all attributions of the run."""
    return Bar(limit, math.log1p(found.threshold))


def _block(found: Attribution, better: Better, limit: float, width: int) -> Iterator[str]:
    bar = bar_of(found, limit)
    name = f"{for_terminal(found.scenario, 40)} / {for_terminal(found.metric, 40)}"
    yield _wrapped(f"{name}  ({about(found, better)})", width, "")
    yield from _table(found.toggles, bar, max(width, TABLE))
    for line in (*_pairs(found, bar), *against_the_whole(found, better, bar)):
        yield _wrapped(line, width)
    if found.missing:
        names = ", ".join(for_terminal(name, 60) for name in found.missing[:MAX_PAIRS])
        more = len(found.missing) - MAX_PAIRS
        left = f"Without a ratio, so left out: {names}{f' and {more} more' if more > 0 else ''}."
        yield _wrapped(left, width)


def about(found: Attribution, better: Better) -> str:
    """On how many pairs it rests, and what counts."""
    fewest, most = found.pairs
    pairs = count(most, "pair") if fewest == most else f"{fewest} to {most} pairs"
    counts = f"counts from {percent(found.threshold)}" if found.threshold else "any change counts"
    return f"{pairs} a contrast; {better} is better; {counts}"


def _wrapped(line: str, width: int, first: str = " ", later: str = "   ") -> str:
    """Wrapped, but never between a figure and its percent sign."""
    kept = line.replace(" %", "\xa0%")
    filled = textwrap.fill(kept, width, initial_indent=first, subsequent_indent=later)
    return filled.replace("\xa0", " ")


# One toggle a line


def _table(toggles: Sequence[ToggleEffects], bar: Bar, width: int) -> Iterator[str]:
    """Names get what the figures leave."""
    shown = columns_of(toggles)
    cells = [[figure(effect, bar) for effect in column] for column in shown.values()]
    columns = [[title, *of_toggles] for title, of_toggles in zip(shown, cells, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    spare = max(8, width - 1 - sum(2 + each for each in widths))
    names = ["toggle", *(for_terminal(toggle.toggle)[:spare] for toggle in toggles)]
    size = max(map(len, names))
    for number, name in enumerate(names):
        figures = (column[number].ljust(w) for column, w in zip(columns, widths, strict=True))
        yield f" {name.ljust(size)}  {'  '.join(figures)}".rstrip()


def columns_of(toggles: Sequence[ToggleEffects]) -> dict[str, list[Effect | None]]:
    """By their titles; those that no toggle has an entry in are left out."""
    return {
        title: [pick(toggle) for toggle in toggles]
        for title, pick in _COLUMNS.items()
        if any(pick(toggle) is not None for toggle in toggles)
    }


def figure(effect: Effect | None, bar: Bar) -> str:
    """`0.80 ±3 %*`; the star is for what stands among all that was asked."""
    if effect is None:
        return "-"
    ratio = _ratio(effect.log_ratio)
    if effect.interval is None or effect.p is None:
        return f"{ratio} (one pair)"
    half = (effect.interval.high - effect.interval.low) / 2
    star = "*" if bar.reached(effect) else ""
    wide = math.expm1(min(half, MAX_LOG_RATIO))
    # Beyond that nothing is known, and a table need not be wide to say so.
    return f"{ratio} ±{_tenths(100 * wide) if wide < MAX_HALF else '>99'} %{star}"


def _ratio(log_ratio: float) -> str:
    value = math.exp(min(log_ratio, MAX_LOG_RATIO))
    return f"{value:.3f}" if 0.0995 <= value < 10 else f"{value:.3g}"


def _tenths(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


# Pairs of toggles


def _pairs(found: Attribution, bar: Bar) -> Iterator[str]:
    """The strongest ones, those that stand before the others."""
    ranked = sorted(found.interactions, key=lambda each: not bar.reached(each.change))
    for each in ranked[:MAX_PAIRS]:
        yield f"{_name(each)}: {figure(each.change, bar)}{_given(found, each)}"
    rest = ranked[MAX_PAIRS:]
    if rest:
        stand = sum(bar.reached(each.change) for each in rest)
        yield f"and {len(rest)} weaker, {stand or 'none'} of them with a star."


def _name(interaction: Interaction) -> str:
    named = (f"{for_terminal(a, 24)} x {for_terminal(b, 24)}" for a, b in interaction.pairs)
    told = " + ".join(named)
    return f"{told} (one figure: they cannot be told apart)" if len(interaction.pairs) > 1 else told


def _given(found: Attribution, interaction: Interaction) -> str:
    """What the stronger of the two gives without and with the other."""
    if not interaction.conditional:
        return ""
    means = {each.toggle: abs(each.mean.log_ratio) if each.mean else 0.0 for each in found.toggles}
    told: Conditional = max(interaction.conditional, key=lambda each: means.get(each.toggle, 0.0))
    one, other = for_terminal(told.toggle, 24), for_terminal(told.given, 24)
    return f"; {one} gives {_change(told.off)} without {other}, {_change(told.on)} once it is on"


def _change(effect: Effect) -> str:
    """`-20 % [-22 -18]`."""
    middle = f"{signed(effect.log_ratio)} %"
    if effect.interval is None:
        return middle
    return f"{middle} [{signed(effect.interval.low)} {signed(effect.interval.high)}]"


# The whole and its parts


def against_the_whole(found: Attribution, better: Better, bar: Bar) -> Iterator[str]:
    """Sentences on whether the parts give the whole."""
    whole = found.whole
    if whole is None:
        if len(found.toggles) > 1:
            yield "All on against none was not measured, so the parts have no whole to be held to."
        return
    yield f"All on: {figure(whole.measured, bar)}."
    if whole.alone is not None:
        yield f"Each alone, multiplied: {_held(whole.alone, bar, _meddling(whole.alone, better))}"
    if whole.mean is not None and whole.mean.gap is not None:
        together = "what is missing comes from three or more toggles together"
        yield f"Mean effects, multiplied: {_held(whole.mean, bar, together)}"


def _held(parts: EffectSum, bar: Bar, otherwise: str) -> str:
    """A product beside the whole: they agree within the interval, or what is missing."""
    told = figure(parts.total, bar)
    gap = parts.gap
    if gap is None or gap.interval is None:
        return f"{told}."
    beside = f"{told}; the whole is {figure(gap, bar)} of that: "
    if gap.interval.low <= 0 <= gap.interval.high:
        narrow = gap.interval.high - gap.interval.low <= 2 * math.log1p(MIN_SURE)
        agree = "they agree within the interval" if narrow else "too wide an interval to tell more"
        return f"{beside}{agree}."
    if abs(gap.log_ratio) < bar.size:
        return f"{beside}what is missing is too small to count."
    return f"{beside}{otherwise}."


def _meddling(parts: EffectSum, better: Better) -> str:
    worse = parts.gap is not None and (parts.gap.log_ratio > 0) == (better == "lower")
    return "together they give less than apart" if worse else "together they give more than apart"


# How to read it


def _reading(found: Attributions, width: int) -> Iterator[str]:
    for note in notes(found):
        yield _wrapped(for_terminal(note, MAX_NOTE), width, "", "")


def untrusted(found: Attributions) -> list[str]:
    """What is left out because no figure of it could be trusted, in a sentence if any is."""
    names = ", ".join(f"{name} {metric}" for name, metric in found.untrusted[:MAX_PAIRS])
    more = len(found.untrusted) - MAX_PAIRS
    told = f"{names}{f' and {more} more' if more > 0 else ''}"
    return [f"Left out, for equal sides do not come out equal: {told}."] if names else []


def notes(found: Attributions) -> list[str]:
    """Sentences on what the figures mean."""
    each = found.found
    told = untrusted(found)
    told += ["Ratios of on to off with half of their 95 % interval, each taken for itself."]
    if found.family:
        told[-1] += (
            f" * counts, and stands when all {found.family} effects of this run are asked at once "
            "(Holm, 5 %)."
        )
    if any(one.looks > 1 for one in each):
        told.append("Intervals are wider for the looks at which the run could have stopped.")
    if any(len(pair.pairs) > 1 for one in each for pair in one.interactions):
        told.append(
            "This design keeps single toggles clear of pairs, but not of three toggles that act "
            "together; --design factorial tells the pairs apart."
        )
    return told
