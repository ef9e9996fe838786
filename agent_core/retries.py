"""Which requests to retry, and how long to wait first.

Both transports use this module, so comparing them compares connections only.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from msgspec import Struct

from agent_core.error_bodies import is_final, read_error
from agent_core.errors import ConnectionFailedError

_LOG = logging.getLogger(__name__)

FIRST_RETRIES = 1
"""Retries if the server cannot be reached and has never answered: its address is probably wrong."""


class Clock(Struct, frozen=True):
    """Time and randomness, replaceable in tests."""

    now: Callable[[], float] = time.perf_counter
    """Monotonic seconds."""
    wall: Callable[[], float] = time.time
    """Seconds since the epoch, for `Retry-After` dates."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    """Uniform in [0, 1)."""


class BackOff(Struct, frozen=True):
    """How often to retry, and how long to wait.

    The wait before retry n (from 0) is uniform between 0 and `base * 2**n`, at most `cap`.
    This is "full jitter": clients that failed together do not retry together. A wait that
    the provider requests is added to it.
    """

    retries: int = 10
    base: float = 0.5
    """Seconds."""
    cap: float = 30.0
    """Seconds."""
    max_requested_wait: float = 120.0
    """Seconds. If the provider requests a longer wait, its answer is final."""

    def delay(self, retry: int, requested: float | None, chance: float) -> float:
        """Seconds to wait. `requested` is the provider's wait, `chance` is uniform in [0, 1)."""
        return (requested or 0.0) + chance * min(self.cap, self.base * 2.0**retry)


class AttemptFailed(Exception):
    """One attempt failed.

    `retryable` says whether a retry is safe and may help. `unreachable` says that no connection
    was possible. `remedy` is for the user.
    """

    def __init__(
        self, reason: str, *, retryable: bool, unreachable: bool = False, remedy: str = ""
    ) -> None:
        self.retryable = retryable
        self.unreachable = unreachable
        self.remedy = remedy
        super().__init__(reason)


class Answer(Protocol):
    """An HTTP response. The body of a failure has been read, other bodies may not."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> dict[str, str]: ...

    def content(self) -> bytes:
        """The body as far as it was read, decompressed. Raises `AttemptFailed`."""
        ...

    async def close(self) -> None: ...


AnswerT = TypeVar("AnswerT", bound=Answer)


class Retrier:
    """Repeats attempts until one gives a final answer. Counts the retries."""

    def __init__(self, back_off: BackOff, clock: Clock) -> None:
        self._back_off = back_off
        self._clock = clock
        self._reached = False
        """Whether the server has ever answered."""
        self.retried = 0

    async def run(self, attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """The first answer that a retry cannot change, or the last answer.

        Raises `ConnectionFailedError` if the last attempt gives no answer.
        """
        for retry in range(self._back_off.retries + 1):
            limit, requested = self._back_off.retries, None
            try:
                answer = await attempt()
            except AttemptFailed as failure:
                if failure.unreachable and not self._reached:
                    limit = min(limit, FIRST_RETRIES)
                if retry >= limit or not failure.retryable:
                    raise _failed(failure, retry) from failure.__cause__
                reason = str(failure)
            else:
                self._reached = True
                if answer.status < 400 or retry == limit or self._is_final(answer):
                    return answer
                requested = requested_wait(answer, self._clock.wall())
                await answer.close()
                reason = f"The provider answered {answer.status}"
            await self.pause(retry, reason, requested, limit)
        raise AssertionError("the last attempt returns or raises")

    async def pause(
        self, retry: int, reason: str, requested: float | None = None, limit: int | None = None
    ) -> None:
        """Logs `reason` and waits before retry number `retry` (from 0) of `limit`."""
        self.retried += 1
        wait = self._back_off.delay(retry, requested, self._clock.random())
        # Without output for minutes the program would seem to hang.
        retries = self._back_off.retries if limit is None else limit
        _LOG.warning("%s; retry %d of %d in %.1f s", reason, retry + 1, retries, wait)
        await self._clock.sleep(wait)

    def _is_final(self, answer: Answer) -> bool:
        if is_final(answer.status, answer.headers, read_error(_content(answer))):
            return True
        requested = requested_wait(answer, self._clock.wall())
        return requested is not None and requested > self._back_off.max_requested_wait


def _failed(failure: AttemptFailed, retries: int) -> ConnectionFailedError:
    tries = f" ({retries + 1} tries)" if retries else ""
    remedy = f"; {failure.remedy}" if failure.remedy else ""
    return ConnectionFailedError(f"{failure}{tries}{remedy}")


def _content(answer: Answer) -> bytes:
    try:
        return answer.content()
    except AttemptFailed:
        return b""  # the status alone decides


def requested_wait(answer: Answer, now: float) -> float | None:
    """Seconds that a failure asks to wait, in a header or in Google's `RetryInfo`, or None."""
    requested = retry_after(answer.headers, now)
    return read_error(_content(answer)).wait if requested is None else requested


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait according to `retry-after-ms` or `Retry-After` (seconds or a date).

    None if neither header is present and readable. Header names in `headers` are lower
    case; `now` is in seconds since the epoch.
    """
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return _wait(float(milliseconds) / 1000)
    except ValueError:
        pass  # unreadable; try the standard header
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
    from email.utils import parsedate_to_datetime  # slow to import and rarely needed

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, OverflowError):  # not a valid date
        return None
