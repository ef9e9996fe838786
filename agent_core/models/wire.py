"""A model spoken to over the wire: a codec and a history on any `Connections`."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from agent_core.config import ProviderSettings, is_address
from agent_core.errors import ConfigError, ConnectionFailedError, MalformedReplyError
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
from agent_core.models.failures import error_for_refusal, error_for_status, status_of
from agent_core.models.history import History, IncrementalHistory
from agent_core.ports import Connections, Request
from agent_core.providers import with_query, without_query
from agent_core.redaction import Redactor
from agent_core.retries import TRANSIENT, BackOff, Clock, Retrier, retry_after

MAX_REPEATS = 2
"""How often a reply that broke off in its middle is asked for again, at most."""


Ask = Callable[[Request], Awaitable[Reply]]


class WireModel:
    """Satisfies `ports.Model`.

    `Connections` repeats what failed before a reply began. A reply that began and broke
    off (a cut stream, truncated JSON) is asked for again here, where it is known to be
    unfinished: nobody has seen any of it yet. So is one that turns out to be a refusal for
    the moment, with the same patience that a status of that kind gets.
    """

    def __init__(
        self,
        codec: Codec,
        history: History,
        connections: Connections,
        *,
        provider: str,
        url: str,
        headers: dict[str, str],
        redactor: Redactor | None = None,
        max_retries: int = 10,
        clock: Clock | None = None,
    ) -> None:
        self._codec = codec
        self._history = history
        self._connections = connections
        self._provider = provider
        self._url = url
        self._headers = {"content-type": "application/json", **headers}
        self._redactor = redactor or Redactor()
        self._names = CallIds()
        self._retries = max_retries
        self._retrier = Retrier(BackOff(retries=max_retries), clock or Clock())

    async def reply(self, history: Sequence[Message], tools: Sequence[ToolSpec]) -> Reply:
        """Raises `ProviderError`; no message of it holds a key."""
        body = self._history.body(history, tools)
        request = Request(self._provider, self._url, self._headers, body)
        ask = self._streamed if self._codec.parameters.stream else self._whole
        try:
            return self._names.given(await self._repeated(ask, request))
        except Refused as refusal:
            raise error_for_refusal(self._provider, refusal, self._redactor) from None
        except MalformedReplyError as error:
            raise MalformedReplyError(f"{self._provider}: {error}") from None

    async def close(self) -> None:
        """Nothing of its own; the connections belong to whoever opened them."""

    async def _repeated(self, ask: Ask, request: Request) -> Reply:
        repeats, refusals = min(MAX_REPEATS, self._retries), 0
        while True:
            try:
                return await ask(request)
            except UnexpectedShape:
                raise
            except (MalformedReplyError, _StreamInterrupted) as error:
                if repeats:
                    repeats -= 1
                elif isinstance(error, _StreamInterrupted):
                    raise ConnectionFailedError(str(error)) from error.__cause__
                else:
                    raise
            except Refused as refusal:
                status = status_of(refusal)
                if status not in TRANSIENT or refusals == self._retries:
                    raise
                # In the number alone there can be no key.
                await self._retrier.pause(refusals, f"The provider answered {status}")
                refusals += 1

    async def _whole(self, request: Request) -> Reply:
        response = await self._connections.post(request)
        self._check(response.status, response.headers, response.body)
        return self._codec.decode(response.body)

    async def _streamed(self, request: Request) -> Reply:
        async with self._connections.stream(request) as (status, headers, chunks):
            if status != 200:
                self._check(status, headers, await _joined(chunks))
            try:
                if headers.get("content-type", "").startswith("application/json"):
                    # Some servers answer in one piece, whatever they are asked.
                    return self._codec.decode(await _joined(chunks))
                decoder = StreamDecoder(self._codec)
                async for chunk in chunks:
                    decoder.feed(chunk)
            except ConnectionFailedError as error:
                raise _StreamInterrupted(str(error)) from error
            return decoder.finish()

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
    clock: Clock | None = None,
) -> WireModel:
    """The model that `settings` describe. Raises `ConfigError`.

    `provider` is a name in `PROVIDERS`; where an entry of the file has a name of its own,
    that is its `provider` and not its name.
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
    codec = codec_named(settings.protocol or known.protocol, provider, Parameters.of(settings))
    return WireModel(
        codec,
        history(codec),
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
    )
