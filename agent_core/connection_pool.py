"""The import path of the guide. The code is in the module of this name in `guide/`."""

from agent_core.connection_metrics import ConnectionPoolMetrics, pool_metrics
from agent_core.guide.connection_pool import (
    ConnectionPoolManager,
    PooledOpenAIClient,
    get_pooled_client,
)

__all__ = [
    "ConnectionPoolManager",
    "ConnectionPoolMetrics",
    "PooledOpenAIClient",
    "get_pooled_client",
    "pool_metrics",
]
