"""Floor a: a raw asyncio socket that sends requests encoded in advance.

The file `PREPARED` holds the start of the first body, then one line per step to append. Replies are
received but not parsed, and no tool runs.
"""

import sys

from tests.benchmarks.floors.conversation import run
from tests.benchmarks.floors.raw_http import RawConnection


async def session(base_url: str) -> None:
    connection = RawConnection(base_url)
    await connection.open()
    body = bytearray()
    with open(sys.argv[1], "rb") as file:  # noqa: ASYNC230, PTH123 - no other task runs
        for line in file:
            body += line[:-1]
            await connection.post((body, b"]}"))
    connection.close()


def main() -> None:
    run(session)
