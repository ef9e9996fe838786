"""What is retried, and after which wait."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_core.errors import ConnectionFailedError
from agent_core.retries import AttemptFailed, BackOff, Clock, Retrier, retry_after

pytestmark = pytest.mark.anyio


class Time:
    """A clock that records sleeps and returns at once."""

    def __init__(self, chance: float = 0.0, now: float = 0.0) -> None:
        self.slept: list[float] = []
        self.clock = Clock(
            now=lambda: 0.0, wall=lambda: now, sleep=self._sleep, random=lambda: chance
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Answer:
    def __init__(self, status: int, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Attempts:
    """Returns the scripted answers and raises the scripted failures."""

    def __init__(self, *script: Answer | AttemptFailed) -> None:
        self._script = list(script)

    async def __call__(self) -> Answer:
        answer = self._script.pop(0)
        if isinstance(answer, AttemptFailed):
            raise answer
        return answer


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_transient_statuses_are_retried(status: int) -> None:
    time, first = Time(chance=0.5), Answer(status)
    answer = await Retrier(BackOff(), time.clock).run(Attempts(first, Answer(200)))
    assert (answer.status, first.closed, time.slept) == (200, True, [0.25])


@pytest.mark.parametrize("status", [200, 301, 400, 401, 404, 422, 501])
async def test_other_statuses_are_final(status: int) -> None:
    time, answer = Time(), Answer(status)
    assert await Retrier(BackOff(), time.clock).run(Attempts(answer)) is answer
    assert not answer.closed
    assert not time.slept


async def test_last_answer_is_returned_with_any_status() -> None:
    time, last = Time(chance=1.0), Answer(503)
    retrier = Retrier(BackOff(retries=3, cap=1.5), time.clock)
    answer = await retrier.run(Attempts(Answer(429), Answer(500), Answer(529), last))
    assert answer is last
    assert time.slept == [0.5, 1.0, 1.5]
    assert retrier.retried == 3


async def test_wait_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Without a log, ten retries look like a hanging program."""
    retrier = Retrier(BackOff(retries=2), Time(chance=1.0).clock)
    await retrier.run(Attempts(AttemptFailed("No way", retryable=True), Answer(503), Answer(200)))
    assert caplog.messages == [
        "No way; retry 1 of 2 in 0.5 s",
        "The provider answered 503; retry 2 of 2 in 1.0 s",
    ]


async def test_requested_wait_is_added_to_the_back_off() -> None:
    time = Time(chance=1.0)
    await Retrier(BackOff(), time.clock).run(Attempts(Answer(429, retry_after="7"), Answer(200)))
    assert time.slept == [7.5]


async def test_too_long_a_requested_wait_is_not_retried() -> None:
    time, answer = Time(), Answer(429, retry_after="3600")
    assert await Retrier(BackOff(), time.clock).run(Attempts(answer)) is answer
    assert not time.slept


async def test_safe_failures_are_retried_up_to_the_limit() -> None:
    time = Time()
    failures = [AttemptFailed("reset", retryable=True) for _ in range(3)]
    with pytest.raises(ConnectionFailedError, match=r"reset \(3 tries\)"):
        await Retrier(BackOff(retries=2), time.clock).run(Attempts(*failures))
    assert len(time.slept) == 2


async def test_unsafe_failure_is_not_retried() -> None:
    time = Time()
    with pytest.raises(ConnectionFailedError, match=r"half sent$"):
        await Retrier(BackOff(), time.clock).run(
            Attempts(AttemptFailed("half sent", retryable=False))
        )
    assert not time.slept


@given(
    retry=st.integers(0, 60),
    chance=st.floats(0, 1, exclude_max=True),
    asked=st.none() | st.floats(0, 100),
)
def test_full_jitter_stays_in_bounds(retry: int, chance: float, asked: float | None) -> None:
    back_off = BackOff()
    wait = back_off.delay(retry, asked, chance) - (asked or 0)
    assert -1e-9 <= wait <= min(back_off.cap, back_off.base * 2**retry)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(1030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(900, usegmt=True)}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "Mon, 01 Jan 2026 00:00:00 +99999999999999999999"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(headers, now=1000.0) == wait
