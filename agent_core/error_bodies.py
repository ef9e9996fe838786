"""Reads the body of a provider's error: what it says, and whether waiting can help."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses worth a retry."""

HOPELESS = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "exceeded_current_quota_error",  # Moonshot
        "1113",  # Zhipu: no credit left
    }
)
"""Kinds of error with a transient status that no wait mends."""

# The patterns are compiled at their first use, because importing must be fast.
_TOO_LARGE = "request too large"
"""OpenAI and Groq answer 429 or 413 if one request is larger than the limit of a minute."""

_TOO_LONG = (
    "context_length_exceeded|exceed_context_size|request_too_large"
    "|context.?(length|window|limit|size)|prompt is too long|prompt exceeds|input is too long"
    "|input token count.*exceeds|maximum prompt length|model token limit|reduce the length"
)
"""What providers and local servers write if a conversation is longer than the model's window."""

_TITLE = r"<title[^>]*>([^<]{1,200})"


class ErrorBody(Struct, frozen=True):
    """The contents of an error's body. The text may contain secrets."""

    message: str = ""
    kinds: frozenset[str] = frozenset()
    """The error's type, code and status, lower case."""
    wait: float | None = None
    """Seconds that the provider asks to wait, from Google's `RetryInfo`."""
    per_day: bool = False
    """Whether a quota of a day is used up (Google)."""
    is_html: bool = False


def read_error(body: bytes) -> ErrorBody:
    """The contents of `body`: JSON in any provider's shape, HTML or text."""
    if is_html(body):
        return ErrorBody(html_title(body), is_html=True)
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorBody(_one_line(body.decode("utf-8", "replace")))
    outer = value[0] if isinstance(value, list) and value else value
    error = outer.get("error") if isinstance(outer, dict) else None
    kinds = [part.get(name) for part in (outer, error) if isinstance(part, dict) for name in _KINDS]
    details = error.get("details") if isinstance(error, dict) else None
    return ErrorBody(
        _one_line(_message_in(value)),
        frozenset(str(kind).lower() for kind in kinds if isinstance(kind, str | int)),
        _retry_delay(details),
        _is_daily(details),
    )


_KINDS = ("type", "code", "status")


def is_html(body: bytes) -> bool:
    """Whether `body` is an HTML page, which no provider sends on purpose."""
    return body.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def html_title(body: bytes) -> str:
    """A page in a few words."""
    title = re.search(_TITLE, body[:20_000].decode("utf-8", "replace"), re.IGNORECASE)
    return f"an HTML page, {_one_line(title[1])!r}" if title else "an HTML page"


def is_final(status: int, headers: Mapping[str, str], error: ErrorBody) -> bool:
    """Whether waiting cannot help, so that a retry is useless."""
    asked = headers.get("x-should-retry")
    if asked in ("true", "false"):
        return asked == "false"
    return (
        status not in TRANSIENT
        or not HOPELESS.isdisjoint(error.kinds)
        or error.per_day
        or is_too_long(status, error)
    )


def is_too_long(status: int, error: ErrorBody) -> bool:
    """Whether the provider refuses a conversation because of its length."""
    text = " ".join((error.message, *error.kinds))
    if status in (400, 422):
        return re.search(_TOO_LONG, text, re.IGNORECASE) is not None
    return status == 413 or (status == 429 and _TOO_LARGE in text.lower())


def _retry_delay(details: Any) -> float | None:
    """The `retryDelay` of Google's `RetryInfo`, such as "34.07s"."""
    for detail in _of_type(details, "RetryInfo"):
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", str(detail.get("retryDelay")))
        if found:
            return float(found[1])
    return None


def _is_daily(details: Any) -> bool:
    return any(
        "PerDay" in str(violation.get("quotaId"))
        for detail in _of_type(details, "QuotaFailure")
        for violation in _objects(detail.get("violations"))
    )


def _of_type(details: Any, name: str) -> list[dict[str, Any]]:
    return [detail for detail in _objects(details) if str(detail.get("@type")).endswith(name)]


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _message_in(value: Any) -> str:
    """The message in the shapes that providers use: {"error": {"message"}}, a list of it, ..."""
    if isinstance(value, list) and value:
        return _message_in(value[0])
    if isinstance(value, dict):
        for name in ("error", "message", "detail"):
            if value.get(name):
                return _message_in(value[name])
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _one_line(text: str) -> str:
    return " ".join(text.split())
