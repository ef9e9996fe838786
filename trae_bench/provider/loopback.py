"""Starts and controls the server process of the scripted provider.

    with Loopback(pin=0) as provider:
        base_url = provider.register("trial-1", script)
        ...                       # a subject sends requests to base_url
        log = provider.collect("trial-1")

One server serves a whole run and distinguishes sessions by path. All calls are synchronous:
they wait for the server's reply on a control socket.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Self

from msgspec import Struct

from trae_bench.errors import ProviderDown, UsageError
from trae_bench.model.sample import SessionLog
from trae_bench.prompt import Accounting
from trae_bench.provider.certificate import Certificate, make_certificate
from trae_bench.provider.control import Frame, FrameReader, pack
from trae_bench.provider.registration import (
    DEFAULT_ACCOUNTING,
    registration,
    session_log,
    session_path,
)
from trae_bench.provider.script import PlayedTurn, Script
from trae_bench.scenario import ProviderConditions

_SESSION_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_STDERR_TAIL = 2_000
"""Characters of the server's stderr in an error."""
_EXIT_TIMEOUT = 2.0
"""Seconds until a server that does not exit is killed."""


class ProviderStats(Struct, frozen=True):
    """Totals of the server process since its start."""

    cpu_seconds: float
    sessions: int
    """Sessions registered and not yet collected."""
    connections: int
    open_connections: int
    requests: int
    unrouted: int
    """Requests without a session, and input that is not HTTP."""


class ProviderCost(Struct, frozen=True):
    """CPU time of the provider per request, measured on this machine."""

    requests: int
    body_bytes: int
    """Size of each request's body."""
    pause_seconds: float
    """Pause before each request. After a sleep, cold caches make a request cost more."""
    cpu_seconds: float
    """CPU time of the provider per request."""


class _NetworkConditions(Struct, frozen=True):
    """Conditions in effect before a client names its session; each set has its own listener."""

    tls: bool = False
    http: str = "1.1"
    rtt_seconds: float = 0.0
    bandwidth_bytes_per_second: int | None = None

    @classmethod
    def of(cls, conditions: ProviderConditions) -> "_NetworkConditions":
        return cls(**{name: getattr(conditions, name) for name in cls.__struct_fields__})


_PLAIN = _NetworkConditions()


class Loopback:
    """Starts the server on entry and ends it on exit. Thread-safe.

    `pin` is the core that the server runs on; None lets the kernel choose. `accounting` says how
    the logs count and price tokens. Every method raises
    `ProviderDown` if the server does not reply within `timeout` seconds or has died; the error
    includes the end of its stderr.
    """

    def __init__(
        self,
        *,
        pin: int | None = None,
        timeout: float = 30.0,
        accounting: Accounting = DEFAULT_ACCOUNTING,
    ) -> None:
        self._pin = pin
        self._timeout = timeout
        self._accounting = accounting
        self._lock = threading.Lock()
        self._listeners_lock = threading.Lock()
        self._out_of_sync = False
        """True if a reply is missing, so that the next reply would belong to another request."""
        self._frames = FrameReader()
        self._control: socket.socket
        self._process: subprocess.Popen[bytes]
        self._stderr: IO[bytes]
        self._opened: ExitStack
        self._address: tuple[str, int]
        self._origins: dict[_NetworkConditions, str] = {}
        """Scheme, host and port of each listener."""
        self._certificate: Certificate | None = None
        self._tls_sessions: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._control, theirs = socket.socketpair()
            opened.enter_context(self._control)
            self._control.settimeout(self._timeout)
            self._stderr = opened.enter_context(tempfile.TemporaryFile())
            with _listener() as listener, theirs:
                self._address = listener.getsockname()
                self._process = self._spawn(listener, theirs)
            opened.callback(self._end_process)
            self._receive()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the plain listener."""
        return self._address

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the server since its start, user and system."""
        return self.stats().cpu_seconds

    def register(self, session: str, script: Script, pressure: Sequence[str] = ()) -> str:
        """Register a session and return the base URL that plays `script`.

        `session` consists of letters, digits, dots, dashes and underscores. Raises `ValueError`
        if it has other characters or is in use, and `UsageError` if a package for TLS or HTTP/2
        is missing. At each request the server reads one of the `pressure` files (`cpu.pressure`
        of cgroups), in turn.
        """
        if not _SESSION_NAME.fullmatch(session):
            raise ValueError(f"{session!r} cannot be part of a URL path")
        origin = self._origin(script.conditions)
        reply, _ = self._request(*registration(session, script, pressure, self._accounting))
        if "error" in reply:
            raise ValueError(f"{session}: {reply['error']}")
        if script.conditions.tls:
            self._tls_sessions.add(session)
        return origin + session_path(session, script)

    def environ(self, session: str) -> dict[str, str]:
        """Return the environment variables of the session's client: its CA bundle, with TLS."""
        if session not in self._tls_sessions or self._certificate is None:
            return {}
        return self._certificate.environ

    def collect(self, session: str) -> SessionLog:
        """End a session and return its log. Raises `KeyError` if it is not registered."""
        reply, blobs = self._request({"op": "collect", "session": session})
        if "error" in reply:
            raise KeyError(f"{session}: {reply['error']}")
        self._tls_sessions.discard(session)
        return session_log(reply, blobs, self._accounting)

    def stats(self) -> ProviderStats:
        """Return the totals of the server process."""
        reply, _ = self._request({"op": "stats"})
        return ProviderStats(**{name: reply[name] for name in ProviderStats.__struct_fields__})

    def measure_cost(
        self, requests: int = 2000, body_bytes: int = 2048, pause_seconds: float = 0.0
    ) -> ProviderCost:
        """Measure the provider's CPU time per request, with sequential requests.

        The client is a plain socket in this process on one keep-alive connection, so that the
        figure contains little besides the provider's work.
        """
        warm_up = requests // 10 + 1
        session = f"cost-{os.getpid()}-{threading.get_ident()}"
        turn = PlayedTurn("A reply of the length that models like to give." * 8)
        url = self.register(session, Script((turn,) * (requests + warm_up)))
        try:
            with socket.create_connection(self._address, self._timeout) as client:
                request = _raw_request(url, body_bytes)
                _send_repeatedly(client, request, warm_up, 0.0)
                before = self.cpu_seconds
                _send_repeatedly(client, request, requests, pause_seconds)
                spent = self.cpu_seconds - before
        except OSError as error:
            raise self._down(f"its cost could not be measured: {error}") from error
        self.collect(session)
        return ProviderCost(requests, body_bytes, pause_seconds, spent / requests)

    # -- listeners ----------------------------------------------------------------------

    def _origin(self, conditions: ProviderConditions) -> str:
        """Return scheme, host and port of the listener for these conditions."""
        network = _NetworkConditions.of(conditions)
        with self._listeners_lock:
            if network == _PLAIN:
                return f"http://{self._address[0]}:{self._address[1]}"
            if network not in self._origins:
                self._origins[network] = self._listen(network)
            return self._origins[network]

    def _listen(self, network: _NetworkConditions) -> str:
        if network.tls and self._certificate is None:
            folder = self._opened.enter_context(tempfile.TemporaryDirectory())
            self._certificate = make_certificate(Path(folder), self._address[0])
        chain = str(self._certificate.chain) if network.tls and self._certificate else None
        message = {
            "op": "listen",
            "tls": chain,
            "http2": network.http == "2",
            "rtt": network.rtt_seconds,
            "bandwidth": network.bandwidth_bytes_per_second,
            "path": _package_folders("h2", "hpack", "hyperframe") if network.http == "2" else [],
        }
        with _listener() as listener:
            host, port = listener.getsockname()
            self._request(message, fds=[listener.fileno()])
        return f"{'https' if network.tls else 'http'}://{host}:{port}"

    # -- the process --------------------------------------------------------------------

    def _spawn(self, listener: socket.socket, control: socket.socket) -> "subprocess.Popen[bytes]":
        fds = (listener.fileno(), control.fileno())
        core = "" if self._pin is None else str(self._pin)
        # The server needs only this package and the standard library: no site-packages, and not
        # the caller's folder, where a file can have the name of a standard module.
        options = ["-P", "-S", "-m", "trae_bench.provider.server"]
        environ = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}
        environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        return subprocess.Popen(
            [sys.executable, *options, *map(str, fds), core],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=fds,
            env=environ,
            # A separate process group keeps Ctrl-C away while the server starts.
            process_group=0,
        )

    def _end_process(self) -> None:
        """Close the control socket, which makes the server exit; kill it after a timeout."""
        self._control.close()
        try:
            self._process.wait(_EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _request(
        self, message: dict[str, Any], blobs: Sequence[bytes] = (), fds: Sequence[int] = ()
    ) -> Frame:
        with self._lock:
            if self._out_of_sync:
                raise ProviderDown("an earlier request to the scripted provider was interrupted")
            self._out_of_sync = True
            try:
                data = pack(message, blobs)
                # `send_fds` sends the descriptors, and possibly only part of the data.
                sent = socket.send_fds(self._control, [data], fds) if fds else 0
                self._control.sendall(data[sent:])
            except OSError as error:
                raise self._down(str(error)) from error
            frame = self._receive()
            self._out_of_sync = False
            return frame

    def _receive(self) -> Frame:
        while (frame := self._frames.next()) is None:
            try:
                data = self._control.recv(1 << 20)
            except OSError as error:
                raise self._down(str(error)) from error
            if not data:
                raise self._down("it closed the control socket")
            self._frames.feed(data)
        return frame

    def _down(self, problem: str) -> ProviderDown:
        """Return the error for a server that died or does not reply."""
        try:
            status: int | None = self._process.wait(_EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            status = None
        state = "still running" if status is None else f"exit status {status}"
        stderr = self._stderr_tail()
        output = f"; stderr:\n{stderr}" if stderr else ""
        return ProviderDown(f"the scripted provider does not reply: {problem} ({state}){output}")

    def _stderr_tail(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-_STDERR_TAIL:].strip()


def _package_folders(*packages: str) -> list[str]:
    """Return the folders to import packages from. Raises `UsageError` if one is missing."""
    folders = []
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise UsageError(f"HTTP/2 needs the package {package}; pip install 'httpx[http2]'")
        folders.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(folders))


def _listener() -> socket.socket:
    """Return a listening socket. The parent binds it, so it knows the port at once."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    # Accepted sockets inherit TCP_NODELAY, so no reply waits for the ACK of the previous one.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.listen(4096)
    return listener


def _raw_request(url: str, body_bytes: int) -> bytes:
    host, _, path = url.removeprefix("http://").partition("/")
    head = (
        f"POST /{path}/chat/completions HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n"
        f"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: trae-bench\r\n"
        f"Authorization: Bearer none\r\nContent-Type: application/json\r\n"
        f"Content-Length: {body_bytes}\r\n\r\n"
    )
    return head.encode() + b"x" * body_bytes


def _send_repeatedly(client: socket.socket, request: bytes, times: int, pause: float) -> None:
    """Send the request and read the complete reply, `times` times. Replies have equal length."""
    expected = 0
    for _ in range(times):
        if pause:
            time.sleep(pause)
        client.sendall(request)
        reply = client.recv(65536)
        if not expected and reply:
            head, _, _ = reply.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            expected = len(head) + 4 + int(length)
        received = len(reply)
        while received < expected:
            more = client.recv(65536)
            if not more:
                raise ConnectionResetError("the connection closed in the middle of a reply")
            received += len(more)
