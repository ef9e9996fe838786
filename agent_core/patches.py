"""What a session changed, as a patch: `git diff` with new files, without touching the index."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent_core.errors import ConfigError

_TESTS = ("/test/", "/tests/", "/testing/", "test_", "tox.ini")
"""Parts of the paths of tests, as Trae Agent has them."""
_TIMEOUT = 120.0
"""Seconds for one git command."""


class Patch:
    """The differences between the last commit and the files in `root`.

    Ignored files and the files in `without` are left out. The constructor and the methods raise
    `ConfigError` if `root` is not in a git repository or git fails.
    """

    def __init__(self, root: Path, without: Sequence[Path] = ()) -> None:
        self._root = root.resolve()
        inside = [path.resolve() for path in without]
        self._without = [
            f":(exclude,top,literal){path.relative_to(top)}"
            for top in [Path(os.fsdecode(self._git("rev-parse", "--show-toplevel")).rstrip("\n"))]
            for path in inside
            if path.is_relative_to(top)
        ]

    def text(self) -> bytes:
        """The patch, which `git apply` accepts. Empty if nothing is different."""
        return self._compared("--binary", "--no-color", "--no-ext-diff", "--no-textconv")

    def has_work(self) -> bool:
        """Whether anything but tests is different."""
        names = self._compared("--name-only", "-z").decode(errors="replace").split("\0")
        return any(name and not any(part in f"/{name}" for part in _TESTS) for name in names)

    def _compared(self, *options: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="agent-core-") as scratch:
            # The index and the new objects are scratch, so that the repository stays as it is.
            private = {
                "GIT_INDEX_FILE": f"{scratch}/index",
                "GIT_OBJECT_DIRECTORY": scratch,
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": self._path_of("objects"),
            }
            with suppress(FileNotFoundError):  # a new repository has no index
                shutil.copy(self._path_of("index"), private["GIT_INDEX_FILE"])
            base = self._base(private)
            self._git("add", "--all", "--", ".", **private)
            return self._git(
                *("diff", "--cached", "--no-renames", *options, base, "--", ".", *self._without),
                **private,
            )

    def _base(self, private: dict[str, str]) -> str:
        """The last commit, or the empty tree before the first one."""
        try:
            return self._git("rev-parse", "--verify", "-q", "HEAD^{tree}").decode().strip()
        except ConfigError:
            return self._git("hash-object", "-wt", "tree", "--stdin", **private).decode().strip()

    def _path_of(self, name: str) -> str:
        found = self._git("rev-parse", "--path-format=absolute", "--git-path", name)
        return os.fsdecode(found).rstrip("\n")

    def _git(self, *arguments: str, **private: str) -> bytes:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            done = subprocess.run(
                ["git", "-C", str(self._root), *arguments],
                env=kept | private,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"A patch of {self._root} needs git: {error}.") from None
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
            raise ConfigError(
                f"A patch of {self._root} needs a git repository; git {arguments[0]} says: {reason}"
            )
        return done.stdout
