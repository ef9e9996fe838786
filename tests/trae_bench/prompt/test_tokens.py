"""The estimate, and when exact counts are possible. No test loads an encoding."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.prompt import tokens
from trae_bench.prompt.parts import Part
from trae_bench.prompt.tokens import BYTES_PER_TOKEN, ESTIMATE, estimated, exact_counter


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_the_estimate_grows_with_the_text(one: int, other: int) -> None:
    assert estimated(0) == 0
    assert (one <= other) <= (estimated(one) <= estimated(other))
    assert one / BYTES_PER_TOKEN <= estimated(one) < one / BYTES_PER_TOKEN + 1


@given(st.text())
def test_a_part_counts_as_its_bytes(text: str) -> None:
    data = text.encode()
    assert ESTIMATE.of_part(Part("", data)) == ESTIMATE.of_text(text) == estimated(len(data))


def test_a_lone_surrogate_is_counted() -> None:
    assert ESTIMATE.of_text("\ud800") == 1


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for tiktoken that counts words, and the file that its cache would have."""
    content = b"ranks"
    encoding = SimpleNamespace(encode_ordinary=str.split)
    stand_in = ModuleType("tiktoken")
    stand_in.get_encoding = lambda name: {"o200k_base": encoding}[name]  # type: ignore[attr-defined]
    stand_in.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "tiktoken", stand_in)
    monkeypatch.setattr(tokens, "_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    # tiktoken names the file by the SHA-1 of the address.
    path = tmp_path / "fb374d419588a4632f3f557e76b4b70aebbca790"
    path.write_bytes(content)
    exact_counter.cache_clear()
    yield path
    exact_counter.cache_clear()


@pytest.mark.usefixtures("words")
def test_exact_counts_follow_the_cookbook() -> None:
    counter = exact_counter()
    assert counter is not None
    assert counter.method == "exact, o200k_base"
    assert counter.of_text("one two three") == 3
    tool = Part("tools[0]", b'{"name": "bash tool"}')
    assert counter.of_part(tool) == 3
    message = Part("messages[0]", b'{"content":["a b",{"n":7,"on":true}],"role":"user"}', "user")
    # Three around the message, and: a, b, 7, user.
    assert counter.of_part(message) == 3 + 4


def test_without_the_cached_encoding_there_is_no_exact_count(words: Path) -> None:
    words.unlink()
    assert exact_counter() is None


def test_a_damaged_encoding_is_not_used(words: Path) -> None:
    # tiktoken would delete it and download it again.
    words.write_bytes(b"other")
    assert exact_counter() is None


@pytest.mark.usefixtures("words")
def test_without_tiktoken_there_is_no_exact_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    monkeypatch.setattr(tokens, "find_spec", lambda name: None)
    assert exact_counter() is None


@pytest.mark.usefixtures("words")
def test_a_cache_that_is_switched_off_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert exact_counter() is None
