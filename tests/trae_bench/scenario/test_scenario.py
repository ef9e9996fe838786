"""Scenario files: valid files load, and invalid ones get an error with line and remedy."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.properties import examples
from trae_bench._util.toml_positions import Places, line_in, places
from trae_bench.errors import ScenarioError, UsageError
from trae_bench.run.planner import digest
from trae_bench.scenario import (
    Scenario,
    catalog,
    catalogue,
    check,
    find,
    json_schema,
    load,
    parse,
)
from trae_bench.scenario.diagnostics import MAX_DIAGNOSTICS

GOOD = """\
name = "two-words"
about = "shows nothing"
task = "do it"
metrics = ["cpu", "wall"]

[toggles]
vary = ["parallel_tools"]
hold = { event_shell = true }

[provider]
protocol = "gemini"

[[turns]]
text = "first"
repeat = 2
calls = [
  { tool = "bash", arguments = { command = "ls" } },
]

[[turns]]
calls = [{ tool = "task_done" }]

[[normalise]]
pattern = 'in ([0-9.]+)s'
replace = '\\1'

[workspace.files]
"a/b.txt" = "text"
"""
GOOD_DIGEST = "8b27bf1df35c942792efdd27c8afd803b89c8b54e63f5a571e1002f86dfeb947"


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} must occur once"
    return GOOD.replace(old, new)


def error_of(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text, "s.toml")
    return str(caught.value)


def test_sub_agents_need_turns_and_an_agent() -> None:
    without = GOOD + '[[sub_agents]]\nprompt = "Look."\nturns = [{ text = "x" }]\n'
    assert "sub_agents[0]: only a recorded session has them" in error_of(without)
    empty = GOOD + '[[sub_agents]]\nprompt = "Look."\nturns = []\n'
    assert "sub_agents[0].turns: no turns; add one for each reply" in error_of(empty)


def test_a_good_file() -> None:
    scenario = parse(GOOD)
    assert scenario.turns[0].calls[0].arguments == {"command": "ls"}
    assert scenario.toggles.hold == {"event_shell": True}
    assert scenario.provider.protocol == "gemini"
    assert scenario.provider.think_seconds == 0


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_shipped_scenarios_load(name: str) -> None:
    scenario = load(find(name))
    assert scenario.name == name
    # The steps of agent-steps leave nothing; a trial must play them all.
    works = scenario.subject.has_session and name != "agent-steps"
    assert scenario.oracle.command or scenario.oracle.files or not works
    assert "cannot" in scenario.about or "only" in scenario.about


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("a = [1,", "1:8", "a value"),
        ("a = [1", "1:7", "`]`"),
        ("a = 1\nb = \n", "2:5", "a value"),
        ("a = 1\n\nc\n", "3:2", "Expected '='"),
        ('a = "open\n', "1:10", "the closing quotes"),
        ("a = 1\na = 2\n", "2:6", "a new key"),
        ("= 1", "1:1", "`key = value`"),
        ("[table\n", "1:7", "Expected ']'"),
    ],
)
def test_broken_toml_names_line_and_column(text: str, place: str, expected: str) -> None:
    message = error_of(text)
    assert message.startswith(f"s.toml:{place}: ")
    assert expected in message


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 9000])
def test_toml_beyond_the_limits_of_python(text: str) -> None:
    assert error_of(text).startswith("s.toml: not readable as TOML: ")


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "remedy"),
    [
        ('tool = "bash"', 'tol = "bash"', 17, "turns[0].calls[0].tol", "did you mean tool?"),
        (
            'tool = "bash"',
            "tool = 3",
            17,
            "turns[0].calls[0].tool",
            'a string ("..."), got a whole',
        ),
        ('protocol = "gemini"', 'protocol = "gemni"', 11, "provider.protocol", "mean gemini?"),
        ('text = "first"', 'txt = "first"', 14, "turns[0].txt", "did you mean text?"),
        ("repeat = 2", "repeat = 0", 15, "turns[0].repeat", ">= 1"),
        ('vary = ["parallel_tools"]', "", 6, "toggles", "`vary` is missing; add"),
        ('name = "two-words"\n', "", 1, "", "`name` is missing"),
        ('"two-words"', '"Two Words"', 1, "name", "lower-case"),
        ('"two-words"', '"two\\n"', 1, "name", "lower-case"),
        ('["cpu", "wall"]', '"cpu"', 4, "metrics", "an array ([...]), got a string"),
        ('["cpu", "wall"]', "[]", 4, "metrics", "name at least one"),
        ('["cpu", "wall"]', '["cpu", "cpu"]', 4, "metrics", "'cpu' is listed twice"),
        ("{ event_shell = true }", '{ event_shell = "yes" }', 8, "toggles.hold", "true or false"),
        ("event_shell = true", "parallel_tools = true", 8, "toggles.hold.parallel_tools", "held"),
        ('protocol = "gemini"', "think_seconds = nan", 11, "provider.think_seconds", ">= 0"),
        ('protocol = "gemini"', "think_seconds = -1", 11, "provider.think_seconds", ">= 0"),
        ('{ tool = "task_done" }', "", 20, "turns[1]", "an empty turn"),
        ("[workspace.files]", "[oracle]\n[workspace.files]", 27, "oracle", "checks nothing"),
        (
            "[workspace.files]",
            '[oracle]\nfinal_text = ""\n[workspace.files]',
            27,
            "oracle",
            "checks nothing",
        ),
        (
            "[workspace.files]",
            '[oracle]\nfinal_text = "first"\n[workspace.files]',
            28,
            "oracle.final_text",
            "the last turn does not contain 'first'",
        ),
        ("[[normalise]]", "[[normalize]]", 23, "normalize", "did you mean normalise"),
        ("[workspace.files]", "[workspce.files]", 27, "workspce", "did you mean workspace"),
        ("'in ([0-9.]+)s'", "'in ([0-9.]+s'", 24, "normalise[0].pattern", "unterminated"),
        ("'in ([0-9.]+)s'", "'[[a]'", 24, "normalise[0].pattern", "nested set"),
        ("'\\1'", "'\\2'", 25, "normalise[0].replace", "invalid group"),
        ('"a/b.txt" = ', '"../b.txt" = ', 28, "workspace.files.../b.txt", "inside the workspace"),
        ('"a/b.txt" = ', '"/b.txt" = ', 28, "workspace.files./b.txt", "inside the workspace"),
        ('"a/b.txt" = ', '"a//b.txt" = ', 28, "workspace.files.a//b.txt", "write 'a/b.txt'"),
        ('"a/b.txt" = ', '"a" = ""\n"a/b.txt" = ', 28, "workspace.files.a", "rename one"),
        ('"ls"', "1979-05-27", 17, "turns[0].calls[0].arguments.command", "no JSON form"),
        ('"ls"', "[1, inf]", 17, "turns[0].calls[0].arguments.command[1]", "no JSON form"),
        ('"ls"', "9223372036854775808", 17, "turns[0].calls[0].arguments.command", "no JSON"),
    ],
)
def test_invalid_content_names_line_path_and_remedy(
    old: str, new: str, line: int, path: str, remedy: str
) -> None:
    message = error_of(edited(old, new))
    assert message.startswith(f"s.toml:{line}: {path + ': ' if path else ''}"), message
    assert remedy in message


def test_no_turns() -> None:
    text = re.sub(r"\[\[turns\]\]\n(?:.+\n)+", "", GOOD)
    assert "`turns` is missing" in error_of(text)
    assert "turns: no turns; add [[turns]]" in error_of("turns = []\n" + text)


def test_a_session_that_ends_before_its_last_turn() -> None:
    message = error_of(edited('tool = "bash"', 'tool = "task_done"'))
    assert "turns[0]: task_done ends the session here" in message
    assert "remove `repeat`" in message, "every error is listed, not only the first"
    assert [line.split(":")[1] for line in message.splitlines()] == ["13", "13"]


def test_final_text_is_part_of_the_last_turn_without_the_workspace_path() -> None:
    text = edited("calls = [{ tool = ", 'text = "See {workspace}/a."\ncalls = [{ tool = ')
    assert parse(text + '[oracle]\nfinal_text = "/a."\n')
    assert "oracle.final_text: " in error_of(text + '[oracle]\nfinal_text = "{workspace}/a"\n')


def test_a_script_with_too_many_turns() -> None:
    assert "at most" in error_of(edited("repeat = 2", "repeat = 100_000"))


def test_unknown_names_are_reported_with_their_line(tmp_path: Path) -> None:
    source = tmp_path / "two-words.toml"
    source.write_text(GOOD)
    scenario = load(source)
    bash = {"bash": ["command"], "task_done": []}
    check(scenario, tools=bash, toggles=["parallel_tools", "event_shell"])
    with pytest.raises(ScenarioError) as caught:
        check(
            scenario,
            tools={"bsh": [], "task_done": []},
            toggles=["parallel_tool", "event_shells"],
            metrics=["cpu", "walls"],
            source=source,
        )
    assert [line.removeprefix(str(source)) for line in str(caught.value).splitlines()] == [
        ":17: turns[0].calls[0].tool: no tool 'bash'; did you mean bsh? Known: bsh, task_done",
        ":7: toggles.vary[0]: no toggle 'parallel_tools'; did you mean parallel_tool? "
        "Known: event_shells, parallel_tool",
        ":8: toggles.hold.event_shell: no toggle 'event_shell'; did you mean event_shells? "
        "Known: event_shells, parallel_tool",
        ":4: metrics[1]: no metric 'wall'; did you mean walls? Known: cpu, walls",
    ]


@pytest.mark.parametrize(
    ("new", "line", "place"),
    [
        ('arguments = { comand = "ls" }', 17, "arguments.comand"),
        ("arguments_json = '{\"comand\": null}'", 17, "arguments_json"),
    ],
)
def test_unknown_arguments_are_reported_with_their_line(
    tmp_path: Path, new: str, line: int, place: str
) -> None:
    source = tmp_path / "two-words.toml"
    # The arguments of the tool that ends a session are ignored.
    text = edited('{ tool = "task_done" }', '{ tool = "task_done", arguments = { said = "x" } }')
    source.write_text(text.replace('arguments = { command = "ls" }', new))
    tools = {"bash": ["command", "session"], "task_done": ()}
    with pytest.raises(ScenarioError) as caught:
        check(load(source), tools=tools, source=source)
    assert str(caught.value) == (
        f"{source}:{line}: turns[0].calls[0].{place}: no argument of bash 'comand'; did you "
        "mean command? Known: command, session"
    )


@pytest.mark.parametrize(
    ("new", "line", "problem"),
    [
        ('calls = [{ tool = "bash" }]', 20, "turns[1]: the session does not end; add a last turn"),
        ('text = "Bye."', 20, "turns[1]: the session does not end; add a last turn"),
        ('calls = [{ tool = "done" }]', 21, "did you mean task_done?"),
    ],
)
def test_agent_core_ends_a_session_by_its_tool(
    tmp_path: Path, new: str, line: int, problem: str
) -> None:
    """Another agent may end by a text or by a tool of its own."""
    source = tmp_path / "two-words.toml"
    source.write_text(edited('calls = [{ tool = "task_done" }]', new))
    scenario = load(source)
    check(scenario)
    with pytest.raises(ScenarioError) as caught:
        check(scenario, tools={"bash": ["command"], "done": []}, source=source)
    assert f"{source}:{line}: " in str(caught.value)
    assert problem in str(caught.value)


def test_tools_of_a_named_agent_are_not_checked() -> None:
    text = edited('{ tool = "task_done" }', '{ tool = "Bash" }')
    named = parse(f'agent = "claude-code"\n{text}')
    check(named, tools={"bash": ["command"]})
    assert named.agent == "claude-code"
    with pytest.raises(ScenarioError, match="no tool 'Bash'"):
        check(parse(text), tools={"bash": ["command"]})
    early = text.replace('tool = "bash"', 'tool = "task_done"')
    assert parse(f'agent = "trae-agent"\n{early}'), "its tool of that name may not end a session"
    assert "agent: expected a string" in error_of(f"agent = 1\n{text}")


def test_the_final_text_of_a_named_agent_may_be_an_argument() -> None:
    oracle = '[oracle]\nfinal_text = "It is \\"42\\""\n'
    arguments = """arguments_json = '{"answer": ["It is \\"42\\"."]}'"""
    text = edited('{ tool = "task_done" }', f'{{ tool = "submit", {arguments} }}') + oracle
    assert parse(f'agent = "inspect"\n{text}')
    assert "the last turn does not contain" in error_of(text)
    other = text.replace("It is", "Is it", 1)
    assert "the last turn does not contain" in error_of(f'agent = "inspect"\n{other}')


def test_a_scenario_without_an_agent_keeps_its_digest() -> None:
    """Committed run files hold digests, so a new field must not change them."""
    assert digest(parse(GOOD)) == GOOD_DIGEST
    assert digest(parse(f'agent = "other"\n{GOOD}')) != GOOD_DIGEST


def test_the_file_name_equals_the_scenario_name(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(GOOD)
    with pytest.raises(ScenarioError, match=r":1: name: .*two-words\.toml"):
        load(other)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "none.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ScenarioError, match="byte 11: not UTF-8"):
        load(latin)


def test_a_byte_order_mark_and_windows_newlines(tmp_path: Path) -> None:
    path = tmp_path / "two-words.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path).name == "two-words"


def test_find(tmp_path: Path) -> None:
    assert find("bugfix").name == "bugfix.toml"
    with pytest.raises(UsageError, match=r"no scenario 'bugfx'; did you mean bugfix\? Known: "):
        find("bugfx")
    with pytest.raises(UsageError, match="no scenario file"):
        find(str(tmp_path / "mine.toml"))
    (tmp_path / "mine.json").write_text("{}")
    for there in (tmp_path, tmp_path / "mine.json"):
        with pytest.raises(UsageError, match=f"{there}': expected a name or a .toml file"):
            find(str(there))
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(UsageError, match=r"did you mean .*mine\.toml\?"):
        find(str(tmp_path / "mine"))
    assert find(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"


def test_the_folder_inside_the_package_has_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "trae_bench"
    monkeypatch.setattr(catalog, "__file__", str(package / "scenario" / "shelf.py"))
    with pytest.raises(UsageError, match="install the package again"):
        catalog.scenario_folder()
    (tmp_path / "scenarios").mkdir()
    assert catalog.scenario_folder() == tmp_path / "scenarios"
    (package / "_scenarios").mkdir(parents=True)
    assert catalog.scenario_folder() == package / "_scenarios"


# -- any text gives a Scenario or a ScenarioError -----------------------------------------

PIECES = st.sampled_from(
    [*re.findall(r"\w+|[^\w\s]|\n", GOOD), '"""', "'''", "nan", "\\", "1979-05-27", "\0", "é"]
)


def assert_scenario_or_error(text: str) -> None:
    try:
        assert isinstance(parse(text), Scenario)
    except ScenarioError as error:
        assert str(error).startswith("<scenario>")


@given(st.text())
@example('a = "\ud800"')
def test_any_text(text: str) -> None:
    assert_scenario_or_error(text)


@examples(300)
@given(st.integers(0, len(GOOD)), st.integers(0, 20), st.lists(PIECES, max_size=4))
def test_any_edit_of_a_valid_text(start: int, length: int, inserted: list[str]) -> None:
    assert_scenario_or_error(GOOD[:start] + " ".join(inserted) + GOOD[start + length :])


@examples(200)
@given(st.text(alphabet="()[]{}*+?|\\^$.-,0123456789abgPx<>=!:#\n'", max_size=12), st.text())
def test_any_pattern(pattern: str, replace: str) -> None:
    rule = f"[[normalise]]\npattern = {json.dumps(pattern)}\nreplace = {json.dumps(replace)}\n"
    assert_scenario_or_error(GOOD + rule)


# -- lines -----------------------------------------------------------------------------

# Every value equals its line number.
LINED = """\
a = 1
"quoted key" = 2 # comment [x]
dotted.'k e y'.leaf = 3
text = '''
# no = "comment"
[no.table]
'''
after = 8
list = [ 9, 9,
  # ] "
  [11], { x = 11, y = [
    12 ] },
]

[ table . inner ]
b = 16
escaped = { "a\\"]" = 17, s = 17 }
[[array]]
c = 19
[array.sub]
d = 21
[[array.deep]]
e = 23
[[array.deep]]
e = 25
[[array]]
c = 27
[[array.deep]]
s = "]"
e = 30
t = \"\"\"a ""quoted\"\"\"\"
f = 32
"""


def leaves(path: tuple[str | int, ...], value: object) -> list[tuple[tuple[str | int, ...], int]]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves((*path, key), value[key])]
    if isinstance(value, list):
        return [leaf for i, item in enumerate(value) for leaf in leaves((*path, i), item)]
    return [(path, value)] if isinstance(value, int) else []


def test_lines_of_every_form_of_toml() -> None:
    found = leaves((), tomllib.loads(LINED))
    assert len(found) == 19
    # A key with an escape is not decoded; the line of its table is close enough.
    known = places(LINED)
    wrong = {path: line for path, line in found if line_in(known, path) != line}
    assert not wrong


def test_unknown_paths_have_the_line_of_the_enclosing_table() -> None:
    assert line_in(places(LINED), ("array", 1)) == 26
    assert line_in(places(LINED), ("array", 0, "deep", 1)) == 24
    assert line_in(places(LINED), ("array", 0, "deep", 1, "no", 3)) == 24
    assert line_in(places(LINED), ("nowhere",)) == 1


@given(st.text(alphabet="a=[]{}\"'.,#\n 1"), st.text())
def test_line_search_ends_for_any_text(text: str, more: str) -> None:
    assert 1 <= line_in(places(text + more), ("a", 0, "b")) <= (text + more).count("\n") + 1


def test_many_errors_need_one_search_for_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(text: str) -> Places:
        calls.append(text)
        return places(text)

    monkeypatch.setattr("trae_bench.scenario.diagnostics.places", counted)
    start = GOOD.index("[[turns]]")
    many = GOOD[:start] + "[[turns]]\n" * 300 + GOOD[start:]
    with pytest.raises(ScenarioError) as caught:
        parse(many)
    assert len(calls) == 1
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_DIAGNOSTICS + 1
    assert lines[-1].endswith(f"and {300 - MAX_DIAGNOSTICS} more")


@pytest.mark.parametrize("deep", [99, 3000])
def test_the_nesting_of_arguments_is_limited(deep: int) -> None:
    """`deep` is the number of parts of a dotted key."""
    call = 'calls = [{ tool = "task_done", arguments = { ' + ".".join("a" * deep) + " = 1 } }]"
    text = f"{GOOD}[[turns]]\n{call}\n"
    message = "nested more than 100 deep" if deep > 100 else "ends the session here"
    with pytest.raises(ScenarioError, match=message):
        parse(text)


# -- schema ----------------------------------------------------------------------------


def test_the_committed_schema_is_current() -> None:
    committed = Path(__file__).parents[3] / "docs" / "schemas" / "scenario.schema.json"
    assert json.loads(committed.read_text()) == json.loads(json.dumps(json_schema())), (
        "update it with: trae-bench schema scenario > docs/schemas/scenario.schema.json"
    )


def test_schema_and_loader_accept_the_same_files() -> None:
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in catalogue().values():
        validator.validate(tomllib.loads(path.read_text()))
    for old, new in (("repeat = 2", "repeat = 0"), ("text =", "txt ="), ('"gemini"', '"x"')):
        assert not validator.is_valid(tomllib.loads(GOOD.replace(old, new, 1)))
    described = schema["$defs"]["Turn"]["properties"]["repeat"]["description"]
    assert "{n}" in described
