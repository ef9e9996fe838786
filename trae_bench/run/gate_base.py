"""What a gate takes from its base revision: the settings, and the scenario files of the repository.

A change must not set its own pass mark. If head could raise a threshold or edit a scenario, it
would decide the result of its own gate.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from msgspec import Struct
from msgspec.structs import replace

from trae_bench.errors import ScenarioError, UsageError
from trae_bench.model.run import RunFile
from trae_bench.run.settings import FILE, Settings, load, load_texts
from trae_bench.scenario import Scenario, catalogue, parse, split
from trae_bench.scenario import load as load_scenario
from trae_bench.scenario.loader import text_of
from trae_bench.subject.agent_core import PACKAGE
from trae_bench.subject.agents.entry import JUDGED, AgentEntry
from trae_bench.subject.revisions import NAME_LENGTH, Repository

_MAX_VALUE = 200
"""Characters of a setting in a note."""


class GateBase(Struct, frozen=True):
    """The base revision of a gate."""

    repository: Repository
    commit: str
    requested: str
    """The base as the user named it."""
    settings: Settings = Settings()
    notes: tuple[str, ...] = ()
    """One sentence for each setting that head changes."""

    def text(self, name: str) -> str | None:
        """The text of the base's file; None if `name` is no file of the base."""
        place = _within(self.repository.top, Path(name))
        return None if place is None else self.repository.text(self.commit, place)

    def scenario(self, name: str) -> Scenario | None:
        """The base's scenario; None if `name` is no file of the base. Raises `ScenarioError`."""
        file, variant = split(name)
        place = _within(self.repository.top, Path(file)) if file.endswith(".toml") else None
        if place is None:
            return None
        with TemporaryDirectory(prefix="scenario-of-base-") as scratch:
            path = Path(scratch, place)
            self.repository.extract(self.commit, place, Path(scratch))
            if path.is_symlink():
                raise UsageError(f"{name} is a link in the base; name the file itself")
            if not path.is_file():
                return None
            try:
                folder = parse(text_of(path), str(path), variant).workspace.folder
                fixture = PurePosixPath(os.path.normpath(place.parent / folder))
                if folder and fixture != place.parent and fixture.is_relative_to(place.parent):
                    self.repository.extract(self.commit, fixture, Path(scratch))
                return load_scenario(path, variant)
            except ScenarioError as error:
                where = f"{self.commit[:NAME_LENGTH]}:"
                raise ScenarioError(str(error).replace(f"{scratch}/", where)) from error


def find_base(requested: str, folder: Path, package: str = PACKAGE) -> GateBase:
    """The base that the user names; empty stands for the merge base with the default branch.

    `package` is the subject; empty for an agent, whose subject is the whole repository. Raises
    `UsageError` if there is no such commit, or if the settings of either side are wrong.
    """
    repository = Repository.around(folder, package)
    head = load(folder)
    if requested:
        _require_commit(repository, requested)
        commit, name = repository.commit(requested), requested
    else:
        commit, branch = repository.merge_base(_default_branch(repository, folder, head))
        name = f"the merge base with {branch}"
    settings = settings_at(repository, commit, folder)
    return GateBase(repository, commit, name, settings, tuple(_changes(settings, head)))


def settings_of_run(stored: RunFile, head: Settings) -> tuple[Settings, tuple[str, ...]]:
    """The settings to compare a new run with a stored one, and a note for each that head changes.

    The thresholds are those of the stored run.
    """
    metrics = stored.header.metrics
    thresholds = {
        name: metric.threshold for name, metric in metrics.items() if metric.threshold is not None
    }
    own = {name: value for name, value in head.thresholds.items() if name in metrics}
    base, changed = replace(head, thresholds=thresholds), replace(head, thresholds=own)
    return base, tuple(_changes(base, changed))


def settings_at(repository: Repository, commit: str, folder: Path) -> Settings:
    """The settings of a commit for a folder, as `settings.load` finds them. Raises `UsageError`."""
    return load_texts(
        (f"{commit[:NAME_LENGTH]}:{path}", text)
        for path in _setting_files(repository, folder)
        if (text := repository.text(commit, path)) is not None
    )


def _setting_files(repository: Repository, folder: Path) -> Iterator[PurePosixPath]:
    inside = _within(repository.top, folder) or PurePosixPath()
    return (place / FILE for place in (inside, *inside.parents))


def _within(top: Path, path: Path) -> PurePosixPath | None:
    """A path relative to the repository; None if it is outside.

    The path as written comes first, so that a link in head cannot redirect it.
    """
    for absolute in (os.path.normpath(Path.cwd() / path), os.path.realpath(path)):
        if Path(absolute).is_relative_to(top):
            return PurePosixPath(Path(absolute).relative_to(top))
    return None


def _default_branch(repository: Repository, folder: Path, head: Settings) -> str | None:
    """The branch to merge into, by the settings of the branch that git names.

    Head's settings decide only if git names none: head could name a branch of its own.
    """
    known = repository.default_branch()
    if known is None:
        return head.default_branch
    return settings_at(repository, repository.commit(known), folder).default_branch


def _require_commit(repository: Repository, requested: str) -> None:
    """Raises `UsageError` if the user names a scenario instead of a commit."""
    name = split(requested)[0]
    if not repository.has(requested) and (name in catalogue() or Path(name).suffix == ".toml"):
        raise UsageError(
            f"{requested!r} is a scenario, not a commit; name scenarios first (run {requested} "
            "--compare), or write --compare=REF"
        )


def _changes(base: Settings, head: Settings) -> Iterator[str]:
    names = zip(Settings.__struct_fields__, Settings.__struct_encode_fields__, strict=True)
    for field, key in names:
        before, after = getattr(base, field), getattr(head, field)
        if field == "agents":
            yield from _agent_changes(before, after)
            continue
        if field != "thresholds":
            yield from _change(f"[tool.trae-bench] {key}", before, after)
            continue
        for metric in sorted({**before, **after}):
            place = f"[tool.trae-bench.thresholds] {metric}"
            yield from _change(place, before.get(metric), after.get(metric))


def _agent_changes(base: Mapping[str, AgentEntry], head: Mapping[str, AgentEntry]) -> Iterator[str]:
    """How an agent starts belongs to its revision; how it is judged comes from the base."""
    for name in base.keys() & head.keys():
        for field in JUDGED:
            place = f"[tool.trae-bench.agents.{name}] {field.replace('_', '-')}"
            yield from _change(place, getattr(base[name], field), getattr(head[name], field))


def _change(place: str, before: object, after: object) -> Iterator[str]:
    if before != after:
        values = f"from {_shown(before)} to {_shown(after)}"
        yield f"head changes {place} {values}; the base's value is used"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        value = ", ".join(map(str, value))
    return str(value)[:_MAX_VALUE] if value else "unset"
