"""An HTTP/2 server that echoes the request body."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded


class H2Server:
    """Counts connections, and connections with a request."""

    def __init__(self) -> None:
        self.connections = 0
        self.http2_connections = 0
        self.port = 0
        self.open: list[tuple[H2Connection, asyncio.StreamWriter]] = []

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/v1"

    def go_away(self) -> None:
        """Ends every connection with GOAWAY, like a server that shuts down."""
        for connection, writer in self.open:
            connection.close_connection()
            writer.write(connection.data_to_send())
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        tls = writer.get_extra_info("ssl_object")
        if tls.selected_alpn_protocol() != "h2":
            writer.close()
            return
        self.http2_connections += 1
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        self.open.append((connection, writer))
        try:
            writer.write(connection.data_to_send())
            await self._converse(connection, reader, writer)
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError
            pass
        finally:
            writer.close()

    async def _converse(
        self, connection: H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        bodies: dict[int, bytes] = {}
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, DataReceived):
                    stream = event.stream_id or 0
                    bodies[stream] = bodies.get(stream, b"") + (event.data or b"")
                elif isinstance(event, StreamEnded):
                    stream = event.stream_id or 0
                    connection.send_headers(stream, [(":status", "200")])
                    body = b"echo: " + bodies.pop(stream, b"")
                    connection.send_data(stream, body, end_stream=True)
            writer.write(connection.data_to_send())


@asynccontextmanager
async def serving_h2(tls: ssl.SSLContext) -> AsyncIterator[H2Server]:
    """A server on a free port for the duration of the block."""
    tls.set_alpn_protocols(["h2"])
    h2 = H2Server()
    server = await asyncio.start_server(h2.serve, "localhost", 0, ssl=tls)
    h2.port = server.sockets[0].getsockname()[1]
    try:
        yield h2
    finally:
        server.close()
        for _, writer in h2.open:
            writer.transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)
