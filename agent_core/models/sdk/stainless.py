"""The common part of OpenAI's and Anthropic's SDKs, which the generator Stainless made."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec

from agent_core.errors import ConnectionFailedError, ProviderError
from agent_core.ports import Response


class StainlessVendor(ABC):
    """Satisfies `sdk_model.Vendor`, except for two methods that differ per SDK."""

    unnamed: ClassVar[tuple[str, ...]] = ()
    """API fields that the SDK has no argument for. They are passed in `extra_body`."""

    def __init__(self, sdk: Any) -> None:
        self._sdk = sdk
        """The SDK's module, for its error classes."""

    @abstractmethod
    def connect(self) -> Any: ...

    @abstractmethod
    def endpoint(self, client: Any) -> Any:
        """The part of the client whose `create` takes a request."""

    async def disconnect(self, client: Any) -> None:
        await client.close()

    async def ask(self, client: Any, document: dict[str, Any]) -> bytes:
        return _json(await self.endpoint(client).create(**self._arguments(document)))

    async def stream(self, client: Any, document: dict[str, Any]) -> AsyncIterator[bytes]:
        arguments = self._arguments(document)
        async with await self.endpoint(client).create(**arguments) as events:
            async for event in events:
                yield _json(event)

    def failure(self, error: Exception) -> ProviderError | Response | None:
        sdk = self._sdk
        if isinstance(error, sdk.APIStatusError):
            answer = error.response
            # An error event: the response has status 200 and its body is an unread stream.
            streaming = answer.status_code == 200
            body = msgspec.json.encode(error.body) if streaming else answer.content
            return Response(answer.status_code, dict(answer.headers), body)
        if isinstance(error, sdk.APIConnectionError):
            return ConnectionFailedError(str(error.__cause__ or error))
        if isinstance(error, sdk.APIError):
            return ProviderError(error.message)
        return None

    def _arguments(self, document: dict[str, Any]) -> dict[str, Any]:
        extra = {name: document[name] for name in self.unnamed if name in document}
        named = {name: value for name, value in document.items() if name not in extra}
        return {**named, "extra_body": extra} if extra else named


def _json(model: Any) -> bytes:
    text: str = model.to_json(indent=None, warnings=False)
    return text.encode()
