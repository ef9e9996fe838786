"""What every test shares."""

import pytest
from hypothesis import settings

# For the second and third Python: the properties were searched at length on the first.
settings.register_profile("brief", max_examples=15)


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that the agent uses."""
    return "asyncio"
