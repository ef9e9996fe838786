"""Baselines: one run file for each set of scenarios and kind of machine, kept in the repository.

They lie in `results/baselines/<kind of machine>/<scenarios>.json`. A later run is compared with
one of them by `run --compare FILE`, or `compare` (`across.py`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from trae_bench._util.host_facts import kind_of, slug
from trae_bench.errors import BadRunFile
from trae_bench.model.presets import is_claimed
from trae_bench.model.run import RunFile
from trae_bench.storage.run_file import read_run, read_sealed, write_run
from trae_bench.storage.verify import verify

SHELF = "baselines"
"""Folder below the results."""


class Baseline(Struct, frozen=True):
    """One that is kept."""

    path: str
    fits: bool
    """It is of this kind of machine."""
    created: str = ""
    commit: str = ""
    machine: str = ""
    """Kind of machine."""
    scenarios: tuple[str, ...] = ()
    problem: str = ""
    """Why it cannot be read; then the rest is empty."""


def read_base(path: Path, *, remedy: str = "give a run of toggles") -> RunFile:
    """A run file that can be compared with: sealed, and of toggles. Raises `BadRunFile`."""
    run = read_sealed(path)
    if run.header.revisions is not None:
        raise BadRunFile(
            f"{path}: compares two commits with each other, so there is no toggle ratio in it to "
            f"hold to another run's; {remedy}"
        )
    return run


def place(folder: Path, scenarios: Iterable[str], machine: Mapping[str, object]) -> Path:
    """Where the baseline of these scenarios is kept, for machines of this one's kind."""
    return folder / SHELF / kind_of(machine) / f"{slug('+'.join(sorted(scenarios)))}.json"


def keep(run_file: Path, folder: Path, *, force: bool = False) -> Path:
    """Make a run the baseline for its scenarios and kind of machine; the path of the copy.

    It takes the place of an older one. Raises `CannotMeasure`, without `force` also for a run that
    contradicts itself, compares two commits, was made from changes that are not committed, or is
    too short for verdicts.
    """
    run = read_run(run_file)
    if not force and (why := _unfit(run)):
        raise BadRunFile(f"{run_file}: {why}; to keep it all the same, give --force")
    path = place(folder, run.header.scenarios, run.header.machine)
    write_run(path, run, force=True, remedy="name another folder with --folder")
    return path


def kept(folder: Path, machine: Mapping[str, object]) -> list[Baseline]:
    """All of a folder, those of this machine's kind first."""
    found = [_baseline(path, kind_of(machine)) for path in (folder / SHELF).glob("*/*.json")]
    return sorted(found, key=lambda one: (not one.fits, one.path))


def _unfit(run: RunFile) -> str:
    """Why a run is no baseline; empty where it is one."""
    wrong = [finding for finding in verify(run) if finding.severity == "wrong"]
    if wrong:
        return f"contradicts itself ({wrong[0].place}: {wrong[0].problem})"
    if run.header.revisions is not None:
        return "compares two commits with each other; give a run of toggles"
    if run.header.code.get("dirty") is True:
        return "was made from changes that are not committed; commit them and run again"
    if not is_claimed(run.header):
        return "is too short for verdicts; run again with --profile quick"
    return ""


def _baseline(path: Path, here: str) -> Baseline:
    fits = path.parent.name == here
    try:
        run = read_run(path)
    except BadRunFile as error:
        return Baseline(str(path), fits, problem=str(error))
    header = run.header
    return Baseline(
        path=str(path),
        fits=fits,
        created=header.created,
        commit=str(header.code.get("commit") or ""),
        machine=kind_of(header.machine),
        scenarios=tuple(sorted(header.scenarios)),
    )
