"""Hypothesis profiles and fixtures for all tests."""

import pytest
from hypothesis import HealthCheck, settings

# No deadlines, because the machine may be busy. tox uses the brief profile on the second and third
# Python, because the first one runs all examples.
settings.register_profile(
    "thorough", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("half", settings.get_profile("thorough"), max_examples=50)
settings.register_profile("brief", settings.get_profile("thorough"), max_examples=15)
settings.load_profile("thorough")


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, the only event loop that the agent supports."""
    return "asyncio"
