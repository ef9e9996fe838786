"""How long a property is searched."""

from hypothesis import HealthCheck, settings

USUAL = 100
"""Examples that hypothesis tries where nothing is said."""


def examples(count: int, *, one_fixture: bool = False) -> settings:
    """So many for one test; in a brief profile the same share of them as of all others.

    `one_fixture` where all examples may share the fixtures of a test.
    """
    usual = settings.default
    shared = (HealthCheck.function_scoped_fixture,) if one_fixture else ()
    return settings(
        max_examples=max(1, count * usual.max_examples // USUAL),
        suppress_health_check=(*usual.suppress_health_check, *shared),
    )
