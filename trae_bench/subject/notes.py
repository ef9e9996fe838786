"""Lines of text that git stores beside commits, under a ref of their own.

A note of a commit is a set of lines. Two histories of notes are merged by uniting the lines of each
commit (`cat_sort_uniq`), so a merge has no conflicts. Notes may come from strangers: what is read
is limited, and their lines are not interpreted here.
"""

import os
import re

from msgspec import Struct

from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.subject.revisions import Repository, error_of

REF = "refs/notes/trae-bench"
FETCHED = "refs/notes/trae-bench-fetched"
"""Receives the notes of a remote until they are checked and merged."""
MAX_NOTES = 100_000
MAX_BYTES = 64 * 1024 * 1024
"""Of all notes together. A point takes some 600 bytes."""
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class _Note(Struct, frozen=True):
    """A file in the tree of the notes."""

    blob: str
    size: int
    commit: str


class Notes:
    """The notes of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def read(self, ref: str = REF) -> dict[str, bytes]:
        """Return the notes by commit. Raises `CannotMeasure` if there are too many."""
        found = self._list(ref)
        blobs = self._repository.blobs([note.blob for note in found])
        return {note.commit: text for note, text in zip(found, blobs, strict=True)}

    def _list(self, ref: str) -> list[_Note]:
        if self._repository.git("rev-parse", "--verify", "--quiet", ref).returncode:
            return []
        listed = self._repository.output("ls-tree", "-r", "-l", "-z", ref)
        if listed.count(b"\0") > MAX_NOTES:
            raise CannotMeasure(f"{ref}: more than {MAX_NOTES:,} notes; no history has that many")
        notes = [note for line in listed.split(b"\0") if (note := _parsed(line)) is not None]
        if sum(note.size for note in notes) > MAX_BYTES:
            raise CannotMeasure(f"{ref}: larger than {MAX_BYTES:,} bytes; no history is that large")
        return notes

    def add(self, commit: str, lines: set[bytes]) -> int:
        """Add lines to the note of a commit. Returns how many were new.

        Raises `UsageError` if git does not know who writes, `CannotMeasure` if it fails.
        """
        stored = self._repository.git("notes", f"--ref={REF}", "show", commit)
        known = set(stored.stdout.splitlines()) if not stored.returncode else set()
        known.discard(b"")
        if lines <= known:
            return 0
        self._require_identity()
        text = b"".join(line + b"\n" for line in sorted(known | lines))
        self._repository.output(
            "notes", f"--ref={REF}", "add", "--force", "--file=-", commit, stdin=text
        )
        return len(lines - known)

    def _require_identity(self) -> None:
        if self._repository.git("var", "GIT_COMMITTER_IDENT").returncode:
            raise UsageError(
                "git does not know who writes the notes; run `git config user.name NAME` and "
                "`git config user.email ADDRESS`"
            )

    # -- remotes

    def fetch(self, remote: str) -> bool:
        """Fetch the notes of a remote to `FETCHED`. Returns whether it has any.

        Raises `UsageError` if there is no such remote, `CannotMeasure` if it cannot be reached.
        """
        known = os.fsdecode(self._repository.output("remote")).split("\n")[:-1]
        if remote not in known:
            names = ", ".join(known) or "none"
            raise UsageError(f"no remote {remote!r}; known: {names}. `git remote add` adds one")
        if not self._repository.output("ls-remote", remote, REF):
            return False
        self._repository.output("fetch", "--quiet", "--no-tags", remote, f"+{REF}:{FETCHED}")
        return True

    def merge(self) -> None:
        """Unite the notes with those that were fetched. Raises `CannotMeasure`."""
        self._require_identity()
        self._repository.output(
            "notes", f"--ref={REF}", "merge", "--quiet", "--strategy=cat_sort_uniq", FETCHED
        )

    def push(self, remote: str) -> str:
        """Push the notes to a remote. Returns why that failed; empty if it did not."""
        done = self._repository.git("push", "--quiet", remote, f"{REF}:{REF}")
        return error_of(done) if done.returncode else ""


def _parsed(line: bytes) -> _Note | None:
    """Parse a line of `git ls-tree -l`; None if it is no note. Git spreads notes over folders."""
    fields, _, path = os.fsdecode(line).partition("\t")
    commit = path.replace("/", "")
    if not _HASH.fullmatch(commit):
        return None
    _, kind, blob, size = fields.split()
    return _Note(blob, int(size), commit) if kind == "blob" else None
