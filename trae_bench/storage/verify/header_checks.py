"""Checks of a run file's header: seal, dates, definitions and planned cells."""

from datetime import UTC, datetime, timedelta

from trae_bench.design.plan import contrast_count, plan_size, planned_cells
from trae_bench.errors import UsageError
from trae_bench.metrics import METRICS, metrics_for_host
from trae_bench.model.experiment import Cell
from trae_bench.model.run import Header, RunFile, agent_names
from trae_bench.stats.decision import RULES
from trae_bench.storage.bounds import MAX_MATCHES, MAX_PLANNED, MAX_WILDCARDS
from trae_bench.storage.seal import seal_fits
from trae_bench.storage.verify.inconsistency import Inconsistencies, odd, wrong

FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
CLOCKS_DIFFER = timedelta(days=1)
WILDCARDS = frozenset("*?[")


def check_seal(run: RunFile) -> Inconsistencies:
    if not run.seal:
        yield wrong("seal", "missing: not written by trae-bench, or removed")
    elif not seal_fits(run):
        yield wrong("seal", "does not match: something was changed after the run")


def check_dates(run: RunFile, today: datetime) -> Inconsistencies:
    last = FIRST_DAY
    parts = [("header.created", run.header.created)]
    parts += [(f"resumed[{n}].created", one.created) for n, one in enumerate(run.resumed)]
    for place, text in parts:
        date = _date(text)
        if date is None:
            yield wrong(place, f"{text!r} is not a time with a time zone")
        elif date > today + CLOCKS_DIFFER:
            yield wrong(place, f"{text} is in the future")
        elif date < last:
            # Between two parts a clock may be set back, by hours.
            set_back = last != FIRST_DAY and last - date < CLOCKS_DIFFER
            report = odd if set_back else wrong
            yield report(place, f"{text} is before {last.isoformat()}")
        else:
            last = date


def _date(text: str) -> datetime | None:
    try:
        date = datetime.fromisoformat(text)
        return date.astimezone(UTC) if date.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def check_definitions(run: RunFile) -> Inconsistencies:
    """Metrics and rules are those of this release; otherwise verdicts are not comparable."""
    # A machine that cannot pin processes measures in serial pairs what duets are for.
    as_taken = metrics_for_host(pinned=bool(run.header.machine.get("cores_usable")))
    for name, metric in run.header.metrics.items():
        place = f"header.metrics[{name!r}]"
        known = METRICS.get(name)
        if known is None:
            yield odd(place, "this release has no such metric")
            continue
        if metric.mode == as_taken[name].mode:
            known = as_taken[name]
        for field in ("name", "unit", "better", "mode", "probe"):
            here, there = getattr(known, field), getattr(metric, field)
            if here != there:
                yield wrong(place, f"{field} is {there!r}, in this release {here!r}")
        if metric.threshold is not None:
            yield odd(place, f"only effects from {metric.threshold:g} on got a verdict")
    for mode in sorted({m.mode for m in run.header.metrics.values()} - run.header.rules.keys()):
        yield wrong("header.rules", f"there is none for {mode} metrics")
    for mode, rule in run.header.rules.items():
        if rule != RULES[mode]:
            problem = "not the rule of this release, so verdicts cannot be recomputed"
            yield wrong(f"header.rules[{mode!r}]", f"{rule.name} is {problem}")


def check_cells(header: Header) -> Inconsistencies:
    """The cells are those that the rest of the header generates."""
    try:
        if (problem := _too_large(header)) is not None:
            yield wrong("header", f"generates a plan that is too large: {problem}")
            return
        expected = planned_cells(
            header.scenarios,
            header.metrics,
            header.limits,
            design=header.design,
            filters=header.filters,
            revisions=header.revisions,
            agents=agent_names(header),
            suggest=False,
        )
    except UsageError as error:
        yield wrong("header", f"generates no plan: {error}")
        return
    if len(expected) != len(header.cells):
        problem = f"{len(header.cells)} cells, the header generates {len(expected)}"
        yield wrong("header.cells", problem)
    for number, (cell, planned) in enumerate(zip(header.cells, expected, strict=False)):
        if cell != planned:
            problem = f"is {_described(cell)}, the header generates {_described(planned)}"
            yield wrong(f"header.cells[{number}]", problem)


def _too_large(header: Header) -> str | None:
    """Why this plan takes too long to generate: a few bytes can ask for 2^100 contrasts.

    Raises `UsageError` for an unknown design.
    """
    if (
        plan_size(header.scenarios, header.design, header.revisions, agent_names(header))
        > MAX_PLANNED
    ):
        return f"contrasts, toggles and metrics multiply to more than {MAX_PLANNED:,}"
    patterns = [pattern for pattern in header.filters if not WILDCARDS.isdisjoint(pattern)]
    if sum(map(len, patterns)) > MAX_WILDCARDS:
        return f"its filters have more than {MAX_WILDCARDS:,} characters"
    rows = sum(
        contrast_count(used, header.design, header.revisions, agent_names(header))
        * len(used.metrics)
        for used in header.scenarios.values()
    )
    if len(patterns) * rows > MAX_MATCHES:
        return f"{len(patterns):,} patterns for {rows:,} comparisons"
    return None


def _described(cell: Cell) -> str:
    a, b = cell.contrast.a, cell.contrast.b
    sides = f"{a.name} against {b.name}" if a.name != b.name else f"{a.name} with {b.toggles}"
    confirms = f", confirming {cell.confirms}" if cell.confirms else ""
    return (
        f"{cell.scenario}/{cell.contrast.name} ({cell.mode}, {cell.probe}; {sides}; "
        f"{', '.join(cell.metrics)}{confirms})"
    )
