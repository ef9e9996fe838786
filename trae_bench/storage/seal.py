"""The seal of a run file: a checksum over all of its content.

The seal is not a signature: anyone can compute a new one. It detects edits and damage.
"""

import hashlib

import msgspec
from msgspec.structs import replace

from trae_bench.errors import CannotMeasure
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample

BROKEN_SEAL = "its seal does not match: it was edited after the run, or not written by trae-bench"

_RUN = msgspec.json.Decoder(RunFile)


class Sealer:
    """Computes the seal of a run while its samples are written.

    The seal is the SHA-256 of the run without its samples and seal, with sorted keys, followed
    by each sample as it stands in the file. The layout of the file does not matter.
    """

    def __init__(self, run: RunFile) -> None:
        self._hash = hashlib.sha256()
        self._hash.update(msgspec.json.encode(replace(run, seal="", samples=()), order="sorted"))

    def add(self, sample: Sample) -> bytes:
        """The sample as JSON, which is now part of the seal."""
        data = msgspec.json.encode(sample)
        self._hash.update(data)
        return data

    @property
    def seal(self) -> str:
        return self._hash.hexdigest()


def seal_of(run: RunFile) -> str:
    """The seal that fits a run as it was read from a file."""
    sealer = Sealer(run)
    for sample in run.samples:
        sealer.add(sample)
    return sealer.seal


def seal_fits(run: RunFile) -> bool:
    return run.seal == seal_of(run)


def sealed(run: RunFile) -> RunFile:
    """The same run with its seal. Raises `CannotMeasure` if it does not fit a run file."""
    run = as_read_back(run)
    return replace(run, seal=seal_of(run))


def as_read_back(run: RunFile) -> RunFile:
    """The run as a reader of its file would see it; the samples are as the journal has them.

    Raises `CannotMeasure` if a reader would refuse it.
    """
    try:
        head = _RUN.decode(msgspec.json.encode(replace(run, samples=())))
    except msgspec.DecodeError as error:
        raise CannotMeasure(f"this run does not fit a run file: {error}") from error
    return replace(head, samples=run.samples)
