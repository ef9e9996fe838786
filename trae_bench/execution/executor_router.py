"""Chooses between two executors by scenario."""

from collections.abc import Collection, Sequence

from trae_bench.execution.ports import Executor
from trae_bench.model.experiment import Trial
from trae_bench.model.sample import Sample


class ExecutorRouter:
    """Runs trials of the listed scenarios on `other` and all others on `default`."""

    def __init__(self, default: Executor, other: Executor, scenarios: Collection[str]) -> None:
        self._default = default
        self._other = other
        self._scenarios = frozenset(scenarios)

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        """Run trials that all belong to one scenario."""
        use_other = trials[0].scenario in self._scenarios
        return (self._other if use_other else self._default).run(trials)
