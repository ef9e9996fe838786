"""Tools of MCP servers, with the official package `mcp`. Imported only if a server is used.

What a server sends is untrusted: numbers and lengths are bounded, and names are made unique.
"""

import asyncio
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any, TextIO, cast

import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, Implementation
from mcp.types import Tool as McpToolSpec

import agent_core
from agent_core.config import McpServer
from agent_core.encoding import encode_json
from agent_core.errors import ConfigError, ToolError
from agent_core.messages import ToolOutput, ToolSpec
from agent_core.ports import Access, Catalog, Tool

_LOG = logging.getLogger(__name__)
_MAX_PAGES = 20
_MAX_TOOLS = 200
"""Per server."""
_MAX_NAME = 64
"""Characters; providers refuse longer names."""
_MAX_DESCRIPTION = 4_000
_MAX_SCHEMA = 50_000
"""Bytes of a tool's schema."""
_MAX_OUTPUT = 30_000
"""Characters."""
_MAX_LOG = 4_000
"""Bytes of a server's standard error that are read."""
_EVERYTHING = Access("files", writes=frozenset({"/"}))
"""A server may do anything, so its calls keep their place among the others."""


@asynccontextmanager
async def with_servers(
    catalog: Catalog, servers: Mapping[str, McpServer], folder: Path
) -> AsyncIterator[Catalog]:
    """`catalog` with the tools of `servers`, which are started and stopped in this task.

    Raises `ConfigError` for a server that cannot be started.
    """
    async with AsyncExitStack() as stack:
        tools: dict[str, _McpTool] = {}
        for name, server in servers.items():
            client = await _started(stack, name, server, folder)
            for spec in await _tools_of(name, client):
                unique = _unique(f"mcp__{name}__{spec.name}", tools)
                tools[unique] = _McpTool(unique, spec, client, server.timeout)
        yield _Merged(catalog, tools)


async def _started(stack: AsyncExitStack, name: str, server: McpServer, folder: Path) -> Client:
    log = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))  # noqa: SIM115
    try:
        async with asyncio.timeout(server.timeout):
            client = Client(
                await _transport(stack, server, folder, log),
                read_timeout_seconds=server.timeout,
                client_info=Implementation(name="agent-core", version=agent_core.__version__),
            )
            return await stack.enter_async_context(client)
    except Exception as error:  # the package raises anything, also groups of exceptions
        raise ConfigError(
            f"The MCP server {name} cannot be started: {_reason(error)}.{_end_of(log)} Correct"
            f" mcp_servers.{name}, or remove it from allow_mcp_servers."
        ) from None


async def _transport(stack: AsyncExitStack, server: McpServer, folder: Path, log: IO[str]) -> Any:
    if server.command:
        parameters = StdioServerParameters(
            command=server.command,
            args=list(server.args),
            env=server.env,
            cwd=folder / (server.cwd or ""),
        )
        return stdio_client(parameters, cast(TextIO, log))
    assert server.address is not None  # `config_shapes` has checked it
    timeout = httpx2.Timeout(server.timeout, read=max(server.timeout, 300))
    http = httpx2.AsyncClient(headers=server.headers, timeout=timeout)
    return streamable_http_client(server.address, http_client=await stack.enter_async_context(http))


def _reason(error: BaseException) -> str:
    """The first cause, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join((str(error) or type(error).__name__).split())[:300].rstrip(".")


def _end_of(log: IO[str]) -> str:
    """What the server wrote last on standard error, as a sentence."""
    size = os.fstat(log.fileno()).st_size
    end = os.pread(log.fileno(), _MAX_LOG, max(0, size - _MAX_LOG)).decode(errors="replace")
    text = " ".join(" ".join(end.split("\n")[-5:]).split())[-300:]
    return f" It wrote: {text.rstrip('.')}." if text else ""


async def _tools_of(name: str, client: Client) -> list[McpToolSpec]:
    found: list[McpToolSpec] = []
    cursor = None
    try:
        for _ in range(_MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None or len(found) >= _MAX_TOOLS:
                break
    except Exception as error:
        raise ConfigError(f"The MCP server {name} lists no tools: {_reason(error)}.") from None
    return [tool for tool in found[:_MAX_TOOLS] if _is_short(name, tool)]


def _is_short(server: str, tool: McpToolSpec) -> bool:
    """Whether a tool's schema, which is in every request, has a bearable length."""
    size = len(encode_json(tool.input_schema))
    if size > _MAX_SCHEMA:
        _LOG.warning(
            "The tool %.100r of the MCP server %s is left out: its schema has %d bytes, more than"
            " %d.",
            *(tool.name, server, size, _MAX_SCHEMA),
        )
    return size <= _MAX_SCHEMA


def _unique(name: str, taken: Iterable[str]) -> str:
    """A name that providers accept and that no other tool has."""
    clean = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_MAX_NAME]
    unique, number = clean, 1
    while unique in taken:
        number += 1
        end = f"_{number}"
        unique = clean[: _MAX_NAME - len(end)] + end
    return unique


class _McpTool:
    """One tool of a server. Satisfies `ports.Tool`."""

    def __init__(self, name: str, spec: McpToolSpec, client: Client, timeout: float) -> None:
        schema = spec.input_schema
        if not isinstance(schema.get("properties"), dict):
            schema = {**schema, "properties": {}}
        description = (spec.description or spec.title or spec.name)[:_MAX_DESCRIPTION]
        self.spec = ToolSpec(name, description, {**schema, "type": "object"})
        self._name = spec.name
        self._client = client
        self._timeout = timeout

    def access(self, arguments: Mapping[str, Any]) -> Access:
        return _EVERYTHING

    async def execute(self, arguments: Mapping[str, Any]) -> ToolOutput:
        try:
            result = await self._client.call_tool(
                self._name, dict(arguments), read_timeout_seconds=self._timeout
            )
        except Exception as error:
            raise ToolError(f"{self.spec.name}: {_reason(error)}.") from None
        text = _text_of(result)
        return ToolOutput(False, "", text) if result.is_error else ToolOutput(True, text)

    async def close(self) -> None:
        """Does nothing. `with_servers` stops the server."""


def _text_of(result: CallToolResult) -> str:
    parts = [_text_of_block(block) for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [encode_json(result.structured_content).decode()]
    text = "\n".join(parts)
    if len(text) > _MAX_OUTPUT:
        return f"{text[:_MAX_OUTPUT]}\n[{len(text) - _MAX_OUTPUT} more characters are not shown]"
    return text


def _text_of_block(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return f"[resource {block.resource.uri}]" if text is None else str(text)
    if block.type == "resource_link":
        return f"[resource {block.uri}]"
    size = len(block.data) * 3 // 4  # of base64, which is not decoded
    return f"[{block.type} {block.mime_type}, about {size} bytes, not shown]"


class _Merged:
    """The session's own tools, then those of servers. Satisfies `ports.Catalog`."""

    def __init__(self, catalog: Catalog, tools: Mapping[str, _McpTool]) -> None:
        self._catalog = catalog
        self._tools = tools

    def specs(self) -> Sequence[ToolSpec]:
        return [*self._catalog.specs(), *(tool.spec for tool in self._tools.values())]

    def get(self, name: str) -> Tool:
        return self._tools.get(name) or self._catalog.get(name)

    async def close(self) -> None:
        await self._catalog.close()
