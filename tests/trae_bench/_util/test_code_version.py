"""The commit of a checkout and the versions of packages."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from trae_bench._util import code_version


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_code_state_of_a_checkout(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    assert code_version.code_state(package) == {}
    git(tmp_path, "init", "-q")
    # Not tracked: it may be an installed package inside another project's checkout.
    assert code_version.code_state(package) == {}
    git(tmp_path, "add", ".")
    assert code_version.code_state(package) == {}
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = code_version.code_state(package)
    assert clean["dirty"] is False
    assert len(str(clean["commit"])) == 40
    (tmp_path / "beside").write_text("")
    assert code_version.code_state(package) == clean | {"dirty": True}


def test_tree_changes_with_the_files_of_the_packages(tmp_path: Path) -> None:
    packages = [tmp_path / "trae_bench", tmp_path / "agent_core"]
    for package in packages:
        package.mkdir()
        (package / "module.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")

    def tree() -> object:
        return code_version.code_state(packages[0])["tree"]

    clean, seen = tree(), set[object]()
    for package in packages:
        module = package / "module.py"
        module.write_text("x = 2\n")
        seen.add(tree())
        module.write_text("x = 3\n")
        seen.add(tree())
        module.unlink()
        seen.add(tree())
        module.write_text("x = 1\n")
        (package / "new.py").write_text("")
        seen.add(tree())
        (package / "new.py").rename(package / "new.pyc")
        assert tree() == clean
    assert len(seen - {clean}) == 8
    (tmp_path / "notes.md").write_text("")
    assert tree() == clean


def test_code_state_is_empty_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version.code_state() == {}


def test_versions_of_this_package_and_its_dependencies() -> None:
    found = code_version.versions()
    assert found["trae-bench"]
    assert found["msgspec"] == msgspec.__version__
