"""Attribution of a change to toggles: single effects, their product, and interactions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, count, pairwise
from typing import NamedTuple

from trae_bench.model.experiment import Better
from trae_bench.model.run import RunFile
from trae_bench.report.html import svg
from trae_bench.report.html.source import OPEN, Source
from trae_bench.report.text import attribution
from trae_bench.report.text.attribution import StarRule, figure
from trae_bench.report.text.terminal import side_names
from trae_bench.stats.attribution import Attribution, Effect, EffectSum, ToggleEffects
from trae_bench.stats.pairs import OFF_ON

MAX_SHARES = 60
"""Maximum tables of a run, one for each metric of a scenario."""
MAX_TOGGLES = 32
"""Maximum toggles in a table; a design of more toggles needs too many runs."""


class Step(NamedTuple):
    """A line: a toggle and its effects, or a total."""

    name: str
    figures: list[str]
    bar: svg.Svg | None
    kind: str
    total: bool = False


class Matrix(NamedTuple):
    """The interaction of each pair of toggles."""

    toggles: Sequence[str]
    rows: list[tuple[str, list[tuple[str, str]]]]
    """A toggle; for each other toggle the figure and its CSS class, empty below the diagonal."""
    shared: list[str]
    """Pairs that share one figure, with its number."""


class Share(NamedTuple):
    """One metric of one scenario. Its texts are unescaped; the template escapes them."""

    found: Attribution
    about: str
    columns: list[str]
    route: str
    """The column of effects that are multiplied; empty if the design has no product."""
    axis: svg.Svg | None
    steps: list[Step]
    sentences: list[str]
    matrix: Matrix | None


class Shares(NamedTuple):
    """The attribution that the design of a run allows."""

    shares: list[Share]
    notes: list[str]
    """How to read the tables, or why there are none."""


def shares(source: Source) -> Shares:
    found = attribution.of_run(source.run)
    shown = [metric for metric in found.found if _adds_information(metric)]
    if not shown:
        return Shares([], [_why_none(source.run)])
    metrics = source.run.header.metrics
    notes = attribution.notes(found)
    if len(shown) > MAX_SHARES:
        notes.append(f"trae-bench effects shows {len(shown) - MAX_SHARES} more.")
    kept = shown[:MAX_SHARES]
    return Shares([_share(one, metrics[one.metric].better, found.limit) for one in kept], notes)


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


def _share(found: Attribution, better: Better, limit: float) -> Share:
    rule = attribution.star_rule(found, limit)
    toggles = sorted(found.toggles, key=_size, reverse=True)[:MAX_TOGGLES]
    columns = attribution.columns_of(toggles)
    route = _route(found, toggles)
    return Share(
        found,
        about=attribution.about(found, better),
        columns=list(columns),
        route=route.name if route else "",
        axis=svg.axis(route.scale) if route else None,
        steps=list(_steps(toggles, columns, route, better, rule)),
        sentences=list(attribution.compared_with_all_on(found, better, rule)),
        matrix=_matrix(found, [toggle.toggle for toggle in toggles], better, rule),
    )


def _size(toggle: ToggleEffects) -> float:
    return max((abs(e.log_ratio) for e in (toggle.alone, toggle.mean) if e), default=0.0)


# -- steps to all toggles on ------------------------------------------------------------


class _Route(NamedTuple):
    """From no toggle on to all toggles on, one toggle after the other."""

    name: str
    effects: list[Effect | None]
    parts: EffectSum
    whole: Effect

    @property
    def ends(self) -> list[tuple[float, float]]:
        """The running product before and after each toggle, on the log scale."""
        logs = (effect.log_ratio if effect else 0.0 for effect in self.effects)
        return list(pairwise(accumulate(logs, initial=0.0)))

    @property
    def scale(self) -> svg.Scale:
        return svg.step_scale([self.whole.log_ratio, *(end for _, end in self.ends)])


def _route(found: Attribution, toggles: Sequence[ToggleEffects]) -> _Route | None:
    """By single effects if they are known, because they show interactions best; else by means."""
    whole = found.whole
    if whole is None or len(toggles) < len(found.toggles):
        return None
    if whole.alone is not None:
        return _Route("alone", [one.alone for one in toggles], whole.alone, whole.measured)
    if whole.mean is not None:
        return _Route("on average", [one.mean for one in toggles], whole.mean, whole.measured)
    return None


def _steps(
    toggles: Sequence[ToggleEffects],
    columns: Mapping[str, Sequence[Effect | None]],
    route: _Route | None,
    better: Better,
    rule: StarRule,
) -> Iterator[Step]:
    for number, toggle in enumerate(toggles):
        figures = [figure(column[number], rule) for column in columns.values()]
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
        figures = [figure(effect, rule) if c == route.name else "" for c in columns]
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
    # A number for each figure that several pairs share.
    numbers = count(1)
    marks = [f" ({next(numbers)})" if len(one.pairs) > 1 else "" for one in found.interactions]
    cells = {
        frozenset(pair): (f"{figure(joint.change, rule)}{mark}", _kind(joint.change, better, rule))
        for joint, mark in zip(found.interactions, marks, strict=True)
        for pair in joint.pairs
    }
    rows = []
    for number, toggle in enumerate(toggles[:-1]):
        others = toggles[number + 1 :]
        later = [cells.get(frozenset((toggle, other)), ("-", OPEN)) for other in others]
        rows.append((toggle, [("", "")] * number + later))
    shared = [
        f"{mark.strip()} {' + '.join(f'{a} x {b}' for a, b in joint.pairs)}"
        for joint, mark in zip(found.interactions, marks, strict=True)
        if mark
    ]
    return Matrix(toggles[1:], rows, shared)
