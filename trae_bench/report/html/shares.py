"""Whose doing a change is: the steps to the whole, and what toggles make of each other."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, count, pairwise

from msgspec import Struct

from trae_bench.model.experiment import Better
from trae_bench.model.run import RunFile
from trae_bench.report.html import svg
from trae_bench.report.html.source import OPEN, Source
from trae_bench.report.text import attribution
from trae_bench.report.text.attribution import Bar, figure
from trae_bench.report.text.terminal import side_names
from trae_bench.stats.attribution import Attribution, Effect, EffectSum, Interaction, ToggleEffects
from trae_bench.stats.pairs import OFF_ON

MAX_SHARES = 60
"""Metrics of scenarios."""
MAX_TOGGLES = 32
"""In one table; a design of more has more runs than a day has minutes."""


class Step(Struct, frozen=True):
    """One line: a toggle and its effects, or what they come to."""

    name: str
    figures: tuple[str, ...]
    bar: svg.Svg | None
    kind: str
    total: bool = False


class Matrix(Struct, frozen=True):
    """What each pair of toggles makes of each other's effect."""

    toggles: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """Toggle; for each of the others the figure and its kind, both empty below the diagonal."""
    shared: tuple[str, ...]
    """Pairs that one figure stands for, under its number."""


class Share(Struct, frozen=True):
    """One metric of one scenario. Texts are as the file has them: a template escapes them."""

    scenario: str
    metric: str
    about: str
    columns: tuple[str, ...]
    route: str
    """Which effects are multiplied; empty where the design does not lead to the whole."""
    axis: svg.Svg | None
    steps: tuple[Step, ...]
    sentences: tuple[str, ...]
    matrix: Matrix | None


class Shares(Struct, frozen=True):
    """All that a run's design tells of it."""

    shares: tuple[Share, ...]
    notes: tuple[str, ...]
    """How to read it, or why there is nothing to read."""


def shares(source: Source) -> Shares:
    found = attribution.of_run(source.run)
    told = [each for each in found.found if _tells_more(each)]
    if not told:
        return Shares((), (_nothing(source.run),))
    metrics = source.run.header.metrics
    made = tuple(
        _share(each, metrics[each.metric].better, attribution.bar_of(each, found.limit))
        for each in told[:MAX_SHARES]
    )
    notes = attribution.notes(found)
    if len(told) > len(made):
        notes.append(f"{len(told) - len(made)} more are told by trae-bench effects.")
    return Shares(made, tuple(notes))


def _tells_more(found: Attribution) -> bool:
    """More than that each toggle alone does what the table says."""
    deeper = any(toggle.last or toggle.change for toggle in found.toggles)
    return bool(found.interactions or found.whole or deeper)


def _nothing(run: RunFile) -> str:
    if side_names(run) != OFF_ON:
        return "Two revisions were compared, no toggles."
    return (
        f"The design {run.header.design} compares each toggle by itself, as the table has it. "
        "What toggles make of each other, and whether they give the whole, is told by --design "
        "both, fraction and factorial."
    )


def _share(found: Attribution, better: Better, bar: Bar) -> Share:
    toggles = sorted(found.toggles, key=_size, reverse=True)[:MAX_TOGGLES]
    columns = attribution.columns_of(toggles)
    way = _way(found, toggles)
    return Share(
        scenario=found.scenario,
        metric=found.metric,
        about=attribution.about(found, better),
        columns=tuple(columns),
        route=way.name if way else "",
        axis=svg.axis(way.scale) if way else None,
        steps=tuple(_steps(toggles, columns, way, better, bar)),
        sentences=tuple(attribution.against_the_whole(found, better, bar)),
        matrix=_matrix(found, [toggle.toggle for toggle in toggles], better, bar),
    )


def _size(toggle: ToggleEffects) -> float:
    return max((abs(each.log_ratio) for each in (toggle.alone, toggle.mean) if each), default=0.0)


# -- steps to the whole -----------------------------------------------------------------


class _Way(Struct, frozen=True):
    """From none to all on, one toggle after the other."""

    name: str
    effects: tuple[Effect | None, ...]
    parts: EffectSum
    whole: Effect

    @property
    def ends(self) -> list[tuple[float, float]]:
        """The running product before and after each toggle, on the log scale."""
        sums = accumulate((each.log_ratio if each else 0.0 for each in self.effects), initial=0.0)
        return list(pairwise(sums))

    @property
    def scale(self) -> svg.Scale:
        return svg.step_scale([self.whole.log_ratio, *(end for _, end in self.ends)])


def _way(found: Attribution, toggles: Sequence[ToggleEffects]) -> _Way | None:
    """By each toggle alone where that is known, for it shows most of what toggles make of each
    other; else by their means."""
    whole = found.whole
    if whole is None or len(toggles) < len(found.toggles):
        return None
    if whole.alone is not None:
        return _Way("alone", tuple(each.alone for each in toggles), whole.alone, whole.measured)
    if whole.mean is not None:
        return _Way("on average", tuple(each.mean for each in toggles), whole.mean, whole.measured)
    return None


def _steps(
    toggles: Sequence[ToggleEffects],
    columns: Mapping[str, Sequence[Effect | None]],
    way: _Way | None,
    better: Better,
    bar: Bar,
) -> Iterator[Step]:
    for number, toggle in enumerate(toggles):
        figures = tuple(figure(column[number], bar) for column in columns.values())
        drawn = svg.step_bar(*way.ends[number], None, way.scale) if way else None
        effect = way.effects[number] if way else toggle.mean or toggle.alone or toggle.last
        yield Step(toggle.toggle, figures, drawn, _kind(effect, better, bar))
    if way:
        yield from _totals(way, list(columns), better, bar)


def _totals(way: _Way, columns: Sequence[str], better: Better, bar: Bar) -> Iterator[Step]:
    """The product, what it misses, and the whole as it was measured; in the column of the way."""
    product, gap, whole = way.parts.total, way.parts.gap, way.whole
    rows = [("all of them, multiplied", product, 0.0, product.log_ratio)]
    if gap is not None:
        rows.append(("what that misses", gap, product.log_ratio, whole.log_ratio))
    rows.append(("all on, measured", whole, 0.0, whole.log_ratio))
    for name, effect, start, end in rows:
        interval = effect.interval if effect is not gap else None
        drawn = svg.step_bar(start, end, interval, way.scale)
        figures = tuple(figure(effect, bar) if one == way.name else "" for one in columns)
        yield Step(name, figures, drawn, _kind(effect, better, bar), total=True)


def _kind(effect: Effect | None, better: Better, bar: Bar) -> str:
    """A colour only for what stands."""
    if effect is None or not bar.reached(effect):
        return OPEN
    return "improvement" if (effect.log_ratio < 0) == (better == "lower") else "regression"


# -- pairs of toggles -------------------------------------------------------------------


def _matrix(found: Attribution, toggles: Sequence[str], better: Better, bar: Bar) -> Matrix | None:
    if not found.interactions:
        return None
    marks = _numbers(found.interactions)
    cells = {
        frozenset(pair): (f"{figure(each.change, bar)}{mark}", _kind(each.change, better, bar))
        for each, mark in zip(found.interactions, marks, strict=True)
        for pair in each.pairs
    }
    rows = []
    for number, one in enumerate(toggles[:-1]):
        later = [cells.get(frozenset((one, other)), ("-", OPEN)) for other in toggles[number + 1 :]]
        rows.append((one, (*[("", "")] * number, *later)))
    shared = tuple(
        f"{mark.strip()} {' + '.join(f'{a} x {b}' for a, b in each.pairs)}"
        for each, mark in zip(found.interactions, marks, strict=True)
        if mark
    )
    return Matrix(tuple(toggles[1:]), tuple(rows), shared)


def _numbers(interactions: Sequence[Interaction]) -> list[str]:
    """A number for each figure that stands for more than one pair."""
    numbers = count(1)
    return [f" ({next(numbers)})" if len(each.pairs) > 1 else "" for each in interactions]
