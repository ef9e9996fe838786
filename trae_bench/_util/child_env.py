"""The environment variables of child processes."""

import os
import sys
from pathlib import Path

INHERITED = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH")
"""The only variables that a trial inherits. API keys, proxies and Python settings are not."""
_SET_BY_GIT_HOOKS = ("GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_WORK_TREE")


def environment(home: Path) -> dict[str, str]:
    """Return the environment of every trial, which does not depend on the user's settings."""
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
    """Return the `INHERITED` variables, with this interpreter's folder first in PATH."""
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    # `python` in a tool call must be the interpreter that runs trae-bench.
    bin_folder = str(Path(sys.executable).parent)
    return found | {"PATH": f"{bin_folder}{os.pathsep}{found.get('PATH', os.defpath)}"}


def outside_hooks() -> dict[str, str]:
    """Return the user's environment for `git -C FOLDER`.

    Git sets variables for its hooks that name a repository and would override FOLDER.
    """
    return {name: value for name, value in os.environ.items() if name not in _SET_BY_GIT_HOOKS}
