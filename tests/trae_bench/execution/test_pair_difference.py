"""Where two sides part: in requests, in text, in the answer or in files."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from trae_bench.execution import pair_difference
from trae_bench.execution.fingerprint import FileEntry, transcript_of
from trae_bench.execution.pair_difference import MAX_DIFFERENCE, Answer, PairMemory, describe
from trae_bench.model.experiment import Arm, Side, Trial
from trae_bench.model.sample import ChildReport, RequestLog, SessionLog

NAMES = ("base", "head")
FILE = FileEntry("a.txt", "file", False, "1")


def answer(
    body: Any = "same",
    *,
    requests: int = 7,
    unexpected: int = 0,
    text: str = "done",
    success: bool = True,
    files: tuple[FileEntry, ...] = (),
) -> Answer:
    log = SessionLog(
        tuple(RequestLog(n, n + 0.5, 1, 2, 3, 200) for n in range(requests)),
        1,
        json.dumps(body).encode(),
        unexpected,
    )
    transcript = transcript_of(log, ChildReport(success, text, 1), lambda text: text)
    return Answer([transcript], [list(files)])


def messages(*contents: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents]}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (answer(), answer(), ""),
        (answer(), answer(requests=8), "head sends 8 requests, base 7"),
        (answer(), answer(unexpected=1), "head sends 1 unexpected request, base 0"),
        (
            answer(messages("x", "abc")),
            answer(messages("x", "abd")),
            "in the last request, messages[1].content, offset 2: base has 'abc', head has 'abd'",
        ),
        (
            answer(messages("x")),
            answer(messages("x", "y")),
            "in the last request, messages[1]: base has 'nothing', head has ",
        ),
        (
            answer({"n": 1}),
            answer({"n": True}),
            "in the last request, n: base has '1', head has 'true'",
        ),
        (
            answer({"odd key": 1}),
            answer({}),
            "in the last request, ['odd key']: base has '1', head has nothing",
        ),
        (
            answer("x" * 200),
            answer("x" * 113 + "y" + "x" * 86),
            f"in the last request, offset 113: base has '…{'x' * 60}…', "
            f"head has '…{'x' * 20}y{'x' * 39}…'",
        ),
        (
            answer(messages("x"), requests=7),
            answer(messages("y"), requests=8),
            "head sends 8 requests, base 7; in the last request, messages[0].content",
        ),
        (
            answer(),
            answer(text="done?"),
            "in the final answer, text, offset 4: base has 'done', head has 'done?'",
        ),
        (
            answer(),
            answer(success=False),
            "in the final answer, success: base has 'true', head has 'false'",
        ),
        (answer(), answer(files=(FILE,)), "base does not leave 'a.txt'"),
        (answer(files=(FILE,)), answer(), "head does not leave 'a.txt'"),
        (
            answer(files=(FILE,)),
            answer(files=(replace(FILE, digest="2"),)),
            "the content of 'a.txt' differs",
        ),
        (
            answer(files=(FILE,)),
            answer(files=(replace(FILE, kind="link"),)),
            "'a.txt' is file on base, link on head",
        ),
        (
            answer(files=(FILE,)),
            answer(files=(replace(FILE, executable=True),)),
            "'a.txt' is executable on head only",
        ),
    ],
)
def test_the_first_difference_is_described(a: Answer, b: Answer, expected: str) -> None:
    found = describe(a, b, NAMES)
    assert found.startswith(expected.replace("'nothing'", "nothing"))
    assert bool(found) == bool(expected)


def test_the_session_is_named() -> None:
    one, other = answer("x"), answer("y")
    a = Answer([*one.transcripts, *one.transcripts], [[], []])
    b = Answer([*one.transcripts, *other.transcripts], [[], []])
    assert describe(a, b, NAMES).startswith("session 2: in the last request")


def trial(side: Side, pair: int = 1, arms: tuple[str, str] = NAMES) -> Trial:
    arm = Arm(arms[side == "B"], {})
    return Trial("work", "head", "serial", pair, side, 0, arm, 0)


@pytest.mark.parametrize("order", ["AB", "BA"])
def test_either_side_may_run_first(order: str) -> None:
    memory = PairMemory()
    answers: dict[str, Answer] = {"A": answer(), "B": answer(requests=8)}
    sides: tuple[Side, Side] = ("A", "B") if order == "AB" else ("B", "A")
    first, second = (memory.difference(trial(side), answers[side]) for side in sides)
    assert (first, second) == ("", "head sends 8 requests, base 7")


def test_only_the_sides_of_one_pair_are_compared() -> None:
    memory = PairMemory()
    assert memory.difference(trial("A", 1), answer()) == ""
    assert memory.difference(trial("B", 2), answer(requests=8)) == ""
    equal = ("base", "base")
    assert memory.difference(trial("B", 2, equal), answer(requests=9)) == ""
    found = memory.difference(trial("A", 2, equal), answer())
    assert found == "side B sends 9 requests, side A 7"


def test_a_large_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_difference, "MAX_KEPT", 100)
    memory = PairMemory()
    assert memory.difference(trial("A"), answer("x" * 101)) == ""
    assert memory.difference(trial("B"), answer("y")) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON, JSON)
def test_a_difference_is_one_short_printable_line(a: Any, b: Any) -> None:
    memory, sides = PairMemory(), (answer(a), answer(b))
    memory.difference(trial("A"), sides[0])
    found = memory.difference(trial("B"), sides[1])
    same = sides[0].transcripts[0].digest == sides[1].transcripts[0].digest
    assert bool(found) != same
    assert len(found) <= MAX_DIFFERENCE and found.isprintable()
    found.encode()


def test_deep_answers_have_no_description() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    other = replace(answer().transcripts[0], body=[deep], digest="other")
    memory = PairMemory()
    memory.difference(trial("A"), Answer([replace(other, body=deep, digest="one")], [[]]))
    assert memory.difference(trial("B"), Answer([other], [[]])) == ""
