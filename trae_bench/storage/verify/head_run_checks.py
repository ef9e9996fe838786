"""Checks of the runs that check the answers of head: against the plan, and that none is missing."""

from collections import Counter

from trae_bench.model.run import RunFile
from trae_bench.stats.head_runs import (
    AFTER_ONE,
    MAX_AGAIN,
    head_runs,
    is_check_of,
    is_decided,
    wanted_runs,
)
from trae_bench.storage.verify.inconsistency import Inconsistencies, wrong

MAX_SLOT = 1
"""At most two of these runs are made at once."""
SPARE = 2 * MAX_AGAIN
"""Runs of the base, and those of head beside them."""


def check_head_runs(run: RunFile) -> Inconsistencies:
    """Each run checks head in a scenario of the plan, after one of the base, and none is missing.

    Whether an answer was right is computed from the digests, by the gate.
    """
    header, checks = run.header, run.checks or ()
    wanted = wanted_runs(header.limits)
    if wanted and header.revisions is None:
        yield wrong("header.limits.checked", "is set, but no revisions are compared")
    found = head_runs(run.samples, checks, header.cells, header.limits)
    scenarios, bases = {runs.scenario for runs in found}, set[str]()
    for number, check in enumerate(checks):
        place = f"checks[{number}]"
        if not is_check_of(check, scenarios):
            yield wrong(place, "is not in the plan")
        if check.side == "A":
            bases.add(check.scenario)
        elif check.scenario not in bases:
            yield wrong(place, "head was checked before the base had run again")
        if check.slot > MAX_SLOT or check.metrics.keys() - {"wall"}:
            yield wrong(place, f"slot {check.slot}, metrics {', '.join(check.metrics)[:100]}")
    for scenario, count in Counter(check.scenario for check in checks).items():
        if count > AFTER_ONE * wanted + SPARE:
            yield wrong("checks", f"{count} of {scenario}, at most {AFTER_ONE * wanted} are needed")
    if run.stopped != "done" or is_decided(run.comparisons):
        return
    for runs in found:
        if runs.missing:
            problem = f"the run is done, but {runs.missing} runs of head were not checked"
            yield wrong(f"checks of {runs.scenario}", problem)
