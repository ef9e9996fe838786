"""Counts of requests and connections, for one transport or for the whole process."""


class ConnectionPoolMetrics:
    """Counts requests and connections."""

    def __init__(self) -> None:
        self.request_count = 0
        self.connection_reuse_count = 0
        self.total_request_time = 0.0
        """Seconds, from sending to the end of the body."""
        self.connections_opened = 0
        self.tls_handshakes = 0

    def record_request(self, duration: float, connection_reused: bool = False) -> None:
        """Counts one answered request; `duration` is in seconds."""
        self.request_count += 1
        self.total_request_time += duration
        self.connection_reuse_count += connection_reused

    def record_event(self, event: str) -> None:
        """Counts one httpcore trace event, which reports an action on the network."""
        if event.endswith("connect_tcp.complete"):
            self.connections_opened += 1
        elif event.endswith("start_tls.complete"):
            self.tls_handshakes += 1

    @property
    def average_request_time(self) -> float:
        """Seconds; 0 before the first request."""
        return self.total_request_time / self.request_count if self.request_count else 0.0

    def get_stats(self) -> dict[str, float]:
        requests = self.request_count
        reuse = 100 * self.connection_reuse_count / requests if requests else 0.0
        return {
            "total_requests": requests,
            "connection_reuse_count": self.connection_reuse_count,
            "connection_reuse_rate_percent": round(reuse, 2),
            "average_request_time_ms": round(self.average_request_time * 1000, 2),
            "total_request_time_seconds": round(self.total_request_time, 2),
            "connections_opened": self.connections_opened,
            "tls_handshakes": self.tls_handshakes,
        }


pool_metrics = ConnectionPoolMetrics()
"""Counts every request of this process."""
