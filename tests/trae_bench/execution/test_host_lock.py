"""Tests of the host lock: it follows no link, spoils no file and waits only for a run."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from trae_bench.errors import CannotMeasure
from trae_bench.execution import host_lock
from trae_bench.execution.host_lock import LOCK_VARIABLE, HostLock


def refusal(place: Path, timeout: float = 60.0) -> str:
    """The error of a lock that is refused without waiting."""
    lock = HostLock(lambda text: pytest.fail(text), place=place, timeout=timeout)
    with pytest.raises(CannotMeasure) as error, lock:
        pytest.fail("the lock was taken")
    assert LOCK_VARIABLE in str(error.value)
    return str(error.value)


def test_the_file_is_private_and_contains_the_process_id(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    with HostLock(print, place=place):
        assert place.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_hard_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    target, place = tmp_path / "target", tmp_path / "lock"
    for content in ("precious", "123\n", ""):
        target.write_text(content)
        target.chmod(0o600)
        place.unlink(missing_ok=True)
        place.hardlink_to(target)
        assert "2 hard links" in refusal(place)
        assert target.read_text() == content


def test_a_symbolic_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    target, place = tmp_path / "target", tmp_path / "lock"
    place.symlink_to(target)
    assert "symbolic link" in refusal(place)
    assert not target.exists()
    target.write_text("")
    target.chmod(0o600)
    assert "symbolic link" in refusal(place)


def test_a_link_that_appears_after_the_check_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, place = tmp_path / "target", tmp_path / "lock"
    target.write_text("123\n")
    place.symlink_to(target)
    monkeypatch.setattr(host_lock, "_check", lambda place, found: None)
    assert "symbolic links" in refusal(place)
    assert target.read_text() == "123\n"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "lock"
    place.mkdir() if kind == "folder" else os.mkfifo(place)
    assert "not a regular file" in refusal(place)


def test_a_file_with_other_content_stays(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    for content in ("results of a year", "1" * 40, "12 34"):
        place.write_text(content)
        assert "other content" in refusal(place)
        assert place.read_text() == content


def test_a_file_of_another_user_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "lock"
    place.touch(0o644)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"it belongs to {host_lock._user(owner)}" in refusal(place)


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    place.touch()
    place.chmod(0o666)
    assert "other users can write it (mode 666)" in refusal(place)


def test_a_readable_file_of_an_older_release_becomes_private(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    place.write_text("4711\n")
    place.chmod(0o644)
    with HostLock(print, place=place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_holder_is_named_and_another_users_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "lock"
    messages: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = HostLock(messages.append, place=place, timeout=0.0)
        with pytest.raises(CannotMeasure, match=f"process {holder.pid}"), waiting:
            pass
        (message,) = messages
        assert "waiting up to 0 s" in message
        assert f"process {holder.pid}" in message
        with monkeypatch.context() as changed:
            changed.setattr(host_lock, "_owner_of", lambda pid: os.geteuid() + 1)
            assert f"process {holder.pid} of user" in refusal(place)
        holder.communicate()
    with HostLock(lambda text: pytest.fail(text), place=place):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_another_users_file_stops_a_run_only_while_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(host_lock.LOCK_VARIABLE, raising=False)
    monkeypatch.setattr(host_lock, "FOLDER", tmp_path)
    others = tmp_path / "trae-bench-12345.lock"
    others.touch(0o600)
    os.chown(others, 12345, -1)
    with HostLock(print):
        assert (tmp_path / f"trae-bench-{os.geteuid()}.lock").exists()
    with others.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CannotMeasure, match="of user 12345 is measuring"), HostLock(print):
            pass
    with HostLock(print):
        pass
