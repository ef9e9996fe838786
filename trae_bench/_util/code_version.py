"""Which code takes part in a run: the commit of this checkout and the package versions."""

import hashlib
import os
from pathlib import Path

from trae_bench import __version__
from trae_bench._util.child_env import outside_hooks
from trae_bench._util.child_output import output_of
from trae_bench._util.host_facts import Fact

_GIT_SECONDS = 10.0
_LIST_FILES = ("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--")
_PACKAGES = (
    "anthropic",
    "click",
    "google-genai",
    "h2",
    "httpcore",
    "httpx",
    "httpx2",
    "msgspec",
    "ollama",
    "openai",
    "psutil",
    "pytest",
    "python-jsonpath",
    "respx",
)


def code_state(folder: Path | None = None) -> dict[str, Fact]:
    """Return the commit of this checkout, and whether the working tree differs from it.

    `tree` is the digest of the packages' files. `folder` is the package's folder. The result is
    empty if git is not installed or does not track that folder, as for an installed package.
    """
    folder = folder or Path(__file__).resolve().parents[1]
    # An installed package may lie inside a checkout of another project.
    if not _git(folder, "ls-files", "--", "."):
        return {}
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return {}
    top = Path(_git(folder, "rev-parse", "--show-toplevel"))
    dirty = bool(_git(top, "status", "--porcelain"))
    return {"commit": commit, "dirty": dirty, "tree": _tree(folder)}


def _tree(folder: Path) -> str:
    """Return the digest of the tracked files of this package and the agent, and of new files.

    The content is that of the working tree. Files that git ignores are left out.
    """
    packages = (folder.name, "agent_core")
    listed = _git(folder.parent, *_LIST_FILES, *packages)
    digest = hashlib.sha256()
    for name in sorted(filter(None, set(listed.split("\0")))):
        digest.update(f"{name}\0{_content_digest(folder.parent / name)}\n".encode())
    return digest.hexdigest()[:40]


def _content_digest(path: Path) -> str:
    try:
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    except OSError:
        # Tracked, but removed from the working tree.
        return "missing"
    return hashlib.sha256(content).hexdigest()


def versions() -> dict[str, Fact]:
    """Return the installed versions of the packages that take part in a run."""
    # The import takes about 30 ms, mostly for email headers. Only a run needs it.
    from importlib import metadata

    found: dict[str, Fact] = {"trae-bench": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str:
    """Return git's output, or an empty string if it fails."""
    command = ("git", "-C", str(folder), "--no-optional-locks", *arguments)
    return output_of(*command, seconds=_GIT_SECONDS, env=outside_hooks())
