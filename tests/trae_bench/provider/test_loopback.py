"""The provider in its own process, over real sockets."""

import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from trae_bench._util.cpu_affinity import provider_core
from trae_bench.errors import ProviderDown
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import PlayedCall, PlayedTurn, Script
from trae_bench.scenario import Fault, ProviderConditions

ROOT = Path(__file__).resolve().parents[3]
TWO = Script((PlayedTurn("one"), PlayedTurn("two")))


@pytest.fixture(scope="module")
def provider() -> Iterator[Loopback]:
    with Loopback() as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return a session name that is unique to the test."""
    return str(request.node.name)[:150].replace("[", ".").replace("]", ".")


def raw_post(base_url: str, body: bytes = b"{}", headers: str = "") -> bytes:
    path = base_url.partition("127.0.0.1")[2].partition("/")[2]
    head = f"POST /{path}/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def connect(provider: Loopback) -> "closing[socket.socket]":
    return closing(socket.create_connection(provider.address, 10))


def read_reply(client: socket.socket) -> tuple[int, bytes]:
    """Return status and body of the next reply."""
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, response.read()


def text_of(body: bytes) -> str:
    return str(json.loads(body)["choices"][0]["message"]["content"])


def test_a_session_from_register_to_collect(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, TWO)
    assert base_url.endswith(f"/s/{name}/v1")
    before = time.monotonic()
    with connect(provider) as client:
        for body, expected in ((b"first", "one"), (b"second one", "two")):
            client.sendall(raw_post(base_url, body))
            status, reply = read_reply(client)
            assert (status, text_of(reply)) == (200, expected)
    after = time.monotonic()
    log = provider.collect(name)
    first, second = log.requests
    assert before <= first.arrived <= first.replied <= second.arrived <= second.replied <= after
    assert [entry.received for entry in log.requests] == [5, 10]
    assert [entry.status for entry in log.requests] == [200, 200]
    assert second.sent > len(reply)
    assert log.connections == 1
    assert log.last_body == b"second one"
    assert log.unexpected == 0
    assert log.cpu_seconds > 0


@pytest.mark.parametrize(("client", "stream"), [("own", False), ("own", True), ("foreign", True)])
def test_the_log_has_the_calls_of_each_reply(
    provider: Loopback, name: str, client: Literal["own", "foreign"], stream: bool
) -> None:
    call = PlayedCall("call_1", "bash", {"command": "ls"})
    turns = (PlayedTurn("one", (call, call)), PlayedTurn("two", (call,)), PlayedTurn("three"))
    faults = (Fault(2, "cut"),)
    script = Script(turns, ProviderConditions(stream=stream, faults=faults), client=client)
    base_url = provider.register(name, script)
    for number in range(4):
        with connect(provider) as connection:
            connection.sendall(raw_post(base_url, b'{"n": %d, "stream": true}' % number))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    log = provider.collect(name)
    assert [request.calls for request in log.requests] == [2, 0, 1, 0]


def test_pressure_files_are_read_in_turn(provider: Loopback, name: str, tmp_path: Path) -> None:
    files = []
    for number in (1, 2):
        file = tmp_path / f"{number}"
        file.write_text(f"some avg10=0.00 total=9\nfull avg10=0.00 total={number}7\n")
        files.append(str(file))
    url = provider.register(name, Script((PlayedTurn("done"),) * 3), files)
    with connect(provider) as client:
        for _ in range(3):
            client.sendall(raw_post(url))
            read_reply(client)
    requests = provider.collect(name).requests
    assert [tuple(request.pressure or ()) for request in requests] == [(1, 17)] * 3
    assert [tuple(request.reply_pressure or ()) for request in requests] == [(2, 27)] * 3
    assert all(request.read_late >= 0 for request in requests)


def require_real_time() -> None:
    if not hasattr(os, "SCHED_FIFO"):
        pytest.skip("no real-time priorities here")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        pytest.skip("this process may not raise a priority")


def test_the_server_runs_before_other_processes_if_it_may() -> None:
    require_real_time()
    with Loopback(pin=provider_core()) as server:
        policy = os.sched_getscheduler(server.pid) & ~os.SCHED_RESET_ON_FORK
    assert policy == os.SCHED_FIFO


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_RTTIME"), reason="no such limit here")
def test_provider_that_would_be_killed_has_no_real_time_priority() -> None:
    """The limit ends a process that compares two large requests."""
    require_real_time()
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (200_000, before[1]))
    try:
        with Loopback(pin=provider_core()) as server:
            policy = os.sched_getscheduler(server.pid)
    finally:
        resource.setrlimit(resource.RLIMIT_RTTIME, before)
    assert policy == os.SCHED_OTHER


def test_a_missing_pressure_file_is_an_error(provider: Loopback, name: str) -> None:
    with pytest.raises(ValueError, match="cannot read /nowhere"):
        provider.register(name, TWO, ["/nowhere/cpu.pressure"])
    assert provider.register(name, TWO)
    provider.collect(name)


def test_new_connections_are_counted(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, TWO)
    for _ in TWO.turns:
        with connect(provider) as client:
            client.sendall(raw_post(base_url, headers="Connection: close\r\n"))
            assert read_reply(client)[0] == 200
            assert client.recv(1) == b"", "the server closes as requested"
    log = provider.collect(name)
    assert log.connections == 2
    assert len({entry.connection for entry in log.requests}) == 2


def test_request_after_the_script_ends_gets_400(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, Script((PlayedTurn("only"),)))
    with connect(provider) as client:
        statuses = []
        for _ in range(3):
            client.sendall(raw_post(base_url))
            status, body = read_reply(client)
            statuses.append(status)
    assert statuses == [200, 400, 400]
    assert "the script has ended" in json.loads(body)["error"]["message"]
    log = provider.collect(name)
    assert log.unexpected == 2
    assert [entry.status for entry in log.requests] == statuses


def test_wrong_paths_and_methods_do_not_skip_a_turn(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, TWO)
    with connect(provider) as client:
        client.sendall(raw_post(base_url).replace(b"/chat/completions", b"/embeddings"))
        assert read_reply(client)[0] == 404
        client.sendall(raw_post(base_url).replace(b"POST", b"GET"))
        assert read_reply(client)[0] == 405
        client.sendall(raw_post(base_url).replace(b"completions", b"completions?a=b"))
        assert text_of(read_reply(client)[1]) == "one"
    assert provider.collect(name).unexpected == 2


def test_no_such_session(provider: Loopback, name: str) -> None:
    unrouted = provider.stats().unrouted
    base_url = provider.register(name, TWO)
    provider.collect(name)
    with connect(provider) as client:
        client.sendall(raw_post(base_url))
        assert read_reply(client)[0] == 404
    assert provider.stats().unrouted == unrouted + 1
    with pytest.raises(KeyError, match="no such session"):
        provider.collect(name)


def test_names_of_sessions(provider: Loopback, name: str) -> None:
    provider.register(name, TWO)
    with pytest.raises(ValueError, match="already registered"):
        provider.register(name, TWO)
    for bad in ("", "a/b", "a b", "é", "a\n"):
        with pytest.raises(ValueError, match="part of a URL path"):
            provider.register(bad, TWO)


def test_a_chunked_body_sent_byte_by_byte(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, TWO)
    whole = raw_post(base_url)
    head = whole.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked")
    with connect(provider) as client:
        for byte in head.removesuffix(b"{}") + b"2\r\n{}\r\n0\r\n\r\n":
            client.sendall(bytes([byte]))
        assert text_of(read_reply(client)[1]) == "one"
    assert provider.collect(name).last_body == b"{}"


def test_expect_100_continue(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, TWO)
    with connect(provider) as client:
        client.sendall(raw_post(base_url, headers="Expect: 100-continue\r\n").removesuffix(b"{}"))
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"{}")
        assert text_of(read_reply(client)[1]) == "one"


def test_pipelined_requests_are_answered_in_order(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, Script(TWO.turns, ProviderConditions(think_seconds=0.05)))
    with connect(provider) as client:
        client.sendall(raw_post(base_url, b"a") + raw_post(base_url, b"b"))
        stream = client.makefile("rb")
        texts = []
        for _ in TWO.turns:
            length = 0
            while (line := stream.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            texts.append(text_of(stream.read(length)))
        stream.close()
    assert texts == ["one", "two"]
    assert provider.collect(name).last_body == b"b"


def test_think_time_comes_before_the_reply(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, Script(TWO.turns, ProviderConditions(think_seconds=0.1)))
    with connect(provider) as client:
        client.sendall(raw_post(base_url))
        assert read_reply(client)[0] == 200
    (entry,) = provider.collect(name).requests
    assert entry.replied - entry.arrived >= 0.1


def test_a_client_that_disconnects_before_its_reply(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, Script(TWO.turns, ProviderConditions(think_seconds=30.0)))
    wait_until(lambda: provider.stats().open_connections == 0)
    with connect(provider) as client:
        client.sendall(raw_post(base_url))
        wait_until(lambda: provider.stats().open_connections == 1)
    # The server reads the request before it notices the disconnect.
    wait_until(lambda: provider.stats().open_connections == 0)
    (entry,) = provider.collect(name).requests
    assert (entry.status, entry.sent) == (0, 0)
    assert entry.replied >= entry.arrived


def test_a_reply_after_a_disconnect(provider: Loopback, name: str) -> None:
    base_url = provider.register(name, Script(TWO.turns, ProviderConditions(think_seconds=0.05)))
    with connect(provider) as client:
        client.sendall(raw_post(base_url))
    time.sleep(0.1)
    assert healthy(provider)


def test_bodies_of_megabytes(provider: Loopback, name: str) -> None:
    text = "long " * 4_000_000
    base_url = provider.register(name, Script((PlayedTurn(text),)))
    body = os.urandom(3_000_000)
    with connect(provider) as client:
        client.sendall(raw_post(base_url, body))
        # The reply is larger than the socket buffers, so the server waits for the client.
        select.select([client], [], [])
        started = time.monotonic()
        assert text_of(read_reply(client)[1]) == text
        read_at = time.monotonic()
    log = provider.collect(name)
    assert log.last_body == body
    assert log.requests[0].received == len(body)
    assert log.requests[0].sent > len(text)
    assert log.requests[0].arrived < started < log.requests[0].replied < read_at


def test_a_thousand_concurrent_sessions(provider: Loopback, name: str) -> None:
    count = 1000
    names = [f"{name}-{number}" for number in range(count)]
    urls = [
        provider.register(
            session, Script((PlayedTurn(session),), ProviderConditions(think_seconds=0.1))
        )
        for session in names
    ]
    clients = [socket.create_connection(provider.address, 10) for _ in names]
    try:
        for client, url in zip(clients, urls, strict=True):
            client.sendall(raw_post(url))
        assert [text_of(read_reply(client)[1]) for client in clients] == names
    finally:
        for client in clients:
            client.close()
    logs = [provider.collect(session) for session in names]
    assert [len(log.requests) for log in logs] == [1] * count
    assert len({log.requests[0].connection for log in logs}) == count


# -- invalid input ---------------------------------------------------------------------


def healthy(provider: Loopback) -> bool:
    with connect(provider) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return read_reply(client) == (200, b'{"status": "ok"}')


def test_invalid_input_gets_400_and_a_close(provider: Loopback) -> None:
    with connect(provider) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, body = read_reply(client)
        assert status == 400
        assert "request line" in json.loads(body)["error"]["message"]
        assert client.recv(1) == b""
    assert healthy(provider)


@examples(60, one_fixture=True)
@given(st.lists(st.binary(max_size=200) | st.just(b"\r\n\r\n"), max_size=5))
def test_garbage_does_not_crash_the_server(provider: Loopback, pieces: list[bytes]) -> None:
    with connect(provider) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        except OSError:
            pass  # The server closed while data was pending.
    assert healthy(provider)


# -- process lifetime -------------------------------------------------------------------


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Return True if the process has ended, even if no parent has reaped it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_with_block_ends_the_process() -> None:
    with Loopback() as provider:
        pid = provider.pid
        assert not gone(pid)
    assert gone(pid)


def test_killing_the_parent_ends_the_process() -> None:
    program = (
        "import time\n"
        "from trae_bench.provider.loopback import Loopback\n"
        "with Loopback() as provider:\n"
        "    print(provider.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    wait_until(lambda: gone(pid))


def test_the_server_ignores_ctrl_c() -> None:
    with Loopback() as provider:
        os.kill(provider.pid, signal.SIGINT)
        assert healthy(provider)
        assert provider.stats().requests == 1


def test_a_killed_server_raises_provider_down() -> None:
    with Loopback() as provider:
        provider.register("a", TWO)
        os.kill(provider.pid, signal.SIGKILL)
        with pytest.raises(ProviderDown, match="exit status -9"):
            provider.collect("a")


def test_a_failed_start_reports_stderr() -> None:
    with pytest.raises(ProviderDown, match=r"(?s)exit status 1.*stderr:\n.*OSError"):
        Loopback(pin=100_000).__enter__()


def test_a_hanging_server_raises_after_the_timeout() -> None:
    with Loopback(timeout=0.3) as provider:
        os.kill(provider.pid, signal.SIGSTOP)
        with pytest.raises(ProviderDown, match="still running"):
            provider.stats()
        os.kill(provider.pid, signal.SIGCONT)
        # The late reply to the first request must not be taken for that of the second.
        with pytest.raises(ProviderDown, match="interrupted"):
            provider.collect("a")


def test_process_is_pinned_to_its_core() -> None:
    core = min(os.sched_getaffinity(0))
    with Loopback(pin=core) as provider:
        assert os.sched_getaffinity(provider.pid) == {core}


def test_it_does_not_import_from_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "socket.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    with Loopback() as provider:
        assert healthy(provider)


def test_the_server_imports_only_the_standard_library() -> None:
    program = (
        "import sys, trae_bench.provider.server\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    listed = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(listed.stdout.split())
    assert "trae_bench" in loaded
    assert loaded <= {*sys.stdlib_module_names, "__main__", "trae_bench"}


def test_its_cost_is_measured(provider: Loopback) -> None:
    cost = provider.measure_cost(requests=200, body_bytes=500)
    assert (cost.requests, cost.body_bytes) == (200, 500)
    assert 0 < cost.cpu_seconds < 0.1
    assert provider.measure_cost(requests=5, pause_seconds=0.001).pause_seconds == 0.001
    assert provider.cpu_seconds > 200 * cost.cpu_seconds
