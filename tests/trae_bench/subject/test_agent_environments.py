"""Environments of agents: when they are shared, and what a build may write."""

from pathlib import Path

import pytest

from trae_bench.errors import CannotMeasure
from trae_bench.subject.agents.entry import AgentEntry
from trae_bench.subject.agents.environment import _key, build

COMMAND = ("agent", "{base_url}", "{task}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return two folders with different code."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.py").write_text(name)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize(
    "fields",
    [
        {"requirements": (".",)},
        {"requirements": ("-e .",)},
        {"requirements": ("-e.",)},
        {"requirements": ("--editable=.",)},
        {"requirements": ("./agent[cli]",)},
        {"requirements": ("packages/agent",)},
        {"requirements": ("-r requirements.txt",)},
        {"requirements": ("agent @ file:.",)},
        {"requirements": ("agent-1.0-py3-none-any.whl",)},
        {"requirements": ("{folder}",)},
        {"npm": (".",)},
        {"npm": ("file:.",)},
        {"npm": ("../agent",)},
        {"npm": ("agent-1.0.tgz",)},
        {"setup": ("make",)},
    ],
)
def test_what_is_built_from_a_folder_is_not_shared(
    tmp_path: Path, fields: dict[str, tuple[str, ...]]
) -> None:
    a, b = folders(tmp_path)
    entry = AgentEntry(command=COMMAND, **fields)  # type: ignore[arg-type]
    assert _key(entry, a) != _key(entry, b)
    assert entry.uses_folder


@pytest.mark.parametrize(
    "fields",
    [
        {"requirements": ("openai==3.0", "httpx[http2]>=0.28; python_version>'3'", "--pre")},
        {"requirements": ("agent @ https://example.com/agent-1.0-py3-none-any.whl",)},
        {"requirements": ("--index-url https://example.com/simple",)},
        {"npm": ("@openai/codex@0.171.0", "opencode-ai@1.0")},
    ],
)
def test_what_comes_from_an_index_is_shared(
    tmp_path: Path, fields: dict[str, tuple[str, ...]]
) -> None:
    a, b = folders(tmp_path)
    entry = AgentEntry(command=COMMAND, **fields)  # type: ignore[arg-type]
    assert _key(entry, a) == _key(entry, b)
    assert not entry.uses_folder


def test_a_build_does_not_change_a_checkout(tmp_path: Path) -> None:
    folder, other = folders(tmp_path)
    entry = AgentEntry(command=COMMAND, setup=("cp agent.py built.py; cp agent.py {env}",))
    made = build("agent", entry, folder, lambda _: None, copy=True)
    assert [path.name for path in folder.iterdir()] == ["agent.py"]
    assert (made.folder / "built.py").read_text() == "a"
    assert made.env is not None
    assert (made.env / "agent.py").read_text() == "a"
    assert build("agent", entry, folder, lambda _: None, copy=True) == made
    assert build("agent", entry, other, lambda _: None, copy=True) != made


def test_without_a_copy_the_build_runs_in_the_folder(tmp_path: Path) -> None:
    folder, _ = folders(tmp_path)
    entry = AgentEntry(command=COMMAND, setup=("cp agent.py built.py",))
    assert build("agent", entry, folder, lambda _: None).folder == folder
    assert (folder / "built.py").is_file()


def test_an_interrupted_build_is_made_again(tmp_path: Path) -> None:
    folder, _ = folders(tmp_path)
    failing = AgentEntry(command=COMMAND, setup=("touch {env}/half; test -f ../ready",))
    with pytest.raises(CannotMeasure, match="cannot build its environment"):
        build("agent", failing, folder, lambda _: None)
    (tmp_path / "ready").touch()
    assert build("agent", failing, folder, lambda _: None).env is not None
