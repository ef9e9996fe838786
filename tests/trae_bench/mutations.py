"""A git repository with the agent, and changes of the agent that a gate must distinguish."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def git(repository: Path, *arguments: str) -> str:
    """Run git without the user's settings and signing keys, and return its output."""
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    result = subprocess.run(
        ["git", "-C", str(repository), *identity, *arguments],
        env=environment | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def repository(folder: Path) -> Path:
    """Create a repository with one commit on `main`: the agent of this checkout."""
    folder.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "agent_core", folder / "agent_core", ignore=ignore)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("__pycache__/\n*.toml\n*.json*\ncache/\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    return commit(folder, "the base")


def commit(folder: Path, message: str) -> Path:
    git(folder, "add", "--force", "agent_core", "pyproject.toml", "constraints.txt")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return folder


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file.name} must contain {old!r} exactly once"
    file.write_text(text.replace(old, new), encoding="utf-8")


def _at_import(code: str) -> Callable[[Path], None]:
    """A change that appends code to `agent_core.build`, which runs on import."""

    def change(folder: Path) -> None:
        with (folder / "agent_core" / "build.py").open("a", encoding="utf-8") as file:
            file.write(f"\n{code}\n")

    return change


def slower(loops: int) -> Callable[[Path], None]:
    """A change that adds a loop without effect, once per session."""
    return _at_import(f"for _ in range({loops}):\n    pass")


def _wrong_answer(folder: Path) -> None:
    _replace(
        folder / "agent_core" / "agent.py",
        'return Outcome(stop == "task_done", stop, final_text,',
        'return Outcome(stop == "task_done", stop, final_text + "?",',
    )


def _new_toggle(folder: Path) -> None:
    toggles = folder / "agent_core" / "toggles.py"
    _replace(
        toggles,
        "    shared_tls: bool = True\n",
        "    shared_tls: bool = True\n    newest: bool = True\n",
    )


HEADS: Mapping[str, Callable[[Path], None]] = {
    "nothing": lambda folder: None,
    "an import": _at_import("import colorsys"),
    "5 MB": _at_import('_BALLAST = b"x" * 5_000_000'),
    "a wrong answer": _wrong_answer,
    "no start": _at_import('raise RuntimeError("it does not start")'),
    "a toggle": _new_toggle,
}
"""Changes of the agent by name."""
