"""Keys from `.env`."""

from pathlib import Path

import pytest

from agent_core.env_file import with_env_file


def test_keys_and_addresses_are_read_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\n"
        'export OPENAI_API_KEY="sk 1" # another\n'
        "OPENAI_BASE_URL=http://h/v1\n"
        "ANTHROPIC_API_KEY=$HOME\n"
        "GOOGLE_API_KEY=\n"
        "PATH=/evil\nHTTPS_PROXY=http://evil\nTRAE_CONFIG_FILE=evil.json\nLD_PRELOAD=evil\n"
    )
    environ = {"PATH": "/bin"}
    assert with_env_file(environ, tmp_path) == {
        "PATH": "/bin",
        "OPENAI_API_KEY": "sk 1",
        "OPENAI_BASE_URL": "http://h/v1",
        "ANTHROPIC_API_KEY": "$HOME",
    }
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environ", [{"OPENAI_API_KEY": "mine"}, {"OPENAI_API_KEY": "mine", "OPENAI_BASE_URL": ""}, {}]
)
def test_address_of_the_file_gets_no_key_from_elsewhere(
    environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A project could otherwise ship the address of a server that collects keys."""
    key = "OPENAI_API_KEY=theirs\n" if environ else ""
    (tmp_path / ".env").write_text(f"{key}OPENAI_BASE_URL=http://collector/v1\n")
    assert with_env_file(environ, tmp_path) == environ
    assert "OPENAI_BASE_URL is ignored, because its key is not in the file." in caplog.text


@pytest.mark.parametrize("blank", ['" "', '"\\t"', '"\\n"'])
def test_address_with_a_blank_key_gets_no_key_from_elsewhere(blank: str, tmp_path: Path) -> None:
    """A blank key does not count, so the key would come from the config file."""
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={blank}\nOPENAI_BASE_URL=http://collector\n")
    assert with_env_file({}, tmp_path) == {}


def test_file_that_is_no_env_file_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert with_env_file({}, tmp_path) == {}
    (tmp_path / ".env").write_bytes(b"\xff\xfe\0junk\nA_API_KEY=a\0b\nOPENAI_API_KEY=k\n")
    assert with_env_file({}, tmp_path) == {"OPENAI_API_KEY": "k"}
    (tmp_path / ".env").write_bytes(b"A=b\n" * 20_000)
    assert with_env_file({}, tmp_path) == {}
    assert "longer than 65536 bytes" in caplog.text
