"""The environment variables of child processes."""

import os
import sys
from pathlib import Path

INHERITED = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH")
"""All that a child sees of the user's environment: no key, no proxy, no Python setting."""


_OF_HOOKS = ("GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_WORK_TREE")


def environment(home: Path) -> dict[str, str]:
    """The environment that every trial starts from, whatever the user's is."""
    return inherited() | {
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "TMPDIR": str(home / "tmp"),
        "TZ": "UTC",
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
    }


def inherited() -> dict[str, str]:
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # `python` in a tool call is to be the interpreter that the bench runs on.
    bin_folder = str(Path(sys.executable).parent)
    return found | {"PATH": f"{bin_folder}{os.pathsep}{found.get('PATH', os.defpath)}"}


def outside_hooks() -> dict[str, str]:
    """The user's environment for a git that is told its folder: what git sets for its hooks names
    a repository, too, and would win."""
    return {name: value for name, value in os.environ.items() if name not in _OF_HOOKS}
