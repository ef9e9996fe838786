"""Shell completion of the names of scenarios, toggles and metrics.

The functions have click's signature for `shell_complete`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_scenario(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Names of shipped scenarios. If none matches, the shell completes paths."""
    from click.shell_completion import CompletionItem

    from trae_bench.scenario import catalogue

    found = _matching(dict.fromkeys(sorted(catalogue())), incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def complete_toggle(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Names of the agent's toggles, with their descriptions."""
    from trae_bench.subject.agent_core import toggles

    return _matching(toggles(), incomplete)


def complete_metric(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Names of metrics, with their descriptions."""
    from trae_bench.metrics import METRICS

    return _matching({name: metric.about for name, metric in METRICS.items()}, incomplete)


def complete_agent(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    """Names of shipped agents. If none matches, the shell completes paths."""
    from click.shell_completion import CompletionItem

    from trae_bench.subject.agents.catalog import shipped

    found = _matching(dict.fromkeys(shipped()), incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def _matching(names: Mapping[str, str | None], incomplete: str) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(name, help=about)
        for name, about in names.items()
        if name.startswith(incomplete)
    ]
