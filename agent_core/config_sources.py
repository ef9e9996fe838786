"""Where settings come from: the config file at each start, or a cache on disk.

    PlainConfig    reads, parses and validates the file each time
    CachedConfig   returns the same settings from a cache if the file is unchanged

Measured in fresh processes (Python 3.11, files of 1 kB), the cache saves nothing for JSON:
0.5 ms instead of 0.6 ms. For YAML it takes 0.5 ms instead of 11 ms, because PyYAML is not
imported. Both read the file each time. An entry is valid only for the bytes it was made
from, so an edit that keeps size and time is detected.

On disk, each entry is a file in a folder, both readable by their owner only. It holds
the settings without `api_key` and `base_url`, and the position of each of these values in
the config file, so no secret is written. An entry is ignored and replaced if it is
damaged, expired, a link, readable by others or owned by another user. A failure to read
or write the cache is not an error.
"""

import hashlib
import logging
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import agent_core
from agent_core.config import ProviderSettings, Settings, cache_ttl
from agent_core.config_file import ConfigFile, parse_file, read_config_file

_LOG = logging.getLogger(__name__)
_SCHEMA = 2
_SECRETS = ("api_key", "base_url")
"""Fields that are not cached. A URL may contain a password or a key."""


class PlainConfig:
    """Reads, parses and validates the file each time."""

    def load(self, path: Path) -> Settings:
        """The settings of the file. Logs what has no effect. Raises `ConfigError`."""
        data, _ = read_config_file(path)
        return _noted(parse_file(data, path))


def _noted(file: ConfigFile) -> Settings:
    for note in file.notes:
        _LOG.warning("%s", note)
    return file.settings


class CachedConfig:
    """Uses a `ConfigurationCache`. The environment gives its folder and TTL."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.cache = ConfigurationCache(
            cache_ttl_seconds=cache_ttl(environ), directory=cache_directory(environ)
        )

    def load(self, path: Path) -> Settings:
        """The settings of the file. Logs what has no effect. Raises `ConfigError`."""
        return self.cache.load(path)


def cache_directory(environ: Mapping[str, str]) -> Path | None:
    """`agent-core` in `TRAE_CACHE_DIR`, else in the user's cache folder. None without either.

    The cache restricts the folder to its owner and deletes files in it, so it needs a
    subfolder.
    """
    if named := environ.get("TRAE_CACHE_DIR") or environ.get("XDG_CACHE_HOME"):
        return Path(named, "agent-core")
    home = environ.get("HOME")
    return Path(home, ".cache", "agent-core") if home else None


class _Secret(Struct, frozen=True, array_like=True):
    """The position of one value in the bytes of the config file."""

    provider: str
    field: str
    start: int
    length: int


class _Entry(Struct, frozen=True, kw_only=True):
    """The cached form of one file. `settings` lacks the fields listed in `secrets`."""

    schema: int
    version: str
    path: str
    size: int
    mtime_ns: int
    digest: str
    created: float
    """Seconds since the epoch."""
    settings: Settings
    notes: tuple[str, ...]
    secrets: tuple[_Secret, ...]


class _Snapshot(Struct, frozen=True):
    """One consistent state of a config file."""

    path: Path
    data: bytes
    mtime_ns: int
    digest: str

    @classmethod
    def take(cls, config_file: Path) -> "_Snapshot":
        path = Path(os.path.abspath(config_file))  # noqa: PTH100 - keeps links
        data, mtime_ns = read_config_file(path)
        return cls(path, data, mtime_ns, hashlib.blake2b(data, digest_size=20).hexdigest())

    def describes(self, entry: _Entry) -> bool:
        """Whether `entry` was made from these bytes by this version."""
        expected = (_SCHEMA, agent_core.__version__, str(self.path), len(self.data))
        actual = (entry.schema, entry.version, entry.path, entry.size)
        return (*expected, self.mtime_ns, self.digest) == (*actual, entry.mtime_ns, entry.digest)


class _MemoryEntry:
    """An entry in memory, with usage counts."""

    def __init__(self, entry: _Entry, now: float) -> None:
        self.entry = entry
        self.access_count = 0
        self.last_access = now


class ConfigurationCache:
    """Settings of config files, cached in memory and on disk. Thread-safe.

    `max_cache_size` limits the entries in memory and on disk; the least recently used are
    dropped first. `cache_ttl_seconds` is how long an entry is valid; None uses each file's
    `config_cache_ttl`, and 0 disables the cache. Without `directory` the cache is in memory
    only.
    """

    def __init__(
        self,
        max_cache_size: int = 32,
        cache_ttl_seconds: float | None = 3600,
        *,
        directory: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_cache_size = max_cache_size
        self.cache_ttl_seconds = cache_ttl_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, _MemoryEntry] = OrderedDict()
        self._disk = None if directory is None else _Disk(directory / "config", max_cache_size)
        self._counts = dict.fromkeys(("hits", "disk_hits", "misses", "invalid", "evicted"), 0)

    def load(self, config_file: str | Path) -> Settings:
        """The settings of the file, from the cache if possible. Logs what has no effect.

        Raises `ConfigError`.
        """
        snapshot = _Snapshot.take(Path(config_file))
        file = self._find(snapshot)
        if file is None:
            file = parse_file(snapshot.data, snapshot.path)
            self._store(snapshot, file)
        return _noted(file)

    def get_config(self, config_file: str | Path) -> Settings | None:
        """The cached settings of the file, or None. Raises `ConfigError` for an unreadable file."""
        file = self._find(_Snapshot.take(Path(config_file)))
        return None if file is None else file.settings

    def cache_config(self, config_file: str | Path, config: Settings) -> bool:
        """Caches `config` if it equals the contents of the file. Returns whether it did."""
        snapshot = _Snapshot.take(Path(config_file))
        file = parse_file(snapshot.data, snapshot.path)
        return file.settings == config and self._store(snapshot, file)

    def clear_cache(self) -> None:
        """Drops every entry, in memory and on disk, and resets the statistics."""
        with self._lock:
            self._memory.clear()
            self._counts = dict.fromkeys(self._counts, 0)
        if self._disk is not None:
            self._disk.remove(lambda entry: True)

    def optimize_cache(self) -> dict[str, int]:
        """Drops expired entries. Returns `stale_entries_removed` and `remaining_entries`."""
        with self._lock:
            stale = [k for k, kept in self._memory.items() if not self._fresh(kept.entry)]
            for key in stale:
                del self._memory[key]
            remaining = set(self._memory)
        removed = set(stale)
        if self._disk is not None:
            dropped, kept = self._disk.remove(lambda entry: not self._fresh(entry))
            removed |= dropped
            remaining |= kept
        return {"stale_entries_removed": len(removed), "remaining_entries": len(remaining)}

    def get_cache_stats(self) -> dict[str, Any]:
        """Statistics of this process; times in seconds, rates in percent.

        `total_hits` includes `disk_hits`. `disk_entries` counts the entries of all processes.
        """
        now = self._clock()
        with self._lock:
            counts = dict(self._counts)
            entries = [
                {
                    "file": path,
                    "access_count": kept.access_count,
                    "cache_age_seconds": now - kept.entry.created,
                    "last_access_seconds_ago": now - kept.last_access,
                }
                for path, kept in self._memory.items()
            ]
        lookups = counts["hits"] + counts["misses"]
        return {
            "cache_size": len(entries),
            "max_cache_size": self.max_cache_size,
            "hit_rate_percent": round(100 * counts["hits"] / lookups, 1) if lookups else 0.0,
            "total_hits": counts["hits"],
            "total_misses": counts["misses"],
            "invalidations": counts["invalid"],
            "evictions": counts["evicted"],
            "cache_entries": entries,
            "disk_hits": counts["disk_hits"],
            "disk_entries": 0 if self._disk is None else len(self._disk.files()),
        }

    def _find(self, snapshot: _Snapshot) -> ConfigFile | None:
        entry = self._find_in_memory(snapshot)
        if entry is None and self._disk is not None:
            entry = self._disk.read(snapshot.path)
            if entry is not None:
                entry = self._accept(snapshot, entry)
        with self._lock:
            self._counts["misses" if entry is None else "hits"] += 1
        if entry is None:
            return None
        return ConfigFile(_settings_of(entry, snapshot.data), entry.notes)

    def _find_in_memory(self, snapshot: _Snapshot) -> _Entry | None:
        """The entry in memory. Drops one that does not match the file."""
        key = str(snapshot.path)
        with self._lock:
            kept = self._memory.get(key)
            if kept is None:
                return None
            if not (snapshot.describes(kept.entry) and self._fresh(kept.entry)):
                del self._memory[key]
                self._counts["invalid"] += 1
                return None
            self._memory.move_to_end(key)
            kept.access_count += 1
            kept.last_access = self._clock()
            return kept.entry

    def _accept(self, snapshot: _Snapshot, entry: _Entry) -> _Entry | None:
        """Returns `entry`, read from disk, and keeps it in memory. None if it does not match."""
        fits = snapshot.describes(entry) and self._fresh(entry)
        with self._lock:
            self._counts["disk_hits" if fits else "invalid"] += 1
            if fits:
                self._remember(entry)
        return entry if fits else None

    def _remember(self, entry: _Entry) -> None:
        """Adds `entry` to memory. The caller holds the lock."""
        self._memory[entry.path] = _MemoryEntry(entry, self._clock())
        self._memory.move_to_end(entry.path)
        while len(self._memory) > self.max_cache_size:
            self._memory.popitem(last=False)
            self._counts["evicted"] += 1

    def _store(self, snapshot: _Snapshot, file: ConfigFile) -> bool:
        entry = _entry_for(snapshot, file, self._clock())
        if entry is None or not self._fresh(entry):
            return False
        with self._lock:
            self._remember(entry)
        if self._disk is not None:
            self._disk.write(entry)
        return True

    def _fresh(self, entry: _Entry) -> bool:
        ttl = self.cache_ttl_seconds
        if ttl is None:
            ttl = entry.settings.performance_settings.config_cache_ttl
        # A negative age means that the clock was set back, so the real age is unknown.
        return 0 <= self._clock() - entry.created < ttl


class _Disk:
    r"""The entries on disk: one file each, `<checksum>\n<JSON>`.

    It neither counts nor deletes files with other names. No file system error is raised;
    it counts as a miss.
    """

    _NAME = re.compile(r"[0-9a-f]{32}\.json|\.[0-9a-f]{16}\.tmp")

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def files(self) -> list[Path]:
        """The cache's files, including unfinished ones, least recently used first."""
        try:
            files = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path)
                for entry in os.scandir(self._folder)
                if self._NAME.fullmatch(entry.name)
            ]
        except OSError:
            return []
        return [Path(path) for _, path in sorted(files)]

    def read(self, config_file: Path) -> _Entry | None:
        """The entry for `config_file`, marked as used. None if there is no valid one."""
        if not self._is_private():
            return None
        return self._read_entry(self._path_of(str(config_file)), touch=True)

    def write(self, entry: _Entry) -> None:
        """Writes `entry` and deletes the oldest entries beyond the limit."""
        payload = msgspec.json.encode(entry)
        temporary = self._folder / f".{os.urandom(8).hex()}.tmp"
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(temporary, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(_checksum(payload) + b"\n" + payload)
            temporary.replace(self._path_of(entry.path))
            for path in self.files()[: -self._limit]:
                path.unlink(missing_ok=True)

    def remove(self, unwanted: Callable[[_Entry], bool]) -> tuple[set[str], set[str]]:
        """Deletes damaged and unwanted entries.

        Returns the config files of the removed entries and of the kept ones.
        """
        removed, kept = set(), set()
        for path in self.files() if self._is_private() else ():
            entry = self._read_entry(path, touch=False)
            if entry is not None and not unwanted(entry):
                kept.add(entry.path)
                continue
            with suppress(OSError):
                path.unlink()
                removed.add(path.name if entry is None else entry.path)
        return removed, kept

    def _path_of(self, config_file: str) -> Path:
        name = hashlib.blake2b(os.fsencode(config_file), digest_size=16).hexdigest()
        return self._folder / f"{name}.json"

    def _is_private(self) -> bool:
        """Whether the folder belongs to this user only. Restricts its mode if needed."""
        try:
            status = self._folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                return False
            if status.st_mode & 0o077:
                self._folder.chmod(0o700)
        except OSError:
            return False
        return True

    @staticmethod
    def _read_entry(path: Path, *, touch: bool) -> _Entry | None:
        """The entry in `path`. None if it is a link, foreign, readable by others, or damaged."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
                status = os.fstat(descriptor)
                private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
                if not (private and stat.S_ISREG(status.st_mode)):
                    return None
                checksum, _, payload = file.read().partition(b"\n")
                if checksum != _checksum(payload):
                    return None
                if touch:
                    os.utime(descriptor)
            return msgspec.json.decode(payload, type=_Entry)
        except (OSError, msgspec.DecodeError):
            return None


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=16).hexdigest().encode()


def _entry_for(snapshot: _Snapshot, file: ConfigFile, now: float) -> _Entry | None:
    """The cache entry for `file`. None if the file does not contain a secret verbatim.

    A key written with escapes, for instance, has no position in the file. None also with MCP
    servers, whose tokens may be anywhere; to start them takes much longer than to parse.
    """
    settings = file.settings
    if settings.mcp_servers:
        return None
    secrets: list[_Secret] = []
    for name, provider in settings.model_providers.items():
        for field in _SECRETS:
            value = (getattr(provider, field) or "").encode()
            start = snapshot.data.find(value)
            if start < 0:
                return None
            if value:
                secrets.append(_Secret(name, field, start, len(value)))
    blank = {name: _without_secrets(p) for name, p in settings.model_providers.items()}
    return _Entry(
        schema=_SCHEMA,
        version=agent_core.__version__,
        path=str(snapshot.path),
        size=len(snapshot.data),
        mtime_ns=snapshot.mtime_ns,
        digest=snapshot.digest,
        created=now,
        settings=msgspec.structs.replace(settings, model_providers=blank),
        notes=file.notes,
        secrets=tuple(secrets),
    )


def _without_secrets(provider: ProviderSettings) -> ProviderSettings:
    url = None if provider.base_url else provider.base_url
    return msgspec.structs.replace(provider, api_key="", base_url=url)


def _settings_of(entry: _Entry, data: bytes) -> Settings:
    """The settings with their secrets, read from `data`, the file that `entry` describes."""
    providers = dict(entry.settings.model_providers)
    for name, field, start, length in map(msgspec.structs.astuple, entry.secrets):
        value = data[start : start + length].decode()
        providers[name] = msgspec.structs.replace(providers[name], **{field: value})
    return msgspec.structs.replace(entry.settings, model_providers=providers)
