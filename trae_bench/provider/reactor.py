"""Who may read, who may write, whose time has come: the least event loop that will do.

asyncio would do as well, at about twice the CPU for a new connection, twice the time to start
and 8 MB more memory. Between two requests the server sleeps for milliseconds; it wakes with
cold caches and then pays for every line on the way to the socket, so this way is short.
"""

import heapq
import os
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
_MAX_EVENTS = 64
"""Per wake-up; the kernel keeps the others. A larger array is made anew at each."""

Handler = Callable[[int], None]
"""Called with the events that have come, as a mask of READ, WRITE, and the kernel's others."""


class Timer:
    """A callback to come. `cancel` may be called at any time."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: "Timer") -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self.callback = None


class OwnDelay:
    """Time for which this process was runnable and waited for its core (seconds).

    Always 0 on systems without /proc/self/schedstat.
    """

    def __init__(self) -> None:
        self.before_sleep = 0.0
        """The time at the last call of `going_to_sleep`."""
        self._file = -1
        try:
            self._file = os.open("/proc/self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return

    def read(self) -> float:
        if self._file < 0:
            return 0.0
        return int(os.pread(self._file, 128, 0).split()[1]) / 1e9

    def going_to_sleep(self) -> None:
        self.before_sleep = self.read()


class Reactor:
    """Runs until it is stopped. An exception of a handler ends it: there is nobody to hide it."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[Timer] = []
        self._running = False
        self.own_delay: OwnDelay | None = None
        """Set while a session wants to know how late its requests are read."""

    def watch(self, fd: int, handler: Handler) -> None:
        """Call `handler` when there is something to read, for as long as there is."""
        self._handlers[fd] = handler
        self._poll.register(fd, READ)

    def want(self, fd: int, events: int) -> None:
        """From now on wait for these events of a watched file descriptor."""
        self._poll.modify(fd, events)

    def forget(self, fd: int) -> None:
        del self._handlers[fd]
        self._poll.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """As exact as the kernel's millisecond; never early."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        self._running = True
        while self._running:
            timeout = self._until_next_timer() if self._timers else -1
            if self.own_delay is not None:
                self.own_delay.going_to_sleep()
            for fd, events in self._poll.poll(timeout, _MAX_EVENTS):
                # Each is there once, and a handler closes nothing but its own.
                self._handlers[fd](events)
            if self._timers:
                self._run_timers()
        self._poll.close()

    def _until_next_timer(self) -> float:
        return max(0.0, self._timers[0].when - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                callback()
