"""Converts a provider's errors to this package's errors."""

from collections.abc import Mapping
from typing import Any

import msgspec

from agent_core.errors import (
    AuthenticationError,
    InvalidRequestError,
    OverloadedError,
    ProviderError,
    RateLimitError,
)
from agent_core.models.codec import Refused
from agent_core.redaction import Redactor

_MAX_DETAIL = 500
"""Characters of the provider's text in a message."""

_STATUS_BY_KIND = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "unauthenticated": 401,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
    "api_error": 500,
    "server_error": 500,
    "internal": 500,
    "unavailable": 503,
    "timeout_error": 504,
}
"""The status for an error type in a response of status 200, lower case."""


def error_for_status(
    provider: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    redactor: Redactor,
    retry_after: float | None,
) -> ProviderError:
    """The error for a response with a status other than 200."""
    detail = _detail(body)
    if 300 <= status < 400:
        detail = f"a redirect to {headers.get('location', 'nowhere')}; correct base_url"
    # Redacted before it is truncated: half a key would not be recognised.
    return _error(provider, status, redactor.text(detail)[:_MAX_DETAIL], retry_after)


def error_for_refusal(provider: str, refusal: Refused, redactor: Redactor) -> ProviderError:
    """The error for a refusal that came with status 200."""
    status = status_of(refusal)
    detail = redactor.text(str(refusal))[:_MAX_DETAIL]
    if status is None:
        reason = f"{refusal.kind}: {detail}" if refusal.kind else detail
        return ProviderError(f"{provider} ended its reply with an error: {redactor.text(reason)}")
    return _error(provider, status, detail, None)


def status_of(refusal: Refused) -> int | None:
    """The HTTP status that matches the refusal, or None if unknown."""
    return refusal.status or _STATUS_BY_KIND.get(refusal.kind.lower())


def _error(provider: str, status: int, detail: str, retry_after: float | None) -> ProviderError:
    text = f"{provider} answered {status}: {detail}" if detail else f"{provider} answered {status}"
    if status in (401, 403):
        return AuthenticationError(f"{text}. Check the API key.", status=status)
    if status == 429:
        return RateLimitError(text, status=status, retry_after=retry_after)
    if status == 408 or status >= 500:
        return OverloadedError(text, status=status, retry_after=retry_after)
    return InvalidRequestError(text, status=status)


def _detail(body: bytes) -> str:
    """The provider's message, or the body if it has none."""
    try:
        text = _message_in(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())


def _message_in(value: Any) -> str:
    """The message in the shapes that providers use: {"error": {"message"}}, a list of it, ..."""
    if isinstance(value, list) and value:
        return _message_in(value[0])
    if isinstance(value, dict):
        for name in ("error", "message", "detail"):
            if value.get(name):
                return _message_in(value[name])
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
