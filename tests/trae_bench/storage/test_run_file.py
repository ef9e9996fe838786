"""Tests of journals and run files: round trips, validation, damage and full disks."""

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trae_bench.fakes import cell, sample
from tests.trae_bench.runs import used
from trae_bench._util.atomic_write import write_whole
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import BadRunFile, CannotMeasure, UsageError
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Limits
from trae_bench.model.run import FORMAT, VERSION, Header, Resumed, RunFile
from trae_bench.model.sample import Sample
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.decision import RULES
from trae_bench.stats.noise import noise_floor
from trae_bench.storage import journal as journal_
from trae_bench.storage import run_file as store
from trae_bench.storage import seal
from trae_bench.storage.journal import Journal

ROOT = Path(__file__).resolve().parents[3]
CELLS = (cell(NOISE_FLOOR), cell("fast"), cell("fast", "serial", ("wall",)))


def header(**changes: Any) -> Header:
    plain = Header(
        format=FORMAT,
        version=VERSION,
        created="2026-01-01T00:00:00+00:00",
        command="trae-bench run",
        profile="quick",
        seed=1,
        limits=Limits(budget=270.0),
        scenarios=used(CELLS),
        cells=CELLS,
        metrics={name: METRICS[name] for name in ("cpu", "wall")},
        rules=RULES,
        machine={"cores": 2, "cpu": "an ordinary one", "virtual": True, "load": 0.25},
        code={"commit": "0" * 40, "dirty": False},
        versions={"trae-bench": "0.1.0"},
    )
    return msgspec.structs.replace(plain, **changes)


def pairs(count: int, contrast: str = "fast") -> list[Sample]:
    return [
        sample(side, pair, contrast=contrast, started=10.0 * pair, metrics={"cpu": 1.0, "wall": 2})
        for pair in range(count)
        for side in ("A", "B")
    ]


def run_file(samples: list[Sample] | None = None) -> RunFile:
    kept = tuple(pairs(9) if samples is None else samples)
    rows = comparisons(kept, CELLS, METRICS)
    return RunFile(
        header=header(),
        stopped="done",
        elapsed=12.5,
        noise=tuple(noise_floor(rows, METRICS)),
        comparisons=tuple(rows),
        samples=kept,
    )


def journal_with(path: Path, samples: list[Sample]) -> Path:
    with Journal.create(path, header()) as journal:
        for new_sample in samples:
            journal.append(new_sample)
    return path


# -- journal


def test_journal_round_trip(tmp_path: Path) -> None:
    path = journal_with(tmp_path / "sub" / "j.jsonl", pairs(3))
    contents = journal_.read_journal(path)

    assert contents.header == header()
    assert list(contents.samples) == pairs(3)
    assert contents.keep == path.stat().st_size
    assert contents.dropped == 0


def test_append_syncs_each_sample_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.jsonl"
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.stat().st_size))

    with Journal.create(path, header()) as journal:
        monkeypatch.setattr(os, "fsync", fsync)
        for new_sample in pairs(1):
            journal.append(new_sample)
            assert synced[-1] == (path.stat().st_ino, path.stat().st_size)
    assert len(synced) == 2


@given(cut=st.integers(min_value=0))
def test_truncated_journal_can_be_resumed(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    """kill -9 can stop a write after any byte."""
    path = journal_with(tmp_path_factory.mktemp("cut") / "j.jsonl", pairs(3))
    data = path.read_bytes()
    first_line = data.index(b"\n") + 1
    size = first_line + cut % (len(data) - first_line + 1)
    path.write_bytes(data[:size])

    contents = journal_.read_journal(path)

    complete = data[:size].count(b"\n") - 1
    assert list(contents.samples) == pairs(3)[: complete - complete % 2]
    assert contents.dropped == complete % 2
    with Journal.reopen(path, contents, Resumed("later", "trae-bench run --resume")) as journal:
        for new_sample in pairs(3)[len(contents.samples) :]:
            journal.append(new_sample)
    resumed = journal_.read_journal(path)
    assert list(resumed.samples) == pairs(3)
    assert len(resumed.resumed) == 1


def test_time_before_a_resume_is_not_counted(tmp_path: Path) -> None:
    path = journal_with(tmp_path / "j.jsonl", pairs(2))
    contents = journal_.read_journal(path)
    assert contents.spent == 12.0  # 10 s between the starts plus 2 s of wall time

    with Journal.reopen(path, contents, Resumed("later", "again")) as journal:
        for new_sample in pairs(3)[4:]:
            journal.append(msgspec.structs.replace(new_sample, started=5000.0))
    assert journal_.read_journal(path).spent == 14.0


def test_journal_and_run_file_are_distinguished(tmp_path: Path) -> None:
    path = journal_with(tmp_path / "j.jsonl", pairs(2))
    with pytest.raises(BadRunFile, match="a journal, not a run file; `trae-bench run --resume"):
        store.read_run(path)
    store.write_run(tmp_path / "run.json", run_file())
    with pytest.raises(BadRunFile, match="this is a run file, and its run is over"):
        journal_.read_journal(tmp_path / "run.json")


def test_pair_duration_is_that_of_the_longer_side(tmp_path: Path) -> None:
    """The order in which the sides were written does not matter."""
    long, short = (sample(side, 0, metrics={"wall": 5.0}) for side in ("A", "B"))
    short = msgspec.structs.replace(short, metrics={"wall": 1.0})
    path = journal_with(tmp_path / "j.jsonl", [long, short])
    assert journal_.read_journal(path).spent == 5.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"pair":0,', b'"pair":0,"pair":0,', "'pair' stands twice"),
        (b'"verdict":', b'"verdict":"improvement","verdict":', "'verdict' stands twice"),
        (b'"pair":0,', b'"pair":0,"remark":"fine",', "unknown field `remark`"),
        (b'"cores":2', b'"cores":1' + b"0" * 400, "cores"),
    ],
)
def test_ambiguous_json_is_refused(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    facts = msgspec.structs.replace(header(), machine={"cores": 2})
    store.write_run(path, msgspec.structs.replace(run_file(), header=facts))
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(BadRunFile, match=message if message != "cores" else "run file"):
        store.read_run(path)


def test_journal_is_overwritten_only_with_force(tmp_path: Path) -> None:
    path = journal_with(tmp_path / "j.jsonl", pairs(1))
    with pytest.raises(UsageError, match="--resume"):
        Journal.create(path, header())
    assert list(journal_.read_journal(path).samples) == pairs(1)
    Journal.create(path, header(), force=True).close()
    assert journal_.read_journal(path).samples == ()


def test_journal_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotMeasure, match="cannot write"):
        Journal.create(tmp_path / "file" / "j.jsonl", header())


class CountingJournal(Journal):
    """A journal that counts calls of `close`."""

    closed = 0

    def close(self) -> None:
        CountingJournal.closed += 1
        super().close()


def test_failed_create_closes_and_removes_the_journal(tmp_path: Path) -> None:
    path, before = tmp_path / "j.jsonl", CountingJournal.closed
    with pytest.raises(CannotMeasure, match="does not fit"):
        CountingJournal.create(path, header(command="x" * 8001))
    assert CountingJournal.closed == before + 1
    assert not path.exists()


def test_failed_reopen_closes_and_keeps_the_journal(tmp_path: Path) -> None:
    path, before = journal_with(tmp_path / "j.jsonl", pairs(2)), CountingJournal.closed
    contents = journal_.read_journal(path)
    with pytest.raises(CannotMeasure, match="does not fit"):
        CountingJournal.reopen(path, contents, Resumed("later", "x" * 8001))
    assert CountingJournal.closed == before + 1
    assert journal_.read_journal(path) == contents


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}", "expected one sample"),
        (b"nonsense", "malformed"),
        (b'{"sample": {"scenario": 1}}', r"Expected `str`, got `int`"),
        (b'{"sample": {"metrics": {"cpu": NaN}}}', "malformed"),
        (b'{"surprise": 1}', "unknown field"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 5000, "recursion|malformed|Expected"),
    ],
)
def test_invalid_line_is_reported(tmp_path: Path, line: bytes, message: str) -> None:
    path = journal_with(tmp_path / "j.jsonl", pairs(1))
    path.write_bytes(path.read_bytes() + line + b"\n" + b"{}\n")
    with pytest.raises(BadRunFile, match=rf"j\.jsonl:4: .*({message})"):
        journal_.read_journal(path)


def test_file_without_a_header_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checks.toml"
    path.write_text('name = "checks"\nabout = "no journal"\n')
    with pytest.raises(BadRunFile, match=r"checks\.toml:1: not a journal of trae-bench") as caught:
        journal_.read_journal(path)
    assert "good" not in str(caught.value)


def test_duplicate_sample_is_reported(tmp_path: Path) -> None:
    path = journal_with(tmp_path / "j.jsonl", [*pairs(1), pairs(1)[0]])
    with pytest.raises(BadRunFile, match=r":4: the same sample as in line 2"):
        journal_.read_journal(path)


def test_unplanned_sample_is_reported(tmp_path: Path) -> None:
    path = journal_with(tmp_path / "j.jsonl", [*pairs(1), sample("A", 2, contrast="stranger")])
    with pytest.raises(BadRunFile, match=":4: this sample is not in the plan"):
        journal_.read_journal(path)


def test_missing_metric_definition_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal.create(path, header(metrics={"cpu": METRICS["cpu"]})).close()
    with pytest.raises(BadRunFile, match="the plan names 'wall'"):
        journal_.read_journal(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"no newline", b"{}\n", b'{"sample":'])
def test_invalid_journal_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadRunFile, match=r"j\.jsonl:1: "):
        journal_.read_journal(path)


def test_append_rejects_nan_and_infinity(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal.create(path, header()) as journal:
        for value in (math.nan, math.inf):
            with pytest.raises(CannotMeasure, match="does not fit"):
                journal.append(sample(metrics={"cpu": value}))
        journal.append(sample("A"))
        journal.append(sample("B"))
    assert len(journal_.read_journal(path).samples) == 2


def test_long_problem_text_is_truncated_at_the_start(tmp_path: Path) -> None:
    failed = sample("A", status="failed", problem="x" * 100_000 + "the end")
    path = journal_with(tmp_path / "j.jsonl", [failed, sample("B")])
    problem = journal_.read_journal(path).samples[0].problem
    assert problem is not None
    assert len(problem) == journal_.MAX_PROBLEM
    assert problem.endswith("the end")


def test_full_disk_error_keeps_a_valid_journal(tmp_path: Path) -> None:
    """The kernel limits the file size, so a write fails in the middle of a line."""
    path = tmp_path / "j.jsonl"
    script = f"""
import resource, signal, sys
from pathlib import Path
from tests.trae_bench.storage.test_run_file import header, pairs
from trae_bench.errors import CannotMeasure
from trae_bench.storage.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path({str(path)!r})
with Journal.create(path, header()) as journal:
    journal.append(pairs(1)[0])
    journal.append(pairs(1)[1])
    limit = path.stat().st_size + 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        journal.append(pairs(2)[2])
    except CannotMeasure as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert str(path) in done.stdout
    assert "--out" in done.stdout
    assert path.read_bytes().endswith(b"\n")
    assert list(journal_.read_journal(path).samples) == pairs(1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_device_without_space(tmp_path: Path) -> None:
    with Path("/dev/full").open("r+b", buffering=0) as file:
        journal = Journal(Path("/dev/full"), file)
        with pytest.raises(CannotMeasure, match=r"/dev/full: No space left.*free some space"):
            journal.append(sample())


# -- run file


def test_run_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.json"
    store.write_run(path, run_file())
    assert store.read_run(path) == seal.sealed(run_file())
    assert [p.name for p in path.parent.iterdir()] == ["run.json"]


def test_run_file_has_one_sample_per_line(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    store.write_run(path, run_file())
    lines = path.read_text().splitlines()
    assert sum('"transcript"' in line for line in lines) == len(run_file().samples)
    assert max(map(len, lines)) < 5000


def test_run_file_is_overwritten_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    store.write_run(path, run_file())
    with pytest.raises(UsageError, match="--force"):
        store.write_run(path, run_file([]))
    assert store.read_run(path) == seal.sealed(run_file())
    store.write_run(path, run_file([]), force=True)
    assert store.read_run(path).samples == ()


def test_failed_write_keeps_the_old_run_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    store.write_run(path, run_file())
    bad = msgspec.structs.replace(run_file(), elapsed=math.nan)
    with pytest.raises(CannotMeasure):
        store.write_run(path, bad, force=True)
    with pytest.raises(CannotMeasure, match="--out"):
        store.write_run(path / "below-a-file.json", run_file())
    assert store.read_run(path) == seal.sealed(run_file())


@pytest.mark.parametrize("kind", ["device", "pipe", "link"])
def test_devices_pipes_and_links_are_not_replaced(tmp_path: Path, kind: str) -> None:
    target, path = tmp_path / "target", tmp_path / "path"
    reader = -1
    if kind == "pipe":
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    else:
        path.symlink_to("/dev/null" if kind == "device" else target)
        target.write_text("old")
    mode = path.lstat().st_mode
    write_whole(path, [b"one", b"two"])
    assert path.lstat().st_mode == mode
    assert Path("/dev/null").is_char_device()
    if kind == "link":
        assert target.read_text() == "onetwo"
    if kind == "pipe":
        assert os.read(reader, 100) == b"onetwo"
        os.close(reader)
    assert {file.name for file in tmp_path.iterdir()} <= {"path", "target"}


@pytest.mark.parametrize("number", [10**400, -(10**400), 2**63])
def test_integer_out_of_range_is_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "r.json"
    changed = document()
    changed["header"]["machine"]["cores"] = number
    path.write_text(json.dumps(changed))
    with pytest.raises(BadRunFile, match="int"):
        store.read_run(path)


def document() -> Any:
    return json.loads(msgspec.json.encode(run_file()))


def test_run_file_matches_the_published_schema() -> None:
    jsonschema.validate(document(), json.loads((ROOT / "docs/schemas/run.schema.json").read_text()))


def test_published_schema_is_current() -> None:
    """`trae-bench schema run` writes the published schema."""
    assert json.loads((ROOT / "docs/schemas/run.schema.json").read_text()) == store.schema()


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.name)
def test_committed_run_files_are_valid(path: Path) -> None:
    assert seal.seal_fits(store.read_run(path))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("header", "format"), "something else", "not a run file"),
        (("header", "version"), 3, "version 3"),
        (("header", "seed"), "1", r"header\.seed"),
        (("header", "extra"), 1, "extra"),
        (("elapsed",), None, r"elapsed"),
        (("samples", 0, "side"), "C", r"samples\[0\]\.side|samples\[\.\.\.\]\.side"),
        (("samples", 0, "metrics"), {"x" * 201: 1}, "length"),
        (("samples", 0, "metrics"), {str(n): n for n in range(501)}, "length"),
        (("samples", 0, "scenario"), "x" * 201, "length"),
        (("comparisons", 0, "pairs", "reasons"), ["x" * 8001], "length"),
        (("header", "rules", "duet", "threshold"), 5.0, "threshold"),
    ],
)
def test_invalid_field_is_reported(
    tmp_path: Path, place: tuple[Any, ...], value: object, message: str
) -> None:
    changed = document()
    part = changed
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    path = tmp_path / "run.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(BadRunFile, match=message):
        store.read_run(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"{", b'{"header": {}}', b"\xff", b"[" * 100_000, b'{"header": NaN}'],
)
def test_invalid_run_file_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(BadRunFile, match=r"run\.json: "):
        store.read_run(path)


@given(data=st.binary(max_size=200), place=st.integers(0, 10_000))
def test_damaged_run_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, place: int
) -> None:
    whole = msgspec.json.encode(run_file(pairs(2)))
    at = place % len(whole)
    path = tmp_path_factory.mktemp("damaged") / "run.json"
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    try:
        store.read_run(path)
    except BadRunFile as error:
        assert str(path) in str(error)


def test_folder_and_missing_file_are_reported(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(BadRunFile, match=str(path)):
            store.read_run(path)


def test_oversized_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    store.write_run(path, run_file())
    with pytest.raises(BadRunFile, match="larger than"):
        store.read_run(path, max_bytes=100)
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadRunFile, match="larger than"):
        store.read_run(path)


def test_file_with_too_many_values_is_refused(tmp_path: Path) -> None:
    """Seven million empty arrays take 21 MB on disk and half a gigabyte in memory."""
    path = tmp_path / "run.json"
    path.write_bytes(b'{"samples": [' + b"[]," * 7_000_000 + b"[]]}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadRunFile, match="values"):
        store.read_run(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kB


@pytest.mark.parametrize("precision", [-2.0, 0.0, 3.0])
def test_invalid_precision_is_refused(precision: float) -> None:
    with pytest.raises(msgspec.ValidationError, match="precision"):
        msgspec.json.decode(
            msgspec.json.encode(header(limits=Limits(precision=precision))), type=Header
        )
