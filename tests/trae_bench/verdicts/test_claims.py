"""Tests of claims: ranges, evidence, claims files, and own claims."""

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
from trae_bench.verdicts.claim_range import parse_range
from trae_bench.verdicts.claims import (
    EvidenceKey,
    PlaceVerdict,
    Source,
    judge,
    line_of_quote,
    newest_measurements,
    overall_verdict,
    place_verdict,
)
from trae_bench.verdicts.claims_file import (
    ClaimsFile,
    RatioClaim,
    ScenarioMetric,
    claims_file,
    load,
    parse,
)

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = sorted((ROOT / "results").glob("*.json"))
replace = msgspec.structs.replace


def cells(scenario: str = "work", toggles: tuple[str, ...] = ("faster",)) -> tuple[Cell, ...]:
    """Cells of each toggle against none."""
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
    """TOML of a valid claim, changed by `fields`."""
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


# -- ranges

ratios = st.floats(0.01, 100).map(math.log)
intervals = st.tuples(ratios, ratios).map(lambda ends: Interval(min(ends), max(ends)))
claimed_ranges = st.one_of(
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
def test_parse_range(claimed: str, low: float, high: float) -> None:
    found = parse_range(claimed)
    assert math.exp(found.low) == pytest.approx(low)
    assert math.exp(found.high) == pytest.approx(high)


def test_range_of_a_rate() -> None:
    assert parse_range("3-5x faster", "higher") == (pytest.approx(math.log(3)), math.inf)
    # `less` and `more` do not depend on the better direction.
    assert parse_range("10 % more", "higher") == parse_range("10 % more")


@pytest.mark.parametrize("metric", ["wall", "steps_per_second"])
def test_direction_of_times_and_rates(metric: str) -> None:
    run = honest(toggles=("faster",), effects={NOISE_FLOOR: 1.0, "faster": 0.1})
    (judged,) = judge(
        [
            RatioClaim(
                claimed="2x faster", toggles=("faster",), places=(ScenarioMetric("work", metric),)
            )
        ],
        newest_measurements([Source("run.json", run)]),
    )
    assert judged.verdict == "holds"


def test_run_with_a_broken_seal_is_refused(
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
def test_invalid_ranges(claimed: str) -> None:
    with pytest.raises(ValueError, match="is not a range"):
        parse_range(claimed)


@given(claimed_ranges, intervals, st.floats(0, 3), st.floats(0, 3))
def test_wider_interval_never_decides(
    claimed: str, narrow: Interval, less: float, more: float
) -> None:
    wide = Interval(narrow.low - less, narrow.high + more)
    before, after = (
        place_verdict(narrow, parse_range(claimed)),
        place_verdict(wide, parse_range(claimed)),
    )
    assert after in (before, "undecided")


@given(claimed_ranges, st.floats(0, 3), st.floats(0, 3))
def test_exceeding_a_claim_holds(claimed: str, beyond: float, width: float) -> None:
    claimed_range = parse_range(claimed)
    assume(not claimed.startswith("within"))
    if claimed_range.high == math.inf:
        found = Interval(claimed_range.low + beyond, claimed_range.low + beyond + width)
    else:
        found = Interval(claimed_range.high - beyond - width, claimed_range.high - beyond)
    assert place_verdict(found, claimed_range) == "holds"


@given(claimed_ranges, ratios)
def test_exact_ratio_is_never_undecided(claimed: str, ratio: float) -> None:
    claimed_range = parse_range(claimed)
    inside = claimed_range.low <= ratio <= claimed_range.high
    assume(min(abs(ratio - claimed_range.low), abs(ratio - claimed_range.high)) > 1e-9)
    assert place_verdict(Interval(ratio, ratio), claimed_range) == (
        "holds" if inside else "refuted"
    )


def test_ratio_at_the_end_of_the_range_holds() -> None:
    for count in range(2, 200, 2):
        halved = math.log(count / 2) - math.log(count)
        assert place_verdict(Interval(halved, halved), parse_range("50 % less")) == "holds"


VERDICTS_AT: tuple[PlaceVerdict, ...] = ("holds", "refuted", "undecided", "not measured")
place_verdicts = st.lists(st.sampled_from(VERDICTS_AT), min_size=1, max_size=6)


@given(place_verdicts, st.randoms(use_true_random=False), st.integers(0, 5))
def test_missing_row_never_decides(found: list[PlaceVerdict], random: object, index: int) -> None:
    fewer: list[PlaceVerdict] = [*found]
    fewer[index % len(found)] = "not measured"
    before, after = overall_verdict(found), overall_verdict(fewer)
    assert after == before or after not in ("holds", "refuted")
    assert overall_verdict(found[::-1]) == before
    assert (before == "holds") == (set(found) == {"holds"})
    assert ("holds" in found) == before.startswith("holds")


# -- evidence


def rows(*sources: Source) -> dict[EvidenceKey, str]:
    return {
        key: measurement.source.name for key, measurement in newest_measurements(sources).items()
    }


CPU = EvidenceKey("work", frozenset({"faster"}), "cpu")


def test_newest_run_with_the_row_is_used() -> None:
    old, new = Source("old", run(created="2025")), Source("new", run(("slower",), created="2026"))
    for order in ((old, new), (new, old)):
        found = rows(*order)
        assert found[CPU] == "old"
        assert found[CPU._replace(toggles=frozenset({"slower"}))] == "new"
    assert rows(old, Source("newer", run(created="2026")))[CPU] == "newer"
    assert not any(NOISE_FLOOR in key.toggles for key in rows(old))


def test_run_without_verdicts_is_the_last_resort() -> None:
    good, short = Source("good", run(created="2025")), Source("short", run(), claimed=False)
    assert rows(short, good)[CPU] == "good"
    assert rows(short)[CPU] == "short"
    of_two_levels = replace(run(), header=replace(run().header, design="factorial"))
    assert rows(Source("two levels", of_two_levels), good)[CPU] == "good"


def test_rows_without_an_interval_are_ignored() -> None:
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


def test_only_contrasts_to_the_baseline_count() -> None:
    shown = run(("faster",))
    on, revised = Arm("slower", {"faster": False, "slower": True}), "abc"
    for change in ({"a": on}, {"b": Arm("faster", {"faster": True}, revision=revised)}):
        changed = tuple(
            replace(cell, contrast=replace(cell.contrast, **change)) for cell in shown.header.cells
        )
        other = replace(shown, header=replace(shown.header, cells=changed))
        assert CPU not in rows(Source("other", other))
    assert CPU in rows(Source("shown", shown))


def test_verdicts_of_claims() -> None:
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
    judged = judge(parse(text).claims, newest_measurements([Source("run", run())]))
    verdicts = [result.verdict for result in judged]
    assert verdicts == ["holds", "refuted", "holds", "holds", "not measured"]
    assert [
        claims_text.measured(result.found[0], result.claim.claimed)[:2] for result in judged
    ] == [
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
    ("text", "message"),
    [
        ('about = "x"\nclaims = 1\n', "claims.toml:2: claims: expected an array"),
        ('about = "x"\n[[claims]]\nid = "a"\n', "`said` is missing"),
        (toml(claim(id="Not so")), "claims.toml:3: claims[0].id: expected lower-case letters"),
        (toml(claim(claimd="x")), "did you mean claimed"),
        (toml(claim(claimed="much")), "claims.toml:5: claims[0].claimed: 'much' is not a range"),
        (toml(claim(places=[])), "claims.toml:7: claims[0].places: is empty"),
        (toml(claim(toggles=["a", "a"])), "claims.toml:6: claims[0].toggles: has a duplicate"),
        (toml(claim(not_measurable="no unit")), "not allowed with `not_measurable`"),
        (toml(claim() + claim()), "claims.toml:9: claims[1].id: 'speed' is used twice"),
        ("about = \n", "claims.toml:1:9: expected a value"),
        (f"about = {'[' * 100_000}", "not readable as TOML"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse(text, "claims.toml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("place", "toggles", "message"),
    [
        (("bugfixx", "cpu"), ["parallel_tools"], "no scenario 'bugfixx'; did you mean bugfix"),
        (("bugfix", "cpus"), ["parallel_tools"], "no metric 'cpus'; did you mean cpu"),
        (("bugfix", "cpu"), ["lazy_tools"], "bugfix cannot vary lazy_tools"),
    ],
)
def test_unknown_names(
    place: tuple[str, str],
    toggles: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "claims.toml"
    where = {"scenario": place[0], "metric": place[1]}
    file.write_text(toml(claim(places=[where], toggles=toggles)))
    assert main(["claims", "--file", str(file)]) == 2
    assert f"{file}:7: claims[0].places[0]: {message}" in capsys.readouterr().err


def shipped() -> ClaimsFile:
    return known_claims(claims_file())


def test_shipped_file_covers_the_guide() -> None:
    file = shipped()
    assert len(file.claims) >= 25
    assert {citation.section for item in file.claims for citation in item.said} >= {
        "Performance Improvements Summary",
        "Startup Time Improvements",
        "Memory Usage Improvements",
        "Runtime Performance",
        "Changelog",
    }


def test_suggested_commands_are_valid(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {command for result in judge(shipped().claims, {}) for command in result.commands}
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


def test_command_reports_each_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", *map(str, COMMITTED)]) == 0
    text = capsys.readouterr().out
    assert all(f"{item.id}: " in text for item in shipped().claims)
    assert max(map(len, text.splitlines())) <= 80
    assert main(["claims", "--json", *map(str, COMMITTED)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["claim"]["id"] for item in found] == [item.id for item in shipped().claims]
    assert {item["verdict"] for item in found} >= {"not measurable"}
    measured = [place for item in found for place in item["places"] if place["run"]]
    assert measured
    assert all(place["estimate"]["interval"] for place in measured)


def test_wrapped_command_can_be_copied() -> None:
    place = {"scenario": "bugfix", "metric": "cpu"}
    metrics = [place, place | {"metric": "wall"}, place | {"metric": "agent_rss"}]
    judged = judge(parse(toml(claim(places=metrics, toggles=["parallel_tools"]))).claims, {})
    shown = claims_text.text(judged, width=50)
    assert max(map(len, shown.splitlines())) <= 50
    command = shown.partition("  $ ")[2].split("\n\n")[0]
    assert command.count(" \\\n") == command.count("\n") > 1
    assert shlex.split(command.replace("\\\n", "")) == shlex.split(judged[0].commands[0])


def test_texts_of_a_file_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"section": PLANT, "words": PLANT}
    text = toml(claim(said=[words], note=PLANT) + claim(id="b", said=[words]))
    text += claim(id="c", said=[words], not_measurable=PLANT, claimed="", toggles="", places="")
    judged = judge(parse(text).claims, newest_measurements([Source(PLANT, run())]))
    shown = claims_text.text(judged)
    assert not ACTED_ON.search(shown)
    table = "\n".join(claims_text.markdown(judged, lambda evidence: "1"))
    assert not ACTED_ON.search(table)
    assert "<script>" not in table
    assert {line.count("|") for line in table.splitlines() if line.startswith("|")} == {5}


# -- own claims


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A claims file with a document."""
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
def test_unsupported_sentence_is_reported(
    own: Path, claimed: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(toml(own=own_claim("It is twice as fast", claimed)))
    path = own.with_name("run.json")
    write_run(path, honest(cells=cells("bugfix", ("parallel_tools",))))
    assert main(["claims", str(path), "--own", "--file", str(own)]) == code
    output = capsys.readouterr()
    assert f"{own.with_name('README.md')}:3: " in output.out
    assert (f"{own.with_name('README.md')}:3: 'It is twice as fast' is" in output.err) == bool(code)


def test_unmeasured_sentence_does_not_fail(
    own: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", str(run_file), "--own", "--file", str(own)]) == 0
    assert "1 claim: 1 not measured" in capsys.readouterr().out
    assert main(["claims", str(run_file), "--own", "--file", str(own), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["at"].endswith("README.md:4")


def test_missing_quote_is_reported(
    own: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(toml(own=own_claim("three times as fast", "3x faster")))
    assert main(["claims", str(run_file), "--own", "--file", str(own)]) == 2
    assert f"{own}:4: own[0].quote: 'three times as fast' is not in" in capsys.readouterr().err
    own.with_name("README.md").unlink()
    assert main(["claims", str(run_file), "--own", "--file", str(own)]) == 2
    assert "README.md" in capsys.readouterr().err


@given(st.lists(st.text("ab.*", min_size=1, max_size=5), min_size=1, max_size=6), st.integers(0, 5))
def test_quotes_span_lines(words: list[str], before: int) -> None:
    text = "\n" * before + "\n".join(words) + "\n"
    assert line_of_quote(text, " ".join(words)) == before + 1
    assert line_of_quote(text, "absent") is None


def test_committed_runs_support_own_claims(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["claims", "--own", "--json", *map(str, COMMITTED)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(load(claims_file()).own) > 0
    assert {item["verdict"] for item in found} == {"holds"}
