"""A model that uses a vendor's SDK for HTTP, and this package's codecs for the contents."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from agent_core.config import ProviderSettings
from agent_core.errors import (
    ConfigError,
    ConnectionFailedError,
    InvalidRequestError,
    MalformedReplyError,
    ProviderError,
)
from agent_core.messages import Message, Reply, ToolSpec
from agent_core.models import codec_named
from agent_core.models.codec import CallIds, Parameters, Refused
from agent_core.models.failures import error_for_refusal, error_for_status
from agent_core.models.history import FullHistory
from agent_core.ports import Response
from agent_core.providers import PROVIDERS
from agent_core.redaction import Redactor
from agent_core.retries import retry_after

TIMEOUT = 600.0
"""Seconds for one reply, the SDKs' default. Anthropic's SDK requires an explicit value."""

_UNREADABLE = (ValueError, TypeError, AttributeError, RecursionError)
"""What the SDKs raise for a body that is not JSON or has an unexpected shape."""


class Vendor(Protocol):
    """The differences between the SDKs. A document is a request body as plain data."""

    def connect(self) -> Any:
        """A new client of the SDK. Opens no connection."""
        ...

    async def disconnect(self, client: Any) -> None: ...

    async def ask(self, client: Any, document: dict[str, Any]) -> bytes:
        """The whole reply as the provider's JSON. Raises the SDK's errors."""
        ...

    def stream(self, client: Any, document: dict[str, Any]) -> AsyncIterator[bytes]:
        """The events of a streamed reply as the provider's JSON."""
        ...

    def failure(self, error: Exception) -> ProviderError | Response | None:
        """Translates an SDK error to an error or a response. None if it is not an SDK error."""
        ...


class SdkModel:
    """Satisfies `ports.Model`.

    With `reuse_connections` off, each request uses a new client, which is the baseline of
    `connection_pool`. The SDK retries up to `max_retries` times.
    """

    def __init__(
        self,
        provider: str,
        settings: ProviderSettings,
        vendor: Vendor,
        *,
        reuse_connections: bool,
        prompt_cache: bool,
    ) -> None:
        self._provider = provider
        self._vendor = vendor
        self._reuse = reuse_connections
        protocol = settings.protocol or PROVIDERS[provider].protocol
        parameters = Parameters.of(settings, provider, prompt_cache=prompt_cache)
        self._codec = codec_named(protocol, provider, parameters)
        self._history = FullHistory(self._codec)
        self._corrected = False
        self._redactor = Redactor(settings.secrets)
        self._ids = CallIds()
        self._client: Any = None

    async def reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply:
        """Raises `ProviderError`. Its message contains no key."""
        try:
            return await self._reply(history, tools)
        except InvalidRequestError as error:
            codec = None if self._corrected else self._codec.corrected(str(error))
            if codec is None:
                raise
        self._corrected = True
        self._codec, self._history = codec, FullHistory(codec)
        return await self._reply(history, tools)

    async def _reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply:
        document = self._history.document(history, tools)
        ask = self._streamed if self._codec.parameters.stream else self._whole
        try:
            async with self._connected() as client:
                return self._ids.assign(await ask(client, document), self._codec, tools)
        except Refused as refusal:
            raise error_for_refusal(self._provider, refusal, self._redactor) from None
        except MalformedReplyError as error:
            raise MalformedReplyError(f"{self._provider}: {error}") from None
        except Exception as error:
            # Each SDK has its own errors. An error of none of them is raised unchanged.
            failure = _common_error(error) or self._vendor.failure(error)
            if failure is None and isinstance(error, _UNREADABLE):
                failure = MalformedReplyError(
                    f"the SDK cannot read the reply ({type(error).__name__})"
                )
            if failure is None:
                raise
            # Not chained, because the SDK's error references the request with its key.
            raise self._translated(failure) from None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await self._vendor.disconnect(client)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        if self._reuse:
            self._client = self._client or self._new_client()
            yield self._client
            return
        client = self._new_client()
        try:
            yield client
        finally:
            await self._vendor.disconnect(client)

    def _new_client(self) -> Any:
        try:
            return self._vendor.connect()
        except (OSError, ValueError, ImportError) as error:
            # Without the text, because a proxy address may contain a password.
            raise ConfigError(
                f"The SDK of {self._provider} cannot be set up ({type(error).__name__}); correct"
                " or unset the variables for proxies and certificates."
            ) from None

    async def _whole(self, client: Any, document: dict[str, Any]) -> Reply:
        return self._codec.decode(await self._vendor.ask(client, document))

    async def _streamed(self, client: Any, document: dict[str, Any]) -> Reply:
        builder = self._codec.reply_builder()
        async for event in self._vendor.stream(client, document):
            builder.add(event)
        return builder.reply()

    def _translated(self, failure: ProviderError | Response) -> ProviderError:
        if isinstance(failure, ProviderError):
            return type(failure)(self._redactor.text(f"{self._provider}: {failure}"))
        status, headers, body = failure.status, failure.headers, failure.body
        if status == 200:
            return self._error_in(body)
        wait = retry_after(headers, time.time())
        return error_for_status(self._provider, status, headers, body, self._redactor, wait)

    def _error_in(self, body: bytes) -> ProviderError:
        """The error for an event that ended a stream, the same as over the wire."""
        try:
            self._codec.decode(body)
        except Refused as refusal:
            return error_for_refusal(self._provider, refusal, self._redactor)
        except MalformedReplyError:
            pass  # no readable error
        return ProviderError(f"{self._provider} ended its reply with an error")


def _common_error(error: BaseException) -> ProviderError | None:
    """The error for a cause that all SDKs share, independent of their HTTP library."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ == "LocalProtocolError":
            # Without the text, which quotes the header and may contain a key.
            return ConnectionFailedError("A header of the request is not valid HTTP")
        cause = cause.__cause__
    return None
