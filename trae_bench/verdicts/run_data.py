"""Rows, arms and A/A estimates of one stored run, for a comparison with another run. Pure."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.model.experiment import Arm, Contrast, Metric
from trae_bench.model.result import Estimate
from trae_bench.model.run import Header, RunFile
from trae_bench.stats.analysis import rows_of
from trae_bench.stats.decision import Row, estimate
from trae_bench.stats.noise import aa_key
from trae_bench.stats.pairs import RowKey


class RunData(Struct, frozen=True):
    """A run, indexed for comparison."""

    header: Header
    rows: Mapping[RowKey, Row]
    contrasts: Mapping[str, Mapping[str, Contrast]]
    """By scenario and name, without A/A."""
    arms: Mapping[str, Mapping[str, Arm]]
    """By scenario and name."""
    metrics: Mapping[str, Mapping[str, Metric]]
    """By scenario and name."""
    values: Mapping[RowKey, Sequence[float]]
    """Values of an arm from all measured pairs; the key names the arm instead of the contrast."""
    noise: Mapping[RowKey, Estimate | None]
    """Estimates from the A/A pairs, by the keys of the A/A rows."""
    family: int
    """Number of rows without A/A."""

    def noise_of(self, key: RowKey) -> Estimate | None:
        """A/A estimate for the scenario and metric of a row or an arm."""
        return self.noise.get(aa_key(key))


def run_data(run: RunFile) -> RunData:
    """Judge the samples of a run by the rules of this release, and index the results."""
    header = run.header
    rows = rows_of(run.samples, header.cells, header.metrics)
    contrasts: dict[str, dict[str, Contrast]] = {name: {} for name in header.scenarios}
    arms: dict[str, dict[str, Arm]] = {name: {} for name in header.scenarios}
    metrics: dict[str, dict[str, Metric]] = {name: {} for name in header.scenarios}
    values: dict[RowKey, list[float]] = {}
    for cell in header.cells:
        if cell.confirms:
            continue
        name, contrast = cell.scenario, cell.contrast
        if contrast.name != NOISE_FLOOR:
            contrasts[name][contrast.name] = contrast
        for metric in cell.metrics:
            metrics[name][metric] = header.metrics[metric]
            row = rows[RowKey(name, contrast.name, metric)]
            for arm, side in ((contrast.a, row.a), (contrast.b, row.b)):
                if arms[name].setdefault(arm.name, arm).toggles == arm.toggles:
                    values.setdefault(RowKey(name, arm.name, metric), []).extend(side)
    noise = {key: estimate(row) for key, row in rows.items() if key.contrast == NOISE_FLOOR}
    return RunData(header, rows, contrasts, arms, metrics, values, noise, len(rows) - len(noise))
