"""Keys are found in command lines, and words are not taken for keys."""

import pytest

from trae_bench._util.keys import without_keys


@pytest.mark.parametrize(
    "key", ["sk-proj-0123456789abcdef", "AIzaSyA0123456789abcdefg", "ghp_0123456789abcdefghij"]
)
def test_a_key_is_replaced(key: str) -> None:
    assert without_keys(f"agent --key={key} -p {{task}}") == "agent --key={api_key} -p {task}"


def test_a_key_of_the_environment_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "no-known-prefix")
    monkeypatch.setenv("DB_PASSWORD", "postgres")
    monkeypatch.setenv("SIGNING_KEY", "/home/me/project")
    assert without_keys("agent no-known-prefix") == "agent {api_key}"
    for text in ("agent --db postgres", "/home/me/project/agent", "sk-learn-agent-of-mine"):
        assert without_keys(text) == text
