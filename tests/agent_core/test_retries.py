"""What is retried, and after which wait."""

import json
from email.utils import formatdate
from typing import Any

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
    def __init__(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.status = status
        self._body = body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.closed = False

    def content(self) -> bytes:
        return self._body

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


def error(**fields: Any) -> bytes:
    return json.dumps({"error": fields}).encode()


def google(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


QUOTA = google("QuotaFailure", violations=[{"quotaId": "RequestsPerDayPerModel-FreeTier"}])
MINUTE = google("QuotaFailure", violations=[{"quotaId": "TokensPerMinutePerModel"}])
HOPELESS_ANSWERS = {
    "no credit": Answer(429, error(code="insufficient_quota", type="insufficient_quota")),
    "no credit, by type": Answer(429, error(type="insufficient_quota", code=None)),
    "no credit, number": Answer(429, error(code="1113", message="...")),
    "day's quota": Answer(429, error(status="RESOURCE_EXHAUSTED", code=429, details=[QUOTA])),
    "larger than a minute's limit": Answer(
        429, error(code="rate_limit_exceeded", message="Request too large for gpt-4 on tokens")
    ),
    "told not to": Answer(503, x_should_retry="false"),
    "told to wait for an hour": Answer(
        429, error(details=[google("RetryInfo", retryDelay="3600s")])
    ),
}


@pytest.mark.parametrize("name", HOPELESS_ANSWERS)
async def test_failure_that_no_wait_mends_is_final(name: str) -> None:
    time, answer = Time(), HOPELESS_ANSWERS[name]
    assert await Retrier(BackOff(), time.clock).run(Attempts(answer)) is answer
    assert not time.slept


@pytest.mark.parametrize(
    ("answer", "wait"),
    [
        (Answer(429, error(details=[MINUTE, google("RetryInfo", retryDelay="34.5s")])), 34.5),
        (Answer(429, b'[{"error": {"details": [{"@type": "RetryInfo", "retryDelay": "2s"}]}}]'), 2),
        (Answer(429, error(details=[google("RetryInfo", retryDelay="2s")]), retry_after="7"), 7),
        (Answer(429, error(details=[google("RetryInfo", retryDelay={"seconds": 2})])), 0),
        (Answer(429, error(details=[google("RetryInfo", retryDelay="-2s"), None, 5])), 0),
        (Answer(429, error(code="rate_limit_exceeded", message="You exceeded your quota")), 0),
        (Answer(429, b"[" * 100_000), 0),
        (Answer(409, x_should_retry="true"), 0),
    ],
)
async def test_failure_that_a_wait_mends_is_retried(answer: Answer, wait: float) -> None:
    time = Time()
    assert (await Retrier(BackOff(), time.clock).run(Attempts(answer, Answer(200)))).status == 200
    assert time.slept == [wait]


def unreachable() -> AttemptFailed:
    return AttemptFailed("nobody", retryable=True, unreachable=True, remedy="check the address")


async def test_server_that_was_never_reached_is_tried_twice() -> None:
    time = Time()
    with pytest.raises(ConnectionFailedError, match=r"^nobody \(2 tries\); check the address$"):
        await Retrier(BackOff(), time.clock).run(Attempts(unreachable(), unreachable()))
    assert len(time.slept) == 1


async def test_server_that_was_reached_before_gets_all_retries() -> None:
    time = Time()
    retrier = Retrier(BackOff(retries=5), time.clock)
    await retrier.run(Attempts(Answer(200)))
    failures = [unreachable() for _ in range(5)]
    assert (await retrier.run(Attempts(*failures, Answer(200)))).status == 200
    assert len(time.slept) == 5


async def test_unreachable_server_is_not_tried_twice_without_retries() -> None:
    with pytest.raises(ConnectionFailedError, match=r"^nobody; check"):
        await Retrier(BackOff(retries=0), Time().clock).run(Attempts(unreachable()))


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
