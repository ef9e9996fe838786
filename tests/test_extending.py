"""The examples of docs/extending.md work."""

import re
from pathlib import Path

from tests.trae_bench.test_metrics import session, usage
from trae_bench import metrics
from trae_bench.metrics import METRICS, Observation
from trae_bench.model.experiment import Metric
from trae_bench.scenario import check, load
from trae_bench.subject.agent_core import toggles

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(section: str, language: str) -> list[str]:
    """Return the code blocks of one language under a heading."""
    (text,) = [part for part in PAGE.split("\n## ") if part.startswith(f"{section}\n")]
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


def test_the_scenario_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("A scenario", "toml")
    path = tmp_path / "checks.toml"
    path.write_text(text)
    scenario = load(path)
    check(scenario, toggles=toggles(), metrics=METRICS, source=path)
    assert scenario.oracle.final_text == scenario.turns[-1].text


def test_the_lines_of_the_toggle_match_agent_core() -> None:
    modules = ("toggles.py", "build.py")
    for line, module in zip(blocks("A toggle", "python"), modules, strict=True):
        assert line.strip() in (ROOT / "agent_core" / module).read_text(encoding="utf-8")


def test_every_mentioned_file_and_class_exists() -> None:
    files = re.findall(r"`((?:agent_core|trae_bench|tests)/[\w./]+)`", PAGE)
    assert files
    assert [name for name in files if not (ROOT / name).exists()] == []
    shell = (ROOT / "agent_core" / "shell.py").read_text(encoding="utf-8")
    assert "class PollingShell" in shell
    assert "class EventShell" in shell


def test_the_metric_computes_its_value() -> None:
    (code,) = blocks("A metric", "python")
    names = dict(vars(metrics))
    exec(code, names)
    metric, measure = names["_METERS"].pop("longest_reply")
    assert isinstance(metric, Metric)
    assert (metric.name, metric.mode, metric.better) == ("longest_reply", "serial", "lower")
    log = session((101.0, 103.0), (104.0, 104.5))
    assert measure(Observation.of(usage(), [log], None, None)) == 2.0
    assert measure(Observation.of(usage(), [], None, None)) is None
