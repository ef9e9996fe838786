"""Terminal output: it fits the width, agrees with the rows, and escapes untrusted text."""

import io
import re
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.trae_bench.fakes import HandClock, cell, sample
from tests.trae_bench.runs import honest, plan, plan_of, recomputed
from tests.trae_bench.stats.test_analysis import PLAN, run
from tests.trae_bench.storage.test_run_file import run_file
from trae_bench.cli import main
from trae_bench.cli.common import can_encode
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Metric
from trae_bench.model.result import Comparison, Estimate, Interval, Judgement, NoiseEstimate, Pairs
from trae_bench.model.run import RunFile
from trae_bench.report.escape import for_terminal
from trae_bench.report.text.listing import bullets, columns, names
from trae_bench.report.text.markdown import comment
from trae_bench.report.text.progress import ProgressLine, clock, line
from trae_bench.report.text.sparkline import ASCII, BLOCKS, sparkline
from trae_bench.report.text.terminal import (
    VERDICTS,
    cells_of,
    change_in,
    closing,
    effect_shown,
    headings,
    noise_line,
    noise_lines,
    quantity,
    run_table,
    table,
    tally,
)
from trae_bench.run.scheduler import Progress
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.decision import DUET_V1, Row, minimum_detectable_effect
from trae_bench.stats.noise import noise_floor
from trae_bench.stats.pairs import RowKey
from trae_bench.storage.run_file import write_run

NASTY = "\x1b[2J\x07\u202ekcatta\u2066\n\r\t\x9b31m\u200b\ud800::error::|<b>"
FORBIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def comparison(
    log_ratio: float | None = -0.1,
    *,
    scenario: str = "work",
    contrast: str = "fast",
    metric: str = "cpu",
    reasons: tuple[str, ...] = (),
) -> Comparison:
    interval = None if log_ratio is None else Interval(log_ratio - 0.02, log_ratio + 0.02)
    return Comparison(
        scenario=scenario,
        contrast=contrast,
        metric=metric,
        mode="duet",
        estimate=Estimate(8, log_ratio, 0.01, interval, 1.5, 1.2, -0.3),
        judgement=Judgement("improvement", 8, True, 1e-6),
        threshold=0.02,
        pairs=Pairs(8, 1 if reasons else 0, 0, reasons),
    )


# -- escaping


@given(st.text(), st.integers(1, 50))
def test_control_characters_are_escaped(text: str, limit: int) -> None:
    shown = for_terminal(text, limit)
    assert not FORBIDDEN.search(shown)
    assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in shown)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=200))
def test_plain_text_is_unchanged(text: str) -> None:
    assume("::" not in text and "##" not in text)
    assert for_terminal(text) == text


def test_commands_of_ci_runners_are_escaped() -> None:
    assert for_terminal("::error::x ##[group] a:b #1") == ":\\x3aerror:\\x3ax #\\x23[group] a:b #1"


def test_long_text_is_cut() -> None:
    assert for_terminal("x" * 1000, 10) == "x" * 9 + "…"


def test_the_table_escapes_untrusted_text() -> None:
    rows = [comparison(scenario=NASTY, contrast=NASTY, metric=NASTY, reasons=(NASTY,))]
    metric = Metric(NASTY, NASTY, "lower", "duet", NASTY)
    shown = table(rows, {NASTY: metric}, width=200)
    assert not FORBIDDEN.search(shown.replace("\n", ""))
    assert len(shown.splitlines()) == 5


def with_noise(floor: NoiseEstimate) -> RunFile:
    run = run_file()
    header = msgspec.structs.replace(run.header, metrics={floor.metric: METRICS["cpu"]})
    return msgspec.structs.replace(run, header=header, noise=(floor,), comparisons=())


def test_other_lines_escape_untrusted_text() -> None:
    floor = NoiseEstimate(NASTY, NASTY, 8, 0.01, 0.0, 0.02)
    nasty_cell = cell(NASTY, scenario=NASTY, metrics=(NASTY,))
    stream = io.StringIO()
    progress = ProgressLine(stream, HandClock())
    progress.pair_starts(Progress(1, nasty_cell, 1, 1, 1, 1.0, 1.0))
    progress.pair_lost(nasty_cell, 1, NASTY)
    progress.cell_given_up(nasty_cell, "3 of its 3 pairs were lost")
    texts = [
        *noise_lines(with_noise(floor)),
        stream.getvalue(),
        names({NASTY: NASTY}),
        bullets([NASTY]),
        columns(["a"], [[NASTY]]),
    ]
    for text in texts:
        assert not FORBIDDEN.search(text.replace("\n", ""))


# -- lists


def test_columns_are_wrapped_and_never_cut() -> None:
    metrics = "cpu, wall, time_to_first_request, step_overhead"
    rows = [("work", "faster", "serial", metrics), ("work", "a+" * 30, "duet", "cpu")]
    shown = columns(("scenario", "toggle", "mode", "metrics"), rows, 60)
    assert shown.splitlines() == [
        "scenario  toggle  mode    metrics",
        "work      faster  serial  cpu, wall, time_to_first_request,",
        "                          step_overhead",
        f"work      {'a+' * 25}",
        f"          {'a+' * 5}",
        "                  duet    cpu",
    ]


def test_columns_without_rows_are_their_headings() -> None:
    assert columns(("scenario", "toggle"), [], 60) == "scenario  toggle"


@pytest.mark.parametrize("columns", [40, 60])
def test_output_is_as_narrow_as_the_terminal(
    columns: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(tmp_path / "run.json", honest())
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["explain", str(tmp_path / "run.json"), "work", "faster", "cpu"]) == 0
    assert columns - 10 < max(map(len, capsys.readouterr().out.splitlines())) <= columns
    assert main(["report", str(tmp_path / "run.json")]) == 0
    *lines, run_file = capsys.readouterr().out.splitlines()
    assert run_file.startswith("Run file: ")
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (80, []),
        (75, []),
        (74, ["[interval]"]),
        (60, ["[interval]", "saved"]),
        (40, ["[interval]", "saved", "off", "on"]),
    ],
)
def test_a_narrow_table_leaves_out_columns_but_no_verdict(width: int, left_out: list[str]) -> None:
    rows = honest().comparisons
    lines = table(rows, METRICS, width=width).splitlines()
    note = f"Columns left out to fit {width}: {', '.join(left_out)}."
    assert (note in " ".join(lines)) == bool(left_out)
    shown = [name for name in headings() if name not in left_out]
    assert lines[0].split() == shown
    assert max(map(len, lines)) <= width
    verdicts = [row.judgement.verdict for row in rows if row.contrast != NOISE_FLOOR]
    ends = [line for line in lines[1:] if line.endswith(tuple(VERDICTS))]
    assert len(ends) == len(verdicts)
    assert all(line.endswith(verdict) for line, verdict in zip(ends, verdicts, strict=True))


def test_one_is_singular() -> None:
    assert tally(["improvement", "equivalent", "regression", "equivalent"]) == (
        "1 improvement, 1 regression, 2 equivalent"
    )
    assert tally(["regression", "regression"]) == "2 regressions"
    shown = table([msgspec.structs.replace(comparison(), pairs=Pairs(1, 0, 0))], METRICS)
    assert "(1 duet pair)" in shown
    assert "1 pair, 2 open" in line(at(1.0, pairs=1), 80)


# -- the table


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_fits_the_width(width: int) -> None:
    rows = comparisons(run(PLAN, 8, 0.5), PLAN, METRICS)
    shown = table(rows, METRICS, width=width)
    assert max(map(len, shown.splitlines())) <= width


def test_the_widest_table_of_real_metrics_fits_eighty_columns() -> None:
    values = [-123e-6, 123e-6, 45.6e-3, 12.34, 123.4, 45.1e6, 98765.0]
    rows = [
        msgspec.structs.replace(
            comparison(metric=name),
            mode=metric.mode,
            estimate=Estimate(8, 0.1, 0.1, Interval(-0.1, 2.31), value, value, value),
            judgement=Judgement("inconclusive", 8, False, 0.2),
        )
        for name, metric in METRICS.items()
        for value in values
    ]
    shown = table(rows, METRICS, width=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert "inconclusive" in shown


def test_a_row_has_its_figures() -> None:
    (*_, found) = table([comparison()], METRICS).splitlines()
    assert found.split() == ["cpu", "1.50", "s", "1.20", "s", "0.905", "[0.887", "0.923]", "300",
                             "ms", "improvement"]  # fmt: skip


def test_saved_is_positive_if_on_is_better() -> None:
    faster = msgspec.structs.replace(
        comparison(0.2, metric="steps_per_second"),
        estimate=Estimate(8, 0.2, 0.01, Interval(0.18, 0.22), 4.0, 5.0, 1.0),
    )
    heavier = msgspec.structs.replace(
        comparison(0.2, metric="peak_rss"),
        estimate=Estimate(8, 0.2, 0.01, Interval(0.18, 0.22), 4e6, 5e6, 1e6),
    )
    (*_, first, second) = table([faster, heavier], METRICS).splitlines()
    assert " 1 /s " in first
    assert " -1 MB " in second


def test_rows_are_grouped_and_the_noise_floor_is_left_out() -> None:
    rows = comparisons(run(PLAN, 8, 0.5), PLAN, METRICS)
    shown = table(rows, METRICS)
    assert "work / fast  (8 duet + 8 serial pairs)" in shown
    assert NOISE_FLOOR not in shown


def test_lost_pairs_have_the_reason() -> None:
    shown = table([comparison(reasons=("the transcripts differ",))], METRICS)
    assert "(8 duet pairs; 1 lost)" in shown
    assert "answers differ: the transcripts differ" in shown


def test_no_ratio_and_no_estimate_leave_blanks() -> None:
    nothing = msgspec.structs.replace(
        comparison(), estimate=None, judgement=Judgement("not measured", 0, False, 1.0)
    )
    shown = table([comparison(None), nothing], METRICS).splitlines()
    assert shown[-2].split() == ["cpu", "1.50", "s", "1.20", "s", "300", "ms", "improvement"]
    assert shown[-1].split() == ["cpu", "not", "measured"]


def test_a_change_without_a_ratio_has_both_values() -> None:
    changes = [change_in(cells_of(comparison(log), METRICS["cpu"], True)) for log in (-0.1, None)]
    assert changes == ["1.50 s → 1.20 s, ratio 0.905 [0.887 0.923]", "1.50 s → 1.20 s"]


def test_a_short_run_has_no_verdicts() -> None:
    rows = comparisons(run(PLAN, 8, 0.5), PLAN, METRICS)
    shown = table(rows, METRICS, claimed=False)
    assert "improvement" not in shown
    assert "Too few pairs for verdicts" in closing(run_file(), claimed=False)


def test_colour_is_optional_and_repeats_words() -> None:
    rows = comparisons(run(PLAN, 8, 0.5), PLAN, METRICS)
    plain, coloured = table(rows, METRICS), table(rows, METRICS, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[1;32mimprovement\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_an_empty_table_is_a_sentence() -> None:
    assert table([], METRICS) == "Nothing was compared."
    assert "unknown" in noise_line(msgspec.structs.replace(run_file(), noise=()))


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.2345, "s", "1.23 s"),
        (0.012345, "s", "12.3 ms"),
        (12.3e-6, "s", "12.3 µs"),
        (3e-9, "s", "0.00300 µs"),
        (0.0, "s", "0 µs"),
        (-0.5, "s", "-500 ms"),
        (45_123_456.0, "B", "45.1 MB"),
        (812.0, "B", "812 B"),
        (15.0, "", "15"),
        (98765.4, "", "98765"),
        (4.1, "1/s", "4.10 /s"),
        (1e30, "", "1e+30"),
        (0.00999999, "s", "10.0 ms"),
        (9.9999e6, "B", "10.0 MB"),
        (5.0119, "USD", "5.01 USD"),
        (0.36123, "USD", "36.1 ct"),
        (0.0012, "USD", "0.120 ct"),
        (45_123.0, "USD", "45.1 kUSD"),
    ],
)
def test_quantities(value: float, unit: str, shown: str) -> None:
    assert quantity(value, unit) == shown


def test_savings_have_two_digits() -> None:
    assert [quantity(v, "s", digits=2) for v in (0.00998, -0.0708, 2.12)] == [
        "10 ms",
        "-71 ms",
        "2.1 s",
    ]


@given(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["s", "B", "1/s", "USD", ""])
)
def test_any_quantity_is_formatted(value: float, unit: str) -> None:
    assert len(quantity(value, unit)) < 20


def test_the_noise_line_names_the_worst_scenario() -> None:
    floors = [
        NoiseEstimate("a", "cpu", 8, 0.01, 0.0, 0.02),
        NoiseEstimate("b", "cpu", 8, 0.03, 0.0, 0.025),
        NoiseEstimate("a", "wall", 8, 0.125, 0.0, 0.11),
    ]
    whole = msgspec.structs.replace(wide_run(), noise=tuple(floors))
    assert noise_line(whole) == (
        "A/A noise: cpu 3 % (shows effects from 2.5 %), wall 12 % (shows effects from 11 %)"
    )


def test_an_ungated_metric_is_named_with_the_reason() -> None:
    """It has no smallest effect. Its spread is not always the reason."""
    floors = (
        NoiseEstimate("a", "cpu", 8, 0.03, 0.05, 0.025, "too noisy"),
        NoiseEstimate("a", "wall", 8, 0.125, 0.0, 0.11, "too noisy"),
    )
    first, second = noise_lines(msgspec.structs.replace(wide_run(), noise=floors))
    only = "for information only in a"
    assert first == f"A/A noise: cpu 3 % ({only}), wall 12 % ({only})"
    assert second.endswith("a cpu (the A/A sides differ by +5.1 %), a wall")


def test_only_gated_verdicts_are_counted() -> None:
    whole = honest()
    counted = [row for row in whole.comparisons if row.contrast != NOISE_FLOOR]
    assert "for information" not in closing(whole)
    first = next(row for row in counted if row.judgement.verdict == "improvement")
    rows = [msgspec.structs.replace(row, gated=row is not first) for row in whole.comparisons]
    shown = closing(msgspec.structs.replace(whole, comparisons=tuple(rows)))
    assert "; 1 for information (" in shown
    gone = sum(row.judgement.verdict == "improvement" for row in counted) - 1
    assert (f"{gone} improvement" in shown) == bool(gone)


def test_the_noise_line_of_a_run() -> None:
    rows = comparisons(run(PLAN, 8, 1.0), PLAN, METRICS)
    floors = tuple(noise_floor(rows, METRICS))
    assert re.fullmatch(
        r"A/A noise: cpu [\d.]+ % \(shows effects from 2 %\), peak_rss .*",
        noise_line(msgspec.structs.replace(wide_run(), noise=floors)),
    )


def test_the_noise_line_uses_the_pairs_of_the_run() -> None:
    """The effect in the file is for the last look, which a short run does not reach."""
    whole = wide_run()
    (floor,) = (each for each in whole.noise if each.metric == "cpu")

    def least(pairs: int | None, design: str = "add-one") -> float | None:
        limits = msgspec.structs.replace(whole.header.limits, pairs=pairs)
        header = msgspec.structs.replace(whole.header, limits=limits, design=design)
        return effect_shown(msgspec.structs.replace(whole, header=header), floor)

    assert least(None) == least(60) == least(100) == floor.smallest_effect
    at_12 = minimum_detectable_effect(floor.sd, DUET_V1, 15, 12)
    assert least(12) == least(15) == max(floor.smallest_effect, at_12) > floor.smallest_effect
    assert least(7) is None
    assert least(60, "fraction") is None


@pytest.mark.parametrize(
    ("design", "why"),
    [("add-one", "too few pairs for verdicts"), ("fraction", "a two-level design does not")],
)
def test_a_run_that_tests_no_rows_shows_no_smallest_effect(design: str, why: str) -> None:
    shown = noise_line(honest(toggles=("idle",), pairs=3, design=design))
    assert re.fullmatch(rf"A/A noise: cpu [\d.]+ %, wall [\d.]+ % \({why}.*\)", shown)


def test_pairs_are_counted_once_for_all_their_metrics() -> None:
    """The count of requests uses the pairs of the duet."""
    one = honest(toggles=("idle",))
    rows = [row for row in one.comparisons if row.contrast == "idle"]
    assert {row.mode for row in rows} == {"duet", "serial", "exact"}
    of_mode = {row.mode: row.pairs.measured for row in rows}
    assert f"({of_mode['duet'] + of_mode['serial']} pairs in " in closing(one)


def test_a_two_level_design_shows_its_pairs_per_contrast() -> None:
    cells = {"cells": plan_of("fraction", ("faster", "idle"))}
    even = honest(design="fraction", pairs=3, **cells)  # type: ignore[arg-type]
    assert re.fullmatch(r"9 pairs in [\d:]+; 3 per contrast\.", closing(even))
    last = (even.comparisons[-1].contrast, 3)
    less = recomputed(even, [one for one in even.samples if (one.contrast, one.pair) != last])
    assert re.fullmatch(r"8 pairs in [\d:]+; 2 to 3 per contrast\.", closing(less))


def test_the_noise_is_above_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run.json", honest(noise=0.6))
    for command, first in (("report", " metric"), ("effects", "work / cpu")):
        assert main([command, str(tmp_path / "run.json")]) == 0
        out = capsys.readouterr().out
        assert out.startswith("A/A noise: cpu")
        assert out.count("A/A noise") == 1
        assert out.index("For information only, because the noise") < out.index(f"\n{first}")


# -- wide terminals


def head_of(shown: str) -> list[str]:
    return shown.splitlines()[0].split()


def wide_run() -> RunFile:
    return honest(noise=0.05, pairs=None)


def test_at_eighty_columns_a_run_has_the_usual_table() -> None:
    one = wide_run()
    assert run_table(one) == table(one.comparisons, METRICS)
    assert head_of(run_table(one))[-1] == "verdict"


@pytest.mark.parametrize(
    ("width", "more"),
    [
        (80, []),
        (119, []),
        (120, ["spread", "pairs"]),
        (159, ["spread", "pairs"]),
        (200, ["spread", "threshold", "p", "look", "pairs"]),
    ],
)
def test_a_wide_terminal_shows_more_columns(width: int, more: list[str]) -> None:
    shown = run_table(wide_run(), width=width)
    usual = ["metric", "off", "on", "ratio", "[interval]", "saved"]
    assert head_of(shown) == [*usual, *more, "verdict"]
    assert max(map(len, shown.splitlines())) <= width
    assert ("Pairs: one sign" in shown) == ("pairs" in more)


def test_any_change_of_an_exact_count_counts() -> None:
    exact = msgspec.structs.replace(
        comparison(), mode="exact", estimate=Estimate(8, 0.1, 0.0, None, 9, 10, 1)
    )
    shown = table([comparison(), exact], METRICS, width=200)
    assert [line for line in shown.splitlines() if " 2 % " in line] != []
    (line,) = [line for line in shown.splitlines() if "exactly" in line]
    assert " 0 % " in line


def test_each_pair_has_a_sign() -> None:
    one = honest()
    shown = run_table(one, width=200)
    for row in one.comparisons:
        if row.contrast == NOISE_FLOOR:
            continue
        block = shown.split(f"work / {row.contrast} ")[1].split("\n\n")[0]
        (line_of_row,) = [each for each in block.splitlines() if f" {row.metric} " in each]
        assert sum(line_of_row.count(sign) for sign in BLOCKS) == row.pairs.measured


def test_signs_follow_the_ratios() -> None:
    """Ratios of 0.5, 1 and 2 are the ends and the middle of a row that reaches a factor of 2."""
    key = RowKey("work", "fast", "cpu")
    pairs = {key: Row(a=(2.0, 1.0, 1.0), b=(1.0, 1.0, 2.0))}
    shown = table([comparison()], METRICS, width=120, pairs=pairs)
    assert " ▁▄█ " in shown
    assert "▄ is a ratio of 1" in shown
    plain = table([comparison()], METRICS, width=120, pairs=pairs, plain=True)
    assert " _-^ " in plain
    assert plain.isascii()


def test_within_the_threshold_pairs_stay_in_the_middle() -> None:
    key = RowKey("work", "fast", "cpu")
    row = Row(a=(1.0, 1.0, 1.0), b=(1.0005, 1.0, 0.9995))
    assert " ▄▄▄ " in table([comparison()], METRICS, width=120, pairs={key: row})


def test_a_zero_threshold_is_valid() -> None:
    key = RowKey("work", "fast", "cpu")
    odd = msgspec.structs.replace(comparison(), threshold=-1.7e308)
    shown = table([odd], METRICS, width=200, pairs={key: Row(a=(1.0, 1.0), b=(2.0, 0.5))})
    assert " █▁ " in shown


def test_pairs_without_a_ratio_leave_a_blank() -> None:
    key = RowKey("work", "fast", "cpu")
    row = Row(a=(0.0, 1.0), b=(1.0, 1.0))
    shown = table([comparison()], METRICS, width=120, pairs={key: row}).splitlines()
    assert shown[3].split()[-1] == "improvement"
    assert not set(shown[3]) & set(BLOCKS)


@given(
    st.lists(st.floats(-5, 5), max_size=100),
    st.integers(1, 80),
    st.floats(0, 6),
    st.sampled_from([BLOCKS, ASCII]),
)
def test_any_figures_become_signs(
    values: list[float], limit: int, reach: float, signs: str
) -> None:
    shown = sparkline(values, reach=reach, max_signs=limit, signs=signs)
    assert len(shown) <= limit
    assert len(shown) == len(values) or len(values) > limit
    assert set(shown) <= set(signs)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_larger_values_never_get_lower_signs(values: list[float]) -> None:
    heights = [BLOCKS.index(sign) for sign in sparkline(sorted(values), reach=1.0, max_signs=60)]
    assert heights == sorted(heights)


def test_too_many_values_are_averaged() -> None:
    assert sparkline([1.0, 1.0, -1.0, -1.0, 1.0, -1.0], reach=1.0, max_signs=3) == "█▁▄"
    assert sparkline([], reach=1.0, max_signs=3) == ""


def test_sides_have_the_names_of_the_run() -> None:
    cells = tuple(
        msgspec.structs.replace(
            one,
            contrast=msgspec.structs.replace(
                one.contrast, b=msgspec.structs.replace(one.contrast.b, revision="v2")
            ),
        )
        for one in plan(("faster",))
    )
    one = honest(cells=cells)
    assert head_of(run_table(one))[1:3] == ["base", "head"]
    assert "| base | head |" in comment(one)
    assert head_of(run_table(honest()))[1:3] == ["off", "on"]


def test_pairs_with_a_probe_are_counted_separately() -> None:
    plain, watched = comparison(), comparison(metric="watched")
    watched = msgspec.structs.replace(watched, pairs=Pairs(3, 0, 0))
    metrics = {
        "cpu": METRICS["cpu"],
        "watched": msgspec.structs.replace(METRICS["cpu"], probe="memory"),
    }
    assert "(8 duet + 3 duet memory pairs)" in table([plain, watched], metrics)


@pytest.mark.parametrize(
    ("encoding", "can"), [("utf-8", True), ("ascii", False), ("latin-1", False), ("no such", False)]
)
def test_a_stream_supports_its_encoding(encoding: str, can: bool) -> None:
    assert can_encode(SimpleNamespace(encoding=encoding), BLOCKS) == can
    assert not can_encode(io.StringIO(), BLOCKS)


def test_report_uses_the_terminal_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run.json", honest())
    widths = {}
    for columns_ in ("80", "120", "200", "400"):
        monkeypatch.setenv("COLUMNS", columns_)
        assert main(["report", str(tmp_path / "run.json")]) == 0
        _, _, shown = capsys.readouterr().out.partition("\n\n")
        widths[columns_] = len(head_of(shown))
    assert widths["80"] < widths["120"] < widths["200"] == widths["400"]


# -- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at(seconds: float, pairs: int = 3) -> Progress:
    return Progress(pairs, cell(), 1, 2, 5, seconds, 30.0)


def test_a_terminal_gets_one_line_that_is_redrawn_and_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with ProgressLine(stream, HandClock()) as progress:
        progress.pair_starts(at(10.0))
        progress.pair_starts(at(20.0))
    shown = stream.getvalue()
    assert "\n" not in shown
    assert shown.count("\r\x1b[K") == 3
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_other_outputs_get_plain_lines_at_intervals(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    hand = HandClock()
    with ProgressLine(stream, hand) as progress:
        for _ in range(25):
            progress.pair_starts(at(10.0))
            hand.seconds += 1.0
    assert len(stream.getvalue().splitlines()) == 3
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_the_line_shows_pairs_time_left_and_cell() -> None:
    assert line(at(10.0), 100) == ("[##........] 0:30 left, 3 pairs, 2 open: work fast (duet)")
    assert len(line(at(10.0), 40)) == 40
    assert "starting" in line(Progress(0, cell(), 0, 5, 5, 0.01, 0.0), 80)


def test_a_repeated_loss_is_printed_in_full_once() -> None:
    stream = io.StringIO()
    progress = ProgressLine(stream, HandClock())
    for pair, word in enumerate(("boom", "boom", "bang"), 1):
        progress.pair_lost(cell(), pair, f"off: exit status 1; its last lines:\nTraceback\n{word}")
    first, *_, second, third, _, bang = stream.getvalue().splitlines()
    assert first.endswith("pair 1 lost: off: exit status 1; its last lines:")
    assert second.endswith("pair 2 lost: off: exit status 1; its last lines as before")
    assert third.endswith("pair 3 lost: off: exit status 1; its last lines:")
    assert bang == "    bang"
    assert stream.getvalue().count("boom") == 1


def test_the_clock_rounds_up() -> None:
    assert [clock(s) for s in (0.0, 0.2, 59.5, 61.0, 3600.0)] == [
        "0:00",
        "0:01",
        "1:00",
        "1:01",
        "60:00",
    ]


def test_a_loss_without_a_reason_is_printed() -> None:
    assert sample(status="failed").problem is None
    stream = io.StringIO()
    ProgressLine(stream, HandClock()).pair_lost(cell(), 1, "")
    assert "unknown reason" in stream.getvalue()
