"""Points in git notes: added once, read strictly, united with those of other clones."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from tests.trae_bench.mutations import git
from tests.trae_bench.points import commit_hash, commits_in, identify, point
from tests.trae_bench.runs import COMPARED, gate, honest
from trae_bench.design.plan import HEAD
from trae_bench.errors import BadRunFile, CannotMeasure, UsageError
from trae_bench.model.run import RevisionId, RunFile
from trae_bench.storage.history import (
    MAX_LINE,
    add,
    fetch,
    parse,
    points_of,
    push,
    read_points,
    stored,
)
from trae_bench.storage.run_file import write_run
from trae_bench.storage.seal import sealed
from trae_bench.subject.notes import FETCHED, REF, Notes
from trae_bench.subject.revisions import Repository

COMMIT = commit_hash(1)


@pytest.fixture
def commits(tmp_path: Path) -> list[str]:
    return commits_in(tmp_path / "project", 4)


@pytest.fixture
def repository(commits: list[str], tmp_path: Path) -> Repository:
    return Repository.around(tmp_path / "project")


# -- notes


def test_points_are_read_as_they_were_added(repository: Repository, commits: list[str]) -> None:
    points = {point(commit, 0.01 * number) for number, commit in enumerate(commits)}
    assert add(repository, points) == 4
    assert set(stored(repository)) == points
    assert not git(repository.top, "status", "--porcelain")


def test_adding_twice_changes_nothing(repository: Repository, commits: list[str]) -> None:
    points = [point(commits[1], 0.1), point(commits[1], 0.2)]
    assert add(repository, points) == 2
    before = git(repository.top, "rev-parse", REF)
    assert add(repository, points) == 0
    assert git(repository.top, "rev-parse", REF) == before
    assert add(repository, [*points, point(commits[1], 0.3)]) == 1
    text = Notes(repository).read()[commits[1]].splitlines()
    assert text == sorted(set(text))
    assert len(text) == 3


def test_without_points_there_are_none(repository: Repository) -> None:
    assert stored(repository) == []


def test_git_must_know_who_writes(
    repository: Repository, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("user.name", "user.email"):
        git(repository.top, "config", "--unset", name)
    git(repository.top, "config", "user.useConfigOnly", "true")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"git config user\.name"):
        add(repository, [point(commits[0])])
    assert stored(repository) == []


def test_other_notes_are_left_alone(repository: Repository, commits: list[str]) -> None:
    git(repository.top, "notes", "add", "-m", "a remark", commits[0])
    add(repository, [point(commits[0])])
    assert git(repository.top, "notes", "show", commits[0]) == "a remark"


# -- strict reading


def line_of(**changes: Any) -> bytes:
    document = json.loads(msgspec.json.encode(point(COMMIT)))
    return json.dumps({name: v for name, v in (document | changes).items() if v != "-"}).encode()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`"),
        (b"[" * 3000, "line 1"),
        (line_of(error=-0.1), "error: Expected `float` >= 0"),
        (line_of(error="-"), "missing required field `error`"),
        (line_of(log_ratio="0"), "log_ratio: Expected `float`"),
        (line_of(log_ratio=1e9), "log_ratio: Expected `float` <= 700"),
        (line_of(head=1e300 * 10), "head: "),
        (line_of(pairs=0), "pairs: Expected `int` >= 1"),
        (line_of(pairs=1.5), "pairs: Expected `int`"),
        (line_of(better="larger"), "better: Invalid enum value"),
        (line_of(better="higher"), "better: cpu is better lower"),
        (line_of(commit=commit_hash(2)), "commit: the point is of another commit"),
        (line_of(commit="HEAD"), "commit: Expected `str` matching regex"),
        (line_of(anchor="--upload-pack=x"), "anchor: Expected `str` matching regex"),
        (line_of(anchor="a" * 40 + "\n"), "anchor: Expected `str` matching regex"),
        (line_of(seal="0"), "seal: Expected `str` matching regex"),
        (line_of(scenario="x" * 201), "scenario: Expected `str` of length <= 200"),
        (line_of(extra=1), "unknown field `extra`"),
        (line_of(machine="x" * MAX_LINE), "longer than 4,096 bytes"),
        (line_of().replace(b'"cpu"', b'"\xff"'), "line 1"),
        (line_of().replace(b"0.005", b"NaN"), "malformed"),
    ],
)
def test_a_bad_line_is_named_with_a_remedy(line: bytes, problem: str) -> None:
    with pytest.raises(CannotMeasure) as caught:
        parse({COMMIT: line_of() + b"\n" + line})
    said = str(caught.value)
    if problem != "line 1":
        assert problem in said
    assert said.startswith(f"{REF}, commit {COMMIT[:12]}, line 2: ")
    assert f"git notes --ref={REF} remove {COMMIT[:12]}" in said

    assert f"git notes --ref={REF} remove {COMMIT[:12]}" in said


def test_a_bad_line_of_a_remote_is_removed_there(
    repository: Repository, commits: list[str], tmp_path: Path
) -> None:
    """`git notes` alone removes the note here, and the next fetch would bring it again."""
    git(tmp_path, "init", "--quiet", "--bare", "remote")
    git(repository.top, "remote", "add", "origin", str(tmp_path / "remote"))
    git(repository.top, "notes", f"--ref={REF}", "add", "-m", "no point", commits[0])
    git(repository.top, "push", "--quiet", "origin", REF)
    git(repository.top, "update-ref", "-d", REF)
    with pytest.raises(CannotMeasure) as caught:
        fetch(repository, "origin")
    for command in re.findall("`(git .*?)`", str(caught.value)):
        git(repository.top, *command.replace("REMOTE", "origin").split()[1:])
    assert fetch(repository, "origin") == 0


@examples(200)
@given(st.binary(max_size=300))
def test_any_bytes_give_points_or_an_error(text: bytes) -> None:
    try:
        parse({COMMIT: text})
    except CannotMeasure as error:
        assert COMMIT[:12] in str(error)


@pytest.mark.parametrize("limit", ["MAX_NOTES", "MAX_BYTES"])
def test_notes_are_read_within_limits(
    repository: Repository, commits: list[str], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    add(repository, [point(commit) for commit in commits[:2]])
    monkeypatch.setattr(f"trae_bench.subject.notes.{limit}", 1)
    with pytest.raises(CannotMeasure, match="no history"):
        stored(repository)


def test_points_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trae_bench.storage.history.MAX_POINTS", 2)
    lines = [line_of(pairs=number) for number in (1, 2, 3)]
    assert len(parse({COMMIT: b"\n".join(lines[:2])})) == 2
    with pytest.raises(CannotMeasure, match="more than 2 points"):
        parse({COMMIT: b"\n".join(lines)})


# -- run files


def compared(run: RunFile, base: str, head: str, *, modified: bool = False) -> RunFile:
    """The run as one of two other commits."""
    revisions = msgspec.structs.replace(
        COMPARED,
        base=RevisionId("a" * 12, base, False),
        head=RevisionId("b" * 12, head, modified),
    )
    header = msgspec.structs.replace(run.header, revisions=revisions)
    return sealed(msgspec.structs.replace(run, header=header, seal=""))


Store = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path, commits: list[str]) -> Store:
    def stored(run: RunFile | None = None, **changes: Any) -> Path:
        run = compared(gate(1.1) if run is None else run, commits[0], commits[1], **changes)
        write_run(tmp_path / "run.json", run, force=True)
        return tmp_path / "run.json"

    return stored


def test_a_run_gives_a_point_for_each_row_with_a_ratio(
    repository: Repository, commits: list[str], store: Store
) -> None:
    run = gate(1.1)
    points = read_points(store(run), repository)
    rows = {row.metric: row for row in run.comparisons if row.contrast == HEAD}
    assert {one.metric for one in points} == set(rows)
    for one in points:
        estimate = rows[one.metric].estimate
        assert estimate is not None
        assert (one.commit, one.anchor) == (commits[1], commits[0])
        assert (one.log_ratio, one.pairs) == (estimate.log_ratio, estimate.n)
        assert (one.base, one.head) == (estimate.a, estimate.b)
    (cpu,) = (one for one in points if one.metric == "cpu")
    assert (cpu.unit, cpu.better, cpu.agent) == ("s", "lower", "agent_core")
    assert cpu.log_ratio == pytest.approx(0.095, abs=0.02)
    assert cpu.error == pytest.approx(0.01 / cpu.pairs**0.5, rel=0.8)
    add(repository, points)
    assert set(stored(repository)) == set(points)


def test_what_changes_from_minute_to_minute_is_no_other_machine() -> None:
    plain = gate(1.1)

    def machine(**facts: Any) -> set[str]:
        header = msgspec.structs.replace(plain.header, machine=plain.header.machine | facts)
        return {one.machine for one in points_of(msgspec.structs.replace(plain, header=header))}

    assert machine(load=3.0) == machine(load=0.1)
    assert machine(kernel="6.1") != machine(kernel="6.2")


def test_uncommitted_changes_have_no_point(repository: Repository, store: Store) -> None:
    with pytest.raises(UsageError, match="working tree with changes"):
        read_points(store(modified=True), repository)


def test_a_run_of_toggles_has_no_point(repository: Repository, tmp_path: Path) -> None:
    write_run(tmp_path / "toggles.json", honest(toggles=("idle",), pairs=2))
    with pytest.raises(UsageError, match=r"compares no commits.*--compare"):
        read_points(tmp_path / "toggles.json", repository)


def test_a_commit_of_another_repository_is_refused(repository: Repository, tmp_path: Path) -> None:
    write_run(tmp_path / "run.json", gate(1.1))
    with pytest.raises(UsageError, match="commit bbbbbbbbbbbb is not in"):
        read_points(tmp_path / "run.json", repository)


def test_a_name_is_no_commit(repository: Repository, commits: list[str], tmp_path: Path) -> None:
    write_run(tmp_path / "run.json", compared(gate(1.1), commits[0], "HEAD"))
    with pytest.raises(UsageError, match="commit HEAD is not in"):
        read_points(tmp_path / "run.json", repository)


def test_values_beyond_a_point_are_refused(
    repository: Repository, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = [point(COMMIT, 800.0)]
    monkeypatch.setattr("trae_bench.storage.history.points_of", lambda run: iter(odd))
    with pytest.raises(BadRunFile, match="cpu makes no point: Expected `float` <= 700"):
        read_points(store(), repository)


@pytest.mark.parametrize("stopped", ["interrupted", "error"])
def test_an_unfinished_run_is_refused(
    repository: Repository, store: Store, stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An interrupted run has other samples; `verify` is tested elsewhere.
    monkeypatch.setattr("trae_bench.storage.history.verify", lambda run: [])
    run = msgspec.structs.replace(gate(1.1), stopped=stopped)
    with pytest.raises(UsageError, match="not finished"):
        read_points(store(run), repository)


def test_an_edited_run_is_refused(repository: Repository, store: Store) -> None:
    path = store()
    text = path.read_text()
    assert '"elapsed": ' in text
    path.write_text(text.replace('"elapsed": ', '"elapsed": 1', 1))
    with pytest.raises(BadRunFile, match=r"inconsistent.*trae-bench verify"):
        read_points(path, repository)


# -- remotes


@pytest.fixture
def clones(repository: Repository, tmp_path: Path) -> tuple[Repository, Repository]:
    """The repository and a clone, with one remote."""
    remote = tmp_path / "remote.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository.top), str(remote))
    git(repository.top, "remote", "add", "origin", str(remote))
    git(tmp_path, "clone", "--quiet", str(remote), "other")
    identify(tmp_path / "other")
    return repository, Repository.around(tmp_path / "other")


def test_two_clones_unite_their_points(
    clones: tuple[Repository, Repository], commits: list[str]
) -> None:
    here, there = clones
    common, mine, theirs = (point(commits[1], pairs=pairs) for pairs in (8, 9, 10))
    assert fetch(here, "origin") == 0
    add(here, [common, mine])
    assert push(here, "origin") == 2
    add(there, [common, theirs, point(commits[2])])
    assert push(there, "origin") == 4
    assert fetch(here, "origin") == 2
    assert set(stored(here)) == set(stored(there)) == {common, mine, theirs, point(commits[2])}
    assert fetch(here, "origin") == 0


def test_bad_points_of_a_remote_are_not_merged(
    clones: tuple[Repository, Repository], commits: list[str]
) -> None:
    here, there = clones
    add(here, [point(commits[1])])
    git(there.top, "notes", f"--ref={REF}", "add", "-m", "{}", commits[1])
    git(there.top, "push", "--quiet", "origin", REF)
    with pytest.raises(CannotMeasure, match=FETCHED):
        fetch(here, "origin")
    assert stored(here) == [point(commits[1])]


@pytest.mark.parametrize("remote", ["upstream", "--upload-pack=touch x", "https://example.org/x"])
def test_only_a_configured_remote_is_used(
    clones: tuple[Repository, Repository], remote: str
) -> None:
    with pytest.raises(UsageError, match=r"no remote .*known: origin"):
        fetch(clones[0], remote)


def test_nothing_is_pushed_without_points(clones: tuple[Repository, Repository]) -> None:
    with pytest.raises(UsageError, match="history add"):
        push(clones[0], "origin")


def test_a_remote_that_refuses_is_an_error(
    clones: tuple[Repository, Repository], commits: list[str]
) -> None:
    here = clones[0]
    add(here, [point(commits[1])])
    hook = Path(git(here.top, "remote", "get-url", "origin")) / "hooks" / "update"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(CannotMeasure, match="origin refuses the notes"):
        push(here, "origin")
