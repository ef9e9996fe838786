"""Floor b: `httpx.AsyncClient` and `json.dumps` of the whole history at every step.

`main` shares one client between all sessions; `main_own` uses one client per session. The clients
load no certificates, because the connection has no TLS.
"""

import json

import httpx

from tests.benchmarks.floors.conversation import HEADERS, opening, run, tool_messages


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(headers=HEADERS, timeout=120, verify=False)


async def _talk(client: httpx.AsyncClient, base_url: str) -> None:
    body = opening()
    while True:
        content = json.dumps(body).encode()
        response = await client.post(f"{base_url}/chat/completions", content=content)
        reply = response.json()["choices"][0]["message"]
        results = tool_messages(reply, json.loads)
        if results is None:
            return
        body["messages"] += [reply, *results]


async def _with_own_client(base_url: str) -> None:
    async with _client() as client:
        await _talk(client, base_url)


def main() -> None:
    # The first request opens it, in the event loop of all sessions.
    client = _client()
    run(lambda base_url: _talk(client, base_url))


def main_own() -> None:
    run(_with_own_client)
