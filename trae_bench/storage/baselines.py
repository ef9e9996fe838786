"""Baselines: one run file for each set of scenarios and kind of machine, in the repository.

They are stored as `results/baselines/<kind of machine>/<scenarios>.json`. `run --compare FILE`
and `compare` compare a later run with one of them.
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

FOLDER = "baselines"
"""Name of the folder, inside the results folder."""


class Baseline(Struct, frozen=True):
    """A stored baseline."""

    path: str
    fits: bool
    """It comes from this kind of machine."""
    created: str = ""
    commit: str = ""
    machine: str = ""
    """Kind of machine."""
    scenarios: tuple[str, ...] = ()
    problem: str = ""
    """Why it cannot be read. The other fields are then empty."""


def read_base(path: Path, *, remedy: str = "give a run of toggles") -> RunFile:
    """A run file that can be a baseline: sealed, and of toggles. Raises `BadRunFile`."""
    run = read_sealed(path)
    if run.header.revisions is not None:
        raise BadRunFile(
            f"{path}: it compares two commits, so it has no toggle ratios to compare; {remedy}"
        )
    return run


def place(folder: Path, scenarios: Iterable[str], machine: Mapping[str, object]) -> Path:
    """The path of the baseline of these scenarios for this kind of machine."""
    return folder / FOLDER / kind_of(machine) / f"{slug('+'.join(sorted(scenarios)))}.json"


def keep(run_file: Path, folder: Path, *, force: bool = False) -> Path:
    """Copy a run as the baseline of its scenarios and kind of machine; the path of the copy.

    It replaces an older baseline. Raises `CannotMeasure` if it cannot be written. Without `force`
    raises `BadRunFile` if the run is inconsistent, compares two commits, was made from uncommitted
    changes, or is too short for verdicts.
    """
    run = read_run(run_file)
    if not force and (why := _unfit(run)):
        raise BadRunFile(f"{run_file}: {why}; to use it anyway, give --force")
    path = place(folder, run.header.scenarios, run.header.machine)
    write_run(path, run, force=True, remedy="name another folder with --folder")
    return path


def kept(folder: Path, machine: Mapping[str, object]) -> list[Baseline]:
    """All baselines of a folder, those of this kind of machine first."""
    found = [_baseline(path, kind_of(machine)) for path in (folder / FOLDER).glob("*/*.json")]
    return sorted(found, key=lambda baseline: (not baseline.fits, baseline.path))


def _unfit(run: RunFile) -> str:
    """Why a run cannot be a baseline; empty if it can."""
    wrong = [finding for finding in verify(run) if finding.severity == "wrong"]
    if wrong:
        return f"it is inconsistent ({wrong[0].place}: {wrong[0].problem})"
    if run.header.revisions is not None:
        return "it compares two commits; give a run of toggles"
    if run.header.code.get("dirty") is True:
        return "it was made from uncommitted changes; commit them and run again"
    if not is_claimed(run.header):
        return "it is too short for verdicts; run again with --profile quick"
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
