"""A model on top of the wire protocol: a codec and a history over any `Connections`."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from agent_core import __version__
from agent_core.config import ProviderSettings, is_address
from agent_core.error_bodies import html_title, is_html
from agent_core.errors import (
    ConfigError,
    ConnectionFailedError,
    InvalidRequestError,
    MalformedReplyError,
)
from agent_core.messages import Message, Reply, ToolSpec
from agent_core.models import PROVIDERS, codec_named
from agent_core.models.codec import (
    CallIds,
    Codec,
    Parameters,
    Refused,
    StreamDecoder,
    UnexpectedShape,
)
from agent_core.models.failures import (
    error_for_refusal,
    error_for_status,
    is_transient,
    status_of,
)
from agent_core.models.history import History, IncrementalHistory
from agent_core.models.streamed_text import StreamedText
from agent_core.ports import Connections, Request
from agent_core.providers import with_query, without_query
from agent_core.redaction import Redactor
from agent_core.retries import BackOff, Clock, Retrier, retry_after

MAX_REPEATS = 2
"""How often to repeat a request whose reply was interrupted."""

USER_AGENT = f"agent-core/{__version__}"

_WHOLE = ("application/json", "text/html")
"""Types of a body that is not a stream."""

Ask = Callable[[Request], Awaitable[Reply]]


class WireModel:
    """Satisfies `ports.Model`.

    `Connections` retries failures before a reply began. This class repeats a request whose
    reply was interrupted (a broken stream, truncated JSON), because no part of it has
    been used. It also retries a transient refusal of status 200, like the HTTP status.
    """

    def __init__(
        self,
        codec: Codec,
        history: Callable[[Codec], History],
        connections: Connections,
        *,
        provider: str,
        url: str,
        headers: dict[str, str],
        redactor: Redactor | None = None,
        max_retries: int = 10,
        clock: Clock | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self._codec = codec
        self._text = StreamedText(codec.protocol, on_text) if on_text else None
        self._new_history = history
        self._history = history(codec)
        self._corrected = False
        self._connections = connections
        self._provider = provider
        self._url = url
        self._headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "accept-encoding": "identity",
            **headers,
        }
        self._redactor = redactor or Redactor()
        self._ids = CallIds()
        self._retries = max_retries
        self._retrier = Retrier(BackOff(retries=max_retries), clock or Clock())

    async def reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply:
        """Raises `ProviderError`. Its message contains no key."""
        try:
            return await self._reply(history, tools)
        except InvalidRequestError as error:
            codec = None if self._corrected else self._codec.corrected(str(error))
            if codec is None:
                raise
        self._corrected = True
        self._codec, self._history = codec, self._new_history(codec)
        return await self._reply(history, tools)

    async def _reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply:
        body = self._history.body(history, tools)
        request = Request(self._provider, self._url, self._headers, body)
        ask = self._streamed if self._codec.parameters.stream else self._whole
        if self._text:
            self._text.begin_reply()
        try:
            return self._ids.assign(await self._repeated(ask, request), self._codec, tools)
        except Refused as refusal:
            raise error_for_refusal(self._provider, refusal, self._redactor) from None
        except MalformedReplyError as error:
            raise MalformedReplyError(f"{self._provider}: {error}") from None

    async def close(self) -> None:
        """Does nothing. The caller closes the connections."""

    async def _repeated(self, ask: Ask, request: Request) -> Reply:
        limit, repeats, refusals = min(MAX_REPEATS, self._retries), 0, 0
        while True:
            try:
                return await ask(request)
            except UnexpectedShape:
                raise
            except (MalformedReplyError, _StreamInterrupted) as error:
                if repeats == limit and isinstance(error, _StreamInterrupted):
                    raise ConnectionFailedError(str(error)) from error.__cause__
                if repeats == limit:
                    raise
                await self._retrier.pause(repeats, str(error).rstrip("."), limit=limit)
                repeats += 1
            except Refused as refusal:
                if refusals == self._retries or not is_transient(refusal):
                    raise
                # Only the number is logged, because the text could contain a key.
                reason = f"The provider answered {status_of(refusal)}"
                await self._retrier.pause(refusals, reason)
                refusals += 1

    async def _whole(self, request: Request) -> Reply:
        response = await self._connections.post(request)
        self._check(response.status, response.headers, response.body)
        return self._decoded(response.body)

    async def _streamed(self, request: Request) -> Reply:
        async with self._connections.stream(request) as (status, headers, chunks):
            if status != 200:
                self._check(status, headers, await _joined(chunks))
            try:
                if headers.get("content-type", "").startswith(_WHOLE):
                    # Some servers ignore the request for a stream.
                    return self._decoded(await _joined(chunks))
                return await self._read(chunks)
            except ConnectionFailedError as error:
                raise _StreamInterrupted(str(error)) from error

    async def _read(self, chunks: AsyncIterator[bytes]) -> Reply:
        decoder = StreamDecoder(self._codec, self._text.take if self._text else None)
        if self._text:
            self._text.begin_stream()
        async for chunk in chunks:
            decoder.feed(chunk)
        reply = decoder.finish()
        if self._text:
            self._text.end_stream()
        return reply

    def _decoded(self, body: bytes) -> Reply:
        try:
            return self._codec.decode(body)
        except MalformedReplyError:
            if not is_html(body):
                raise
            title = self._redactor.text(html_title(body))
            raise UnexpectedShape(f"The reply is not JSON but {title}; check base_url.") from None

    def _check(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if status != 200:
            wait = retry_after(headers, time.time())
            raise error_for_status(self._provider, status, headers, body, self._redactor, wait)


class _StreamInterrupted(Exception):
    """The connection failed after the reply had begun."""


async def _joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def open_model(
    provider: str,
    settings: ProviderSettings,
    connections: Connections,
    *,
    history: Callable[[Codec], History] = IncrementalHistory,
    prompt_cache: bool = True,
    clock: Clock | None = None,
    on_text: Callable[[str], None] | None = None,
) -> WireModel:
    """The model for `settings`. `on_text` sees streamed text. Raises `ConfigError`.

    `provider` is a name in `PROVIDERS`. For an entry with a custom name, pass its `provider`.
    """
    if provider not in PROVIDERS:
        raise ConfigError(f"Unknown provider {provider!r}. Known: {', '.join(PROVIDERS)}.")
    known = PROVIDERS[provider]
    base_url = settings.base_url or known.base_url
    if base_url is None:
        raise ConfigError(f"{provider} has no default address; set base_url (its endpoint).")
    if not is_address(base_url):
        raise ConfigError(
            f"The base_url of {provider} must begin with http:// or https:// and name a host."
        )
    address, query = without_query(base_url)
    parameters = Parameters.of(settings, provider, prompt_cache=prompt_cache)
    codec = codec_named(settings.protocol or known.protocol, provider, parameters)
    return WireModel(
        codec,
        history,
        connections,
        provider=provider,
        url=with_query(
            known.versioned(codec.url(known.rooted(address, settings.model)), settings.api_version),
            query,
        ),
        headers=known.headers(settings.api_key),
        redactor=Redactor(settings.secrets),
        max_retries=settings.max_retries,
        clock=clock,
        on_text=on_text,
    )
