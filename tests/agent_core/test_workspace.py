from pathlib import Path

import pytest

from agent_core.errors import ToolError
from agent_core.workspace import Workspace


def test_relative_and_absolute_paths_inside(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.resolve("a/b.txt") == tmp_path / "a" / "b.txt"
    assert workspace.resolve(str(tmp_path / "c")) == tmp_path / "c"
    assert workspace.resolve("a/../b") == tmp_path / "b"


@pytest.mark.parametrize("path", ["..", "../x", "/etc/passwd", "a/../../x", "link/x"])
def test_path_outside_is_rejected(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ToolError, match="outside the workspace"):
        Workspace(root).resolve(path)
    assert Workspace(root, confined=False).resolve(path).is_absolute()


@pytest.mark.parametrize("path", ["a\0b", "\0"])
def test_invalid_path_is_rejected(tmp_path: Path, path: str) -> None:
    with pytest.raises(ToolError, match="is not a valid path"):
        Workspace(tmp_path).resolve(path)


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "root"))
    workspace = Workspace(tmp_path / "root")
    assert workspace.resolve("~/x") == tmp_path / "root" / "x"
    assert workspace.resolve("~x") == tmp_path / "root" / "~x"
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ToolError, match=r"^~/x is outside the workspace"):
        workspace.resolve("~/x")


@pytest.mark.parametrize(
    ("path", "message"),
    [("", "path is empty"), (" ", "path is empty"), ("d/" + "x" * 300, "xxx... has 300 bytes")],
)
def test_impossible_name_is_explained(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        Workspace(tmp_path).resolve(path)


def test_link_loop_raises_tool_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    try:  # Python 3.13 resolves such a path; earlier versions raise an error
        Workspace(tmp_path).resolve("loop/x")
    except ToolError as error:
        assert "is not a valid path" in str(error)
