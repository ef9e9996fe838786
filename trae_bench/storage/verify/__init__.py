"""Checks that a run file is consistent: everything that follows from its samples is recomputed.

A run file comes from somebody with an interest in the result. `verify` compares its cells with
those that its header generates, its samples with the plan and with what is physically possible,
and its conclusions with those that the samples give. `UNDETECTABLE` lists what no check finds.
"""

from datetime import UTC, datetime
from itertools import islice

from trae_bench.model.run import Header, RunFile
from trae_bench.storage.verify.conclusion_checks import CONCLUSION_CHECKS
from trae_bench.storage.verify.head_run_checks import check_head_runs
from trae_bench.storage.verify.header_checks import (
    check_cells,
    check_dates,
    check_definitions,
    check_seal,
)
from trae_bench.storage.verify.inconsistency import Inconsistencies, Inconsistency
from trae_bench.storage.verify.sample_checks import SAMPLE_CHECKS

__all__ = ["MAX_PER_CHECK", "UNDETECTABLE", "Inconsistency", "origin", "verify"]

UNDETECTABLE = (
    "samples that were invented, all consistent with each other, seal included",
    "the best of several runs, or pairs removed from the end of a run that was interrupted",
    "comparisons that were planned and measured, and removed together with their plan",
    "whether the machine, the commit and the scenario were those that the file names",
)
"""What no check of the file alone can detect. Measure again to find out."""

MAX_PER_CHECK = 5
"""Inconsistencies of one check that are listed; the rest is counted."""


def verify(run: RunFile, *, now: datetime | None = None) -> list[Inconsistency]:
    """All inconsistencies of a run, contradictions first; empty for a consistent file."""
    # Generators: a check computes only what is listed or counted.
    checks = (
        check_seal(run),
        check_dates(run, now or datetime.now(UTC)),
        check_definitions(run),
        check_cells(run.header),
        *(check(run) for check in (*SAMPLE_CHECKS, check_head_runs, *CONCLUSION_CHECKS)),
    )
    found = [each for check in checks for each in _capped(check)]
    return sorted(found, key=lambda each: each.severity != "wrong")


def _capped(found: Inconsistencies) -> Inconsistencies:
    yield from islice(found, MAX_PER_CHECK)
    # Counted and not kept: a hostile file can have a million of them.
    wrong = odd = 0
    for each in found:
        wrong += each.severity == "wrong"
        odd += each.severity == "odd"
    if wrong or odd:
        yield Inconsistency(
            "wrong" if wrong else "odd", "and more", f"{wrong + odd:,} from the same check"
        )


def origin(run: RunFile) -> tuple[str, ...]:
    """Where the figures come from, according to the file: time, commit, machine, versions."""
    header = run.header
    commit = header.code.get("commit") or "unknown"
    state = {
        "True": ", with uncommitted changes",
        "False": ", without uncommitted changes",
    }.get(str(header.code.get("dirty")), ", unknown whether with uncommitted changes")
    facts = header.machine
    known = [str(facts[name]) for name in ("cpu", "system", "kernel") if facts.get(name)]
    if facts.get("cores"):
        known.insert(1, f"{facts['cores']} cores")
    if facts.get("virtual"):
        known.append("virtual")
    return (
        f"measured: {header.created}, stopped: {run.stopped}",
        f"commit: {commit}{state}",
        *_revisions(header),
        f"machine: {', '.join(known) or 'unknown'}",
        f"versions: trae-bench {header.versions.get('trae-bench', 'unknown')}, "
        f"python {facts.get('python', 'unknown')}",
    )


def _revisions(header: Header) -> tuple[str, ...]:
    if (pair := header.revisions) is None:
        return ()
    state = ", with uncommitted changes" if pair.head.modified else ""
    return (
        f"base: {pair.base.commit} ({pair.requested})",
        f"head: {pair.head.commit}{state}",
        *(f"new, the base cannot run it: {name}" for name in pair.new),
    )
