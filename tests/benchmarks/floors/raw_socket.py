"""Floor a: a raw asyncio socket; every request was serialised before the clock started.

`PREPARED` holds the first request's body up to its end, then a line for what each step
adds. Replies are received and not read; no tool is run.
"""

import sys

from tests.benchmarks.floors.conversation import run
from tests.benchmarks.floors.raw_http import RawConnection


async def session(base_url: str) -> None:
    connection = RawConnection(base_url)
    await connection.open()
    body = bytearray()
    with open(sys.argv[1], "rb") as file:  # noqa: ASYNC230, PTH123 - it is all there is to do
        for line in file:
            body += line[:-1]
            await connection.post((body, b"]}"))
    connection.close()


def main() -> None:
    run(session)
