"""Describes the first difference between the answers of a pair's two sides.

Digests only tell that two answers differ. `PairMemory` keeps the answer of one side until the
other side has run, so that a sample can say where they part.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from trae_bench._util.json_difference import Names, difference_text, first_difference
from trae_bench.execution.fingerprint import FileEntry, Transcript
from trae_bench.model.experiment import Trial

MAX_KEPT = 32 * 1024 * 1024
"""Characters and files. A larger answer is not kept, so its difference has no description."""
MAX_DIFFERENCE = 1000
"""Characters of a description."""
_MAX_PATH = 200


class Answer(Struct, frozen=True):
    """The answer of one trial: for each session its transcript and the files it left."""

    transcripts: Sequence[Transcript]
    files: Sequence[Sequence[FileEntry]]

    @property
    def size(self) -> int:
        """Approximate memory: bytes of the last requests, plus the number of files."""
        bodies = sum(transcript.size for transcript in self.transcripts)
        return bodies + sum(map(len, self.files))


class PairMemory:
    """The answer of the first side of the current pair."""

    def __init__(self) -> None:
        self._first: tuple[Trial, Answer] | None = None

    def difference(self, trial: Trial, answer: Answer) -> str:
        """Return how the answer differs from that of the pair's other side.

        Empty if the answers agree, or if the other side has not run or has no answer.
        """
        first, self._first = self._first, None
        if first is None or not _same_pair(first[0], trial):
            if answer.size <= MAX_KEPT:
                self._first = trial, answer
            return ""
        pair = [first, (trial, answer)]
        pair.sort(key=lambda one: one[0].side)
        (trial_a, a), (trial_b, b) = pair
        try:
            return describe(a, b, _names(trial_a, trial_b))[:MAX_DIFFERENCE]
        except RecursionError:
            return ""


def _same_pair(one: Trial, other: Trial) -> bool:
    fields = ("scenario", "contrast", "mode", "pair", "probe")
    same = all(getattr(one, field) == getattr(other, field) for field in fields)
    return same and one.side != other.side


def _names(a: Trial, b: Trial) -> Names:
    if {a.arm.name, b.arm.name} == {"base", "head"}:
        return a.arm.name, b.arm.name
    if a.arm.agent and b.arm.agent and a.arm != b.arm:
        return a.arm.agent, b.arm.agent
    return "side A", "side B"


def describe(a: Answer, b: Answer, names: Names) -> str:
    """Return the first difference of the transcripts; if there is none, of the files."""
    transcripts = list(zip(a.transcripts, b.transcripts, strict=False))
    for number, (of_a, of_b) in enumerate(transcripts, 1):
        if of_a.digest != of_b.digest:
            where = f"session {number}: " if len(transcripts) > 1 else ""
            return where + "; ".join(_transcript_differences(of_a, of_b, names))
    for files_a, files_b in zip(a.files, b.files, strict=False):
        if files_a != files_b:
            return _file_difference(files_a, files_b, names)
    return ""


def _transcript_differences(a: Transcript, b: Transcript, names: Names) -> Iterator[str]:
    if a.requests != b.requests:
        yield f"{names[1]} sends {_count(b.requests, 'request')}, {names[0]} {a.requests}"
    if a.unexpected != b.unexpected:
        more = _count(b.unexpected, "unexpected request")
        yield f"{names[1]} sends {more}, {names[0]} {a.unexpected}"
    for where, left, right in (
        ("in the last request", a.body, b.body),
        ("in the final answer", _by_name(a.answer), _by_name(b.answer)),
    ):
        found = first_difference(left, right)
        if found is not None:
            yield f"{where}{difference_text(*found, names)}"


def _by_name(answer: Sequence[Any] | None) -> dict[str, Any] | None:
    return None if answer is None else dict(zip(("success", "text"), answer, strict=True))


def _file_difference(a: Sequence[FileEntry], b: Sequence[FileEntry], names: Names) -> str:
    of_a, of_b = ({entry.path: entry for entry in entries} for entries in (a, b))
    paths = sorted(of_a.keys() | of_b.keys())
    path = next(path for path in paths if of_a.get(path) != of_b.get(path))
    shown, left, right = repr(path[:_MAX_PATH]), of_a.get(path), of_b.get(path)
    if left is None or right is None:
        return f"{names[0] if left is None else names[1]} does not leave {shown}"
    if left.kind != right.kind:
        return f"{shown} is {left.kind} on {names[0]}, {right.kind} on {names[1]}"
    if left.executable != right.executable:
        only = names[0] if left.executable else names[1]
        return f"{shown} is executable on {only} only"
    return f"the content of {shown} differs"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
