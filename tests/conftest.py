"""What every test shares."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that the agent uses."""
    return "asyncio"
