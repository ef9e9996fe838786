"""Tests of renamed options, old metric names, `--quiet`, `--version`, schemas and completion."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.trae_bench.cli.test_cli import ScriptedBench, fine, wish
from trae_bench import __version__
from trae_bench.cli import cli, main
from trae_bench.errors import CannotMeasure
from trae_bench.model.aliases import OLD_METRIC_NAMES
from trae_bench.model.experiment import Trial
from trae_bench.run import runner, settings
from trae_bench.scenario import json_schema
from trae_bench.storage import run_file


@pytest.fixture
def stored(tiny: Path) -> Path:
    path = Path("stored.json")
    runner.start(wish(pairs=3), path, force=False, bench=ScriptedBench(fine))
    return path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("run tiny.toml --plan", "run tiny.toml --dry-run"),
        ("run tiny.toml --dry-run --only */wall", "run tiny.toml --dry-run --filter */wall"),
        ("run tiny.toml --dry-run --only=*/wall", "run tiny.toml --dry-run --filter=*/wall"),
        (
            "run tiny.toml --dry-run --repeat-until 0.02",
            "run tiny.toml --dry-run --precision 0.02",
        ),
        ("report stored.json --comment -", "report stored.json --markdown -"),
        (
            "compare stored.json stored.json --comment -",
            "compare stored.json stored.json --markdown -",
        ),
    ],
)
def test_old_option_names_work_and_print_one_warning(
    old: str, new: str, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(new.split())
    expected = capsys.readouterr()
    assert expected.err == "" or "no gated row" in expected.err
    assert main(old.split()) == code
    printed = capsys.readouterr()
    assert printed.out == expected.out
    old_name, new_name = (set(a.replace("=", " ").split()) for a in (old, new))
    (before,), (after,) = old_name - new_name, new_name - old_name
    assert printed.err == f"Warning: {before} is deprecated; use {after}.\n{expected.err}"


def test_run_accepts_the_old_name_of_markdown(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "Bench", lambda *_, **__: ScriptedBench(fine))
    assert main(["run", "tiny.toml", "--pairs", "3", "--comment", "c.md", "-o", "r.json"]) == 0
    assert Path("c.md").read_text().startswith("<!-- trae-bench report -->")
    assert "--comment is deprecated; use --markdown" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "report", "compare"])
def test_help_shows_no_old_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert not any(f"{old} " in shown for old in cli.commands[command].renamed)  # type: ignore[attr-defined]


def test_word_after_two_dashes_is_not_an_option(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--dry-run", "--", "--plan"]) == 2
    printed = capsys.readouterr().err
    assert "deprecated" not in printed
    assert "'--plan'" in printed


@pytest.mark.parametrize("old", OLD_METRIC_NAMES)
def test_old_metric_names_are_accepted(
    old: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = OLD_METRIC_NAMES[old]
    assert main(["run", "tiny.toml", "--dry-run", "--json", "--metric", new]) == 0
    expected = capsys.readouterr().out
    assert main(["run", "tiny.toml", "--dry-run", "--json", "--metric", old]) == 0
    printed = capsys.readouterr()
    assert printed.out == expected
    assert printed.err == f"Warning: metric {old} is deprecated; use {new}.\n"
    options = ["--dry-run", "--json", "--metric", new, "--filter", f"tiny/*/{old}"]
    assert main(["run", "tiny.toml", *options]) == 0
    assert capsys.readouterr().out == expected


def test_quiet_prints_no_progress_and_no_hint(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ProgressBench(ScriptedBench):
        def __init__(self, say: object, listener: runner.Listener, **_: object) -> None:
            super().__init__(self.answer)
            self.listener, self.say = listener, say  # type: ignore[assignment]

        def answer(self, trial: Trial) -> Mapping[str, float]:
            if len(self.scripted.batches) > 4:
                raise CannotMeasure("the provider died")
            return fine(trial)

    monkeypatch.setattr(runner, "Bench", ProgressBench)
    options = ["run", "tiny.toml", "fan-out", "--toggle", "batched_trajectory"]
    assert main([*options, "-o", "loud.json"]) == 4
    loud = capsys.readouterr()
    assert "open: tiny" in loud.err
    assert "left out: fan-out" in loud.err
    assert "Resume with" in loud.out
    assert main([*options, "-o", "quiet.json", "--quiet"]) == 4
    quiet = capsys.readouterr()
    assert quiet.err == "Error: the provider died\n"
    assert "Run file: quiet.json" in quiet.out
    assert "Resume with" not in quiet.out


def test_version_prints_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"trae-bench {__version__}")
    for fact in (platform.python_version(), platform.platform(), "click ", "httpx ", "msgspec "):
        assert fact in printed


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("scenario", json_schema), ("run", run_file.schema), ("settings", settings.schema)],
)
def test_schema_prints_the_schema(
    kind: str, expected: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(expected)
    assert main(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(expected()))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run bug", "bugfix"),
        ("run --toggle parallel", "parallel_tools"),
        ("run --metric step_overhead_g", "step_overhead_growth"),
        ("run --dry", "--dry-run"),
        ("explain", ""),
        ("plot --metric peak_r", "peak_rss"),
    ],
)
def test_shell_completes_names(words: str, expected: str, tmp_path: Path) -> None:
    variables = {
        "_TRAE_BENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": f"trae-bench {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    script = "import sys; from trae_bench.cli import main; sys.exit(main())"
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | variables | {"PYTHONPATH": root},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    if expected:
        assert done.stdout == f"plain,{expected}\n"
    assert not done.stderr
