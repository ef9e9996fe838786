"""Fakes and builders that several tests share: cells, samples, metrics, a clock, a sink."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast, Mode, Side, Trial
from trae_bench.model.sample import Sample, Status, of_trial

TOGGLES = ("fast", "faster", "slower", "idle")
NONE = Arm("none", dict.fromkeys(TOGGLES, False))


def turned_on(name: str) -> Arm:
    """Return an arm with one toggle on."""
    return Arm(name, NONE.toggles | {name: True})


FAST = turned_on("fast")

TINY = """
name = "tiny"
about = "One step, for tests of trae-bench."
task = "Say that it is done."
metrics = ["cpu", "wall"]
timeout_seconds = 30.0
[toggles]
vary = ["batched_trajectory"]
[[turns]]
[[turns.calls]]
tool = "task_done"
arguments = { summary = "It is done." }
"""


class ScriptedExecutor:
    """An executor that starts no process and reads no clock.

    `answer` returns the metrics of a trial, or its whole `Sample`.
    """

    def __init__(self, answer: Callable[[Trial], Mapping[str, float] | Sample]) -> None:
        self._answer = answer
        self.batches: list[tuple[Trial, ...]] = []
        """The trials of each call to `run`."""

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        self.batches.append(tuple(trials))
        return [self._sample(trial) for trial in trials]

    def _sample(self, trial: Trial) -> Sample:
        answer = self._answer(trial)
        if isinstance(answer, Sample):
            return answer
        return Sample(
            **of_trial(trial),
            status="ok",
            started=float(len(self.batches)),
            exit_status=0,
            pid=1,
            metrics=dict(answer),
            transcript="scripted",
            workspace="scripted",
            correct=True,
        )


def cell(
    contrast: str = "fast",
    mode: Mode = "duet",
    metrics: tuple[str, ...] = ("cpu",),
    scenario: str = "work",
) -> Cell:
    b = NONE if contrast == NOISE_FLOOR else turned_on(contrast)
    return Cell(scenario, Contrast(contrast, NONE, b), mode, metrics)


def sample(
    side: Side = "A",
    pair: int = 1,
    *,
    contrast: str = "fast",
    mode: Mode = "duet",
    scenario: str = "work",
    status: Status = "ok",
    metrics: Mapping[str, float] | None = None,
    started: float = 0.0,
    transcript: str = "same",
    workspace: str = "same",
    correct: bool = True,
    problem: str | None = None,
) -> Sample:
    return Sample(
        scenario=scenario,
        contrast=contrast,
        mode=mode,
        pair=pair,
        side=side,
        slot=0 if side == "A" else 1,
        arm="none" if side == "A" else "fast",
        status=status,
        started=started,
        exit_status=0,
        pid=1,
        metrics=dict({"cpu": 1.0} if metrics is None else metrics),
        transcript=transcript,
        workspace=workspace,
        correct=correct,
        problem=problem,
    )


def figures(
    effect: float = 1.0, noise: float = 0.01, contrast: str | None = None
) -> Callable[[Trial], Mapping[str, float]]:
    """Return reproducible values of every duet and serial metric.

    Side B is multiplied by `effect`, except in A/A pairs.
    """

    def answer(trial: Trial) -> Mapping[str, float]:
        name = f"{trial.scenario}{trial.contrast}{trial.mode}{trial.pair}{trial.side}"
        spread = math.exp(Random(name).gauss(0, noise))
        changed = trial.side == "B" and trial.contrast not in (NOISE_FLOOR, contrast)
        value = spread * (effect if changed else 1.0)
        return {
            name: value * (5e7 if metric.unit == "B" else 1.0)
            for name, metric in METRICS.items()
            if metric.mode != "exact"
        }

    return answer


class HandClock:
    """A clock that stands still until a test sets `seconds`."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Timed(ScriptedExecutor):
    """A scripted executor whose batches take `seconds` of a `HandClock`."""

    def __init__(
        self,
        answer: Callable[[Trial], Mapping[str, float] | Sample],
        clock: HandClock,
        seconds: Callable[[Trial], float] = lambda trial: 1.0,
    ) -> None:
        super().__init__(answer)
        self._clock = clock
        self._seconds = seconds

    def run(self, trials: Sequence[Trial]) -> Sequence[Sample]:
        self._clock.seconds += self._seconds(trials[0])
        return super().run(trials)


class Memory:
    """A sink that keeps samples in memory."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.checks: list[Sample] = []

    def append(self, sample: Sample) -> Sample:
        self.samples.append(sample)
        return sample

    def append_check(self, check: Sample) -> Sample:
        self.checks.append(check)
        return check
