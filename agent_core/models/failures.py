"""What a provider's refusal becomes in our tree of errors."""

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
"""Characters of a provider's own words that go into a message."""

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
"""The words that stand in for a status where the status was 200, lower case."""


def error_for_status(
    provider: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    redactor: Redactor,
    retry_after: float | None,
) -> ProviderError:
    """The error for an answer of any status but 200."""
    detail = _detail(body)
    if 300 <= status < 400:
        detail = f"a redirect to {headers.get('location', 'nowhere')}; correct base_url"
    # Redacted before it is cut: half a key is no longer known for one.
    return _error(provider, status, redactor.text(detail)[:_MAX_DETAIL], retry_after)


def error_for_refusal(provider: str, refusal: Refused, redactor: Redactor) -> ProviderError:
    """The error for a refusal that came with status 200."""
    status = status_of(refusal)
    detail = redactor.text(str(refusal))[:_MAX_DETAIL]
    if status is None:
        said = f"{refusal.kind}: {detail}" if refusal.kind else detail
        return ProviderError(f"{provider} gave up on its reply: {redactor.text(said)}")
    return _error(provider, status, detail, None)


def status_of(refusal: Refused) -> int | None:
    """The status that the refusal would have had as an answer of its own; None: none known."""
    return refusal.status or _STATUS_BY_KIND.get(refusal.kind.lower())


def _error(provider: str, status: int, detail: str, retry_after: float | None) -> ProviderError:
    said = f"{provider} answered {status}: {detail}" if detail else f"{provider} answered {status}"
    if status in (401, 403):
        return AuthenticationError(f"{said}. Check the API key.", status=status)
    if status == 429:
        return RateLimitError(said, status=status, retry_after=retry_after)
    if status == 408 or status >= 500:
        return OverloadedError(said, status=status, retry_after=retry_after)
    return InvalidRequestError(said, status=status)


def _detail(body: bytes) -> str:
    """The provider's own sentence, or what it sent instead."""
    try:
        said = _sentence(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = body.decode("utf-8", "replace")
    return " ".join(said.split())


def _sentence(value: Any) -> str:
    """The message in the shapes that providers use: {"error": {"message"}}, a list of it, ..."""
    if isinstance(value, list) and value:
        return _sentence(value[0])
    if isinstance(value, dict):
        for name in ("error", "message", "detail"):
            if value.get(name):
                return _sentence(value[name])
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
