"""Reads of untrusted files end, and respect their size limit."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trae_bench._util import bounded_io
from trae_bench.cli import main
from trae_bench.errors import BenchError
from trae_bench.scenario import load
from trae_bench.scenario.importers.reading import read_session
from trae_bench.storage.journal import read_journal
from trae_bench.storage.run_file import read_run
from trae_bench.verdicts.claims_file import load as load_claims

READERS: list[Callable[[Path], object]] = [
    bounded_io.text,
    read_run,
    read_journal,
    read_session,
    load,
    load_claims,
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "holes"])
def test_every_read_ends(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "input.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    message = "larger than" if kind == "holes" else "not a regular file"
    with pytest.raises((OSError, BenchError), match=message):
        read(path)


@pytest.mark.parametrize(
    "argv", [["report", "PIPE"], ["verify", "PIPE"], ["record", "PIPE", "--out", "x.toml"]]
)
def test_no_command_blocks_on_a_named_pipe(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "p")
    assert main([str(tmp_path / "p") if word == "PIPE" else word for word in argv]) in (2, 4)
    output = capsys.readouterr()
    assert "not a regular file" in output.out + output.err


def test_report_does_not_block_on_a_guide_that_is_a_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "p")
    (tmp_path / "r.json").write_text("{}")
    assert main(["report", str(tmp_path / "r.json"), "--guide", str(tmp_path / "p")]) == 2
    assert "not a regular file" in capsys.readouterr().err


def test_an_inherited_descriptor_may_be_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"twelve bytes")
    os.close(writer)
    try:
        assert bounded_io.whole(Path(f"/dev/fd/{reader}")) == b"twelve bytes"
    finally:
        os.close(reader)


def test_reads_both_ends_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"\xef\xbb\xbf0123456789\r\n")
    assert bounded_io.first_bytes(path, 4) == b"\xef\xbb\xbf0"
    assert bounded_io.last_bytes(path, 3) == b"9\r\n"
    assert bounded_io.last_bytes(path, 99) == bounded_io.whole(path)
    assert bounded_io.text(path) == "0123456789\r\n"
    assert bounded_io.whole(path, 15)
    with pytest.raises(OSError, match="larger than 14 bytes"):
        bounded_io.whole(path, 14)
    with pytest.raises(IsADirectoryError):
        bounded_io.text(tmp_path)
