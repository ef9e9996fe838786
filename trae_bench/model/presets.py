"""The kinds of run: which scenarios each takes, how long, and how sure. Data only."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from trae_bench.model.run import Header


class Profile(Struct, frozen=True):
    """A kind of run: how long, how sure."""

    about: str
    scenarios: tuple[str, ...]
    budget: float | None
    """Seconds."""
    pairs: int | None
    noise_pairs: int
    claimed: bool = True
    """Verdicts may be claimed."""


DEFAULT_SCENARIOS = ("bugfix", "fan-out")
FULL_SCENARIOS = (
    *DEFAULT_SCENARIOS,
    *("startup-cold", "startup-warm", "tool-heavy-start", "cli-help"),
    *("config-load", "config-load@500", "config-load@yaml", "config-load@500-yaml"),
    *("fan-out-one-file", "file-ops", "tools-memory", "bugfix@shell"),
    *("trajectory-long", "trajectory-long@memory", "trajectory-long@history"),
    *("api-sequential", "api-sequential@rtt10", "api-sequential@rtt40"),
    *("api-sequential@tls", "api-sequential@tls-rtt10", "api-sequential@tls-rtt40"),
    *("api-burst", "api-burst@tls", "api-burst@tls-rtt40", "throughput", "streaming"),
)
"""What most rows of docs/performance.md are made from."""

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        # Without verdicts there is nothing that A/A pairs could guard.
        "smoke": Profile("2 pairs each, no verdicts", DEFAULT_SCENARIOS, 120.0, 2, 0, False),
        "quick": Profile("at most 4:30 minutes", DEFAULT_SCENARIOS, 270.0, None, 8),
        "full": Profile("until every question has its answer", FULL_SCENARIOS, None, None, 12),
    }
)


def is_claimed(header: Header) -> bool:
    """Whether a run of this profile is long enough for verdicts."""
    profile = PROFILES.get(header.profile)
    return profile is None or profile.claimed
