"""Parsing of HTTP/1.1 requests, split at any position, and of invalid input."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.provider.http1_parser import BadRequest, Request, RequestReader

POST = b"POST /s/x/v1?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n"
    b"3;note=x\r\nabc\r\n0A\r\n012\r\n\r\n789\r\n0\r\nTrailer: t\r\n\r\n"
)
GET = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"


def read(*pieces: bytes) -> list[tuple[bytes, bytes, bytes]]:
    reader = RequestReader()
    found = []
    for piece in pieces:
        reader.feed(piece)
        while request := reader.next():
            found.append((request.method, request.path, request.body))
    return found


def only(data: bytes) -> Request:
    reader = RequestReader()
    reader.feed(data)
    request = reader.next()
    assert request is not None
    return request


def test_a_body_by_length() -> None:
    assert read(POST) == [(b"POST", b"/s/x/v1", b"hello")]


def test_a_body_in_chunks() -> None:
    assert read(CHUNKED) == [(b"POST", b"/c", b"abc012\r\n\r\n789")]


@given(st.lists(st.integers(0, 400), max_size=12))
def test_split_positions_do_not_matter(cuts: list[int]) -> None:
    stream = POST + CHUNKED + b"\r\n" + GET + POST
    edges = [0, *sorted(cut % len(stream) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert read(*pieces) == read(stream)
    assert [path for _, path, _ in read(stream)] == [b"/s/x/v1", b"/c", b"/healthz", b"/s/x/v1"]


@pytest.mark.parametrize(
    ("request_line", "header", "stays"),
    [
        (b"GET / HTTP/1.1", b"Host: h", True),
        (b"GET / HTTP/1.1", b"connection: Close", False),
        (b"GET / HTTP/1.0", b"Host: h", False),
    ],
)
def test_keep_alive(request_line: bytes, header: bytes, stays: bool) -> None:
    assert only(request_line + b"\r\n" + header + b"\r\n\r\n").keep_alive is stays


def test_wants_continue_is_true_once() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.next() is None
    assert reader.wants_continue()
    assert not reader.wants_continue()
    reader.feed(b"ok")
    request = reader.next()
    assert request is not None
    assert request.body == b"ok"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"G3T / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: empty name\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 300, 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"t" * 70_000, 431),
        (b"GET /" + b"a" * 70_000, 431),
    ],
)
def test_invalid_requests_are_rejected(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        read(data)
    assert caught.value.status == status
    assert caught.value.reason


PIECES = st.sampled_from(
    [
        *re.findall(rb"\r\n|[^\r]{1,9}", POST + CHUNKED + GET),
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"\x00\xff",
    ]
)


@given(st.lists(PIECES | st.binary(max_size=8), max_size=40))
def test_any_bytes_are_requests_or_rejected(pieces: list[bytes]) -> None:
    try:
        for method, _, _ in read(*pieces):
            assert method.isalpha()
    except BadRequest as error:
        assert 400 <= error.status < 600
