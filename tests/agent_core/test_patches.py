"""The patch of a session, and `--must-patch`."""

import json
import subprocess
from pathlib import Path

import pytest

from agent_core.build import run_task
from agent_core.cli.run import _must_patch
from agent_core.errors import ConfigError
from agent_core.patches import Patch
from tests.agent_core.fakes import ScriptedModel, call, reply

pytestmark = pytest.mark.anyio


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@e")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.py").write_text("one\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_patch_has_new_files_and_leaves_the_repository_as_it_is(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "a.py").write_text("two\n")
    (repository / "new").mkdir()
    (repository / "new" / "b.bin").write_bytes(b"\0\xff\n")
    (repository / "c.log").write_text("ignored")
    before = {p: p.read_bytes() for p in (repository / ".git").rglob("*") if p.is_file()}
    patch = Patch(repository, [repository / "new.patch", tmp_path / "elsewhere"])
    (repository / "new.patch").write_bytes(patch.text())
    assert patch.text() == (repository / "new.patch").read_bytes(), "without itself"
    assert {p: p.read_bytes() for p in (repository / ".git").rglob("*") if p.is_file()} == before

    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(repository), str(copy))
    git(copy, "apply", str(repository / "new.patch"))
    assert (copy / "a.py").read_text() == "two\n"
    assert (copy / "new" / "b.bin").read_bytes() == b"\0\xff\n"
    assert not (copy / "c.log").exists()


def test_patch_of_a_folder_in_a_repository(repository: Path) -> None:
    inner = repository / "inner"
    inner.mkdir()
    (inner / "b.py").write_text("x\n")
    (repository / "a.py").write_text("two\n")
    text = Patch(inner).text()
    assert b"inner/b.py" in text
    assert b"a.py b/a.py" not in text


def test_patch_before_the_first_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("x\n")
    assert b"+x" in Patch(tmp_path).text()


@pytest.mark.parametrize(
    ("name", "work"), [("src/a.py", True), ("tests/a.py", False), ("test_a.py", False)]
)
def test_tests_alone_are_no_work(name: str, work: bool, repository: Path) -> None:
    patch = Patch(repository)
    assert not patch.has_work()
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text("x")
    assert patch.has_work() is work


def test_folder_without_a_repository_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a git repository; git rev-parse says: fatal"):
        Patch(tmp_path)


async def test_must_patch_refuses_task_done_until_something_has_changed(repository: Path) -> None:
    model = ScriptedModel(
        reply("done", call("task_done"), call("bash", command="touch ran")),
        reply("", call("bash", command="echo two > a.py")),
        reply("really done", call("task_done")),
    )
    record = repository.parent / "t.json"
    outcome = await run_task(
        "fix it",
        workspace=repository,
        trajectory=record,
        scripted_model=model,
        objection=_must_patch(Patch(repository)),
    )
    assert (outcome.success, outcome.steps, outcome.final_text) == (True, 3, "really done")
    assert not (repository / "ran").exists(), "calls beside task_done are not run"
    step = json.loads(record.read_text())["agent_steps"][0]
    assert [result["success"] for result in step["tool_results"]] == [False, False]
    assert "The patch is empty" in step["tool_results"][0]["error"]
