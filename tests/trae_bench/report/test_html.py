"""The HTML page: complete, safe, small and reproducible."""

import base64
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from tests.trae_bench.fakes import cell, sample
from tests.trae_bench.report.test_untrusted import ACTED_ON, PLANT, document, planted
from tests.trae_bench.runs import COMPARED, gate, header, honest, plan
from tests.trae_bench.stats.test_attribution import rows
from trae_bench.cli import main
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.metrics import METRICS
from trae_bench.model.experiment import Arm, Cell, Contrast
from trae_bench.model.result import Confirmation, Interval, Pairs
from trae_bench.model.run import RunFile
from trae_bench.report.html import Source, overview, page, pairs, raw, svg, table
from trae_bench.report.html.growth import growth
from trae_bench.report.html.shares import shares
from trae_bench.report.html.source import band
from trae_bench.report.html.template import environment
from trae_bench.report.text import gate as gate_text
from trae_bench.report.text.terminal import cells_of
from trae_bench.stats.analysis import comparisons
from trae_bench.stats.noise import noise_floor
from trae_bench.storage.run_file import write_run

replace = msgspec.structs.replace
ROOT = Path(__file__).resolve().parents[3]
VOID_TAGS = {"meta", "link", "input"}


class Reader(HTMLParser):
    """Collects the elements of a page. Fails if an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.texts.append(data)

    @property
    def kinds(self) -> set[tuple[str, str]]:
        """Every attribute that there is, with its tag."""
        return {(tag, name) for tag, attrs in self.tags for name in (*attrs, "")}

    def all(self, wanted: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == wanted]


@cache
def run() -> RunFile:
    return honest(lost={("idle", 3): "crash", ("slower", 2): "differ"})


@cache
def text() -> str:
    return page([Source("run.json", run())])


def rows_of(made: str) -> list[list[str]]:
    """The cell texts of the table by row; the cell of a bar is empty."""
    found = re.search(r'<table id="table".*?<tbody>(.*?)</tbody>', made, re.DOTALL)
    assert found
    return [
        [re.sub(r"<[^>]*>", "", each) for each in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr.*?</tr>", found[1], re.DOTALL)
    ]


def embedded(made: str) -> Any:
    found = re.search(r'id="raw">(.*?)</script>', made, re.DOTALL)
    assert found
    return json.loads(found[1])


# -- content


def test_the_verdict_comes_first() -> None:
    made = text()
    (h1,) = re.findall(r"<h1>(.*?)</h1>", made)
    assert h1 == "3 regressions"
    places = ("<h1>", "A/A noise", '<span class="place">', 'id="effects"')
    assert sorted(places, key=made.index) == list(places)
    out = re.findall(r'<li class="(\w+)"><span class="verdict">(.*?)</span>', made)
    verdicts = [verdict for _, verdict in out]
    assert verdicts == ["answers differ", *["regression"] * 3, *["improvement"] * 3]
    counts = re.findall(r'<b class="n">(\d+)</b> <span class="verdict">(.*?)</span>', made)
    assert ("3", "regressions") in counts


def test_a_row_of_the_table_is_a_row_of_the_run() -> None:
    compared = [row for row in run().comparisons if row.contrast != NOISE_FLOOR]
    assert len(compared) == 15
    for row, cells in zip(compared, rows_of(text()), strict=True):
        metric, *figures, saved, verdict = cells_of(row, METRICS[row.metric], True)
        assert cells[:3] == [row.scenario, row.contrast, metric]
        assert cells[3:] == [*figures, "", saved, verdict]


def test_short_runs_and_two_level_designs_have_no_verdicts() -> None:
    short = page([Source("run.json", run(), claimed=False)])
    fixed = replace(run(), header=replace(run().header, design="factorial"))
    for made in (short, page([Source("run.json", fixed)])):
        assert {row[-1] for row in rows_of(made)} == {"-"}
        assert '<ul class="counts">' not in made
        assert "regression</span>" not in made
        assert "3 regressions" not in made


def test_a_verdict_has_a_note() -> None:
    row = next(row for row in run().comparisons if row.judgement.verdict == "regression")
    assert row.estimate is not None
    again = Confirmation(False, 8, 0.5, row.estimate, Pairs(7, 0, 0))
    rows = [
        row,
        replace(row, gated=False),
        replace(row, confirmation=again),
        replace(row, confirmation=replace(again, stands=True)),
    ]
    shown, _, _ = table.effects([Source("", replace(run(), comparisons=tuple(rows)))])
    fresh = "confirmed by 7 fresh pairs"
    assert [each.note for each in shown] == ["", "for information", f"not {fresh}", fresh]


def test_machine_commit_and_versions_are_shown() -> None:
    code = {"commit": "abc", "dirty": True}
    machine = {"cpu": "a fast one", "cores": 4, "memory": 8e9}
    changed = replace(run(), header=replace(run().header, code=code, machine=machine))
    facts = dict(overview.facts(Source("run.json", changed)))
    assert facts["Commit"] == "abc, with uncommitted changes"
    assert facts["Machine"] == "4 x a fast one, 8 GB of memory"
    assert facts["Versions"] == "trae-bench 0.1.0"
    bare = replace(run(), header=replace(run().header, code={}, machine={}))
    facts = dict(overview.facts(Source("run.json", bare)))
    assert facts["Commit"] == "unknown"
    assert facts["Machine"] == "? x unknown processor"


def test_several_runs_share_a_table() -> None:
    other = honest(toggles=("idle",))
    made = page([Source("one.json", run()), Source("two.json", other)])
    assert Counter(row[0] for row in rows_of(made)) == {"one": 15, "two": 5}
    assert re.search(r"<h1>2 runs</h1>", made)
    assert '<select data-filter="run">' in made
    assert '<select data-filter="run">' not in text()
    assert [each["file"] for each in embedded(made)["runs"]] == ["one.json", "two.json"]
    Reader(made)


def test_files_with_the_same_name_are_numbered() -> None:
    made = page([Source("run.json", run()), Source("run.json", run())])
    assert {row[0] for row in rows_of(made)} == {"1: run", "2: run"}


def test_revisions_are_named_base_and_head() -> None:
    cells = tuple(_of_revisions(one) for one in plan(("idle",)))
    made = page([Source("run.json", honest(cells=cells))])
    heads = re.findall(r'data-key="\w+">(\w+)<', made)
    assert heads[3:5] == ["base", "head"]
    assert "The run compares two revisions" in made


def test_a_gate_has_its_sentence_and_its_details() -> None:
    found = gate(1.1, revisions=replace(COMPARED, new={"later": "no such toggle"}))
    shown = unescape(page([Source("run.json", found)]))
    assert f"<h1>{gate_text.sentence(found)}</h1>" in shown
    details = list(gate_text.details(found))
    assert len(details) == 5
    assert all(line in shown for line in details)


def test_ungated_rows_do_not_stand_out_in_a_gate() -> None:
    found = gate(1.1)
    assert "regression" in {each.verdict for each in overview.standing_out(Source("", found))[0]}
    noisy = tuple(replace(row, gated=False) for row in found.comparisons)
    assert not overview.standing_out(Source("", replace(found, comparisons=noisy)))[0]


def _of_revisions(one: Cell) -> Cell:
    a, b = Arm("base", {}, "base"), Arm("head", {}, "head")
    contrast = one.contrast
    return replace(one, contrast=Contrast(contrast.name, a, b))


def test_an_empty_run_has_a_page() -> None:
    made = page([Source("run.json", replace(run(), comparisons=(), samples=(), noise=()))])
    assert "Nothing was compared." in made
    assert "<h1>Nothing could be measured</h1>" in made
    Reader(made)


# -- pairs in order


def test_lost_pairs_are_marked() -> None:
    found = {
        (b.contrast, p.metric): p for b in pairs.blocks(Source("", run()), 99) for p in b.panels
    }
    idle, slower = found["idle", "cpu"].plot, found["slower", "cpu"].plot
    assert idle is not None
    assert slower is not None
    assert "not measured in 3" in idle
    assert 'class="lost"' in idle
    assert 'class="void"' not in idle
    assert "answers differ in 2" in slower
    assert 'class="void"' in slower
    assert found["idle", "requests"].plot is None
    assert found["idle", "requests"].words.startswith("17 and 17 in each of")


def test_a_plot_without_room_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trae_bench.report.html.pairs.MAX_PLOTS", 4)
    made = page([Source("a", run()), Source("b", run())])
    assert made.count("<figcaption>") == 4
    assert "16 plots were left out" in made
    assert "20 plots were left out" in made


ratios = st.floats(-3, 3)


@given(
    st.lists(st.one_of(ratios, st.sampled_from(["void", "lost", None])), min_size=1, max_size=70)
)
def test_dots_are_at_the_ratios(marks: list[Any]) -> None:
    plot = svg.pairs_plot(marks, 0.0, Interval(-0.01, 0.01), 0.02, "")
    (path,) = re.findall(r'<path class="dot" d="(.*?)"', plot)
    x = y = 0
    places = []
    for dx, dy in re.findall(r"m(-?\d+) ?(-?\d+)h0", path):
        x, y = x + int(dx), y + int(dy)
        places.append((x, y))
    known = [mark for mark in marks if isinstance(mark, float)]
    assert len(places) == len(known)
    assert all(40 <= x <= 240 and 0 <= y <= 84 for x, y in places)
    assert sorted(x for x, _ in places) == [x for x, _ in places]
    # A higher value is higher in the plot.
    heights = [y for _, (_, y) in sorted(zip(known, places, strict=True), key=lambda e: e[0])]
    assert heights == sorted(heights, reverse=True)
    assert plot.count("l4 4l-4 4l-4-4z") == marks.count("void")
    assert plot.count("l6 6m0-6l-6 6") == marks.count("lost")


@given(st.floats(0, 1e300))
def test_a_scale_ends_at_a_round_ratio(largest: float) -> None:
    end = svg.limit(largest)
    assert end >= min(largest, math.log(1e6)) - 1e-6
    assert math.isclose(math.exp(end), float(f"{math.exp(end):.3g}"))


def test_a_changed_count_has_no_band() -> None:
    found = Source("run.json", run())
    of_metric = {row.metric: band(found, row) for row in found.run.comparisons}
    assert of_metric["cpu"] == pytest.approx(math.log1p(0.02))
    assert of_metric["requests"] == 0
    asked = msgspec.structs.replace(METRICS["requests"], threshold=0.1)
    (row, *_) = (row for row in found.run.comparisons if row.metric == "requests")
    header = msgspec.structs.replace(found.run.header, metrics={"requests": asked})
    changed = msgspec.structs.replace(found.run, header=header)
    assert band(Source("run.json", changed), row) == pytest.approx(math.log1p(0.1))


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 2)), max_size=40))
def test_most_intervals_fit_the_scale_of_the_bars(found: list[tuple[float, float]]) -> None:
    intervals = [Interval(low, low + width) for low, width in found]
    scale = svg.bar_scale(intervals)
    fit = [each for each in intervals if scale.low <= each.low and each.high <= scale.high]
    assert len(fit) >= 0.75 * len(intervals) - 1
    for each in intervals:
        drawn = svg.interval_bar(each.low, each, 0.02, scale)
        assert drawn.count('class="tip"') == (each.low < scale.low) + (each.high > scale.high)
        numbers = map(float, re.findall(r"-?\d+\.?\d*", re.sub(r"<svg[^>]*>", "", drawn)))
        assert all(-8 <= number <= 160 for number in numbers)


# -- attribution


def designed(design: str, terms: dict[frozenset[str], float], k: int = 2) -> Source:
    """A run of a design with the effects `terms`."""
    made = list(rows(terms, design, k=k, n=8, noise=(0.001,)))
    cells = tuple(Cell("work", contrast, "duet", ("cpu",)) for contrast, _ in made)
    samples = tuple(
        sample(side, pair, contrast=contrast.name, metrics={"cpu": value})
        for contrast, row in made
        for side, values in (("A", row.a), ("B", row.b))
        for pair, value in enumerate(values, start=1)
    )
    head = header(cells, design=design, metrics={"cpu": METRICS["cpu"]})
    found = comparisons(samples, cells, head.metrics)
    return Source("run.json", RunFile(head, "done", 1.0, (), tuple(found), samples))


HELP = {frozenset("a"): math.log(0.5), frozenset("b"): math.log(0.8)}
INTERACTING = HELP | {frozenset("ab"): math.log(1.5)}


@pytest.mark.parametrize("design", ["both", "factorial"])
def test_steps_lead_from_all_off_to_all_on(design: str) -> None:
    (share,) = shares(designed(design, INTERACTING)).shares
    assert share.route == "alone"
    assert [step.name for step in share.steps[:2]] == ["a", "b"]
    assert [step.kind for step in share.steps[:2]] == ["improvement"] * 2
    product, gap, whole = share.steps[2:]
    assert product.figures[0].startswith("0.40")
    assert gap.figures[0].startswith("1.50")
    assert whole.figures[0].startswith("0.60")
    assert gap.kind == "regression"
    assert any("the toggles give less together than each alone" in text for text in share.sentences)
    bars = [re.search(r'class="step" d="M(\S+) 3H([^v]*)v', str(s.bar)) for s in share.steps]
    a, b, all_of_them, missed, _ = [(float(m[1]), float(m[2])) for m in bars if m]
    # Each step starts at the end of the last one, to its left.
    assert b[1] == a[0]
    assert all_of_them[0] == b[0] == missed[0]


def test_agreement_with_all_on_is_reported() -> None:
    (share,) = shares(designed("both", HELP)).shares
    assert any("they agree within the interval" in text for text in share.sentences)
    assert share.steps[3].kind == "open"


def test_pairs_of_toggles_are_in_a_matrix() -> None:
    (share,) = shares(designed("factorial", INTERACTING, k=3)).shares
    assert share.matrix is not None
    assert share.matrix.toggles == ["b", "c"]
    (a, of_a), (b, of_b) = share.matrix.rows
    assert (a, b) == ("a", "b")
    assert of_a[0][0].startswith("1.50")
    assert of_a[0][1] == "regression"
    assert of_b[0] == ("", "")
    assert [kind for _, kind in (of_a[1], of_b[1])] == ["open", "open"]


def test_pairs_that_share_a_figure_share_a_number() -> None:
    source = designed("fraction", INTERACTING, k=5)
    (share,) = shares(source).shares
    assert share.matrix is not None
    marks = re.findall(
        r"\(\d+\)", " ".join(text for _, row in share.matrix.rows for text, _ in row)
    )
    assert set(Counter(marks).values()) == {2}
    assert [each[:3] for each in share.matrix.shared] == sorted(set(marks))
    assert "one figure, because this design cannot separate them" in page([source])


def test_a_design_of_single_toggles_has_no_attribution() -> None:
    found = shares(designed("add-one", HELP))
    assert not found.shares
    assert "--design both" in found.notes[0]


# -- growth


def long_runs(*lengths: int, hold: bool = False, metrics: tuple[str, ...] = ()) -> Source:
    """Sessions of several lengths; a baseline step takes 1 ms more for every 100 steps."""
    metrics = metrics or ("step_overhead", "agent_rss")
    cells, samples = [], []
    for number, steps in enumerate(lengths):
        name = f"long@{steps}"
        one = cell("fast", "serial", metrics, name)
        if hold and number:
            held = {"held": True}
            a, b = (
                replace(arm, toggles=arm.toggles | held) for arm in (one.contrast.a, one.contrast.b)
            )
            one = replace(one, contrast=replace(one.contrast, a=a, b=b))
        cells.append(one)
        for pair in range(1, 9):
            for side in ("A", "B"):
                figures = {
                    "requests": float(steps),
                    "step_overhead_growth": 1.0,
                    "step_overhead": 0.001 + (1e-5 * steps if side == "A" else 0.0),
                    "agent_rss": 3e7,
                }
                samples.append(
                    sample(side, pair, mode="serial", scenario=name, metrics=figures)  # type: ignore[arg-type]
                )
    head = header(tuple(cells), metrics={name: METRICS[name] for name in metrics})
    found = comparisons(samples, head.cells, head.metrics)
    return Source("run.json", RunFile(head, "done", 1.0, (), tuple(found), tuple(samples)))


def test_lengths_of_one_scenario_make_a_curve() -> None:
    found = growth(long_runs(1000, 200))
    assert [curve.last.row.metric for curve in found.curves] == ["step_overhead", "agent_rss"]
    (label,) = re.findall(r'aria-label="(.*?)"', found.curves[0].plot)
    assert label == "200 steps: 3 ms off, 1 ms on; 1000 steps: 11 ms off, 1 ms on"
    assert {line.point.steps for line in found.lines} == {200, 1000}
    assert found.missing == []


def test_a_curve_joins_rows_that_differ_only_in_length() -> None:
    found = growth(long_runs(200, 1000, hold=True))
    assert found.curves == []
    assert len(found.lines) == 4
    assert found.missing[0].startswith("No curve")


def test_missing_curves_are_explained() -> None:
    (sentence,) = growth(Source("run.json", run())).missing
    assert "does not show growth" in sentence
    no_memory = growth(long_runs(200, 1000, metrics=("step_overhead",)))
    assert [each[:9] for each in no_memory.missing] == ["No memory"]
    no_time = growth(long_runs(200, 1000, metrics=("agent_rss",)))
    assert [each[:7] for each in no_time.missing] == ["No time"]


# -- the raw data


def test_the_raw_data_are_those_of_the_run() -> None:
    made = embedded(text())
    (found,) = made["runs"]
    assert found["sides"] == ["off", "on"]
    (of_cell,) = (
        each for each in found["cells"] if (each["contrast"], each["mode"]) == ("idle", "duet")
    )
    assert of_cell["void"].keys() == {"3"}
    assert of_cell["void"]["3"].startswith("not measured: on: exit status 1")
    for metric, columns in of_cell["metrics"].items():
        (row,) = (r for r in run().comparisons if (r.contrast, r.metric) == ("idle", metric))
        items = dict(zip(made["row"], columns["row"], strict=True))
        assert items["verdict"] == row.judgement.verdict
        assert row.estimate is not None
        assert math.isclose(items["median_a"], row.estimate.a, rel_tol=1e-4)
        for side in ("a", "b"):
            values = {
                one.pair: one.metrics.get(metric)
                for one in run().samples
                if (one.contrast, one.mode, one.side) == ("idle", "duet", side.upper())
            }
            expected = [values[number] for number in of_cell["pairs"]]
            assert len(columns[side]) == len(expected) >= 8
            for kept, value in zip(columns[side], expected, strict=True):
                assert (kept is None) == (value is None)
                assert value is None or math.isclose(kept, value, rel_tol=1e-4)
    assert 0 not in of_cell["pairs"]


def test_integers_stay_integers() -> None:
    (found,) = embedded(text())["runs"]
    values = [
        value
        for each in found["cells"]
        if "peak_rss" in each["metrics"]
        for value in each["metrics"]["peak_rss"]["a"]
    ]
    assert all(isinstance(value, int) and value >= 30_998_528 for value in values)


# -- untrusted text


ALLOWED_LINKS = re.compile(r"#[a-z]+(-\d+)?|data:,")


@cache
def honest_kinds() -> set[tuple[str, str]]:
    several = page(
        [Source("", run()), designed("fraction", INTERACTING, k=5), long_runs(200, 1000)]
    )
    return Reader(several).kinds | Reader(text()).kinds


def harmless(made: str) -> None:
    """The page has only elements and attributes that a page without planted text has."""
    found = Reader(made)
    assert found.kinds <= honest_kinds()
    assert not {name for _, name in found.kinds if name.startswith("on") or name == "style"}
    for attrs in (attrs for _, attrs in found.tags):
        assert ALLOWED_LINKS.fullmatch(attrs.get("href") or "#x")
        assert "src" not in attrs
    style, data, script = found.scripts
    own = files("trae_bench.report.html")
    assert style == own.joinpath("page.css").read_text("utf-8")
    assert script == own.joinpath("page.js").read_text("utf-8")
    json.loads(data)
    assert "<" not in data
    assert not ACTED_ON.search(made)


PLANTS = [
    PLANT,
    "</script><script>alert(1)</script>",
    '"onload="alert(1)" x="',
    "' onclick='alert(1)",
    "javascript:alert(1)",
    "<!--<script>",
    "]]></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u2066",
    "&lt;script&gt;&#x6a;",
]


@pytest.mark.parametrize("plant", PLANTS)
def test_text_planted_everywhere_is_escaped(plant: str) -> None:
    made = msgspec.convert(planted(document(), lambda old: old and old[:40] + plant), RunFile)
    text = page([Source("run" + plant, made)])
    harmless(text)
    assert embedded(text)["runs"][0]["file"] == "run" + plant
    # The template does not interpret it.
    assert "{{ 7 * 7 }}" not in plant or "7 * 7" in text


@given(st.text(max_size=80))
@examples(25)
def test_any_planted_text_is_escaped(plant: str) -> None:
    text = plant.encode("utf-8", "replace").decode()
    made = msgspec.convert(planted(document(), lambda old: old and old[:40] + text), RunFile)
    harmless(page([Source("run.json", made)]))


@pytest.mark.parametrize("design", ["both", "factorial", "fraction"])
def test_text_planted_in_toggles_is_escaped(design: str) -> None:
    made = json.loads(msgspec.json.encode(designed(design, INTERACTING, k=5).run))
    nasty = planted(made, lambda old: old and old[:40] + PLANT)
    text = page([Source("run.json", msgspec.convert(nasty, RunFile))])
    harmless(text)
    assert 'class="steps"' in text


def test_text_of_a_plot_is_escaped() -> None:
    points = [svg.Point(1, 1, 2), svg.Point(2, 2, 3)]
    nasty = "\"><script>'&\u202e"
    drawn = svg.curve(points, (3, nasty), (nasty, nasty), nasty)
    assert drawn.count("&quot;&gt;&lt;script&gt;&#x27;&amp;\\u202e") == 4
    assert "<script" not in drawn
    assert drawn.count('"') == 2 * drawn.count('="')


def test_long_names_are_cut() -> None:
    made = planted(document(), lambda old: (old + "<" * 8000)[:200])
    made["header"]["command"] = "<" * 8000
    for each in made["comparisons"]:
        each["pairs"]["reasons"] = [f"{n}" + "<" * 7990 for n in range(5)]
    text = page([Source("run.json", msgspec.convert(made, RunFile))])
    harmless(text)
    assert "&lt;" * 2001 not in text
    assert len(text) < 2_000_000


def test_the_size_of_a_page_is_bounded() -> None:
    rows = [replace(row, scenario=f"s{n}") for n in range(500) for row in run().comparisons]
    cells = [replace(one, scenario=f"s{n}") for n in range(500) for one in run().header.cells]
    head = replace(run().header, cells=tuple(cells))
    made = page([Source("run.json", replace(run(), header=head, comparisons=tuple(rows)))])
    assert len(rows_of(made)) == table.MAX_ROWS
    assert f"{500 * 15 - table.MAX_ROWS} more rows are in the run files" in made
    assert len(made) < 4_000_000


def test_the_policy_allows_only_the_content_of_the_page() -> None:
    found = Reader(text())
    (policy,) = (
        each["content"] or ""
        for each in found.all("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    style, _, script = found.scripts
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{_sha256(style)}'",
        "script-src": f"'sha256-{_sha256(script)}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# -- for everybody


def test_the_page_has_labels_for_screen_readers() -> None:
    made = page(
        [Source("one.json", run()), designed("factorial", INTERACTING, k=3), long_runs(200, 1000)]
    )
    found = Reader(made)
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in found.tags:
        for name in (attrs.get("aria-labelledby") or "").split():
            assert name in ids
        if (attrs.get("href") or "").startswith("#"):
            assert (attrs["href"] or "")[1:] in ids
    assert made.count("<table") == made.count("<caption")
    assert all("scope" in attrs for attrs in found.all("th"))
    assert all("aria-hidden" in each or each.get("aria-label") for each in found.all("svg"))
    assert len(found.all("main")) == len(found.all("h1")) == len(found.all("nav")) == 1
    (top,) = found.all("html")
    assert top == {"lang": "en"}
    for attrs in found.all("section"):
        assert attrs.get("class") == "block" or attrs.keys() & {"aria-label", "aria-labelledby"}


# -- small, and the same again


def test_a_full_run_is_less_than_two_megabytes() -> None:
    """A run of 5,000 samples with 25 values each, all compared."""
    metrics = {m.name: m for m in list(METRICS.values()) if m.probe == "plain"}
    metrics = dict(list(metrics.items())[:25])
    serial = tuple(name for name, metric in metrics.items() if metric.mode == "serial")
    others = tuple(name for name in metrics if name not in serial)
    names = [NOISE_FLOOR, *(f"some_longer_toggle_{n}" for n in range(51))]
    cells = tuple(
        cell(name, mode, of_mode, "a-scenario@variant")  # type: ignore[arg-type]
        for name in names
        for mode, of_mode in (("duet", others), ("serial", serial))
    )
    random = Random(1)
    samples = tuple(
        sample(
            side,  # type: ignore[arg-type]
            pair,
            contrast=one.contrast.name,
            mode=one.mode,
            scenario=one.scenario,
            metrics={
                name: float(round(random.gauss(3.1e7, 1e5)))
                if m.unit == "B"
                else random.gauss(1, 0.05)
                for name, m in metrics.items()
            },
        )
        for one in cells
        for pair in range(1, 25)
        for side in "AB"
    )
    assert len(metrics) == 25
    assert len(samples) == 4992
    head = header(cells, metrics=metrics)
    rows = comparisons(samples, cells, metrics)
    floors = tuple(noise_floor(rows, metrics))
    made = page([Source("run.json", RunFile(head, "done", 1.0, floors, tuple(rows), samples))])
    assert len(made.encode()) < 2_000_000
    (found,) = embedded(made)["runs"]
    kept = sum(
        len(each[side])
        for of_cell in found["cells"]
        for each in of_cell["metrics"].values()
        for side in "ab"
    )
    assert kept == sum(len(one.metrics) for one in cells) * 48


def test_values_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = sum(
        len(each[side])
        for of_cell in embedded(text())["runs"][0]["cells"]
        for each in of_cell["metrics"].values()
        for side in "ab"
    )
    monkeypatch.setattr(raw, "MAX_VALUES", 100)
    made, left_out = raw.document([Source("run.json", run())])
    kept = sum(
        len(each[side])
        for of_cell in json.loads(made)["runs"][0]["cells"]
        for each in of_cell["metrics"].values()
        for side in "ab"
    )
    assert 0 < kept <= 100
    assert kept + left_out == everything


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(path, designed("factorial", INTERACTING, k=3).run)
    code = "import sys; from trae_bench.cli import main; sys.exit(main(sys.argv[1:]))"
    pages = set()
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code, "report", str(path), "--html", "-"],
            env=env,
            capture_output=True,
            check=True,
        )
        pages.add(done.stdout)
    assert len(pages) == 1
    assert str(tmp_path).encode() not in pages.pop()


# -- the command


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    write_run(path, run())
    return path


def test_the_command_writes_a_page_and_prints_its_path(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(stored), "--html", str(out)]) == 0
    assert out.read_text("utf-8") == text()
    assert capsys.readouterr().err == f"Page: {out}\n"


def test_a_page_can_be_combined_with_other_reports(stored: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "page.html", tmp_path / "comment.md"
    assert main(["report", str(stored), "--html", str(out), "--markdown", str(other)]) == 0
    assert out.exists()
    assert other.exists()


def test_several_runs_need_a_page(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice, out = [str(stored), str(stored)], tmp_path / "page.html"
    assert main(["report", *twice, "--html", str(out)]) == 0
    assert "<h1>2 runs</h1>" in out.read_text("utf-8")
    out.unlink()
    for others in (
        [],
        ["--markdown", "-"],
        ["--junit", "-"],
        ["--html", str(out), "--junit", "-"],
        ["--json"],
    ):
        assert main(["report", *twice, *others]) == 2
        shown = capsys.readouterr()
        assert "one run at a time" in shown.err
        assert shown.out == ""
    assert not out.exists()


def test_without_jinja2_the_error_names_the_extra(
    stored: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["report", str(stored), "--html", str(tmp_path / "page.html")]) == 2
    assert 'pip install "trae-bench[report]"' in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_imports_are_lazy() -> None:
    code = "import sys, trae_bench.report.html; print('jinja2' in sys.modules)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_wheel_has_the_parts_of_the_page() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    builder = wheel.WheelBuilder(str(ROOT))
    packed = {each.distribution_path for each in builder.recurse_included_files()}
    parts = ("page.html.jinja", "page.css", "page.js", "history.html.jinja", "history.css")
    for name in parts:
        assert f"trae_bench/report/html/{name}" in packed
