"""Other tools can read the exports; tested with the tools that are installed."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.trae_bench.runs import TOGGLES, gate, honest, plan
from trae_bench.cli import main
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import BadRunFile, CannotMeasure
from trae_bench.model.experiment import Side
from trae_bench.model.run import RunFile
from trae_bench.model.sample import Sample
from trae_bench.report.export import CSV_COLUMNS, FORMATS, export
from trae_bench.storage.run_file import write_run

replace = msgspec.structs.replace
JSON_FORMATS = [name for name in FORMATS if name != "csv"]

# Bencher's schema from https://bencher.dev/bmf.json, closed to unknown fields.
BMF = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"maxLength": 1024},
    "additionalProperties": {
        "type": "object",
        "propertyNames": {"maxLength": 64},
        "additionalProperties": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "lower_value": {"type": "number"},
                "upper_value": {"type": "number"},
            },
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}


@cache
def run() -> RunFile:
    return honest(noise=0.05, lost={("slower", 3): "crash", ("idle", 2): "differ"})


def parsed(format: str, side: Side | None = None) -> Any:
    return json.loads(export(run(), format, side))


def values(contrast: str, metric: str, side: Side) -> list[float]:
    """Values of all pairs except warm-up and lost ones."""

    def good(one: Sample) -> bool:
        lost = {("slower", 3), ("idle", 2)}
        return one.pair > 0 and (one.contrast, one.pair) not in lost and one.side == side

    modes = {name: cell.mode for cell in run().header.cells for name in cell.metrics}
    samples = [one for one in run().samples if one.contrast == contrast and good(one)]
    return [one.metrics[metric] for one in samples if one.mode == modes[metric]]


def tool(*args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, args)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def both(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """An export of each side."""
    off, on = tmp_path / "off.json", tmp_path / "on.json"
    off.write_text(export(run(), request.param, "A"))
    on.write_text(export(run(), request.param, "B"))
    return off, on


# -- pyperf


def test_pyperf_reads_back_the_values(tmp_path: Path) -> None:
    pyperf = pytest.importorskip("pyperf")
    path = tmp_path / "run.json"
    path.write_text(export(run(), "pyperf"))

    suite = pyperf.BenchmarkSuite.load(str(path))

    assert not [name for name in suite.get_benchmark_names() if NOISE_FLOOR in name]
    found = suite.get_benchmark("work/slower/cpu/on")
    assert list(found.get_values()) == values("slower", "cpu", "B")
    assert found.get_nrun() == len(values("slower", "cpu", "B"))
    assert found.get_unit() == "second"
    assert found.get_metadata()["cpu_model_name"] == "an ordinary one"
    memory = suite.get_benchmark("work/idle/peak_rss/off")
    assert (memory.get_unit(), memory.format_value(memory.mean())[-3:]) == ("byte", "MiB")
    assert suite.get_benchmark("work/idle/requests/off").get_values()[0] == 17
    # In pyperf lower is always better, so a rate would be judged in the wrong direction.
    assert "steps_per_second" not in " ".join(suite.get_benchmark_names())


@pytest.mark.parametrize("both", ["pyperf"], indirect=True)
def test_pyperf_compares_the_sides(both: tuple[Path, Path]) -> None:
    pytest.importorskip("pyperf")
    compared = tool("pyperf", "compare_to", *both, "--table")
    (line,) = (line for line in compared.splitlines() if "work/faster/cpu " in line)
    assert "faster" in line.split("|")[3]
    (line,) = (line for line in compared.splitlines() if "work/slower/wall " in line)
    assert "slower" in line.split("|")[3]
    assert "ERROR" not in compared
    stats = tool("pyperf", "stats", both[1])
    assert f"Total number of run: {len(values('slower', 'cpu', 'B'))}" in stats
    tool("pyperf", "check", both[1])


# -- pytest-benchmark


@pytest.mark.parametrize("both", ["pytest-benchmark"], indirect=True)
def test_pytest_benchmark_compares_the_sides(both: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    code = (
        "import sys; from pytest_benchmark.cli import main; sys.argv = ['x', *sys.argv[1:]]; main()"
    )
    table = tmp_path / "table.csv"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", *both, "--csv", table, "--columns", "mean,rounds"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Failed to load" not in done.stdout + done.stderr
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    means = sorted(float(row["mean"]) for row in rows if row["name"] == "work/slower/cpu")
    expected = [values("slower", "cpu", side) for side in ("A", "B")]
    assert means == pytest.approx(sorted(sum(each) / len(each) for each in expected))
    assert {row["name"].split("/")[2] for row in rows} == {"cpu", "wall"}


def test_statistics_equal_those_of_pytest_benchmark() -> None:
    stats = pytest.importorskip("pytest_benchmark.stats")
    for bench in parsed("pytest-benchmark")["benchmarks"]:
        theirs = stats.Stats()
        for value in bench["stats"]["data"]:
            theirs.update(value)
        for field in ("min", "max", "mean", "stddev", "rounds", "median", "total", "ops"):
            assert bench["stats"][field] == pytest.approx(getattr(theirs, field)), field
        assert set(theirs.fields) <= bench["stats"].keys()


# -- the rest by their shape


def test_bencher_gets_nanoseconds_bytes_and_ratios() -> None:
    document = parsed("bmf")
    jsonschema.validate(document, BMF)
    cpu = document["work/slower/on"]["cpu"]
    assert cpu["value"] == pytest.approx(1e9 * median(values("slower", "cpu", "B")))
    assert cpu["lower_value"] <= cpu["value"] <= cpu["upper_value"]
    rss = document["work/slower/on"]["peak_rss"]["value"]
    assert rss == median(values("slower", "peak_rss", "B"))
    ratio = document["work/slower/ratio"]["cpu"]
    assert ratio["value"] == pytest.approx(1.5, rel=0.1)
    assert ratio["lower_value"] < ratio["value"] < ratio["upper_value"]


def test_a_github_action_file_has_one_direction() -> None:
    smaller, bigger = parsed("github-action", "B"), parsed("github-action-bigger", "B")
    assert {entry["name"].split("/")[2] for entry in bigger} == {"steps_per_second"}
    assert "steps_per_second" not in {entry["name"].split("/")[2] for entry in smaller}
    for entry in smaller + bigger:
        assert entry.keys() == {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["value"], float)
        assert entry["range"].startswith("± ")
        assert entry["unit"]


def test_hyperfine_gets_wall_times_of_serial_pairs() -> None:
    results = parsed("hyperfine")["results"]
    assert len(results) == 2 * len(TOGGLES)
    for result in results:
        contrast, word = result["command"].split()[1].split("=")
        times = values(contrast, "wall", "A" if word == "off" else "B")
        assert result["times"] == times
        assert result["mean"] == pytest.approx(sum(times) / len(times))
        assert result["median"] == median(times)
        assert len(result["exit_codes"]) == len(result["memory_usage_byte"]) == len(times)
        assert result["parameters"][contrast] == word
        assert 0 < result["user"] < result["mean"]


def test_csv_has_every_value_and_marks_counted_pairs() -> None:
    rows = list(csv.DictReader(io.StringIO(export(run(), "csv"))))
    assert tuple(rows[0]) == CSV_COLUMNS
    figures = [row for row in rows if row["metric"]]
    assert len(figures) == sum(len(one.metrics) for one in run().samples)
    for side in ("A", "B"):
        counted = [
            float(row["value"])
            for row in rows
            if (row["contrast"], row["metric"], row["mode"]) == ("idle", "cpu", "duet")
            and (row["side"], row["counted"]) == (side, "yes")
        ]
        assert counted == values("idle", "cpu", side)
    crashed = [row for row in rows if row["status"] == "failed"]
    assert crashed
    assert {row["value"] for row in crashed} == {""}


@pytest.mark.parametrize("format", JSON_FORMATS)
def test_export_of_one_side_omits_the_side_name(format: str) -> None:
    if format == "hyperfine":
        assert len(parsed(format, "A")["results"]) == len(TOGGLES)
    else:
        assert "/off" not in export(run(), format, "A")
        assert "/off" in export(run(), format)


@pytest.mark.parametrize(
    ("made", "there", "elsewhere"),
    [(run, ("off", "on"), ("base", "head")), (gate, ("base", "head"), ("off", "on"))],
)
def test_a_side_that_the_run_does_not_have_is_rejected(
    made: Callable[[], RunFile],
    there: tuple[str, str],
    elsewhere: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run.json", made())
    command = ["export", str(tmp_path / "run.json"), "--format", "csv", "--side"]
    for side, letter in zip(there, "AB", strict=True):
        assert main([*command, side]) == 0
        rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
        exported = [(row["side"], row["contrast"]) for row in rows]
        assert {of_side for of_side, _ in exported} == {letter}
        assert NOISE_FLOOR not in {contrast for _, contrast in exported}
    for side in elsewhere:
        assert main([*command, side]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"the sides of this run are {there[0]} and {there[1]}" in err


def test_a_written_export_prints_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run.json", run())
    out = tmp_path / "run.csv"
    assert main(["export", str(tmp_path / "run.json"), "--format", "csv", "--out", str(out)]) == 0
    assert out.read_text() == export(run(), "csv")
    assert capsys.readouterr() == ("", f"Export: {out}\n")


@pytest.mark.parametrize("format", JSON_FORMATS)
def test_a_run_without_values_is_rejected(format: str) -> None:
    empty = replace(run(), samples=(), comparisons=())
    with pytest.raises(CannotMeasure, match="this run has no value that"):
        export(empty, format)


@pytest.mark.parametrize("format", JSON_FORMATS)
def test_two_rows_never_share_a_name(format: str) -> None:
    """Two scenario names that differ only in a mark that `for_name` replaces."""
    twins = honest(cells=plan(("idle",), "a|b") + plan(("idle",), "a<b"), noise_pairs=1)
    with pytest.raises(BadRunFile, match=r"a_b.*idle"):
        export(twins, format)


@pytest.mark.parametrize("format", FORMATS)
def test_values_that_overflow_are_rejected_or_exported(format: str) -> None:
    """Valid numbers whose sum or product overflows."""
    large = tuple(
        replace(one, metrics=dict.fromkeys(one.metrics, 1.7e308)) for one in run().samples
    )
    try:
        text = export(replace(run(), samples=large), format)
    except BadRunFile as error:
        assert "too large" in str(error)
    else:
        assert "inf" not in text.lower().replace("machine_info", "").replace("commit_info", "")
