"""Attribution of a change to toggles: single effects, their product, and interactions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, count, pairwise

from msgspec import Struct

from trae_bench.model.experiment import Better
from trae_bench.model.run import RunFile
from trae_bench.report.html import svg
from trae_bench.report.html.source import OPEN, Source
from trae_bench.report.text import attribution
from trae_bench.report.text.attribution import StarRule, figure
from trae_bench.report.text.terminal import side_names
from trae_bench.stats.attribution import Attribution, Effect, EffectSum, Interaction, ToggleEffects
from trae_bench.stats.pairs import OFF_ON

MAX_SHARES = 60
"""Maximum tables of a run, one for each metric of a scenario."""
MAX_TOGGLES = 32
"""Maximum toggles in a table; a design of more toggles needs too many runs."""


class Step(Struct, frozen=True):
    """A line: a toggle and its effects, or a total."""

    name: str
    figures: tuple[str, ...]
    bar: svg.Svg | None
    kind: str
    total: bool = False


class Matrix(Struct, frozen=True):
    """The interaction of each pair of toggles."""

    toggles: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """A toggle; for each other toggle the figure and its CSS class, empty below the diagonal."""
    shared: tuple[str, ...]
    """Pairs that share one figure, with its number."""


class Share(Struct, frozen=True):
    """One metric of one scenario. Its texts are unescaped; the template escapes them."""

    scenario: str
    metric: str
    about: str
    columns: tuple[str, ...]
    route: str
    """The column of effects that are multiplied; empty if the design has no product."""
    axis: svg.Svg | None
    steps: tuple[Step, ...]
    sentences: tuple[str, ...]
    matrix: Matrix | None


class Shares(Struct, frozen=True):
    """The attribution that the design of a run allows."""

    shares: tuple[Share, ...]
    notes: tuple[str, ...]
    """How to read the tables, or why there are none."""


def shares(source: Source) -> Shares:
    found = attribution.of_run(source.run)
    shown = [metric for metric in found.found if _adds_information(metric)]
    if not shown:
        return Shares((), (_why_none(source.run),))
    metrics = source.run.header.metrics
    made = tuple(
        _share(metric, metrics[metric.metric].better, attribution.star_rule(metric, found.limit))
        for metric in shown[:MAX_SHARES]
    )
    notes = attribution.notes(found)
    if len(shown) > len(made):
        notes.append(f"trae-bench effects shows {len(shown) - len(made)} more.")
    return Shares(made, tuple(notes))


def _adds_information(found: Attribution) -> bool:
    """Whether there is more than the single effects, which the table of effects shows."""
    more = any(toggle.last or toggle.change for toggle in found.toggles)
    return bool(found.interactions or found.whole or more)


def _why_none(run: RunFile) -> str:
    if side_names(run) != OFF_ON:
        return "The run compares two revisions, not toggles."
    return (
        f"The design {run.header.design} compares each toggle alone; the table of effects shows "
        "that. For interactions of toggles and their joint effect, use --design both, fraction "
        "or factorial."
    )


def _share(found: Attribution, better: Better, rule: StarRule) -> Share:
    toggles = sorted(found.toggles, key=_size, reverse=True)[:MAX_TOGGLES]
    columns = attribution.columns_of(toggles)
    route = _route(found, toggles)
    return Share(
        scenario=found.scenario,
        metric=found.metric,
        about=attribution.about(found, better),
        columns=tuple(columns),
        route=route.name if route else "",
        axis=svg.axis(route.scale) if route else None,
        steps=tuple(_steps(toggles, columns, route, better, rule)),
        sentences=tuple(attribution.compared_with_all_on(found, better, rule)),
        matrix=_matrix(found, [toggle.toggle for toggle in toggles], better, rule),
    )


def _size(toggle: ToggleEffects) -> float:
    return max((abs(e.log_ratio) for e in (toggle.alone, toggle.mean) if e), default=0.0)


# -- steps to all toggles on ------------------------------------------------------------


class _Route(Struct, frozen=True):
    """From no toggle on to all toggles on, one toggle after the other."""

    name: str
    effects: tuple[Effect | None, ...]
    parts: EffectSum
    whole: Effect

    @property
    def ends(self) -> list[tuple[float, float]]:
        """The running product before and after each toggle, on the log scale."""
        logs = (effect.log_ratio if effect else 0.0 for effect in self.effects)
        sums = accumulate(logs, initial=0.0)
        return list(pairwise(sums))

    @property
    def scale(self) -> svg.Scale:
        return svg.step_scale([self.whole.log_ratio, *(end for _, end in self.ends)])


def _route(found: Attribution, toggles: Sequence[ToggleEffects]) -> _Route | None:
    """By single effects if they are known, because they show interactions best; else by means."""
    whole = found.whole
    if whole is None or len(toggles) < len(found.toggles):
        return None
    if whole.alone is not None:
        effects = tuple(toggle.alone for toggle in toggles)
        return _Route("alone", effects, whole.alone, whole.measured)
    if whole.mean is not None:
        effects = tuple(toggle.mean for toggle in toggles)
        return _Route("on average", effects, whole.mean, whole.measured)
    return None


def _steps(
    toggles: Sequence[ToggleEffects],
    columns: Mapping[str, Sequence[Effect | None]],
    route: _Route | None,
    better: Better,
    rule: StarRule,
) -> Iterator[Step]:
    for number, toggle in enumerate(toggles):
        figures = tuple(figure(column[number], rule) for column in columns.values())
        drawn = svg.step_bar(*route.ends[number], None, route.scale) if route else None
        effect = route.effects[number] if route else toggle.mean or toggle.alone or toggle.last
        yield Step(toggle.toggle, figures, drawn, _kind(effect, better, rule))
    if route:
        yield from _totals(route, list(columns), better, rule)


def _totals(
    route: _Route, columns: Sequence[str], better: Better, rule: StarRule
) -> Iterator[Step]:
    """The product, its gap, and the measured effect of all on, in the column of the route."""
    product, gap, whole = route.parts.total, route.parts.gap, route.whole
    rows = [("product of all", product, 0.0, product.log_ratio)]
    if gap is not None:
        rows.append(("gap", gap, product.log_ratio, whole.log_ratio))
    rows.append(("all on, measured", whole, 0.0, whole.log_ratio))
    for name, effect, start, end in rows:
        interval = effect.interval if effect is not gap else None
        drawn = svg.step_bar(start, end, interval, route.scale)
        figures = tuple(figure(effect, rule) if c == route.name else "" for c in columns)
        yield Step(name, figures, drawn, _kind(effect, better, rule), total=True)


def _kind(effect: Effect | None, better: Better, rule: StarRule) -> str:
    """The CSS class of an effect: a colour only if it has a star."""
    if effect is None or not rule.applies(effect):
        return OPEN
    return "improvement" if (effect.log_ratio < 0) == (better == "lower") else "regression"


# -- pairs of toggles -------------------------------------------------------------------


def _matrix(
    found: Attribution, toggles: Sequence[str], better: Better, rule: StarRule
) -> Matrix | None:
    if not found.interactions:
        return None
    marks = _numbers(found.interactions)
    cells = {
        frozenset(pair): (f"{figure(joint.change, rule)}{mark}", _kind(joint.change, better, rule))
        for joint, mark in zip(found.interactions, marks, strict=True)
        for pair in joint.pairs
    }
    rows = []
    for number, toggle in enumerate(toggles[:-1]):
        others = toggles[number + 1 :]
        later = [cells.get(frozenset((toggle, other)), ("-", OPEN)) for other in others]
        rows.append((toggle, (*[("", "")] * number, *later)))
    shared = tuple(
        f"{mark.strip()} {' + '.join(f'{a} x {b}' for a, b in joint.pairs)}"
        for joint, mark in zip(found.interactions, marks, strict=True)
        if mark
    )
    return Matrix(tuple(toggles[1:]), tuple(rows), shared)


def _numbers(interactions: Sequence[Interaction]) -> list[str]:
    """A number for each figure that several pairs share; empty for the others."""
    numbers = count(1)
    return [f" ({next(numbers)})" if len(one.pairs) > 1 else "" for one in interactions]
