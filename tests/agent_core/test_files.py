"""`BlockingFiles` and `ThreadedFiles` read the same text and write the same bytes."""

import asyncio
import errno
import os
import struct
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_core.errors import ToolError
from agent_core.files import BlockingFiles, ThreadedFiles
from agent_core.ports import Files, Lines

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize(
    "files",
    [BlockingFiles(), ThreadedFiles(), ThreadedFiles(inline_limit=-1, chunk=3)],
    ids=["blocking", "inline", "threaded"],
)

ENDS = ["\n", "\r\n", "\r", "\n\n", ""]
WORDS = st.sampled_from(["a", "bc", "é", "€", "\N{GRINNING FACE}", "\ufeff", ""])
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from(ENDS)), max_size=8).map(
    lambda lines: "".join(word + end for word, end in lines)
)
UNIFORM = st.lists(WORDS, max_size=8).map("\r\n".join)
CODECS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
CONTENTS = st.one_of(
    st.binary(max_size=40),
    st.builds(str.encode, TEXTS | UNIFORM, CODECS),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"\r\n") + b"\xff"),
    st.lists(st.sampled_from([b"\xff", b"\xe2\x82", "€é\r\n".encode(), b"a"])).map(b"".join),
)


def run(work: object) -> object:
    """The result of a coroutine, or the text of its error."""
    try:
        return asyncio.run(work)  # type: ignore[arg-type]
    except ToolError as error:
        return str(error)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def threaded(chunk: int) -> ThreadedFiles:
    return ThreadedFiles(inline_limit=-1, chunk=chunk)


@given(
    CONTENTS,
    st.integers(1, 6),
    st.integers(1, 6) | st.none(),
    st.integers(0, 9) | st.just(999),
    st.integers(1, 9),
)
@example(b"a\r\nb\r\n", 1, 1, 9, 2)
@example(b"a\r\nb\n", 1, 2, 9, 2)
@example(b"\xef\xbb\xbfa\r\n\xff", 1, None, 9, 2)
@example(b"\r\n" * 9, 1, None, 4, 3)
def test_both_implementations_read_the_same(
    content: bytes, first: int, last: int | None, limit: int, chunk: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f")
        path.write_bytes(content)
        blocking = run(BlockingFiles().read(path))
        assert run(threaded(chunk).read(path)) == blocking
        lines = run(BlockingFiles().read_lines(path, first, last, limit))
        assert run(threaded(chunk).read_lines(path, first, last, limit)) == lines
        assert isinstance(blocking, str)
        expected = blocking.split("\n")
        chosen = "\n".join(expected[first - 1 : last])
        assert isinstance(lines, Lines)
        assert lines == Lines(chosen[:limit], len(chosen), len(expected), lines.note)


@given(CONTENTS | st.none(), TEXTS)
@example(b"caf\xe9\r\n", "€\n")
def test_both_implementations_write_the_same_bytes(content: bytes | None, text: str) -> None:
    left = []
    for files in (BlockingFiles(), ThreadedFiles(), threaded(3)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "f")
            if content is not None:
                path.write_bytes(content)
            message = run(files.write(path, text))
            left.append((str(message).replace(folder, ""), path.read_bytes(), names(Path(folder))))
    assert left[0] == left[1] == left[2]


@given(CONTENTS)
@example(b"a\r\nb\r\n")
@example("\ufeffa\r\n".encode("utf-16-be"))
@example(b"\xff\xfea")
@example("é\r\n".encode() + b"\xff\r\n")
def test_read_and_write_round_trip(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "f")
        path.write_bytes(content)
        for files in (BlockingFiles(), threaded(3)):
            assert run(files.write(path, str(run(files.read(path))))) is None
            assert path.read_bytes() == content


@BOTH
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"one\r\ntwo\r\n", b"ONE\r\nnew\r\ntwo\r\n"),
        (b"one\ntwo\r\n", b"ONE\nnew\ntwo\r\n"),
        (b"\xef\xbb\xbfone\n", b"\xef\xbb\xbfONE\nnew\n"),
        ("one \xe9\r\n".encode("latin-1"), "ONE\r\nnew \xe9\r\n".encode("latin-1")),
        ("\ufeffone\n".encode("utf-16-be"), "\ufeffONE\nnew\n".encode("utf-16-be")),
    ],
    ids=["crlf", "mixed", "utf-8 mark", "latin-1 and crlf", "utf-16"],
)
async def test_edit_keeps_encoding_and_line_ends(
    tmp_path: Path, files: Files, before: bytes, after: bytes
) -> None:
    path = tmp_path / "f"
    path.write_bytes(before)
    text = await files.read(path)
    await files.write(path, text.replace("one", "ONE\nnew", 1))
    assert path.read_bytes() == after


@BOTH
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
async def test_one_bad_byte_does_not_change_the_encoding(
    tmp_path: Path, files: Files, mark: bytes
) -> None:
    """The whole file was Latin-1 then, and an insert of an `é` was one byte in UTF-8 text."""
    path = tmp_path / "f"
    path.write_bytes(mark + "größe\n".encode() + b"bad \xff\n")
    await files.write(path, (await files.read(path)) + "é €\n")
    assert path.read_bytes() == mark + "größe\n".encode() + b"bad \xff\n" + "é €\n".encode()
    lines = await files.read_lines(path, 1, 1, 99)
    assert (lines.text, lines.note[:27]) == ("größe", "some bytes are not UTF-8; e")


@BOTH
@pytest.mark.parametrize("codec", ["gbk", "big5", "shift_jis", "euc_kr", "koi8-r", "latin-1"])
async def test_other_encodings_are_labelled(tmp_path: Path, files: Files, codec: str) -> None:
    texts = {"koi8-r": "Привет, мир\n", "latin-1": "déjà vu\n", "euc_kr": "안녕하세요\n"}
    path = tmp_path / "f"
    path.write_bytes(b"# plain\n" + texts.get(codec, "中文文本\n").encode(codec))
    lines = await files.read_lines(path, 1, 1, 99)
    assert lines == Lines("# plain", 7, 3, "not UTF-8; shown as Latin-1")
    await files.write(path, (await files.read(path)).replace("# plain", "# edited"))
    assert path.read_bytes() == b"# edited\n" + texts.get(codec, "中文文本\n").encode(codec)


ACL = struct.pack(
    "<I" + "HHI" * 5,
    2,
    *(0x01, 6, 2**32 - 1),  # owner rw-
    *(0x02, 6, 12345),  # user 12345 rw-
    *(0x04, 4, 2**32 - 1),  # group r--
    *(0x10, 6, 2**32 - 1),  # mask rw-
    *(0x20, 0, 2**32 - 1),  # others ---
)
"""`user::rw- user:12345:rw- group::r-- mask::rw- other::---` as the kernel stores it."""


@BOTH
@pytest.mark.parametrize(
    ("name", "value"), [("user.note", b"kept"), ("system.posix_acl_access", ACL)]
)
async def test_attributes_and_acl_are_kept(
    tmp_path: Path, files: Files, name: str, value: bytes
) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    try:
        os.setxattr(path, name, value)
    except (OSError, AttributeError):
        pytest.skip(f"the file system has no {name}")
    before = path.stat().st_mode
    await files.write(path, "new")
    assert (path.read_text(), path.stat().st_mode) == ("new", before)
    assert os.getxattr(path, name) == value


@BOTH
async def test_a_default_acl_does_not_widen_access(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o640)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", ACL)
    except (OSError, AttributeError):
        pytest.skip("the file system has no ACLs")
    await files.write(path, "new")
    assert (os.listxattr(path), path.stat().st_mode & 0o777) == ([], 0o640)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
async def test_a_mount_point_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "f"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", refuse)
    await ThreadedFiles().write(path, "new")
    assert (path.read_text(), names(tmp_path)) == ("new", ["f"])


async def test_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "f"
    path.write_text("old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ToolError, match="No space left"):
        await ThreadedFiles().write(path, "new")
    assert (path.read_text(), names(tmp_path)) == ("old", ["f"])


@BOTH
async def test_text_outside_the_encoding_is_rejected(tmp_path: Path, files: Files) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(
        ToolError, match=r"latin-1 text, which cannot contain the character U\+20AC"
    ):
        await files.write(path, "5 €")
    with pytest.raises(ToolError, match=r"U\+D800"):
        await files.write(tmp_path / "new", "\ud800")
    assert path.read_bytes() == b"caf\xe9"
    assert not (tmp_path / "new").exists()


@BOTH
async def test_path_that_is_not_a_file_is_rejected(tmp_path: Path, files: Files) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, message in (
        (tmp_path, "is a folder"),
        (pipe, "neither"),
        (tmp_path / "no", "No such"),
    ):
        with pytest.raises(ToolError, match=message):
            await files.read(path)
        with pytest.raises(ToolError, match=message):
            await files.read_lines(path, 1, 2, 9)
    with pytest.raises(ToolError, match="is a folder"):
        await files.write(tmp_path, "x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ToolError, match="symbolic links"):
        await files.write(tmp_path / "loop", "x")
    assert (tmp_path / "loop").is_symlink()


@BOTH
async def test_mode_links_and_missing_folders(tmp_path: Path, files: Files) -> None:
    script, link, twin = tmp_path / "run.sh", tmp_path / "link", tmp_path / "twin"
    script.write_text("old")
    script.chmod(0o751)
    link.symlink_to(script)
    await files.write(link, "new")
    assert link.is_symlink()
    assert (script.read_text(), script.stat().st_mode & 0o777) == ("new", 0o751)
    twin.hardlink_to(script)
    await files.write(twin, "newer")
    assert script.read_text() == "newer"
    deep = tmp_path / "x" / "y" / "z"
    await files.write(deep, "deep")
    plain = tmp_path / "plain"
    plain.touch()
    assert (deep.read_text(), deep.stat().st_mode) == ("deep", plain.stat().st_mode)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "far" / "target")
    await files.write(dangling, "there")
    assert (tmp_path / "far" / "target").read_text() == "there"
    assert dangling.is_symlink()


async def test_reader_never_sees_a_partial_file(tmp_path: Path) -> None:
    """A reader that opened the old file keeps it: the name moves, the file does not change."""
    path = tmp_path / "f"
    path.write_text("old " * 100_000)
    for inline_limit in (10_000_000, -1):
        with path.open() as reader:
            before = path.stat().st_size
            await ThreadedFiles(inline_limit=inline_limit).write(path, f"new{inline_limit}")
            assert len(reader.read()) == before
        assert path.read_text() == f"new{inline_limit}"


async def test_failed_write_keeps_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    taken = tmp_path / "folder"
    taken.mkdir()
    with pytest.raises(ToolError):
        await ThreadedFiles().write(path / "below", "x")
    with pytest.raises(ToolError):
        await ThreadedFiles().write(taken, "x")
    assert names(tmp_path) == ["f", "folder"]
    assert path.read_text() == "old"


async def test_cancelled_write_completes_before_its_caller_continues(tmp_path: Path) -> None:
    """A pipe simulates a slow disk: the writing thread blocks until the pipe is read."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = asyncio.create_task(ThreadedFiles(inline_limit=-1).write(pipe, "x" * 10))
    await asyncio.sleep(0.05)
    writing.cancel()
    await asyncio.sleep(0.05)
    ended_early = writing.done()
    assert await asyncio.to_thread(pipe.read_text) == "x" * 10  # always unblocks the thread
    assert not ended_early
    with pytest.raises(asyncio.CancelledError):
        await writing


async def test_large_ranges_are_streamed(tmp_path: Path) -> None:
    """The peak memory of a range is a few chunks, independent of the file's size."""
    path = tmp_path / "big"
    path.write_text("0123456789abcde\n" * 500_000)
    files = ThreadedFiles(chunk=64 * 1024)
    tracemalloc.start()
    try:
        part = await files.read_lines(path, 400_000, 400_001, 100)
        assert part == Lines("0123456789abcde\n0123456789abcde", 31, 500_001)
        whole = await files.read_lines(path, 1, None, 5)
        assert whole == Lines("01234", path.stat().st_size, 500_001)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000 < path.stat().st_size
