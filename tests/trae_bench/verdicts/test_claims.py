"""Claims: what keeps a promise, which row is asked, what a claims file may say, and our own."""

import json
import math
import shlex
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.trae_bench.report.test_untrusted import ACTED_ON, PLANT
from tests.trae_bench.runs import DUET, SERIAL, honest
from trae_bench.cli import main
from trae_bench.cli.claims import known_claims
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import ScenarioError
from trae_bench.model.experiment import Arm, Cell, Contrast
from trae_bench.model.result import Interval
from trae_bench.model.run import RunFile
from trae_bench.report.text import claims as claims_text
from trae_bench.storage.run_file import write_run
from trae_bench.verdicts.claims import (
    AtPlace,
    ClaimsFile,
    Figure,
    Place,
    Question,
    Source,
    at_place,
    claims_file,
    judge,
    line_of_words,
    load,
    newest,
    overall,
    parse,
    region,
)

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = sorted((ROOT / "results").glob("*.json"))
replace = msgspec.structs.replace


def cells(scenario: str = "work", toggles: tuple[str, ...] = ("faster",)) -> tuple[Cell, ...]:
    """Each toggle against none, with arms that say so."""
    off = dict.fromkeys(toggles, False)
    none = Arm("none", off)
    pairs = [(NOISE_FLOOR, none), *((name, Arm(name, {**off, name: True})) for name in toggles)]
    return tuple(
        Cell(scenario, Contrast(name, none, b), mode, metrics)
        for name, b in pairs
        for mode, metrics in (("duet", DUET), ("serial", SERIAL))
    )


@cache
def run(toggles: tuple[str, ...] = ("faster", "slower", "idle"), created: str = "2026") -> RunFile:
    return honest(cells=cells(toggles=toggles), created=created)


def toml(claim: str = "", own: str = "") -> str:
    return f'about = "a guide"\n{claim}{own}'


def claim(**fields: object) -> str:
    """One claim that nothing is wrong with, but for `fields`."""
    usual: dict[str, object] = {
        "id": "speed",
        "said": [{"section": "summary", "words": "twice as fast"}],
        "claimed": "2x faster",
        "toggles": ["faster"],
        "places": [{"scenario": "work", "metric": "cpu"}],
    }
    lines = [f"{name} = {_toml(value)}" for name, value in (usual | fields).items() if value != ""]
    return "[[claims]]\n" + "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(item)}' for name, item in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


# -- what keeps a promise

ratios = st.floats(0.01, 100).map(math.log)
intervals = st.tuples(ratios, ratios).map(lambda ends: Interval(min(ends), max(ends)))
promises = st.one_of(
    st.integers(1, 99).map(lambda n: f"{n} % less"),
    st.integers(1, 300).map(lambda n: f"{n} % more"),
    st.integers(2, 50).map(lambda n: f"{n}x faster"),
    st.integers(1, 50).map(lambda n: f"within {n} %"),
)


@pytest.mark.parametrize(
    ("claimed", "low", "high"),
    [
        ("60-80 % less", 0, 0.4),
        ("64 % less", 0, 0.36),
        ("90-100 % less", 0, 0.1),
        ("3-5x faster", 0, 1 / 3),
        ("10-30 % more", 1.1, math.inf),
        ("within 1 %", 1 / 1.01, 1.01),
    ],
)
def test_what_a_range_means(claimed: str, low: float, high: float) -> None:
    found = region(claimed)
    assert math.exp(found.low) == pytest.approx(low)
    assert math.exp(found.high) == pytest.approx(high)


def test_three_times_as_fast_is_three_times_the_rate() -> None:
    assert region("3-5x faster", "higher") == (pytest.approx(math.log(3)), math.inf)
    # Of the rest it is said which way it goes.
    assert region("10 % more", "higher") == region("10 % more")


@pytest.mark.parametrize("metric", ["wall", "steps_per_second"])
def test_a_claim_on_a_rate_is_judged_the_right_way_round(metric: str) -> None:
    run = honest(toggles=("faster",), effects={NOISE_FLOOR: 1.0, "faster": 0.1})
    (judged,) = judge(
        [Figure(claimed="2x faster", toggles=("faster",), places=(Place("work", metric),))],
        newest([Source("run.json", run)]),
    )
    assert judged.verdict == "holds"


def test_a_run_that_was_changed_bears_nothing_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    write_run(path, replace(honest(), elapsed=1e6))
    assert main(["claims", str(path)]) == 4
    assert "its seal does not match" in capsys.readouterr().err


@pytest.mark.parametrize(
    "claimed",
    (
        *("", "fast", "80-60 % less", "101 % less", "100 % less", "0 % less", "1x faster"),
        *("-5 % less", "60-80% less", "60 - 80 % less", "within % 1", "5 % less\n", "1e3 % more"),
        "\u0663 % less",
    ),
)
def test_what_is_no_range(claimed: str) -> None:
    with pytest.raises(ValueError, match="is no range"):
        region(claimed)


@given(promises, intervals, st.floats(0, 3), st.floats(0, 3))
def test_more_doubt_never_decides(claimed: str, narrow: Interval, less: float, more: float) -> None:
    wide = Interval(narrow.low - less, narrow.high + more)
    before, after = at_place(narrow, region(claimed)), at_place(wide, region(claimed))
    assert after in (before, "undecided")


@given(promises, st.floats(0, 3), st.floats(0, 3))
def test_more_of_what_was_promised_keeps_the_promise(
    claimed: str, beyond: float, width: float
) -> None:
    promised = region(claimed)
    assume(not claimed.startswith("within"))
    if promised.high == math.inf:
        found = Interval(promised.low + beyond, promised.low + beyond + width)
    else:
        found = Interval(promised.high - beyond - width, promised.high - beyond)
    assert at_place(found, promised) == "holds"


@given(promises, ratios)
def test_a_point_is_never_undecided(claimed: str, ratio: float) -> None:
    promised = region(claimed)
    inside = promised.low <= ratio <= promised.high
    assume(min(abs(ratio - promised.low), abs(ratio - promised.high)) > 1e-9)
    assert at_place(Interval(ratio, ratio), promised) == ("holds" if inside else "refuted")


def test_counts_that_are_just_at_the_end_hold() -> None:
    for most in range(2, 200, 2):
        halved = math.log(most / 2) - math.log(most)
        assert at_place(Interval(halved, halved), region("50 % less")) == "holds"


VERDICTS_AT: tuple[AtPlace, ...] = ("holds", "refuted", "undecided", "not measured")
at_places = st.lists(st.sampled_from(VERDICTS_AT), min_size=1, max_size=6)


@given(at_places, st.randoms(use_true_random=False), st.integers(0, 5))
def test_a_missing_row_never_decides(found: list[AtPlace], random: object, index: int) -> None:
    fewer: list[AtPlace] = [*found]
    fewer[index % len(found)] = "not measured"
    before, after = overall(found), overall(fewer)
    assert after == before or after not in ("holds", "refuted")
    assert overall(found[::-1]) == before
    assert (before == "holds") == (set(found) == {"holds"})
    assert ("holds" in found) == before.startswith("holds")


# -- which row is asked


def rows(*sources: Source) -> dict[Question, str]:
    return {question: one.source.name for question, one in newest(sources).items()}


CPU = Question("work", frozenset({"faster"}), "cpu")


def test_the_newest_run_that_has_the_row_answers() -> None:
    old, new = Source("old", run(created="2025")), Source("new", run(("slower",), created="2026"))
    for order in ((old, new), (new, old)):
        found = rows(*order)
        assert found[CPU] == "old"
        assert found[CPU._replace(toggles=frozenset({"slower"}))] == "new"
    assert rows(old, Source("newer", run(created="2026")))[CPU] == "newer"
    assert not any(NOISE_FLOOR in question.toggles for question in rows(old))


def test_a_run_without_verdicts_answers_only_where_no_other_does() -> None:
    good, short = Source("good", run(created="2025")), Source("short", run(), claimed=False)
    assert rows(short, good)[CPU] == "good"
    assert rows(short)[CPU] == "short"
    of_two_levels = replace(run(), header=replace(run().header, design="factorial"))
    assert rows(Source("two levels", of_two_levels), good)[CPU] == "good"


def test_rows_that_show_nothing_answer_nothing() -> None:
    shown = run()
    first = next(
        row for row in shown.comparisons if (row.contrast, row.metric) == ("faster", "cpu")
    )
    assert first.estimate is not None
    for empty in (
        replace(first, estimate=None),
        replace(first, estimate=replace(first.estimate, interval=None)),
        replace(first, judgement=replace(first.judgement, verdict="not measured")),
    ):
        without = replace(shown, comparisons=(empty,))
        assert not rows(Source("empty", without))
        older = Source("older", run(created="2025"))
        assert rows(older, Source("empty", without))[CPU] == "older"


def test_only_contrasts_to_the_baseline_answer() -> None:
    shown = run(("faster",))
    on, revised = Arm("slower", {"faster": False, "slower": True}), "abc"
    for change in ({"a": on}, {"b": Arm("faster", {"faster": True}, revision=revised)}):
        changed = tuple(
            replace(cell, contrast=replace(cell.contrast, **change)) for cell in shown.header.cells
        )
        other = replace(shown, header=replace(shown.header, cells=changed))
        assert CPU not in rows(Source("other", other))
    assert CPU in rows(Source("shown", shown))


def test_a_claim_is_held_to_the_rows() -> None:
    text = toml(
        "".join(
            claim(id=f"c{n}", claimed=claimed, toggles=[toggle])
            for n, (claimed, toggle) in enumerate(
                [
                    ("40-60 % less", "faster"),
                    ("3x faster", "faster"),
                    ("10-20 % more", "slower"),
                    ("within 3 %", "idle"),
                    ("10 % less", "unknown"),
                ]
            )
        )
    )
    judged = judge(parse(text).claims, newest([Source("run", run())]))
    verdicts = [one.verdict for one in judged]
    assert verdicts == ["holds", "refuted", "holds", "holds", "not measured"]
    assert [claims_text.measured(one.found[0], one.claim.claimed)[:2] for one in judged] == [
        "-5",
        "2.",
        "+4",
        "+0" if claims_text.measured(judged[3].found[0], "").startswith("+") else "-0",
        "",
    ]
    assert judged[4].commands == ("trae-bench run work --toggle unknown --metric cpu",)
    assert not judged[0].commands


# -- claims files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('about = "x"\nclaims = 1\n', "claims.toml:2: $.claims: expected an array"),
        ('about = "x"\n[[claims]]\nid = "a"\n', "`said` is missing"),
        (toml(claim(id="Not so")), "claims.toml:3: $.claims[0].id: expected lower-case letters"),
        (toml(claim(claimd="x")), "did you mean claimed"),
        (toml(claim(claimed="much")), "claims.toml:5: $.claims[0].claimed: 'much' is no range"),
        (toml(claim(places=[])), "claims.toml:7: $.claims[0].places: nothing there"),
        (toml(claim(toggles=["a", "a"])), "claims.toml:6: $.claims[0].toggles: one is there twice"),
        (toml(claim(not_measurable="no unit")), "cannot stand beside `not_measurable`"),
        (toml(claim() + claim()), "claims.toml:9: $.claims[1].id: 'speed' is there twice"),
        ("about = \n", "claims.toml:1:9: expected a value"),
        (f"about = {'[' * 100_000}", "not readable as TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse(text, "claims.toml")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("place", "toggles", "said"),
    [
        (("bugfixx", "cpu"), ["parallel_tools"], "no scenario 'bugfixx'; did you mean bugfix"),
        (("bugfix", "cpus"), ["parallel_tools"], "no metric 'cpus'; did you mean cpu"),
        (("bugfix", "cpu"), ["lazy_tools"], "bugfix cannot vary lazy_tools"),
    ],
)
def test_names_are_held_to_those_that_there_are(
    place: tuple[str, str],
    toggles: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "claims.toml"
    where = {"scenario": place[0], "metric": place[1]}
    file.write_text(toml(claim(places=[where], toggles=toggles)))
    assert main(["claims", "--file", str(file)]) == 2
    assert f"{file}:7: $.claims[0].places[0]: {said}" in capsys.readouterr().err


def shipped() -> ClaimsFile:
    return known_claims(claims_file())


def test_what_ships_is_whole() -> None:
    file = shipped()
    assert len(file.claims) >= 25
    assert {each.section for one in file.claims for each in one.said} >= {
        "Performance Improvements Summary",
        "Startup Time Improvements",
        "Memory Usage Improvements",
        "Runtime Performance",
        "Changelog",
    }


def test_what_would_measure_a_claim_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {command for one in judge(shipped().claims, {}) for command in one.commands}
    assert commands
    for command in sorted(commands):
        program, *words = shlex.split(command)
        assert (program, main([*words, "--dry-run", "--json"])) == ("trae-bench", 0), command
        planned = {
            name
            for cell in json.loads(capsys.readouterr().out)["cells"]
            for name in cell["metrics"]
        }
        assert planned == {words[n + 1] for n, word in enumerate(words) if word == "--metric"}


# -- the command


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    write_run(path, run())
    return path


def test_the_command_tells_each_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", *map(str, COMMITTED)]) == 0
    text = capsys.readouterr().out
    assert all(f"{one.id}: " in text for one in shipped().claims)
    assert max(map(len, text.splitlines())) <= 80
    assert main(["claims", "--json", *map(str, COMMITTED)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["claim"]["id"] for one in found] == [one.id for one in shipped().claims]
    assert {one["verdict"] for one in found} >= {"not measurable"}
    measured = [place for one in found for place in one["places"] if place["run"]]
    assert measured
    assert all(place["estimate"]["interval"] for place in measured)


def test_a_command_that_takes_several_lines_can_be_copied() -> None:
    place = {"scenario": "bugfix", "metric": "cpu"}
    metrics = [place, place | {"metric": "wall"}, place | {"metric": "agent_rss"}]
    judged = judge(parse(toml(claim(places=metrics, toggles=["parallel_tools"]))).claims, {})
    shown = claims_text.text(judged, width=50)
    assert max(map(len, shown.splitlines())) <= 50
    told = shown.partition("  $ ")[2].split("\n\n")[0]
    assert told.count(" \\\n") == told.count("\n") > 1
    assert shlex.split(told.replace("\\\n", "")) == shlex.split(judged[0].commands[0])


def test_nothing_of_a_file_is_acted_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"section": PLANT, "words": PLANT}
    text = toml(claim(said=[words], note=PLANT) + claim(id="b", said=[words]))
    text += claim(id="c", said=[words], not_measurable=PLANT, claimed="", toggles="", places="")
    judged = judge(parse(text).claims, newest([Source(PLANT, run())]))
    shown = claims_text.text(judged)
    assert not ACTED_ON.search(shown)
    table = "\n".join(claims_text.markdown(judged, lambda evidence: "1"))
    assert not ACTED_ON.search(table)
    assert "<script>" not in table
    assert {line.count("|") for line in table.splitlines() if line.startswith("|")} == {5}


# -- our own sentences


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A claims file beside a document."""
    document = tmp_path / "README.md"
    document.write_text("# Fast\n\nIt is\ntwice as fast, and\nnever slower.\n")
    file = tmp_path / "claims.toml"
    file.write_text(toml(own=own_claim("twice as fast", "2x faster")))
    return file


def own_claim(quote: str, claimed: str, toggle: str = "parallel_tools") -> str:
    return (
        f'[[own]]\ndocument = "README.md"\nquote = "{quote}"\nclaimed = "{claimed}"\n'
        f'toggles = ["{toggle}"]\nplaces = [{{ scenario = "bugfix", metric = "cpu" }}]\n'
    )


@pytest.mark.parametrize(
    ("claimed", "code"), [("within 10 %", 0), ("2x faster", 1), ("0.001 % less", 1)]
)
def test_a_sentence_that_runs_do_not_bear_out_is_named(
    own: Path, claimed: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(toml(own=own_claim("It is twice as fast", claimed)))
    path = own.with_name("run.json")
    write_run(path, honest(cells=cells("bugfix", ("parallel_tools",))))
    assert main(["claims", str(path), "--own", "--file", str(own)]) == code
    told = capsys.readouterr()
    assert f"{own.with_name('README.md')}:3: " in told.out
    assert (f"{own.with_name('README.md')}:3: 'It is twice as fast' is" in told.err) == bool(code)


def test_a_run_that_does_not_speak_of_a_sentence_says_nothing_against_it(
    own: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", str(run_file), "--own", "--file", str(own)]) == 0
    assert "1 claim: 1 not measured" in capsys.readouterr().out
    assert main(["claims", str(run_file), "--own", "--file", str(own), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["at"].endswith("README.md:4")


def test_a_sentence_that_is_gone_is_named(
    own: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(toml(own=own_claim("three times as fast", "3x faster")))
    assert main(["claims", str(run_file), "--own", "--file", str(own)]) == 2
    assert f"{own}:4: $.own[0].quote: 'three times as fast' is not in" in capsys.readouterr().err
    own.with_name("README.md").unlink()
    assert main(["claims", str(run_file), "--own", "--file", str(own)]) == 2
    assert "README.md" in capsys.readouterr().err


@given(st.lists(st.text("ab.*", min_size=1, max_size=5), min_size=1, max_size=6), st.integers(0, 5))
def test_words_are_found_across_lines(words: list[str], before: int) -> None:
    text = "\n" * before + "\n".join(words) + "\n"
    assert line_of_words(text, " ".join(words)) == before + 1
    assert line_of_words(text, "absent") is None


def test_the_committed_runs_bear_out_our_own_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["claims", "--own", "--json", *map(str, COMMITTED)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(load(claims_file()).own) > 0
    assert {one["verdict"] for one in found} == {"holds"}
