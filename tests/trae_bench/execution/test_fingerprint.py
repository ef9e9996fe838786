"""Digests are equal for equal answers and differ for every visible difference."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.execution import fingerprint
from trae_bench.execution.fingerprint import Clean, cleaner
from trae_bench.execution.oracle import check_result
from trae_bench.execution.workspace import remove
from trae_bench.model.sample import ChildReport, RequestLog, SessionLog
from trae_bench.scenario import Normalise, Oracle

IGNORE = ("__pycache__", "*.pyc", "build/tmp")


def same(text: str) -> str:
    return text


def log(body: bytes, requests: int = 1, unexpected: int = 0) -> SessionLog:
    asked = tuple(RequestLog(n, n + 0.5, 1, 2, 3, 200) for n in range(requests))
    return SessionLog(asked, 1, body, unexpected)


def report(text: str = "done", success: bool = True) -> ChildReport:
    return ChildReport(success, text, 1)


def transcript_digest(log: SessionLog, answer: ChildReport | None, clean: Clean) -> str:
    return fingerprint.transcript_of(log, answer, clean).digest


def workspace_digest(root: Path, ignore: Iterable[str], clean: Clean) -> str:
    return fingerprint.workspace_digest(fingerprint.workspace_files(root, ignore, clean))


# -- what may differ


def test_longer_places_are_replaced_first() -> None:
    clean = cleaner(
        {"home": "/tmp/x/0", "workspace": "/tmp/x/0/ws", "provider": "http://h/s/1"}, ()
    )
    assert clean("in /tmp/x/0/ws/a by http://h/s/1/v1") == "in {workspace}/a by {provider}/v1"
    assert clean("/tmp/x/0/log") == "{home}/log"


def test_places_are_replaced_inside_json_and_in_resolved_form(tmp_path: Path) -> None:
    real = tmp_path / 'a "real" ü'
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    clean = cleaner({"workspace": str(tmp_path / "link")}, ())
    assert clean(json.dumps({"path": str(real)})) == '{"path": "{workspace}"}'
    assert clean(str(real)) == "{workspace}"


def test_patterns_apply_after_the_places() -> None:
    clean = cleaner({"workspace": "/w"}, (Normalise(r"(\{workspace\}) in [\d.]+s", r"\1 in Xs"),))
    assert clean("/w in 0.25s") == "{workspace} in Xs"


# -- the conversation


def test_key_order_and_spacing_do_not_change_the_digest() -> None:
    one = transcript_digest(log(b'{"a": 1, "b": ["x"]}'), report(), same)
    assert transcript_digest(log(b'{"b":["x"],"a":1}'), report(), same) == one


@pytest.mark.parametrize(
    "other",
    [
        (log(b'{"a": 2, "b": ["x"]}'), report()),
        (log(b'{"a": 1, "b": ["x", "x"]}'), report()),
        (log(b'{"a": 1, "b": ["x"]}', requests=2), report()),
        (log(b'{"a": 1, "b": ["x"]}', unexpected=1), report()),
        (log(b'{"a": 1, "b": ["x"]}'), report("other")),
        (log(b'{"a": 1, "b": ["x"]}'), report(success=False)),
        (log(b'{"a": 1, "b": ["x"]}'), None),
        (log(b"not json"), report()),
    ],
)
def test_other_differences_change_the_transcript_digest(
    other: tuple[SessionLog, ChildReport | None],
) -> None:
    one = transcript_digest(log(b'{"a": 1, "b": ["x"]}'), report(), same)
    assert transcript_digest(*other, same) != one


def test_text_is_cleaned_at_any_depth_and_in_the_final_text() -> None:
    clean = cleaner({"workspace": "/w/0"}, ())
    other = cleaner({"workspace": "/w/1"}, ())
    body = '{"messages": [{"content": [{"text": "ran in /w/%d"}]}]}'
    one = transcript_digest(log((body % 0).encode()), report("see /w/0"), clean)
    assert transcript_digest(log((body % 1).encode()), report("see /w/1"), other) == one
    assert transcript_digest(log((body % 1).encode()), report("see /w/1"), clean) != one


MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


def request(block: dict[str, object], **fields: object) -> SessionLog:
    result = {"type": "tool_result", "content": "out", **block}
    messages = [{"role": "user", "content": [result, result]}]
    return log(json.dumps({"tools": [{"name": "a"}], "messages": messages, **fields}).encode())


@pytest.mark.parametrize(
    "marked",
    [
        request(MARK),
        request({}, tools=[{"name": "a", **MARK}]),
        request({}, **MARK),
        request({}, prompt_cache_key="7f3a"),
        request({"content": [{"type": "text", "text": "out", **MARK}]}),
    ],
)
def test_marks_for_the_providers_cache_do_not_change_the_digest(marked: SessionLog) -> None:
    plain = transcript_digest(request({}), report(), same)
    assert transcript_digest(marked, report(), same) == plain


def test_marks_are_ignored_in_each_of_several_conversations() -> None:
    bodies = [request({}, prompt_cache_key=key).last_body for key in ("one", "two")]
    first, second = (log(b"[" + b",".join(order) + b"]") for order in (bodies, bodies[::-1]))
    assert transcript_digest(first, report(), same) == transcript_digest(second, report(), same)


@pytest.mark.parametrize(
    "other",
    [
        request({"input": {"cache_control": "no-store"}}),
        request({"input": {"prompt_cache_key": "7f3a"}}),
        request({"content": [{"type": "text", "text": "other"}]}),
        request({"content": [{"type": "text", "text": "out", "citations": []}]}),
        request({"content": [{"type": "text", "text": "out"}] * 2}),
        request({"content": [{"type": "image", "text": "out"}]}),
    ],
)
def test_only_marks_for_the_cache_are_ignored(other: SessionLog) -> None:
    plain = transcript_digest(request({}), report(), same)
    assert transcript_digest(other, report(), same) != plain


@given(st.binary(max_size=200))
def test_any_body_has_a_digest(body: bytes) -> None:
    digest = transcript_digest(log(body), None, same)
    assert transcript_digest(log(body), None, same) == digest
    assert len(digest) == 32


def test_a_deeply_nested_body_has_a_digest() -> None:
    deep = b"[" * 100_000
    assert transcript_digest(log(deep), None, same) != transcript_digest(log(deep[:-1]), None, same)


# -- the files


def tree(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("one\n")
    (root / "sub/b.bin").write_bytes(b"\xff\x00")
    (root / "link").symlink_to("a.txt")
    return root


def test_equal_trees_have_equal_digests(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "1"), tree(tmp_path / "2")
    (two / "__pycache__").mkdir()
    (two / "__pycache__/x").write_text("x")
    (two / "sub/c.pyc").write_text("x")
    (two / "build").mkdir()
    (two / "build/tmp").write_text("x")
    (two / "empty").mkdir()
    assert workspace_digest(one, IGNORE, same) == workspace_digest(two, IGNORE, same)
    (two / "tmp").write_text("x")
    assert workspace_digest(one, IGNORE, same) != workspace_digest(two, IGNORE, same)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a.txt").write_text("two\n"),
        lambda root: (root / "a.txt").chmod(0o755),
        lambda root: (root / "a.txt").rename(root / "c.txt"),
        lambda root: (root / "sub/b.bin").write_bytes(b"\xff\x01"),
        lambda root: (root / "new").write_text(""),
        lambda root: ((root / "link").unlink(), (root / "link").symlink_to("sub")),
        lambda root: ((root / "link").unlink(), (root / "link").write_text("one\n")),
        lambda root: os.mkfifo(root / "pipe"),
        lambda root: (root / "folder").symlink_to("sub"),
    ],
)
def test_every_file_change_changes_the_digest(tmp_path: Path, change: object) -> None:
    root = tree(tmp_path / "root")
    before = workspace_digest(root, IGNORE, same)
    change(root)  # type: ignore[operator]
    assert workspace_digest(root, IGNORE, same) != before


def test_a_path_in_a_file_is_cleaned(tmp_path: Path) -> None:
    digests = set()
    for name in ("1", "2"):
        root = tree(tmp_path / name)
        (root / "where").write_text(f"here: {root}\n")
        digests.add(workspace_digest(root, IGNORE, cleaner({"workspace": str(root)}, ())))
    assert len(digests) == 1


def test_a_large_file_is_not_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trae_bench.execution.fingerprint.MAX_CLEANED", 100)

    def digest(text: str) -> str:
        (tmp_path / "log").write_text(text)
        return workspace_digest(tmp_path, IGNORE, cleaner({"place": "here"}, ()))

    assert digest("x" * 200 + "here") != digest("x" * 200 + "{place}")
    assert digest("here") == digest("{place}")


# -- the oracle


@pytest.mark.parametrize(
    ("oracle", "told", "words"),
    [
        (Oracle(), report(), None),
        (Oracle(files={"a.txt": "one\n"}, final_text="on"), report("done"), None),
        (Oracle(files={"a.txt": "one\n"}), None, None),
        (Oracle(files={"a.txt": "one"}), report(), "a.txt is not as expected"),
        (Oracle(files={"no": "x"}), report(), "no: No such file"),
        (Oracle(files={"sub": "x"}), report(), "sub: Is a directory"),
        (Oracle(final_text="gone"), report("done"), "'gone'"),
        (Oracle(final_text="gone"), None, None),
        (Oracle(), report(success=False), "did not succeed"),
    ],
)
def test_check_result(
    tmp_path: Path, oracle: Oracle, told: ChildReport | None, words: str | None
) -> None:
    found = check_result(oracle, tree(tmp_path / "root"), told)
    assert found is None if words is None else words in str(found)


@pytest.mark.parametrize("put", ["pipe", "device", "link", "folder", "long"])
def test_only_regular_files_in_the_workspace_are_read(tmp_path: Path, put: str) -> None:
    """Opening a pipe would block forever, after the trial's timeout has ended."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "a.txt").write_text("one")
    where, target = root / "sub" / "a.txt", outside
    if put == "folder":
        (root / "sub").symlink_to(target)
    else:
        (root / "sub").mkdir()
    if put == "pipe":
        os.mkfifo(where)
    elif put == "device":
        where.symlink_to("/dev/zero")
    elif put == "link":
        where.symlink_to(target / "a.txt")
    elif put == "long":
        with where.open("wb") as file:
            file.write(b"one")
            file.truncate(1 << 40)
    said = "not as expected" if put == "long" else "not a regular file"
    found = check_result(Oracle(files={"sub/a.txt": "one"}), root, None)
    assert said in str(found)


def test_deeply_nested_folders_have_a_digest(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    empty = workspace_digest(tmp_path, (), same)
    os.mkfifo("pipe", dir_fd=here)
    os.close(here)
    assert workspace_digest(tmp_path, (), same) != empty
    remove(tmp_path)
