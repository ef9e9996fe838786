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


def _insert(name: str, before: str, *lines: str) -> Callable[[Path], None]:
    """A change that puts lines in front of another line of a file, with its indentation."""

    def change(folder: Path) -> None:
        indent = before[: len(before) - len(before.lstrip())]
        code = "".join(f"{indent}{line}\n" for line in lines)
        _replace(folder / "agent_core" / name, f"\n{before}\n", f"\n{code}{before}\n")

    return change


def _loop(loops: int) -> tuple[str, str]:
    return f"for _ in range({loops}):", "    pass"


def slower(loops: int) -> Callable[[Path], None]:
    """A change that adds a loop without effect, once per session."""
    # Inside a function, as the other loops are: a module's variables are slower.
    body = "\n    ".join(("def _work():", *_loop(loops)))
    return _at_import(f"{body}\n_work()")


def slower_encoding(loops: int) -> Callable[[Path], None]:
    """A change that adds a loop to the encoding of each request."""
    body = "        body = self._history.body(history, tools)"
    return _insert("models/wire.py", body, *_loop(loops))


def slower_dispatch(loops: int) -> Callable[[Path], None]:
    """A change that adds a loop to the dispatch of each tool call."""
    prepared = "    schema = tool.spec.parameters"
    return _insert("dispatch.py", prepared, *_loop(loops))


_STEP = "            session.begin_step()"
"""The line of `agent.py` that begins a step."""


def _wrong_answer_if(condition: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        _replace(
            folder / "agent_core" / "agent.py",
            'return Outcome(stop == "task_done", stop, final_text,',
            f'return Outcome(stop == "task_done", stop, final_text + "?" * ({condition}),',
        )

    return change


def _new_toggle(folder: Path) -> None:
    toggles = folder / "agent_core" / "toggles.py"
    _replace(
        toggles,
        "    shared_tls: bool = True\n",
        "    shared_tls: bool = True\n    newest: bool = True\n",
    )


def _large_import(folder: Path) -> None:
    (folder / "agent_core" / "ballast.py").write_text('TABLE = b"x" * 8_000_000\n')
    _at_import("import agent_core.ballast")(folder)


HEADS: Mapping[str, Callable[[Path], None]] = {
    "nothing": lambda folder: None,
    "an import": _at_import("import colorsys"),
    "5 MB": _at_import('_BALLAST = b"x" * 5_000_000'),
    "a wrong answer": _wrong_answer_if("True"),
    "no start": _at_import('raise RuntimeError("it does not start")'),
    "a toggle": _new_toggle,
}
"""Changes of the agent by name."""

SLOWER: Mapping[str, Callable[[int], Callable[[Path], None]]] = {
    "codec": slower_encoding,
    "dispatch": slower_dispatch,
}
"""Changes that take a number of loops: for each request, and for each tool call."""

BATTERY: Mapping[str, Callable[[Path], None]] = {
    "30 ms sleep a step": _insert("agent.py", _STEP, "import time", "time.sleep(0.03)"),
    "50 KB leak a step": _insert(
        "agent.py", _STEP, "vars(session).setdefault('leak', []).append(b'x' * 50_000)"
    ),
    # The whole history is read at each step, so only long sessions feel it.
    "quadratic history": _insert("agent.py", _STEP, "sum(len(repr(m)) for m in session.history)"),
    "an import of 8 MB": _large_import,
    # The scripted provider rejects it, and the session goes on.
    "one request more a step": _insert(
        "models/wire.py",
        "        ask = self._streamed if self._codec.parameters.stream else self._whole",
        "tokens = Request(self._provider, f'{self._url}/tokens', self._headers, body)",
        "await self._connections.post(tokens)",
    ),
    "wrong answers in 10 % of runs": _wrong_answer_if("__import__('os').urandom(1)[0] < 26"),
    "crashes at start in 20 % of runs": _at_import(
        'if os.urandom(1)[0] < 51:\n    raise RuntimeError("it does not start")'
    ),
}
"""Changes that a gate must find, each of another kind."""
