"""Plots: reproducible, complete, and safe with untrusted names."""

import re
import struct
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from tests.trae_bench.report.test_terminal import NASTY
from tests.trae_bench.runs import honest, plan
from trae_bench.cli import main
from trae_bench.errors import CannotMeasure, UsageError
from trae_bench.model.result import Comparison, Interval
from trae_bench.model.run import RunFile
from trae_bench.report.plot import Kind, RowFilter, picture
from trae_bench.storage.run_file import write_run

matplotlib = pytest.importorskip("matplotlib")

RUN = honest()
ONE_ROW = RowFilter(scenario="work", toggle="idle", metric="wall")
KINDS: tuple[tuple[Kind, RowFilter], ...] = (
    ("effects", RowFilter()),
    ("pairs", ONE_ROW),
    ("noise", RowFilter()),
)


def svg(run: RunFile = RUN, kind: Kind = "effects", shown: RowFilter | None = None) -> str:
    return picture({"run": run}, kind, "svg", shown or RowFilter()).decode()


def texts(drawn: str) -> list[str]:
    """The texts of a plot, which matplotlib writes as comments before their outlines."""
    return [text.strip() for text in re.findall(r"<!-- (.*?) -->", drawn, re.DOTALL)]


def chunks(png: bytes) -> dict[bytes, bytes]:
    found, place = {}, 8
    while place < len(png):
        (size,) = struct.unpack(">I", png[place : place + 4])
        found[png[place + 4 : place + 8]] = png[place + 8 : place + 8 + size]
        place += size + 12
    return found


# -- reproducible


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """Also in a process with another hash seed and other matplotlib settings."""
    write_run(tmp_path / "run.json", RUN)
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\n")
    row = ["--scenario=work", "--toggle=idle", "--metric=wall"]
    calls = [
        ["plot", "run.json", "--kind", kind, "--out", f"{kind}.{format}", *(row if shown else [])]
        for kind, shown in (("effects", False), ("pairs", True), ("noise", False))
        for format in ("svg", "png")
    ]
    script = f"from trae_bench.cli import main\nfor call in {calls!r}: assert main(call) == 0"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    for kind, shown in KINDS:
        assert (tmp_path / f"{kind}.svg").read_text("utf-8") == svg(RUN, kind, shown)
        assert (tmp_path / f"{kind}.png").read_bytes() == picture({"": RUN}, kind, "png", shown)


def test_a_plot_has_no_date_and_no_version() -> None:
    drawn = svg()
    assert "dc:date" not in drawn
    assert matplotlib.__version__ not in drawn
    png = picture({"run": RUN}, "effects", "png")
    assert set(chunks(png)) <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_the_settings_of_matplotlib_are_restored() -> None:
    before = dict(matplotlib.rcParams)
    svg()
    assert dict(matplotlib.rcParams) == before


# -- content


def test_every_row_is_drawn() -> None:
    shown = texts(svg())
    rows = [row for row in RUN.comparisons if row.contrast != "A/A"]
    for metric in {row.metric for row in rows}:
        of_metric = sum(row.metric == metric for row in rows)
        assert sum(text.split(" (")[0] == metric for text in shown) == of_metric
    assert {"work / faster", "work / slower", "work / idle"} <= set(shown)
    assert {"improvement", "regression", "equivalent"} <= set(shown)
    assert "steps_per_second (higher is better)" in shown


def test_filters_select_rows() -> None:
    shown = texts(svg(shown=RowFilter(toggle="faster", metric="cpu")))
    assert "cpu" in shown
    assert not {"wall", "work / idle"} & set(shown)


def test_several_runs_are_named() -> None:
    drawn = picture({"old": RUN, "new": RUN}, "effects", "svg").decode()
    assert {"work / faster  (old)", "work / faster  (new)"} <= set(texts(drawn))


def test_a_short_run_has_no_verdicts() -> None:
    drawn = picture({"run": RUN}, "effects", "svg", claimed=False).decode()
    assert "too few pairs for a verdict" in texts(drawn)
    assert "improvement" not in drawn


def test_the_pairs_of_one_row() -> None:
    shown = texts(svg(kind="pairs", shown=ONE_ROW))
    assert any(text.startswith("work / idle / wall: ") for text in shown)
    with pytest.raises(UsageError, match="15 rows match"):
        svg(kind="pairs")


def test_noise_names_each_metric_that_varies() -> None:
    shown = texts(svg(kind="noise"))
    assert {f"work, {floor.metric}" for floor in RUN.noise} <= set(shown)


def axis_of(drawn: str) -> list[float]:
    return [float(text) for text in texts(drawn) if re.fullmatch(r"[\d.]+", text)]


def test_a_mark_without_an_interval_is_within_the_axes() -> None:
    rows = tuple(
        replace(row, estimate=row.estimate and replace(row.estimate, interval=None))
        for row in RUN.comparisons
    )
    ends = axis_of(svg(replace(RUN, comparisons=rows)))
    assert min(ends) <= 0.5 < 1.5 <= max(ends)


def bands(drawn: str) -> int:
    """Bands are closed paths, lines are not."""
    return len(re.findall(r'id="FillBetweenPolyCollection_\d+"', drawn))


def test_exact_counts_have_no_band() -> None:
    assert bands(svg(shown=RowFilter(metric="cpu"))) == 3
    assert bands(svg(shown=RowFilter(metric="requests"))) == 0


def test_the_ticks_are_at_the_looks() -> None:
    drawn = svg(kind="pairs", shown=ONE_ROW)
    assert [each for each in axis_of(drawn) if each > 1.5] == [8]
    assert texts(drawn).count("1") == 1  # of the ratios


def test_noise_is_that_of_a_a_pairs() -> None:
    with pytest.raises(UsageError, match="A/A pairs, which have no toggle"):
        svg(kind="noise", shown=RowFilter(toggle="idle"))
    with pytest.raises(UsageError, match="no metric with A/A pairs varies"):
        svg(replace(RUN, noise=()), "noise")
    svg(kind="noise", shown=RowFilter(toggle="A/A"))


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(UsageError, match="no row matches"):
        svg(shown=RowFilter(scenario="other"))
    zero = tuple(replace(sample, metrics=sample.metrics | {"cpu": 0.0}) for sample in RUN.samples)
    with pytest.raises(CannotMeasure, match="has a ratio"):
        picture({"run": replace(RUN, samples=zero)}, "pairs", "svg",
                RowFilter(toggle="idle", metric="cpu"))  # fmt: skip


def test_a_row_that_the_plan_does_not_have() -> None:
    strange = replace(RUN.comparisons[-1], contrast="strange")
    with pytest.raises(CannotMeasure, match="nothing to draw"):
        svg(replace(RUN, comparisons=(strange,)), "pairs", RowFilter(toggle="strange"))


def test_too_many_rows_are_rejected() -> None:
    many = replace(RUN, comparisons=RUN.comparisons * 20)
    with pytest.raises(UsageError, match="300 rows match"):
        svg(many)


def test_rows_without_a_ratio_are_labelled() -> None:
    unmeasured = replace(RUN, samples=(), comparisons=tuple(
        replace(row, estimate=None) for row in RUN.comparisons
    ))  # fmt: skip
    assert texts(svg(unmeasured)).count("no ratio") == 15


# -- untrusted names


@pytest.mark.parametrize("name", ["$x^2$", r"$\frac{", NASTY, "日本", "_hidden", "x" * 200, "<b>&"])
def test_untrusted_names_are_escaped(name: str) -> None:
    cells = tuple(
        replace(one, contrast=replace(one.contrast, name=name)) for one in plan(("faster",))[2:]
    )
    run = honest(toggles=("faster",))
    renamed = replace(
        run,
        header=replace(run.header, cells=(*run.header.cells[:2], *cells)),
        comparisons=tuple(
            replace(row, contrast=name) if row.contrast == "faster" else row
            for row in run.comparisons
        ),
    )
    drawn = svg(renamed)
    ElementTree.fromstring(drawn)
    (heading,) = [text for text in texts(drawn) if text.startswith("work / ")]
    assert heading.isprintable()
    assert len(heading) < 300
    if name == "$x^2$":
        assert heading == "work / $x^2$"
    if name == "日本":
        assert heading == r"work / \u65e5\u672c"


def test_extreme_values_are_drawn_within_the_axes() -> None:
    wild = replace(
        RUN,
        comparisons=tuple(map(wilder, RUN.comparisons)),
        noise=tuple(replace(floor, sd=1e300, smallest_effect=1e300) for floor in RUN.noise),
    )
    for kind, shown in KINDS:
        png = picture({"run": wild}, kind, "png", shown)
        width, height = struct.unpack(">II", chunks(png)[b"IHDR"][:8])
        assert width < 2000
        assert height < 2000


def wilder(row: Comparison) -> Comparison:
    far = row.estimate and replace(
        row.estimate, log_ratio=1.7e308, sd=1e300, interval=Interval(-1.7e308, 1.7e308)
    )
    return replace(row, threshold=-1.7e308, estimate=far)


# -- dark pages


def test_a_dark_page_has_other_colours() -> None:
    drawn = svg()
    style = re.search(r"<style>@media \(prefers-color-scheme: dark\)\{(.*?)\}</style>", drawn)
    assert style is not None
    replaced = set(re.findall(r'\[style\*="((?:fill|stroke): #\w+)"\]', style[1]))
    used = set(re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", drawn.split("</style>", 1)[1]))
    # The other colours are those of verdicts.
    assert {each.split()[1] for each in used - replaced} <= {
        "#009e73", "#d55e00", "#3b8fd0", "#8a8f98",
    }  # fmt: skip
    assert used & replaced


# -- the command


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    path = tmp_path / "run.json"
    write_run(path, RUN)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "picture.gif"], "ends in .svg or .png"),
        (["--out", "p.svg", "--toggle", "fastr"], "no toggle 'fastr'; did you mean faster?"),
        (["--out", "p.svg", "--metric", "cpuu"], "did you mean cpu"),
        (["--out", "p.svg", "--scenario", "wrk"], "did you mean work?"),
        (["--out", "p.svg", "--kind", "pairs"], "--scenario, --toggle and --metric"),
    ],
)
def test_invalid_selections_are_rejected(
    arguments: list[str], message: str, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", run_file, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_the_error_names_the_extra(
    run_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", run_file, "--out", "p.svg"]) == 2
    assert 'pip install "trae-bench[report]"' in capsys.readouterr().err


def test_runs_with_the_same_name_are_numbered(
    tmp_path: Path, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other" / "run.json"
    write_run(other, RUN)
    out = tmp_path / "p.svg"
    assert main(["plot", run_file, str(other), "--metric", "cpu", "--out", str(out)]) == 0
    headings = [text for text in texts(out.read_text()) if text.startswith("work / idle")]
    assert headings == ["work / idle  (run, 1)", "work / idle  (run, 2)"]
    assert "Picture: " in capsys.readouterr().out
