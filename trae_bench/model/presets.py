"""The profiles of `trae-bench run`: scenarios and limits. Data only."""

from collections.abc import Mapping

from msgspec import Struct

from trae_bench.model.experiment import Limits
from trae_bench.model.run import Header


class Profile(Struct, frozen=True):
    """A named set of scenarios and limits."""

    about: str
    scenarios: tuple[str, ...]
    limits: Limits
    claimed: bool = True
    """The run is long enough for verdicts."""


DEFAULT_SCENARIOS = ("fan-out", "bugfix")
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
"""Most rows of docs/performance.md come from these."""

PROFILES: Mapping[str, Profile] = {
    # Without verdicts, A/A pairs have nothing to guard.
    "smoke": Profile("2 pairs each, no verdicts", DEFAULT_SCENARIOS, Limits(120.0, 2, 0), False),
    "quick": Profile("at most 4.5 minutes", DEFAULT_SCENARIOS, Limits(270.0)),
    "full": Profile("until every comparison is settled", FULL_SCENARIOS, Limits(noise_pairs=12)),
}


def is_claimed(header: Header) -> bool:
    """Whether a run of this profile is long enough for verdicts."""
    profile = PROFILES.get(header.profile)
    return profile is None or profile.claimed
