"""The scripted provider as a server in a process of its own: the parent's side.

    with Loopback(pin=0) as provider:
        base_url = provider.register("trial-1", script)
        ...                       # a subject talks to base_url
        log = provider.collect("trial-1")

One server serves a whole run; sessions are told apart by their path. Nothing here is
asynchronous: the parent waits for the server's word on a control channel.
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
from types import TracebackType
from typing import IO, Any, Self

from msgspec import Struct

from trae_bench.errors import ProviderDown, UsageError
from trae_bench.model.sample import RequestLog, SessionLog
from trae_bench.provider.certificate import Certificate, make_certificate
from trae_bench.provider.control import Frame, FrameReader, pack
from trae_bench.provider.encoded_script import for_the_server, path_of
from trae_bench.provider.script import PlayedTurn, Script
from trae_bench.scenario import ProviderConditions

_SESSION_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_STDERR_TAIL = 2_000
_FAREWELL_SECONDS = 2.0


class ProviderStats(Struct, frozen=True):
    """The server process as a whole, since its start."""

    cpu_seconds: float
    sessions: int
    """Registered and not yet collected."""
    connections: int
    open_connections: int
    requests: int
    strays: int
    """Requests that belonged to no session."""


class ProviderCost(Struct, frozen=True):
    """What one request costs the provider, measured on this machine."""

    requests: int
    body_bytes: int
    """Of each request's body."""
    pause_seconds: float
    """Before each request. A provider that has slept wakes with cold caches and pays more."""
    cpu_seconds: float
    """Of the provider, per request."""


class _Way(Struct, frozen=True):
    """What is settled before a client has said which session it wants: a door for each."""

    tls: bool = False
    http: str = "1.1"
    rtt_seconds: float = 0.0
    bandwidth_bytes_per_second: int | None = None

    @classmethod
    def of(cls, conditions: ProviderConditions) -> "_Way":
        return cls(**{name: getattr(conditions, name) for name in cls.__struct_fields__})


_PLAIN = _Way()


class Loopback:
    """Starts the server on entry, ends it on exit. Safe to use from several threads.

    `pin` is the core that the server stays on; None leaves it to the kernel. Every method
    raises `ProviderDown` where the server does not answer within `patience` seconds or has
    died; the error carries its last words.
    """

    def __init__(self, *, pin: int | None = None, patience: float = 30.0) -> None:
        self._pin = pin
        self._patience = patience
        self._lock = threading.Lock()
        self._door_lock = threading.Lock()
        self._cut_off = False
        """An exchange was begun and never ended; what follows on the channel is not for us."""
        self._frames = FrameReader()
        self._control: socket.socket
        self._process: subprocess.Popen[bytes]
        self._stderr: IO[bytes]
        self._opened: ExitStack
        self._address: tuple[str, int]
        self._doors: dict[_Way, str] = {}
        self._certificate: Certificate | None = None
        self._secure: set[str] = set()
        """Sessions that are reached by TLS."""

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._control, theirs = socket.socketpair()
            opened.enter_context(self._control)
            self._control.settimeout(self._patience)
            self._stderr = opened.enter_context(tempfile.TemporaryFile())
            with _listener() as listener, theirs:
                self._address = listener.getsockname()
                self._process = self._spawn(listener, theirs)
            opened.callback(self._end)
            self._receive()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the server listens on."""
        return self._address

    @property
    def cpu_seconds(self) -> float:
        """CPU that the server has used since its start, user and system."""
        return self.stats().cpu_seconds

    def register(self, session: str, script: Script, pressure: Sequence[str] = ()) -> str:
        """Have `script` played to whoever asks under the base URL that is returned.

        `session` is letters, digits, dots, dashes and underscores. At each request the server
        reads one of the `pressure` files (`cpu.pressure` of cgroups), in turn. Raises `ValueError`
        for another name or one that is in use, and `UsageError` for TLS or HTTP/2 without the
        packages for it.
        """
        if not _SESSION_NAME.fullmatch(session):
            raise ValueError(f"{session!r} cannot be a part of a path")
        door = self._door(script.conditions)
        message, blobs = for_the_server(session, script)
        reply, _ = self._ask(message | {"pressure": list(pressure)}, blobs)
        if "error" in reply:
            raise ValueError(f"{session}: {reply['error']}")
        if script.conditions.tls:
            self._secure.add(session)
        return door + path_of(session, script)

    def environ(self, session: str) -> dict[str, str]:
        """What the environment of this session's client must say: whom to trust, with TLS."""
        if session not in self._secure or self._certificate is None:
            return {}
        return self._certificate.environ

    def collect(self, session: str) -> SessionLog:
        """The log of a session, which is over from now on. Raises `KeyError` for no session."""
        reply, blobs = self._ask({"op": "collect", "session": session})
        if "error" in reply:
            raise KeyError(f"{session}: {reply['error']}")
        self._secure.discard(session)
        requests = tuple(RequestLog(*entry) for entry in reply["log"])
        return SessionLog(
            requests=requests,
            connections=len({request.connection for request in requests}),
            last_body=blobs[0],
            unexpected=reply["unexpected"],
            cpu_seconds=reply["cpu_seconds"],
            handshakes=reply["handshakes"],
        )

    def stats(self) -> ProviderStats:
        reply, _ = self._ask({"op": "stats"})
        return ProviderStats(**{name: reply[name] for name in ProviderStats.__struct_fields__})

    def measure_cost(
        self, requests: int = 2000, body_bytes: int = 2048, pause_seconds: float = 0.0
    ) -> ProviderCost:
        """CPU that the provider spends on a request, by a client that asks one after another.

        The client is a bare socket in this process, on one kept-alive connection: the
        cheapest that there is, so the figure is the provider's own.
        """
        warm_up = requests // 10 + 1
        session = f"cost-{os.getpid()}-{threading.get_ident()}"
        turn = PlayedTurn("A reply of the length that models like to give." * 8)
        url = self.register(session, Script((turn,) * (requests + warm_up)))
        try:
            with socket.create_connection(self._address, self._patience) as client:
                request = _raw_request(url, body_bytes)
                _ask_often(client, request, warm_up, 0.0)
                before = self.cpu_seconds
                _ask_often(client, request, requests, pause_seconds)
                spent = self.cpu_seconds - before
        except OSError as error:
            raise self._down(f"it did not serve its own test: {error}") from error
        self.collect(session)
        return ProviderCost(requests, body_bytes, pause_seconds, spent / requests)

    # -- doors --------------------------------------------------------------------------

    def _door(self, conditions: ProviderConditions) -> str:
        """The address, as far as the host, at which these conditions are met."""
        way = _Way.of(conditions)
        with self._door_lock:
            if way == _PLAIN:
                return f"http://{self._address[0]}:{self._address[1]}"
            if way not in self._doors:
                self._doors[way] = self._open_door(way)
            return self._doors[way]

    def _open_door(self, way: "_Way") -> str:
        if way.tls and self._certificate is None:
            folder = self._opened.enter_context(tempfile.TemporaryDirectory())
            self._certificate = make_certificate(Path(folder), self._address[0])
        chain = str(self._certificate.chain) if way.tls and self._certificate else None
        wish = {
            "op": "door",
            "tls": chain,
            "http2": way.http == "2",
            "rtt": way.rtt_seconds,
            "rate": way.bandwidth_bytes_per_second,
            "path": _folders_of("h2", "hpack", "hyperframe") if way.http == "2" else [],
        }
        with _listener() as listener:
            host, port = listener.getsockname()
            self._ask(wish, fds=[listener.fileno()])
        return f"{'https' if way.tls else 'http'}://{host}:{port}"

    # -- the process --------------------------------------------------------------------

    def _spawn(self, listener: socket.socket, control: socket.socket) -> "subprocess.Popen[bytes]":
        fds = (listener.fileno(), control.fileno())
        core = "" if self._pin is None else str(self._pin)
        # The server needs this package and the standard library, and no site-packages; not
        # the caller's folder either, where a file may have the name of a standard module.
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
            # Out of reach of the terminal's Ctrl-C also while it starts.
            process_group=0,
        )

    def _end(self) -> None:
        """The end of the control channel is the server's sign to go."""
        self._control.close()
        try:
            self._process.wait(_FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(
        self, message: dict[str, Any], blobs: Sequence[bytes] = (), fds: Sequence[int] = ()
    ) -> Frame:
        with self._lock:
            if self._cut_off:
                raise ProviderDown("an earlier word with the scripted provider was cut short")
            self._cut_off = True
            try:
                data = pack(message, blobs)
                # The descriptors travel with the first bytes; `send_fds` may send no more.
                sent = socket.send_fds(self._control, [data], fds) if fds else 0
                self._control.sendall(data[sent:])
            except OSError as error:
                raise self._down(str(error)) from error
            frame = self._receive()
            self._cut_off = False
            return frame

    def _receive(self) -> Frame:
        while (frame := self._frames.next()) is None:
            try:
                data = self._control.recv(1 << 20)
            except OSError as error:
                raise self._down(str(error)) from error
            if not data:
                raise self._down("it has closed the control channel")
            self._frames.feed(data)
        return frame

    def _down(self, what: str) -> ProviderDown:
        try:
            status: int | None = self._process.wait(_FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        end = "it still runs" if status is None else f"exit status {status}"
        words = self._last_words()
        said = f"; its last words:\n{words}" if words else ""
        return ProviderDown(f"the scripted provider does not answer: {what} ({end}){said}")

    def _last_words(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-_STDERR_TAIL:].strip()


def _folders_of(*packages: str) -> list[str]:
    """Where they lie, for a process that has no site-packages. Raises `UsageError`."""
    folders = []
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise UsageError(f"HTTP/2 needs the package {package}; pip install 'httpx[http2]'")
        folders.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(folders))


def _listener() -> socket.socket:
    """Bound here, so that the port is known before the server is up."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    # Connections inherit it: no reply waits for an acknowledgement of the one before.
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


def _ask_often(client: socket.socket, request: bytes, times: int, pause: float) -> None:
    """Send the request, wait for the whole reply; all replies have one length."""
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
                raise ConnectionResetError("the connection was closed in the middle of a reply")
            received += len(more)
