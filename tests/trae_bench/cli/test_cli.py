"""Tests of the command line: imports, usage errors, runs, interrupts and exit codes."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.signals import needs
from tests.trae_bench.fakes import TINY, ScriptedExecutor, sample
from trae_bench._util import code_version
from trae_bench.cli import cli, main
from trae_bench.cli.run import DESIGNS, PROFILES
from trae_bench.design import contrasts
from trae_bench.design.contrasts import NOISE_FLOOR
from trae_bench.errors import AnswersDiffer, BadRunFile, CannotMeasure, UsageError
from trae_bench.execution.host_lock import HostLock
from trae_bench.execution.ports import Executor
from trae_bench.model import presets
from trae_bench.model.experiment import Trial
from trae_bench.model.run import ScenarioUsed
from trae_bench.model.sample import Sample
from trae_bench.report.text import markdown
from trae_bench.run import runner
from trae_bench.run.runner import Bench, RunRequest
from trae_bench.scenario import Scenario
from trae_bench.storage import journal as journal_
from trae_bench.storage import run_file as store
from trae_bench.storage import seal

ROOT = Path(__file__).resolve().parents[3]

# -- light imports


def imported_modules(*args: str) -> set[str]:
    """Return the modules that a command imports in a new interpreter."""
    script = (
        "import sys\nfrom trae_bench.cli import main\n"
        f"code = main({list(args)!r})\n"
        "print('\\n' + ' '.join(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


SLOW_MODULES = {
    "asyncio",
    "httpx",
    "httpcore",
    "matplotlib",
    "multiprocessing",
    "numpy",
    "psutil",
    "respx",
    "ssl",
    "trae_bench.execution.subprocess_executor",
    "trae_bench.run.runner",
    "trae_bench.stats.decision",
}


def slow_modules(modules: set[str]) -> set[str]:
    agent_modules = {
        name
        for name in modules
        if name.startswith("agent_core.") and name not in ("agent_core.toggles",)
    }
    return (modules & SLOW_MODULES) | agent_modules


@pytest.mark.parametrize("args", [("--help",), ("run", "--help")])
def test_help_imports_few_modules(args: tuple[str, ...]) -> None:
    modules = imported_modules(*args)
    assert not slow_modules(modules)
    assert "msgspec" not in modules
    assert len(modules) < 170


def test_version_imports_no_slow_module() -> None:
    assert not slow_modules(imported_modules("--version"))


@pytest.mark.parametrize("what", [("scenarios",), ("toggles",), ("metrics",), ()])
def test_list_imports_few_modules(what: tuple[str, ...]) -> None:
    modules = imported_modules("list", *what)
    assert not slow_modules(modules)
    assert len(modules) < 230


# -- lists and usage errors


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"bugfix", "fan-out"} <= found["scenarios"].keys()
    assert "parallel_tools" in found["toggles"]
    assert "cpu" in found["metrics"]
    assert main(["list", "toggles", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["toggles"]


def test_list_shows_the_profiles_of_a_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "scenarios"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("[smoke, quick, full]") == 2
    of_full = presets.PROFILES["full"].scenarios
    assert shown.count("full]") == len(of_full)
    assert main(["list", "scenarios", "--json"]) == 0
    assert not any("full]" in about for about in json.loads(capsys.readouterr().out).values())


def test_list_fits_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["run", "bugfx"], ["'bugfx'", "bugfix"]),
        (["run", "none.toml"], ["none.toml"]),
        (["run", "--toggle", "paralel_tools"], ["'paralel_tools'; did you mean parallel_tools?"]),
        (["run", "--metric", "cpuu"], ["'cpuu'", "cpu"]),
        (["run", "--metric", "zzz"], ["'zzz'", "known: ", "peak_rss"]),
        (["run", "--bugdet", "3"], ["--bugdet", "--budget"]),
        (["run", "--profile", "slow"], ["'slow'", "quick"]),
        (["run", "--budget", "nan"], ["nan"]),
        (["run", "tiny", "--trust"], ["--trust needs --resume"]),
        (["run", "--budget", "abc"], ["'abc' is not a number; write one such as 60."]),
        (["run", "--precision", "2%"], ["'2%' is not a number; write one such as 0.02."]),
        (["run", "--pairs", "1.5"], ["'1.5' is not a whole number; write one such as 8."]),
        (["run", "--seed", "a"], ["'a' is not a whole number"]),
        (["run", "--budget", "-1"], ["-1"]),
        (["run", "--precision", "nan"], ["nan"]),
        (["run", "--pairs", "0"], ["0"]),
        (["run", "tiny.toml", "./tiny.toml"], ["'tiny'", "twice, as tiny.toml and as ./tiny.toml"]),
        (["run", "--toggle", "config_cache"], ["nothing to compare", "parallel_tools"]),
        (["run", "tiny.toml", "--out", "r.txt"], ["r.txt", ".json"]),
        (["run", "--resume", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (
            ["run", "--toggle", "config_cache", "--resume", "tiny.toml"],
            [
                "--toggle cannot be combined with --resume, only --budget, --strict, --out, "
                "--trust, --json, --quiet, --keep-scratch, --markdown, --junit can"
            ],
        ),
        (["rnu"], ["'rnu'", "run"]),
        (["list", "toggels"], ["'toggels'", "toggles"]),
        (["doctor", "--pairs", "x"], ["x"]),
        (["doctor", "--pairs", "8", "--quick"], ["--quick", "--pairs"]),
        (["run", "tiny.toml", "--profile", "smoke", "--strict"], ["--strict", "smoke"]),
        (["run", "tiny.toml", "--profile=smoke", "--strict", "--dry-run"], ["--strict", "smoke"]),
        (["run", "tiny"], ["'tiny'", "did you mean tiny.toml?"]),
    ],
)
def test_usage_errors_exit_with_2_and_a_remedy(
    args: list[str], expected: list[str], capsys: pytest.CaptureFixture[str], tiny: Path
) -> None:
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for words in expected:
        assert words in captured.err
    assert not list(tiny.parent.glob("trae-bench-results/*"))


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Examples:" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_toml_error_names_file_and_line(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_text("name = [")
    assert main(["run", "tiny.toml"]) == 2
    assert "tiny.toml:1:" in capsys.readouterr().err


def test_unknown_toggle_in_a_scenario_is_reported_with_its_line(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(TINY.replace("batched_trajectory", "batched_trajectories"))
    assert main(["run", "tiny.toml"]) == 2
    error = capsys.readouterr().err
    assert "tiny.toml:8" in error
    assert "batched_trajectory" in error


def test_dry_run_prints_the_plan_and_runs_nothing(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "tiny.toml", "--dry-run", "--budget", "90"]) == 0
    shown = capsys.readouterr().out
    assert "A/A" in shown
    assert "61" in shown
    assert "Time limit: 1:30 minutes" in shown
    assert main(["run", "tiny.toml", "--dry-run", "--json", "--pairs", "3"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["pairs"] == 16
    assert [cell["mode"] for cell in plan["cells"]] == ["duet", "serial"] * 2
    assert [path.name for path in tiny.parent.iterdir()] == ["tiny.toml"]


def test_dry_run_prints_the_stopping_rule(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, expected in (
        (["--pairs", "60"], "fewer if verdicts come early."),
        (["--precision", "0.02"], "fewer if the intervals are narrow enough earlier."),
        (["--design", "fraction"], "the number is fixed."),
        (["--pairs", "61"], "Each comparison takes at most 60 counted pairs"),
    ):
        assert main(["run", "tiny.toml", "--dry-run", *options]) == 0
        shown = capsys.readouterr().out
        assert expected in shown
        assert ("--pairs is higher" in shown) == ("61" in options)


def test_metric_option_replaces_the_metrics_of_a_scenario(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "run",
        "tiny.toml",
        "--dry-run",
        "--json",
        "--metric",
        "requests",
        "--metric",
        "requests",
    ]
    assert main(args) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["metrics"] for cell in cells] == [["requests"]] * 2


# -- a run on a scripted executor


class ScriptedBench(Bench):
    """A bench without processes. `answer` returns the result of each trial."""

    def __init__(self, answer: Any) -> None:
        self.messages: list[str] = []
        super().__init__(self.messages.append)
        self.scripted = ScriptedExecutor(answer)

    @contextmanager
    def executor(
        self, scenarios: Mapping[str, Scenario], keep: Path | None = None
    ) -> Iterator[Executor]:
        yield self.scripted


def fine(trial: Trial) -> Mapping[str, float]:
    faster = trial.side == "B" and trial.contrast != NOISE_FLOOR
    return {"cpu": 0.5 if faster else 1.0, "wall": 1.0}


def failing(trial: Trial) -> Sample:
    return sample(
        trial.side,
        trial.pair,
        contrast=trial.contrast,
        mode=trial.mode,
        scenario=trial.scenario,
        status="failed",
        problem="exit status 1",
    )


def differing(trial: Trial) -> Sample:
    return msgspec.structs.replace(failing(trial), status="ok", transcript=trial.side)


def wish(**changes: Any) -> RunRequest:
    plain = RunRequest(command="trae-bench run", scenarios=("tiny.toml",), seed=1)
    return msgspec.structs.replace(plain, **changes)


def test_journal_and_run_file_hold_the_same_samples(tiny: Path) -> None:
    out = tiny.parent / "new" / "r.json"
    result = runner.start(wish(pairs=3), out, force=False, bench=ScriptedBench(fine))

    assert result.error is None
    written = store.read_run(out)
    assert written == result.run
    assert written.samples == journal_.read_journal(result.journal).samples
    assert len(written.samples) == 4 * 4 * 2
    assert written.header.seed == 1
    assert written.header.scenarios["tiny"].requested == "tiny.toml"
    jsonschema.validate(json.loads(out.read_text()), store.schema())


def biased(trial: Trial) -> Mapping[str, float]:
    """Return values that differ by 20 % in all pairs, including A/A pairs."""
    return {"cpu": 1.2 if trial.side == "B" else 1.0, "wall": 1.0}


def test_biased_aa_pairs_exit_with_4(tiny: Path) -> None:
    result = runner.start(wish(), Path("r.json"), force=False, bench=ScriptedBench(biased))
    assert isinstance(result.error, CannotMeasure)
    assert result.error.exit_code == 4
    assert "cpu: in 8 A/A pairs B is +20.0 % off A" in str(result.error)
    verdicts = {
        row.metric: row.judgement.verdict for row in store.read_run(Path("r.json")).comparisons
    }
    assert verdicts["cpu"] == "not measured"


# -- file names and output


def test_file_names_with_invalid_utf8_or_control_characters(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = ScriptedBench(fine)
    run = runner.start(wish(pairs=3), Path("r.json"), force=False, bench=bench).run
    for name in (os.fsdecode(b"\xff.json"), "\x1b[31m::error::.json"):
        store.write_run(Path(name), run)
        main(["verify", "--json", name])
        assert list(json.loads(capsys.readouterr().out)) == [name]
        store.write_run(Path("baselines/here", name), run, force=True)
        assert main(["baseline", "show", "--folder", ".", "--json"]) == 0
        (kept,) = json.loads(capsys.readouterr().out)["baselines"]
        assert kept["path"] == f"baselines/here/{name}"
        Path("baselines/here", name).unlink()
        assert main(["report", name]) == 0
        assert main(["plot", name, "--out", f"{name}.svg"]) == 0
        printed = capsys.readouterr().out
        assert "\x1b" not in printed
        assert "::error::" not in printed


def test_command_line_with_invalid_utf8_is_stored(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "Bench", lambda *_, **__: ScriptedBench(fine))
    name = os.fsdecode(b"\xff.json")
    assert main(["run", "tiny.toml", "--pairs", "3", "--json", "--out", name]) == 0
    assert json.loads(capsys.readouterr().out)["run_file"] == name
    assert store.read_run(Path(name)).header.command.endswith("'\\udcff.json'")


def test_report_on_stdout_is_the_only_output_there(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "Bench", lambda *_, **__: ScriptedBench(fine))
    assert main(["run", "tiny.toml", "--pairs", "3", "--out", "r.json", "--markdown", "-"]) == 0
    out, err = capsys.readouterr()
    assert out == markdown.comment(store.read_run(Path("r.json")))
    assert "Run file: r.json" in err


# -- designs


@pytest.fixture
def two(tiny: Path) -> Path:
    path = tiny.with_name("two.toml")
    toggles = '["batched_trajectory", "parallel_tools"]'
    text = TINY.replace('"tiny"', '"two"').replace('["batched_trajectory"]', toggles)
    path.write_text(text)
    return path


def of_two(trial: Trial) -> Mapping[str, float]:
    """Each toggle alone saves 20 % of CPU time; both together save no more."""
    cpu = 0.8 if any(trial.arm.toggles.values()) else 1.0
    return {"cpu": cpu, "wall": 1.0 + 0.001 * (trial.pair % 3) * (trial.side == "B")}


def test_designs_and_profiles_match_the_model() -> None:
    assert tuple(contrasts.DESIGNS) == DESIGNS
    assert tuple(presets.PROFILES) == PROFILES


def test_factorial_run_has_a_fixed_number_of_pairs(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factorial = wish(scenarios=("two.toml",), design="factorial")
    result = runner.start(factorial, Path("r.json"), force=False, bench=ScriptedBench(of_two))
    assert result.error is None
    assert result.run.header.design == "factorial"
    assert {row.pairs.measured for row in result.run.comparisons} == {8}
    assert {cell.contrast.name for cell in result.run.header.cells} == {
        NOISE_FLOOR,
        "batched_trajectory",
        "parallel_tools",
        "batched_trajectory+parallel_tools",
    }
    assert main(["effects", "r.json"]) == 0
    printed = capsys.readouterr().out
    assert "two / cpu  (8 pairs per contrast; lower is better; counts from 2 %)" in printed
    assert "gives -20.0 % [-20.0 -20.0] with parallel_tools off" in " ".join(printed.split())
    assert "the toggles give less together than each alone" in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 80

    assert main(["effects", "r.json", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [effect["metric"] for effect in found["found"]] == ["cpu", "wall"]
    (interaction,) = found["found"][0]["interactions"]
    assert interaction["change"]["log_ratio"] == pytest.approx(-math.log(0.8))
    assert found["found"][0]["whole"]["measured"]["log_ratio"] == pytest.approx(math.log(0.8))


def test_a_comparison_with_a_stored_run_takes_its_thresholds(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The working tree must not set its own pass mark."""
    runner.start(wish(pairs=3), Path("stored.json"), force=False, bench=ScriptedBench(fine))
    Path("pyproject.toml").write_text("[tool.trae-bench.thresholds]\ncpu = 0.5\npeak_rss = 0.5\n")
    assert main(["run", "tiny.toml", "--compare", "stored.json", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "[tool.trae-bench.thresholds] cpu from unset to 0.5; the base's value is used" in said
    # The stored run has no such metric.
    assert "peak_rss" not in said


@pytest.mark.parametrize("requested", ["tiny.toml", "/elsewhere/tiny.toml", "bugfix", "gone"])
def test_stored_run_cannot_choose_a_scenario_file(
    requested: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An oracle runs a command, so an untrusted run file could run any command."""
    result = runner.start(wish(pairs=3), Path("r.json"), force=False, bench=ScriptedBench(fine))
    used = {"tiny": ScenarioUsed(requested, "0" * 64, ("cpu",), (), {})}
    header = msgspec.structs.replace(result.run.header, scenarios=used)
    run = msgspec.structs.replace(result.run, header=header)
    store.write_run(Path("stored.json"), seal.sealed(run), force=True)
    assert main(["run", "--compare", "stored.json", "--dry-run"]) == 2
    assert f"'{requested}' does not ship" in capsys.readouterr().err
    assert main(["run", "tiny.toml", "--compare", "stored.json", "--dry-run"]) == 0
    # The check runs before the first pair.
    assert main(["run", "cli-help", "--compare", "stored.json"]) == 2
    assert "the stored run has tiny" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["--help", "-x", "--dry-run", "-"])
def test_base_that_looks_like_an_option_is_refused(
    value: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "tiny.toml", f"--compare={value}"]) == 2
    assert f"--compare={value}: a commit" in capsys.readouterr().err


def test_resumed_run_keeps_its_design(two: Path) -> None:
    factorial = wish(scenarios=("two.toml",), design="factorial", pairs=4)
    first = ScriptedBench(of_two)
    whole = runner.start(factorial, Path("r.json"), force=False, bench=first)
    lines = whole.journal.read_bytes().splitlines(keepends=True)
    whole.journal.write_bytes(b"".join(lines[:21]))
    result = runner.resume(whole.journal, wish(), None, bench=ScriptedBench(of_two))
    assert len(result.run.samples) == len(whole.run.samples)
    assert result.run.header.design == "factorial"


def test_precision_cannot_be_combined_with_a_fixed_design(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["run", "two.toml", "--design", "fraction", "--precision", "0.01"]
    assert main(args) == 2
    assert "--precision does not work with --design fraction" in capsys.readouterr().err
    assert main(["run", "two.toml", "--dry-run", "--precision", "0.01"]) == 0


def test_effects_of_an_invalid_run_file(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["effects", "tiny.toml"]) == 4
    assert "not a valid run file" in capsys.readouterr().err


def test_an_invalid_run_file_names_the_field(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run.json").write_text('{"format": "trae-bench-run", "header": {"version": "x"}}')
    assert main(["effects", "run.json"]) == 4
    said = capsys.readouterr().err
    assert "not a valid run file: header.version: Expected `int`, got `str`" in said


def test_default_run_file_is_in_the_results_folder(tiny: Path) -> None:
    result = runner.start(wish(pairs=1), None, force=False, bench=ScriptedBench(fine))
    assert result.run_file.parent == Path("trae-bench-results")
    assert result.run_file.name.endswith("-quick.json")
    assert result.run_file.exists()


def test_run_file_is_overwritten_only_with_force(tiny: Path) -> None:
    out = tiny.parent / "r.json"
    out.write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        runner.start(wish(pairs=1), out, force=False, bench=ScriptedBench(fine))
    assert out.read_text() == "mine"
    runner.start(wish(pairs=1), out, force=True, bench=ScriptedBench(fine))
    assert store.read_run(out).samples


def test_journal_is_overwritten_only_with_force(tiny: Path) -> None:
    runner.start(wish(pairs=1), Path("r.json"), force=False, bench=ScriptedBench(fine))
    Path("r.json").unlink()
    with pytest.raises(UsageError, match="--resume"):
        runner.start(wish(pairs=1), Path("r.json"), force=False, bench=ScriptedBench(fine))


def test_failed_trials_exit_with_4_and_different_answers_with_5(tiny: Path) -> None:
    out = Path("r.json")
    failed = runner.start(wish(), out, force=True, bench=ScriptedBench(failing))
    assert isinstance(failed.error, CannotMeasure)
    assert "exit status 1" in str(failed.error)
    assert failed.error.exit_code == 4
    differ = runner.start(wish(), out, force=True, bench=ScriptedBench(differing))
    assert isinstance(differ.error, AnswersDiffer)
    assert differ.error.exit_code == 5
    # The run file is written before the exit.
    assert store.read_run(out).comparisons[0].pairs.answers_differ == 2


def test_error_during_a_run_keeps_the_samples(tiny: Path) -> None:
    def answer(trial: Trial) -> Mapping[str, float]:
        if len(bench.scripted.batches) > 4:
            raise CannotMeasure("the provider died")
        return fine(trial)

    bench = ScriptedBench(answer)
    result = runner.start(wish(pairs=3), Path("r.json"), force=False, bench=bench)

    assert str(result.error) == "the provider died"
    assert store.read_run(Path("r.json")).stopped == "error"
    again = runner.resume(result.journal, wish(), None, bench=ScriptedBench(fine))
    assert again.run.stopped == "done"


def interrupted(tiny: Path, after: int) -> Path:
    """Return the journal of a run that was interrupted after that many batches."""

    def answer(trial: Trial) -> Mapping[str, float]:
        if len(bench.scripted.batches) > after:
            raise KeyboardInterrupt
        return fine(trial)

    bench = ScriptedBench(answer)
    result = runner.start(wish(pairs=3), Path("r.json"), force=False, bench=bench)
    assert result.run.stopped == "interrupted"
    assert result.error is None
    return result.journal


def test_only_an_interrupted_run_can_be_resumed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    for name in ("run", "doctor"):
        monkeypatch.setattr(cli.commands[name], "callback", interrupt)
        assert main([name]) == 130
        assert ("--resume" in capsys.readouterr().err) == (name == "run")


@pytest.mark.parametrize("after", range(0, 22, 3))
def test_resumed_run_is_complete(tiny: Path, after: int) -> None:
    journal = interrupted(tiny, after)
    bench = ScriptedBench(fine)
    result = runner.resume(journal, wish(), None, bench=bench)

    assert result.run.stopped == "done"
    assert result.run_file == Path("r.json")
    keys = [(s.contrast, s.mode, s.pair, s.side) for s in result.run.samples]
    assert len(keys) == len(set(keys)) == 4 * 4 * 2
    assert len(store.read_run(Path("r.json")).resumed) == 1


def test_run_of_a_changed_scenario_is_not_resumed(tiny: Path) -> None:
    journal = interrupted(tiny, 3)
    tiny.write_text(TINY.replace("Say that", "Whisper that"))
    before = journal.read_bytes()
    with pytest.raises(UsageError, match=r"'tiny' has changed.*start a new run"):
        runner.resume(journal, wish(), None, bench=ScriptedBench(fine))
    assert journal.read_bytes() == before


def test_run_from_another_machine_or_version_is_not_resumed(tiny: Path) -> None:
    journal = interrupted(tiny, 3)
    head, *rest = journal.read_text().splitlines(keepends=True)
    for kind, name in (("machine", "cpu"), ("code", "commit"), ("versions", "msgspec")):
        changed = json.loads(head)
        changed["header"][kind][name] = "another"
        journal.write_text(json.dumps(changed) + "\n" + "".join(rest))
        with pytest.raises(UsageError, match=f"{name} was 'another'"):
            runner.resume(journal, wish(), None, bench=ScriptedBench(fine))


def test_edited_working_tree_is_not_resumed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume compares a digest of the files. A journal of an earlier release has none."""
    journal = interrupted(tiny, 3)
    state = {**code_version.code_state(), "tree": "another"}
    with monkeypatch.context() as patch, pytest.raises(UsageError, match="files of agent_core"):
        patch.setattr(code_version, "code_state", lambda: state)
        runner.resume(journal, wish(), None, bench=ScriptedBench(fine))
    head, *rest = journal.read_text().splitlines(keepends=True)
    older = json.loads(head)
    del older["header"]["code"]["tree"]
    journal.write_text(json.dumps(older) + "\n" + "".join(rest))
    assert runner.resume(journal, wish(), None, bench=ScriptedBench(fine)).run.stopped == "done"


def test_edit_during_a_run_is_reported(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([{"tree": "before"}, {"tree": "after"}])
    monkeypatch.setattr(code_version, "code_state", lambda: next(states))
    bench = ScriptedBench(fine)
    sentences: list[str] = []
    bench.say = sentences.append
    runner.start(wish(pairs=1), Path("r.json"), force=False, bench=bench)
    assert any("changed during this run" in sentence for sentence in sentences)


def test_run_with_an_unknown_metric_is_not_resumed(tiny: Path) -> None:
    journal = interrupted(tiny, 3)
    head, *rest = journal.read_text().splitlines(keepends=True)
    journal.write_text(head.replace('"cpu"', '"heat"') + "".join(rest))
    with pytest.raises(UsageError, match="no metric 'heat'"):
        runner.resume(journal, wish(), None, bench=ScriptedBench(fine))


def test_resumed_run_does_not_overwrite_the_file_of_another_run(tiny: Path) -> None:
    journal = interrupted(tiny, 3)
    Path("r.json").write_text("{}")
    with pytest.raises(UsageError, match="of another run"):
        runner.resume(journal, wish(), None, bench=ScriptedBench(fine))


def test_run_out_of_budget_resumes_with_a_longer_budget(tiny: Path) -> None:
    short = wish(pairs=3, budget=1e-9)
    spent = runner.start(short, Path("r.json"), force=False, bench=ScriptedBench(fine))
    assert spent.run.stopped == "budget"
    assert spent.error is not None
    assert "give a longer --budget" in str(spent.error)
    more = runner.resume(spent.journal, wish(budget=1e9), None, bench=ScriptedBench(fine))
    assert more.run.stopped == "done"
    assert more.run.header.limits.budget == 1e9


def test_scenario_that_does_not_exercise_the_toggle_is_omitted(tiny: Path) -> None:
    bench = ScriptedBench(fine)
    request = wish(scenarios=("tiny.toml", "fan-out"), toggles=("batched_trajectory",), pairs=1)
    result = runner.start(request, Path("r.json"), force=False, bench=bench)
    assert result.run.header.scenarios.keys() == {"tiny"}
    (message,) = bench.messages
    assert message.startswith("left out: fan-out does not exercise batched_trajectory, only ")


def test_resume_refuses_a_file_that_is_not_a_journal(tiny: Path) -> None:
    with pytest.raises(BadRunFile, match=r"tiny\.toml:1"):
        runner.resume(tiny, wish(), None, bench=ScriptedBench(fine))


# -- the lock


def test_second_run_waits_and_then_fails(tmp_path: Path) -> None:
    messages: list[str] = []
    place = tmp_path / "lock"
    with HostLock(messages.append, place=place):
        second = HostLock(messages.append, place=place, timeout=0.0)
        with pytest.raises(CannotMeasure, match=f"process {os.getpid()}"), second:
            pass
    assert len(messages) == 1
    assert "waiting" in messages[0]
    with HostLock(messages.append, place=place):
        assert len(messages) == 1


def test_lock_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for place in (tmp_path, link):
        with pytest.raises(CannotMeasure, match="remove"), HostLock(print, place=place):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_lock_that_cannot_be_created_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    place = tmp_path / "nowhere" / "lock"
    remedy = "No such file or directory; name another file with TRAE_BENCH_LOCK"
    with pytest.raises(CannotMeasure, match=remedy), HostLock(print, place=place):
        pass


def test_lock_on_a_full_disk_still_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    place = tmp_path / "lock"
    monkeypatch.setattr(os, "write", full)
    with HostLock(print, place=place):
        second = HostLock(lambda text: None, place=place, timeout=0.0)
        with (
            pytest.raises(CannotMeasure, match=r"another trae-bench( \(process \d+\))? is still"),
            second,
        ):
            pass


# -- real runs in new processes


def bench_process(*args: str, cwd: Path | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "trae_bench", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=cwd,
        text=True,
    )


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def children_of(pid: int) -> list[int]:
    """Return all descendant processes, from /proc."""
    try:
        direct = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return direct + [pid for child in direct for pid in children_of(child)]


def have_exited(pids: list[int], timeout: float = 10.0) -> bool:
    """Wait until all processes have exited. Return False after `timeout` seconds."""
    end = time.monotonic() + timeout
    while any(Path(f"/proc/{pid}/cmdline").exists() and is_alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_run_can_be_resumed(tiny: Path, number: signal.Signals) -> None:
    needs(number)
    journal = Path("r.journal.jsonl")
    options = ("run", "tiny.toml", "--metric", "wall", "--pairs", "1", "--out", "r.json")
    with bench_process(*options) as process:
        while lines_of(journal) < 2 and process.poll() is None:
            time.sleep(0.02)
        children = children_of(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)

    assert children
    assert have_exited(children)
    assert "Traceback" not in err
    if number == signal.SIGKILL:
        assert not Path("r.json").exists()
    else:
        assert process.returncode == 130, err
        assert "interrupted" in out
        assert "--resume r.journal.jsonl" in out
        assert store.read_run(Path("r.json")).stopped == "interrupted"

    reported = journal_.read_journal(journal).samples
    away = tiny.parent / "away"
    away.mkdir()
    with bench_process("run", "--resume", str(journal.resolve()), cwd=away) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "resume from there" in err
    with bench_process("run", "--resume", str(journal), "--json") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    run = store.read_run(Path("r.json"))
    assert json.loads(out)["stopped"] == run.stopped == "done"
    assert run.samples[: len(reported)] == reported
    assert len({(s.contrast, s.pair, s.side) for s in run.samples}) == len(run.samples) == 8


@pytest.mark.parametrize(
    ("redirected", "code"),
    [
        ("list toggles >/dev/full", 4),
        ("verify --json {good} >/dev/full", 4),
        ("list toggles >&-", 0),
        ("report {bad} 2>&-", 4),
        ("report {bad} 2>/dev/full", 4),
        ("report {bad} >/dev/full 2>&1", 4),
        ("run nosuch 2>/dev/full", 2),
    ],
)
def test_unwritable_stream_does_not_exit_with_1(redirected: str, code: int, tmp_path: Path) -> None:
    """Exit code 1 means a regression."""
    (tmp_path / "bad.json").write_text("{")
    good = shlex.quote(str(ROOT / "results/quick.json"))
    command = redirected.format(good=good, bad=tmp_path / "bad.json")
    shell = subprocess.run(
        ["sh", "-c", f"{shlex.quote(sys.executable)} -m trae_bench {command}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # With unbuffered streams, Python has nothing to flush at exit.
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
        check=False,
    )
    assert shell.returncode == code
    assert "Traceback" not in shell.stderr


def test_unexpected_error_exits_with_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("unexpected \x1b[31m")

    monkeypatch.setattr(store, "read_run", broken)
    assert main(["effects", str(ROOT / "results/quick.json")]) == 4
    err = capsys.readouterr().err
    assert "a bug in trae-bench" in err
    assert "RuntimeError: unexpected" in err
    assert "\x1b" not in err


def test_signal_before_the_command_exits_with_130(tiny: Path) -> None:
    signal_itself = (
        "import os, signal, sys; from trae_bench.cli import main, cli; "
        "cli.commands['list'].callback = lambda **_: os.kill(os.getpid(), signal.SIGTERM); "
        "sys.exit(main(['list', 'toggles']))"
    )
    ended = subprocess.run([sys.executable, "-c", signal_itself], capture_output=True, check=False)
    assert ended.returncode == 130


def test_closed_output_pipe_prints_no_traceback(tiny: Path) -> None:
    with bench_process("list") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    assert process.returncode == 130
