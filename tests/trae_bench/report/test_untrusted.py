"""Untrusted files: each gives a result or an error, and no output executes their texts."""

import copy
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from tests.trae_bench.runs import COMPARED, gate, honest
from trae_bench.cli import main
from trae_bench.cli.stored import EXPORTS
from trae_bench.design.contrasts import DESIGNS, NOISE_FLOOR
from trae_bench.errors import BadRunFile, BenchError
from trae_bench.model.presets import PROFILES
from trae_bench.model.run import RevisionId, RunFile
from trae_bench.model.sample import Sample
from trae_bench.report import escape
from trae_bench.report.export import FORMATS, export
from trae_bench.report.html import Source, page
from trae_bench.report.text import attribution, ci, explanation, markdown, terminal
from trae_bench.report.text import gate as gate_text
from trae_bench.report.text import run_diff as across_text
from trae_bench.report.text.junit import junit
from trae_bench.run.runner import Result, journal_of
from trae_bench.storage import journal as journal_
from trae_bench.storage import run_file as store
from trae_bench.storage.journal import Journal
from trae_bench.storage.seal import sealed
from trae_bench.storage.verify import origin, verify
from trae_bench.verdicts.run_diff import compare_runs

PLANT = "\x1b[31m\n::error::x\r##[error]\u202e<script>|`*_[a](b)@me\u2066\x9b\x07&#;,\"'%\u200b"
ACTED_ON = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
    r"|::error::|##\["
)
"""Text that a terminal or a CI runner would execute."""
MODES = "duet serial exact s plain"
SIDES = "A B lower higher"
STATES = "ok failed timeout garbage interrupted done budget error"
VERDICTS = ("regression", "improvement", "equivalent", "inconclusive", "not measured")
STANDINGS = ("gated", "too noisy", "sides differ")
WORDS_OF_THE_FORMAT = {
    "",  # such as the contrast that a cell confirms: with one, it has no rows
    store.FORMAT,
    NOISE_FLOOR,
    "wall",
    "2026-01-01T00:00:00+00:00",
    *f"{MODES} {SIDES} {STATES}".split(),
    *VERDICTS,
    *STANDINGS,
    *DESIGNS,
    *PROFILES,
}
"""Texts that the file format defines."""


@cache
def run() -> RunFile:
    return honest(toggles=("slower", "idle"), lost={("idle", 2): "differ", ("slower", 1): "crash"})


@cache
def document() -> Any:
    return json.loads(msgspec.json.encode(run()))


@cache
def of_revisions() -> RunFile:
    """A gate with confirmed regressions, a lost pair and a new scenario."""
    new = {"later": "no such toggle"}
    head = msgspec.structs.replace(COMPARED.head, modified=True)
    compared = msgspec.structs.replace(COMPARED, own_environments=True, head=head, new=new)
    return gate(1.1, revisions=compared, lost={("head", 3): "crash"})


@cache
def document_of_revisions() -> Any:
    return json.loads(msgspec.json.encode(of_revisions()))


DOCUMENTS = (document, document_of_revisions)


# -- planted texts


def planted(value: Any, plant: Callable[[str], str]) -> Any:
    """The document with `plant` applied to every text and every free name."""
    if isinstance(value, str):
        return value if value in WORDS_OF_THE_FORMAT else plant(value)
    if isinstance(value, list):
        return [planted(item, plant) for item in value]
    if isinstance(value, dict):
        return {
            (key if _is_field(key, value) else planted(key, plant)): planted(item, plant)
            for key, item in value.items()
        }
    return value


def _is_field(key: str, of: dict[str, Any]) -> bool:
    return key in _STRUCT_FIELDS and len(of.keys() & _STRUCT_FIELDS) == len(of)


def _fields_of(value: Any) -> set[str]:
    """The field names of all structs in a value."""
    found: set[str] = set()
    if isinstance(value, msgspec.Struct):
        found.update(value.__struct_fields__)
        for name in value.__struct_fields__:
            found |= _fields_of(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            found |= _fields_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            found |= _fields_of(item)
    return found


_STRUCT_FIELDS = _fields_of(honest(toggles=("idle",), pairs=2)) | _fields_of(of_revisions())


def shown(run: RunFile) -> dict[str, str]:
    """Every output of a run by its format."""
    found = {
        "terminal": "\n".join(in_terminal(run)),
        "markdown": markdown.comment(run),
        "junit": junit(run),
        "annotations": "\n".join(
            line.removeprefix("::error ").removeprefix("::warning ").replace("::", "", 1)
            for line in ci.annotations(run)
        ),
        "json": escape.for_json(msgspec.json.format(msgspec.json.encode(run)).decode()),
        "html": escape.for_html(" ".join(texts_of(run)), 10**6),
        "page": page([Source("run.json", run)]),
    }
    for format in FORMATS:
        found[format] = export(run, format)
        if format != "csv":
            found[f"{format}, read"] = "\n".join(texts_of(json.loads(found[format])))
    return found


def in_terminal(run: RunFile) -> list[str]:
    metrics, limits = run.header.metrics, run.header.limits
    return [
        terminal.table(run.comparisons, metrics, width=100),
        terminal.run_table(run, width=200),
        *(
            explanation.text(explanation.explain(run, key, limits))
            for key in explanation.rows(run)[:20]
        ),
        terminal.closing(run),
        *terminal.noise_lines(run),
        gate_text.sentence(run),
        *gate_text.details(run),
        attribution.text(attribution.of_run(run), metrics, width=100),
    ]


def texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return [text for item in (*value.keys(), *value.values()) for text in texts_of(item)]
    return [text for item in value for text in texts_of(item)] if isinstance(value, list) else []


def harmless(place: str, text: str) -> None:
    assert not ACTED_ON.search(text), (place, ACTED_ON.search(text))
    if place in ("markdown", "html", "junit"):
        assert "<script" not in text.lower()
    if place == "page":
        assert text.lower().count("<script") == 2
    if place == "markdown":
        assert not re.search(r"`|@me|\]\(", text)
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert {row.count("|") for row in rows} == {10}
    if place == "junit":
        ElementTree.fromstring(text)
    if place.endswith(", read"):
        assert not re.search(r"[|`<>#*&]", text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_text_planted_everywhere_is_escaped_in_every_output(document: Callable[[], Any]) -> None:
    made = planted(document(), lambda text: text[:40] + PLANT)
    found = msgspec.convert(made, RunFile)
    assert PLANT in found.header.command
    assert PLANT in found.comparisons[-1].pairs.reasons[0]
    assert PLANT in found.samples[-1].arm
    assert all(PLANT in name for name in found.header.metrics.keys() - {"wall"})
    for place, text in shown(found).items():
        harmless(place, text)
        assert "work" in text, place


def test_text_of_a_gate_is_planted() -> None:
    made = planted(document_of_revisions(), lambda text: text[:40] + PLANT)
    compared = msgspec.convert(made, RunFile).header.revisions
    assert compared is not None
    texts = texts_of(list(msgspec.structs.astuple(compared)))
    texts = [text for text in texts if text not in RevisionId.__struct_fields__]
    assert len(texts) == 7
    assert all(PLANT in text for text in texts)


@pytest.mark.slow
@given(text=st.text(max_size=60), document=st.sampled_from(DOCUMENTS))
@examples(40)
def test_any_planted_text_is_escaped_in_every_output(
    text: str, document: Callable[[], Any]
) -> None:
    plant = text.encode("utf-8", "replace").decode()
    made = planted(document(), lambda old: old[:40] + plant)
    found = msgspec.convert(made, RunFile)
    try:
        all_shown = shown(found)
    except BadRunFile as error:
        assert "two rows" in str(error)
        return
    for place, shown_text in all_shown.items():
        harmless(place, shown_text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_print_escaped_text(
    document: Callable[[], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(planted(document(), lambda text: text[:40] + PLANT)))
    commands = [
        ("verify", str(path)),
        ("verify", str(path), "--json"),
        ("report", str(path)),
        ("report", str(path), "--markdown", "-"),
        ("report", str(path), "--junit", "-"),
        ("report", str(path), "--html", "-"),
        *(("export", str(path), "--format", name) for name in FORMATS),
    ]
    for command in commands:
        code = main(command)
        out, err = capsys.readouterr()
        assert code in (0, 4), (command, err)
        assert out, command
        harmless(" ".join(command), out + err)
        for line in (out + err).splitlines():
            assert not line.lstrip().startswith("::"), command


def test_errors_escape_planted_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error message contains texts of the file."""
    path = tmp_path / "run.json"
    broken = copy.deepcopy(document())
    broken["header"]["cells"][0]["metrics"] = ["cpu" + PLANT]
    path.write_text(json.dumps(broken))
    for command in ("report", "verify"):
        assert main([command, str(path)]) == 4
        out, err = capsys.readouterr()
        assert "cpu" in out + err
        harmless(command, out + err)


# -- any structure


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(2**63)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7e308, -1.7e308, 1e-300, 0.1]),
    st.text(max_size=20),
    st.sampled_from(["", "A", "B", "serial", "duet", "A/A", "cpu", "x" * 300, "\ud800", "1e5"]),
    st.sampled_from([[], {}, [[]], [None], {"": None}, [1.0, 2.0]]),
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [path, *(node for key, item in items for node in nodes(item, (*path, key)))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stranger")


@cache
def small() -> Any:
    """A small document, so that a change of most nodes has an effect."""
    made = honest(toggles=("slower",), pairs=2, noise_pairs=2)
    return json.loads(msgspec.json.encode(made))


@cache
def small_of_revisions() -> Any:
    compared = of_revisions().header.revisions
    made = gate(1.5, revisions=compared, noise=0.001, pairs=8, noise_pairs=2)
    return json.loads(msgspec.json.encode(made))


@cache
def nodes_of(document: Callable[[], Any]) -> list[tuple[Any, ...]]:
    return nodes(document())[1:]


def change(made: Any, places: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """Replaces, removes or repeats one node, unless an earlier change removed it."""
    path = data.draw(st.sampled_from(places))
    kind = data.draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
    value = data.draw(ODD)
    with suppress(KeyError, IndexError, TypeError):
        part, last = at(made, path[:-1]), path[-1]
        if kind == "repeat" and isinstance(part, list):
            part.append(copy.deepcopy(part[last]))
        elif kind == "remove":
            del part[last]
        else:
            part[last] = value


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def make_every_output(path: Path) -> str:
    """Reads a file and makes every output. Returns "read", or "refused" for an invalid file."""
    try:
        found = store.read_run(path)
    except BadRunFile as error:
        assert str(path) in str(error)
        return "refused"
    verify(found)
    verify(sealed(found))
    origin(found)
    assert len(markdown.comment(found)) < markdown.MAX_COMMENT
    junit(found)
    ci.annotations(found)
    in_terminal(found)
    page([Source(path.name, found)])
    runs = run(), found
    across = compare_runs(*runs)
    across_text.text(across, runs)
    assert len(across_text.comment(across, runs)) < markdown.MAX_COMMENT
    assert Result(found, path, journal_of(path), None).claimed in (True, False)
    for format in FORMATS:
        try:
            export(found, format)
        except BenchError as error:
            assert error.exit_code == 4
    return "read"


@pytest.mark.slow
@given(data=st.data())
@examples(250)
def test_a_changed_structure_gives_a_result_or_an_error(folder: Path, data: st.DataObject) -> None:
    document = data.draw(st.sampled_from((small, small_of_revisions)))
    made = copy.deepcopy(document())
    for _ in range(data.draw(st.integers(1, 4))):
        change(made, nodes_of(document), data)
    path = folder / "run.json"
    path.write_text(json.dumps(made))
    make_every_output(path)


@pytest.mark.slow
@given(number=st.integers(0, 10**9), value=st.sampled_from([0.0, 5e-324, 1.7e308, -1.7e308, -1.0]))
@examples(100)
def test_extreme_values_give_a_result(folder: Path, number: int, value: float) -> None:
    """The files are valid; only one float is replaced, in all samples of a metric."""
    made = copy.deepcopy(small())
    # A rule does not allow all values; every other float is valid.
    figures = [
        path
        for path in nodes_of(small)
        if isinstance(at(made, path), float) and "rules" not in path
    ]
    chosen = figures[number % len(figures)]
    for path in figures:
        if path[-1] == chosen[-1] and (path[0] != "samples" or path[1] % 2):
            at(made, path[:-1])[path[-1]] = value
    path_of_file = folder / "run.json"
    path_of_file.write_text(json.dumps(made))
    assert make_every_output(path_of_file) == "read"


@given(data=st.data())
@examples(150)
def test_a_changed_journal_is_read_or_rejected(folder: Path, data: st.DataObject) -> None:
    lines = copy.deepcopy(journal_lines(folder))
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["replace", "remove", "repeat", "field", "tear"]))
        if kind == "replace":
            lines[number] = json.dumps(data.draw(ODD))
        elif kind == "remove" and len(lines) > 1:
            del lines[number]
        elif kind == "repeat":
            lines.append(lines[number])
        elif kind == "tear":
            lines[number] = lines[number][: data.draw(st.integers(0, 400))]
        elif lines[number].startswith('{"sample"') and lines[number].endswith("}}"):
            line = json.loads(lines[number])
            name = data.draw(st.sampled_from(sorted(Sample.__struct_fields__)))
            line["sample"][name] = data.draw(ODD)
            lines[number] = json.dumps(line)
    path = folder / "changed.jsonl"
    path.write_text("\n".join(lines) + "\n")
    try:
        contents = journal_.read_journal(path)
    except BadRunFile as error:
        assert str(path) in str(error)
        return
    assert len(contents.samples) <= len(lines)


@cache
def journal_lines(folder: Path) -> list[str]:
    path = folder / "whole.jsonl"
    made = honest(toggles=("slower",), pairs=1, noise_pairs=1)
    with Journal.create(path, made.header) as journal:
        for sample in made.samples:
            journal.append(sample)
    return path.read_text().splitlines()


# -- any size


def command(*args: str, megabytes: int = 1000) -> tuple[int, str, int]:
    """Runs a command with limited memory. Returns exit code, output and memory in kB."""
    code = (
        "import sys; from trae_bench.cli import main; code = main(sys.argv[1:]);"
        # Not ru_maxrss: a child inherits that of its parent.
        "status = open('/proc/self/status').read();"
        "print(status.split('VmHWM:')[1].split()[0]); sys.exit(code)"
    )
    limit = megabytes * 1024 * 1024

    def confine() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        preexec_fn=confine,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    *_, memory = done.stdout.split()
    return done.returncode, done.stdout + done.stderr, int(memory)


def test_a_file_of_sixty_megabytes_needs_bounded_memory(tmp_path: Path) -> None:
    """A valid file with as many samples as fit, each with a long reason."""
    made = honest(toggles=("idle",), pairs=2, noise_pairs=2)
    long = msgspec.structs.replace(made.samples[-1], problem="x" * 7900, status="failed")
    path = tmp_path / "run.json"
    head, tail = msgspec.json.encode(msgspec.structs.replace(made, samples=())).split(
        b'"samples":[]'
    )
    one = msgspec.json.encode(long)
    with path.open("wb") as file:
        file.write(head + b'"samples":[')
        file.write(b",\n".join([one] * (60_000_000 // len(one))))
        file.write(b"]" + tail)
    assert path.stat().st_size > 59_000_000
    code, output, memory = command("verify", str(path))
    assert code == 4
    assert "twice" in output
    assert memory < 600_000


@pytest.mark.parametrize("name", ["verify", "report"])
def test_a_file_of_two_hundred_megabytes_is_rejected_unread(tmp_path: Path, name: str) -> None:
    path = tmp_path / "run.json"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    code, output, memory = command(name, str(path), megabytes=500)
    assert code == 4
    assert "larger than" in output
    assert memory < 300_000


def test_the_command_offers_every_format() -> None:
    assert tuple(FORMATS) == EXPORTS
