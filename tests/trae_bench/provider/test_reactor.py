"""The provider's event loop."""

import os
import socket
import time

import pytest

from trae_bench.provider.reactor import READ, WRITE, Reactor


def test_timers_run_in_order_and_never_early() -> None:
    reactor, ran = Reactor(), []
    start = time.monotonic()
    reactor.call_later(0.02, lambda: ran.append(("b", time.monotonic() - start)))
    reactor.call_later(0.02, lambda: ran.append(("c", time.monotonic() - start)))
    reactor.call_later(0.01, lambda: ran.append(("a", time.monotonic() - start)))
    cancelled = reactor.call_later(0.015, lambda: ran.append(("never", 0.0)))
    cancelled.cancel()
    reactor.call_later(0.03, reactor.stop)
    reactor.run()
    assert [name for name, _ in ran] == ["a", "b", "c"]
    assert all(after >= due for (_, after), due in zip(ran, (0.01, 0.02, 0.02), strict=True))


def test_a_timer_may_set_another() -> None:
    reactor, ran = Reactor(), []

    def again() -> None:
        ran.append(len(ran))
        reactor.call_later(0, again if len(ran) < 3 else reactor.stop)

    reactor.call_later(0, again)
    reactor.run()
    assert ran == [0, 1, 2]


def test_handlers_get_events_until_unwatched() -> None:
    reactor, events_seen = Reactor(), []
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def ready(events: int) -> None:
            events_seen.append(events)
            if events & READ:
                ours.recv(10)
                reactor.want(ours.fileno(), WRITE)
            else:
                reactor.unwatch(ours.fileno())
                theirs.send(b"ignored")
                reactor.call_later(0.01, reactor.stop)

        reactor.watch(ours.fileno(), ready)
        theirs.send(b"x")
        reactor.run()
    assert events_seen == [READ, WRITE]


def test_exception_ends_the_reactor() -> None:
    reactor = Reactor()
    readable, writable = os.pipe()

    def fail(events: int) -> None:
        raise ZeroDivisionError

    reactor.watch(readable, fail)
    os.write(writable, b"x")
    with pytest.raises(ZeroDivisionError):
        reactor.run()
    os.close(readable)
    os.close(writable)
