"""The configuration cache: never stale, without secrets, and never fatal."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent_core
from agent_core import config_sources
from agent_core.config import PerformanceSettings, ProviderSettings, Settings
from agent_core.config_sources import (
    CachedConfig,
    ConfigurationCache,
    PlainConfig,
    cache_directory,
)
from agent_core.errors import ConfigError
from agent_core.guide.config_cache import ConfigLoadTimer
from tests.properties import examples

KEY = "sk-planted-in-the-config"
JSON = (
    '{"default_provider": "anthropic", "model_providers": {"anthropic": {"api_key": "' + KEY + '",'
    ' "model": "m", "base_url": "https://user:planted-password@host/v1"}, "ollama": {}}}'
)
STATISTICS = {
    "cache_size",
    "max_cache_size",
    "hit_rate_percent",
    "total_hits",
    "total_misses",
    "invalidations",
    "evictions",
    "cache_entries",
}


class Clock:
    """A wall clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "trae_config.json"
    path.write_text(JSON)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "config").iterdir())


def only_entry(folder: Path) -> Path:
    (entry,) = entries(folder)
    return entry


def new_process(folder: Path, **options: object) -> ConfigurationCache:
    """A cache as in a new process: empty memory, the same folder."""
    return ConfigurationCache(directory=folder, **options)  # type: ignore[arg-type]


def rewrite_in_place(path: Path, old: str, new: str) -> None:
    """Edits the file but keeps its size and modification time."""
    assert len(old) == len(new)
    before = path.stat()
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# ----------------------------------------------------------------------- equal settings


def test_memory_disk_and_parser_give_the_same_settings(config: Path, folder: Path) -> None:
    plain = PlainConfig().load(config)
    cache = new_process(folder)
    assert [cache.load(config) for _ in range(2)] == [plain, plain]
    later = new_process(folder)
    assert later.load(config) == plain
    assert later.get_cache_stats()["disk_hits"] == 1
    assert later.load(config).model_parameters.api_key == KEY


def test_what_has_no_effect_is_logged_at_each_start(
    config: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config.write_text('{\n"enable_lakeview": true}')
    for load in (PlainConfig().load, new_process(folder).load, new_process(folder).load):
        load(config)
    assert [record.getMessage() for record in caplog.records] == [
        f"{config}, line 2, enable_lakeview: no effect; there is no Lakeview here."
    ] * 3


def test_file_with_mcp_servers_is_not_cached(config: Path, folder: Path) -> None:
    """Their tokens may be anywhere in it."""
    config.write_text(
        '{"allow_mcp_servers": ["s"], "mcp_servers": {"s": {"command": "c", "env": {"T": "tok"}}}}'
    )
    for _ in range(2):
        assert new_process(folder).load(config).mcp_servers["s"].env == {"T": "tok"}
    assert not folder.exists()


@examples(60)
@given(
    st.builds(
        Settings,
        default_provider=st.text(),
        model_providers=st.dictionaries(
            st.text(),
            st.builds(
                ProviderSettings,
                api_key=st.text(),
                base_url=st.none() | st.text(),
                temperature=st.none() | st.floats(0, 2),
            ),
            max_size=3,
        ),
        performance_settings=st.builds(
            PerformanceSettings, max_trajectory_interactions=st.none() | st.integers(1, 9)
        ),
        tools=st.lists(st.text()).map(tuple),
    )
)
def test_any_settings_round_trip_or_are_not_cached(
    tmp_path_factory: pytest.TempPathFactory, wanted: Settings
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / "a.json"
    path.write_bytes(msgspec.json.encode(wanted))
    new_process(folder).load(path)
    assert new_process(folder).load(path) == PlainConfig().load(path) == wanted


def test_key_with_escapes_is_not_cached(config: Path, folder: Path) -> None:
    config.write_text('{"model_providers": {"openai": {"api_key": "sk\\u002dx"}}}')
    cache = new_process(folder)
    assert cache.load(config).model_providers["openai"].api_key == "sk-x"
    assert cache.load(config).model_providers["openai"].api_key == "sk-x"
    assert cache.get_cache_stats()["total_hits"] == 0
    assert not (folder / "config").exists()


def test_another_process_reads_the_disk_cache(config: Path, folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from agent_core.config_sources import *;"
        "cache = ConfigurationCache(directory=Path(sys.argv[2])); cache.load(sys.argv[1]);"
        "print(cache.get_cache_stats()['disk_hits'], 'yaml' in sys.modules)"
    )
    config = config.with_suffix(".yaml")
    config.write_text("default_provider: ollama\n")
    run = [sys.executable, "-c", program, str(config), str(folder)]
    seen = [subprocess.run(run, capture_output=True, check=True).stdout for _ in range(2)]
    assert seen == [b"0 True\n", b"1 False\n"], "the cache avoids importing PyYAML"


# ------------------------------------------------------------------------- invalidation


def test_edit_that_keeps_size_and_time_is_detected(config: Path, folder: Path) -> None:
    cache = new_process(folder)
    cache.load(config)
    rewrite_in_place(config, '"model": "m"', '"model": "n"')
    for reader in (cache, new_process(folder)):
        assert reader.load(config).model_parameters.model == "n"
    assert cache.get_cache_stats()["invalidations"] >= 1


def test_changed_key_of_equal_length_is_detected(config: Path, folder: Path) -> None:
    cache = new_process(folder)
    cache.load(config)
    rewrite_in_place(config, KEY, KEY[::-1])
    assert cache.load(config).model_parameters.api_key == KEY[::-1]


def test_copy_of_a_file_has_a_separate_entry(config: Path, folder: Path) -> None:
    new_process(folder).load(config)
    copy = config.with_name("copy.json")
    copy.write_text(JSON.replace('"m"', '"c"'))
    cache = new_process(folder)
    assert cache.load(copy).model_parameters.model == "c"
    assert cache.load(config).model_parameters.model == "m"


def test_concurrent_reader_never_sees_mixed_settings(config: Path, folder: Path) -> None:
    cache = new_process(folder)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 10
            fresh = config.with_suffix(".new")
            fresh.write_text(JSON.replace('"m"', f'"{number}"').replace(KEY, f"{KEY}{number}"))
            fresh.replace(config)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            entry = cache.load(config).model_parameters
            assert entry.api_key in (KEY, KEY + entry.model)
    finally:
        stop.set()
        writer.join()


def test_file_that_keeps_changing_is_an_error(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1, 1000))
    real = os.fstat

    def restless(descriptor: int) -> os.stat_result:
        os.utime(config, ns=(next(ticks), next(ticks)))
        return real(descriptor)

    monkeypatch.setattr("agent_core.config_file.os.fstat", restless)
    with pytest.raises(ConfigError, match="keeps changing"):
        ConfigurationCache().load(config)


@pytest.mark.parametrize("field", ["version", "schema", "size", "mtime_ns", "digest", "path"])
def test_entry_with_any_different_key_part_is_not_used(
    config: Path, folder: Path, field: str
) -> None:
    new_process(folder).load(config)
    entry = only_entry(folder)
    stored = msgspec.json.decode(entry.read_bytes().partition(b"\n")[2])
    stored[field] = stored[field] + 1 if isinstance(stored[field], int) else "other"
    stored["settings"]["default_provider"] = "ollama"
    payload = msgspec.json.encode(stored)
    entry.write_bytes(config_sources._checksum(payload) + b"\n" + payload)
    assert new_process(folder).load(config).default_provider == "anthropic"


def test_other_version_does_not_read_the_entry(
    config: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_process(folder).load(config)
    monkeypatch.setattr(agent_core, "__version__", "999")
    cache = new_process(folder)
    cache.load(config)
    assert cache.get_cache_stats()["total_misses"] == 1


# ------------------------------------------------------------------------------- secrets


def test_no_secret_on_disk_and_folder_is_private(config: Path, folder: Path) -> None:
    new_process(folder).load(config)
    stored = only_entry(folder).read_bytes()
    for secret in (KEY, "planted-password", KEY.encode().hex()):
        assert secret.encode() not in stored
    assert b"anthropic" in stored
    assert stat.S_IMODE((folder / "config").stat().st_mode) == 0o700
    assert stat.S_IMODE(only_entry(folder).stat().st_mode) == 0o600


def test_permissive_umask_has_no_effect(config: Path, folder: Path) -> None:
    previous = os.umask(0)
    try:
        new_process(folder).load(config)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((folder / "config").stat().st_mode) == 0o700
    assert stat.S_IMODE(only_entry(folder).stat().st_mode) == 0o600


# ---------------------------------------------------------- damaged and foreign entries


def link_to_elsewhere(entry: Path) -> None:
    entry.rename(entry.with_name("elsewhere"))
    entry.symlink_to(entry.with_name("elsewhere"))


def pipe_in_its_place(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry, 0o600)


@pytest.mark.parametrize(
    "harm",
    [
        lambda entry: entry.write_bytes(b""),
        lambda entry: entry.write_bytes(entry.read_bytes()[:-9]),
        lambda entry: entry.write_bytes(entry.read_bytes().replace(b'"m"', b'"x"')),
        lambda entry: entry.write_bytes(b"\x00" * 100),
        lambda entry: entry.chmod(0o644),
        link_to_elsewhere,
        pipe_in_its_place,
    ],
    ids=["empty", "cut", "changed", "zeros", "readable by others", "link", "pipe"],
)
def test_damaged_or_foreign_entry_is_replaced(
    config: Path, folder: Path, harm: Callable[[Path], object]
) -> None:
    new_process(folder).load(config)
    entry = only_entry(folder)
    harm(entry)

    cache = new_process(folder)
    assert cache.load(config) == PlainConfig().load(config)
    assert cache.get_cache_stats()["disk_hits"] == 0
    again = new_process(folder)
    again.load(config)
    assert again.get_cache_stats()["disk_hits"] == 1, "the damaged entry was replaced"
    assert entry.is_file() and not entry.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_entry_of_another_owner_is_ignored(config: Path, folder: Path) -> None:
    new_process(folder).load(config)
    os.chown(only_entry(folder), 12345, -1)
    cache = new_process(folder)
    cache.load(config)
    assert cache.get_cache_stats()["disk_hits"] == 0
    assert only_entry(folder).stat().st_uid == os.geteuid()


def test_folder_open_to_others_is_restricted_before_use(config: Path, folder: Path) -> None:
    (folder / "config").mkdir(parents=True)
    (folder / "config").chmod(0o777)
    new_process(folder).load(config)
    assert stat.S_IMODE((folder / "config").stat().st_mode) == 0o700


def test_link_in_place_of_the_folder_is_not_followed(config: Path, folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    folder.mkdir()
    (folder / "config").symlink_to(elsewhere)
    assert new_process(folder).load(config) == PlainConfig().load(config)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("place", ["a file", "/proc/nothing"])
def test_unwritable_cache_is_not_an_error(config: Path, folder: Path, place: str) -> None:
    folder = Path(place) if place.startswith("/") else folder
    if not place.startswith("/"):
        folder.write_text("in the way")
    cache = new_process(folder)
    assert [cache.load(config) for _ in range(2)] == [PlainConfig().load(config)] * 2
    assert cache.optimize_cache() == {"stale_entries_removed": 0, "remaining_entries": 1}
    cache.clear_cache()


# ------------------------------------------------------------------------- TTL, LRU, stats


def test_entry_expires_after_its_ttl(config: Path, folder: Path) -> None:
    clock = Clock()
    new_process(folder, cache_ttl_seconds=10, clock=clock).load(config)
    clock.now += 9.9
    cache = new_process(folder, cache_ttl_seconds=10, clock=clock)
    cache.load(config)
    clock.now += 0.1
    cache.load(config)
    statistics = cache.get_cache_stats()
    assert (statistics["total_hits"], statistics["total_misses"]) == (1, 1)


def test_clock_set_back_invalidates_an_entry(config: Path, folder: Path) -> None:
    clock = Clock()
    new_process(folder, clock=clock).load(config)
    clock.now -= 1
    assert new_process(folder, clock=clock).get_config(config) is None


def test_ttl_of_the_file_applies_by_default(config: Path, folder: Path) -> None:
    clock = Clock()
    config.write_text('{"performance_settings": {"config_cache_ttl": 5}}')
    cache = new_process(folder, cache_ttl_seconds=None, clock=clock)
    cache.load(config)
    clock.now += 4
    assert cache.get_config(config) is not None
    clock.now += 1
    assert cache.get_config(config) is None


def test_ttl_of_zero_disables_the_cache(config: Path, folder: Path) -> None:
    cache = new_process(folder, cache_ttl_seconds=0)
    cache.load(config)
    assert cache.get_config(config) is None
    assert not (folder / "config").exists()


def test_least_recently_used_entry_is_evicted_in_memory_and_on_disk(
    tmp_path: Path, folder: Path
) -> None:
    paths = [tmp_path / f"{name}.json" for name in "abc"]
    for path in paths:
        path.write_text("{}")
    cache = ConfigurationCache(max_cache_size=2, directory=folder)
    cache.load(paths[0])
    cache.load(paths[1])
    cache.load(paths[0])
    for place in entries(folder):  # the file system's timestamps are too coarse for this test
        os.utime(place, ns=(1, 1))
    assert new_process(folder).get_config(paths[0]) is not None, "a disk hit counts as a use"
    cache.load(paths[2])

    kept = {entry["file"] for entry in cache.get_cache_stats()["cache_entries"]}
    assert kept == {str(paths[0]), str(paths[2])}
    assert cache.get_cache_stats()["evictions"] == 1
    on_disk = [new_process(folder).get_config(path) is not None for path in paths]
    assert on_disk == [True, False, True]


def test_refresh_at_capacity_evicts_nothing(tmp_path: Path, config: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    cache = ConfigurationCache(max_cache_size=2)
    cache.load(other)
    cache.load(config)
    rewrite_in_place(config, '"m"', '"n"')
    cache.load(config)
    assert cache.get_config(other) is not None
    assert cache.get_cache_stats()["evictions"] == 0


def test_statistics_have_the_guides_keys(config: Path, folder: Path) -> None:
    clock = Clock()
    cache = new_process(folder, clock=clock)
    assert cache.get_cache_stats()["hit_rate_percent"] == 0
    for _ in range(4):
        cache.load(config)
        clock.now += 1
    statistics = cache.get_cache_stats()
    assert statistics.keys() >= STATISTICS
    assert statistics["hit_rate_percent"] == 75.0
    assert statistics["cache_size"] == statistics["disk_entries"] == 1
    assert statistics["cache_entries"] == [
        {
            "file": str(config),
            "access_count": 3,
            "cache_age_seconds": 4.0,
            "last_access_seconds_ago": 1.0,
        }
    ]


def test_optimize_drops_expired_and_damaged_entries(config: Path, folder: Path) -> None:
    clock = Clock()
    cache = new_process(folder, clock=clock)
    cache.load(config)
    (folder / "config" / f"{0:032x}.json").write_text("junk")
    assert cache.optimize_cache() == {"stale_entries_removed": 1, "remaining_entries": 1}
    clock.now += 4000
    assert cache.optimize_cache() == {"stale_entries_removed": 1, "remaining_entries": 0}
    assert entries(folder) == []


def test_files_with_other_names_are_ignored(config: Path, folder: Path) -> None:
    (folder / "config").mkdir(parents=True)
    strangers = [
        folder / "config" / name for name in ("settings.yml", ".hidden", "0.json", "a.tmp")
    ]
    for path in strangers:
        path.write_text("precious")
        os.utime(path, ns=(1, 1))
    cache = new_process(folder, max_cache_size=1)
    cache.load(config)
    assert cache.get_cache_stats()["disk_entries"] == 1
    assert cache.optimize_cache() == {"stale_entries_removed": 0, "remaining_entries": 1}
    cache.clear_cache()
    assert entries(folder) == sorted(strangers)


def test_named_folder_keeps_its_permissions(config: Path, folder: Path) -> None:
    """`TRAE_CACHE_DIR=.` may be a project that has a folder `config`."""
    (folder / "config").mkdir(parents=True)
    (folder / "config").chmod(0o755)
    CachedConfig({"TRAE_CACHE_DIR": str(folder)}).load(config)
    assert stat.S_IMODE((folder / "config").stat().st_mode) == 0o755


def test_clear_removes_everything(config: Path, folder: Path) -> None:
    cache = new_process(folder)
    cache.load(config)
    cache.clear_cache()
    assert entries(folder) == []
    assert cache.get_cache_stats()["total_misses"] == 0
    assert cache.get_config(config) is None


def test_passed_config_is_cached_only_if_it_matches_the_file(config: Path, folder: Path) -> None:
    cache = new_process(folder)
    outdated = PlainConfig().load(config)
    rewrite_in_place(config, '"m"', '"n"')
    assert not cache.cache_config(config, outdated)
    assert cache.get_config(config) is None
    assert cache.cache_config(config, PlainConfig().load(config))
    assert cache.get_config(config) is not None


def test_threads_share_one_cache(config: Path, folder: Path) -> None:
    cache = new_process(folder)
    wanted = PlainConfig().load(config)
    mismatches: list[Settings] = []

    def work() -> None:
        mismatches.extend(seen for _ in range(40) if (seen := cache.load(config)) != wanted)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mismatches
    statistics = cache.get_cache_stats()
    assert statistics["total_hits"] + statistics["total_misses"] == 320


# ----------------------------------------------------------------------- the environment


def test_environment_sets_folder_and_ttl(config: Path, folder: Path) -> None:
    source = CachedConfig({"TRAE_CACHE_DIR": str(folder), "TRAE_CONFIG_CACHE_TTL": "7"})
    assert source.load(config) == PlainConfig().load(config)
    assert source.cache.cache_ttl_seconds == 7
    assert len(entries(folder / "agent-core")) == 1


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TRAE_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a/agent-core"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/agent-core"),
        ({"HOME": "/c"}, "/c/.cache/agent-core"),
        ({}, None),
    ],
)
def test_first_variable_set_gives_the_folder(environ: dict[str, str], expected: str | None) -> None:
    assert cache_directory(environ) == (None if expected is None else Path(expected))


def test_timer_prints_like_the_guide() -> None:
    with ConfigLoadTimer("Config load") as timer:
        pass
    timer.duration_ms = 2.337
    assert str(timer) == "Config load: 2.34ms"
