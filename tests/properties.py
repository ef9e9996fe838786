"""Hypothesis settings for a given number of examples."""

from hypothesis import HealthCheck, settings

DEFAULT_EXAMPLES = 100
"""Default number of examples in hypothesis."""


def examples(count: int, *, one_fixture: bool = False) -> settings:
    """Return settings with `count` examples, scaled down in the brief profile.

    `one_fixture` allows all examples to share function-scoped fixtures.
    """
    default = settings.default
    suppressed = (HealthCheck.function_scoped_fixture,) if one_fixture else ()
    return settings(
        max_examples=max(1, count * default.max_examples // DEFAULT_EXAMPLES),
        suppress_health_check=(*default.suppress_health_check, *suppressed),
    )
