"""What every test shares."""

import pytest
from hypothesis import HealthCheck, settings

# No test judges by the clock: a machine may be busy. The second and third Python are brief, because
# the properties were searched at length on the first.
settings.register_profile(
    "thorough", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("brief", settings.get_profile("thorough"), max_examples=15)
settings.load_profile("thorough")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that the agent uses."""
    return "asyncio"
