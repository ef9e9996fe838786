"""Converts a provider's errors to this package's errors."""

from collections.abc import Mapping

from agent_core.error_bodies import HOPELESS, TRANSIENT, ErrorBody, is_too_long, read_error
from agent_core.errors import (
    AuthenticationError,
    ContextLimitError,
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
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "request_too_large": 413,
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
    error = read_error(body)
    detail = error.message
    if 300 <= status < 400:
        detail = f"a redirect to {headers.get('location', 'nowhere')}; correct base_url"
    # Redacted before it is truncated: half a key would not be recognised.
    detail = redactor.text(detail)[:_MAX_DETAIL]
    if status in (404, 405) and (error.is_html or not detail):
        detail = f"{detail or 'no such page'}; check the path of base_url, which often ends in /v1"
    if status == 407:
        hint = "this is the proxy: set user and password in its variable, such as HTTP_PROXY"
        detail = f"{detail}; {hint}" if detail else hint
    wait = error.wait if retry_after is None else retry_after
    return _error(provider, status, detail, wait, error)


def error_for_refusal(provider: str, refusal: Refused, redactor: Redactor) -> ProviderError:
    """The error for a refusal that came with status 200."""
    status = status_of(refusal)
    detail = redactor.text(str(refusal))[:_MAX_DETAIL]
    if status is None:
        reason = f"{refusal.kind}: {detail}" if refusal.kind else detail
        return ProviderError(f"{provider} ended its reply with an error: {redactor.text(reason)}")
    return _error(provider, status, detail, None, _contents(refusal))


def status_of(refusal: Refused) -> int | None:
    """The HTTP status that matches the refusal, or None if unknown."""
    return refusal.status or _STATUS_BY_KIND.get(refusal.kind.lower())


def is_transient(refusal: Refused) -> bool:
    """Whether the same request may succeed later."""
    return status_of(refusal) in TRANSIENT and refusal.kind.lower() not in HOPELESS


def _contents(refusal: Refused) -> ErrorBody:
    return ErrorBody(str(refusal), frozenset({refusal.kind.lower()}))


def _error(
    provider: str, status: int, detail: str, retry_after: float | None, error: ErrorBody
) -> ProviderError:
    text = f"{provider} answered {status}: {detail}" if detail else f"{provider} answered {status}"
    if is_too_long(status, error):
        return ContextLimitError(text, status=status)
    if status in (401, 403):
        return AuthenticationError(f"{text}. Check the API key.", status=status)
    if status == 429:
        return RateLimitError(text, status=status, retry_after=retry_after)
    if status == 408 or status >= 500:
        return OverloadedError(text, status=status, retry_after=retry_after)
    return InvalidRequestError(text, status=status)
