"""When a request is worth sending again, and how long to wait before.

Both bodies of the port `Connections` retry through here, so that a benchmark of one
against the other compares connections and nothing else.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from msgspec import Struct

from agent_core.errors import ConnectionFailedError

_LOG = logging.getLogger(__name__)

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses that a later try may not meet again."""


class Clock(Struct, frozen=True):
    """Time and chance, so that a test has neither."""

    now: Callable[[], float] = time.perf_counter
    """Monotonic seconds."""
    wall: Callable[[], float] = time.time
    """Seconds since the epoch, for `Retry-After` dates."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    """Uniform in [0, 1)."""


class BackOff(Struct, frozen=True):
    """How often, and how patiently, to try again.

    Before retry number n (from 0) the wait is uniform between 0 and `base * 2**n`, at
    most `cap` ("full jitter": many clients that failed together do not come back
    together). Where the provider names a wait, that wait comes first.
    """

    retries: int = 10
    base: float = 0.5
    """Seconds."""
    cap: float = 30.0
    """Seconds."""
    patience: float = 120.0
    """Seconds. A provider that asks for a longer wait gets no retry: its answer is final."""

    def delay(self, retry: int, asked: float | None, chance: float) -> float:
        """Seconds to wait; `asked` is what the provider named."""
        return (asked or 0.0) + chance * min(self.cap, self.base * 2.0**retry)


class AttemptFailed(Exception):
    """One attempt came to nothing; `again` says whether another is safe and may help."""

    def __init__(self, reason: str, *, again: bool) -> None:
        self.again = again
        super().__init__(reason)


class Answer(Protocol):
    """An HTTP answer whose body may still be on its way."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> dict[str, str]: ...

    async def close(self) -> None: ...


AnswerT = TypeVar("AnswerT", bound=Answer)


class Retrier:
    """Makes attempts until one is an answer to keep. Counts its retries."""

    def __init__(self, back_off: BackOff, clock: Clock) -> None:
        self._back_off = back_off
        self._clock = clock
        self.retried = 0

    async def run(self, attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """The first answer that is not transient, or the last one.

        Raises `ConnectionFailedError` where the last attempt brought no answer at all.
        """
        for retry in range(self._back_off.retries + 1):
            last = retry == self._back_off.retries
            asked = None
            try:
                answer = await attempt()
            except AttemptFailed as failure:
                if last or not failure.again:
                    tries = f" ({retry + 1} tries)" if retry else ""
                    raise ConnectionFailedError(f"{failure}{tries}") from failure.__cause__
                reason = str(failure)
            else:
                if last or answer.status not in TRANSIENT:
                    return answer
                asked = retry_after(answer.headers, self._clock.wall())
                if asked is not None and asked > self._back_off.patience:
                    return answer
                await answer.close()
                reason = f"The provider answered {answer.status}"
            await self.pause(retry, reason, asked)
        raise AssertionError("the last attempt returns or raises")

    async def pause(self, retry: int, reason: str, asked: float | None = None) -> None:
        """Says why, and waits before retry number `retry` (from 0)."""
        self.retried += 1
        wait = self._back_off.delay(retry, asked, self._clock.random())
        # Silence for minutes would look like a program that hangs.
        _LOG.warning(
            "%s; retry %d of %d in %.1f s", reason, retry + 1, self._back_off.retries, wait
        )
        await self._clock.sleep(wait)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the provider asks to wait: `retry-after-ms`, or `Retry-After` as seconds
    or as a date. None where it names none, or nothing that can be read.

    `headers` have lower-case names; `now` is in seconds since the epoch.
    """
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return _wait(float(milliseconds) / 1000)
    except ValueError:
        pass  # an unreadable hint is no hint; the standard header may still be there
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return _wait(float(value))
    except ValueError:
        return _until(value, now)


def _wait(seconds: float) -> float | None:
    return seconds if 0 <= seconds < float("inf") else None


def _until(date: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime  # slow to import, and needed for a date only

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, OverflowError):  # no date, or one that no calendar has
        return None
