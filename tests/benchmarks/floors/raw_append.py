"""Floor c: a raw asyncio socket that encodes each message once and runs the tool."""

import json

from tests.benchmarks.floors.conversation import opening, run, tool_messages
from tests.benchmarks.floors.raw_http import RawConnection


async def session(base_url: str) -> None:
    connection = RawConnection(base_url)
    await connection.open()
    body = bytearray(json.dumps(opening()).encode()[:-2])
    while True:
        reply = json.loads(await connection.post((body, b"]}")))["choices"][0]["message"]
        results = tool_messages(reply, json.loads)
        if results is None:
            break
        for message in (reply, *results):
            body += b"," + json.dumps(message).encode()
    connection.close()


def main() -> None:
    run(session)
