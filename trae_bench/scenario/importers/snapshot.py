"""The files of a workspace before and after a session, and the oracle that follows from both."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from trae_bench._util.json_tree import is_utf8
from trae_bench.errors import UsageError
from trae_bench.scenario.loader import MAX_FOLDER_BYTES, ignored
from trae_bench.scenario.model import Oracle

MAX_TEXT_FILE = 1 << 20
"""Maximum bytes of a file that goes into a scenario."""
MAX_FILES = 20_000
IGNORED = (
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    "*.pyc",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    ".DS_Store",
)
"""Shell patterns of files that tools leave and of folders that are too large."""
SECRET = (
    ".env",
    ".env.*",
    ".netrc",
    ".npmrc",
    ".pypirc",
    "*.key",
    "*.pem",
    "credentials.json",
    "id_ed25519",
    "id_rsa",
)
"""Shell patterns of files that hold keys. Their content is never read."""
_SHOWN = 5


class Snapshot(Struct, frozen=True):
    """The files of a folder, by relative path."""

    files: dict[str, str]
    """Text of files that a scenario can hold."""
    others: dict[str, str] = {}
    """Digest of other files, and target of links."""
    secret: tuple[str, ...] = ()
    """Files that hold keys, by their names."""

    def without(self, secrets: Sequence[str]) -> "Snapshot":
        """Return the snapshot without the files whose text contains one of the secrets."""
        leaks = {
            name
            for name, text in self.files.items()
            if any(secret in text or secret in name for secret in secrets)
        }
        kept = {name: text for name, text in self.files.items() if name not in leaks}
        return Snapshot(kept, self.others, (*self.secret, *sorted(leaks)))


class Proposal(Struct, frozen=True):
    """An oracle, and notes on what it cannot check."""

    oracle: Oracle
    changed: int
    """Number of files that were added, changed or deleted."""
    notes: tuple[str, ...] = ()


def take_snapshot(folder: Path, ignore: Sequence[str] = IGNORED) -> Snapshot:
    """Read a folder. Raises `UsageError` if it is unreadable or too large for a scenario."""
    files: dict[str, str] = {}
    others: dict[str, str] = {}
    secret: list[str] = []
    size = 0
    try:
        for path in _files(folder, ignore):
            name = path.relative_to(folder).as_posix()
            if ignored(name, SECRET):
                secret.append(name)
                continue
            text = _text(path)
            if text is None:
                others[name] = _digest(path)
                continue
            files[name] = text
            size += len(text)
            if size > MAX_FOLDER_BYTES:
                limit = f"{MAX_FOLDER_BYTES >> 20} MB of text"
                raise UsageError(f"{folder}: more than {limit}; name a smaller folder")
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror or error}") from error
    return Snapshot(files, others, tuple(secret))


def _files(folder: Path, ignore: Sequence[str]) -> Iterator[Path]:
    count = 0
    for root, folders, names in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        folders[:] = sorted(
            name for name in folders if name not in links and not ignored(name, ignore)
        )
        for name in sorted([*names, *links]):
            path = Path(root, name)
            if ignored(path.relative_to(folder).as_posix(), ignore) or not is_utf8(str(path)):
                continue
            count += 1
            if count > MAX_FILES:
                raise UsageError(f"{folder}: more than {MAX_FILES} files; name a smaller folder")
            yield path


def _text(path: Path) -> str | None:
    """Return the text of a file. None for a link, a device, and a file that is large or binary."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_TEXT_FILE:
        return None
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        return "special"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def oracle_from(before: Snapshot, after: Snapshot, root: str = "") -> Proposal:
    """Propose an oracle: the exact content of each text file that was added or changed.

    `root` is the folder of the session. A file that contains its path cannot be expected
    elsewhere and is left out.
    """
    changed = {name: text for name, text in after.files.items() if before.files.get(name) != text}
    here = {name for name, text in changed.items() if root and root in text}
    others = [name for name, digest in after.others.items() if before.others.get(name) != digest]
    old, new = ({**one.files, **one.others} for one in (before, after))
    deleted = [name for name in old if name not in new]
    notes = []
    for names, problem in (
        (sorted(others), "an [oracle] cannot check changed files that are not text"),
        (sorted(deleted), "an [oracle] cannot check that files are deleted"),
        (sorted({*after.secret} - {*before.secret}), "an [oracle] leaves out files with keys"),
        (sorted(here), "an [oracle] cannot check files that contain the path of their folder"),
    ):
        if names:
            notes.append(f"{problem}: {_listed(names)}")
    expected = {name: text for name, text in changed.items() if name not in here}
    return Proposal(Oracle(files=expected), len(changed) + len(others) + len(deleted), tuple(notes))


def workspace_notes(before: Snapshot) -> Iterator[str]:
    """Yield what the scenario's workspace lacks."""
    if before.others:
        names = _listed(sorted(before.others))
        yield f"a scenario holds text files up to 1 MB only; left out: {names}"
    if before.secret:
        yield f"files with keys are left out: {_listed(before.secret)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
