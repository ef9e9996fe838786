"""Configuration files: parsed at each start, or kept on disk between processes.

    PlainConfig    reads, parses and validates the file each time
    CachedConfig   the same answer from a cache, where the file's content is unchanged

What it buys, measured in fresh processes (Python 3.11, files of 1 kB): nothing for JSON,
which parses in 0.6 ms, and which the cache answers in 0.5; much for YAML, 0.5 ms instead
of 11, because PyYAML is not even imported. Both read the file each time, for an entry
is trusted only for the very bytes it was made from: an edit that leaves size and time
alone is seen, too.

On disk, an entry is one file, readable by its owner only, in a folder that is the
owner's only. It holds the settings without `api_key` and `base_url`, and for each of
them where its bytes stand in the config file, so no secret is ever written. An entry
that is damaged, too old, not ours, a link, or open to others is ignored and replaced.
A cache that cannot be read or written costs time and is never an error.
"""

import hashlib
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
from agent_core.config_file import parse_settings, read_config_file

_SCHEMA = 1
_SECRETS = ("api_key", "base_url")
"""Fields that stay out of the cache; a URL may carry a password or a key in its query."""


class PlainConfig:
    """Reads, parses and validates the file each time it is asked."""

    def load(self, path: Path) -> Settings:
        """The settings of the file. Raises `ConfigError`."""
        data, _ = read_config_file(path)
        return parse_settings(data, path)


class CachedConfig:
    """Answers from a `ConfigurationCache`; the environment names its folder and its TTL."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.cache = ConfigurationCache(
            cache_ttl_seconds=cache_ttl(environ), directory=cache_directory(environ)
        )

    def load(self, path: Path) -> Settings:
        """The settings of the file. Raises `ConfigError`."""
        return self.cache.load(path)


def cache_directory(environ: Mapping[str, str]) -> Path | None:
    """`agent-core` in `TRAE_CACHE_DIR`, else in the user's cache folder; None without either.

    A folder of its own, since the cache closes it to others and deletes in it.
    """
    if named := environ.get("TRAE_CACHE_DIR") or environ.get("XDG_CACHE_HOME"):
        return Path(named, "agent-core")
    home = environ.get("HOME")
    return Path(home, ".cache", "agent-core") if home else None


class _Secret(Struct, frozen=True, array_like=True):
    """Where one value stands in the config file's bytes."""

    provider: str
    field: str
    start: int
    length: int


class _Entry(Struct, frozen=True, kw_only=True):
    """One cached file. `settings` lack the fields that `secrets` point to."""

    schema: int
    version: str
    path: str
    size: int
    mtime_ns: int
    digest: str
    created: float
    """Wall clock, in seconds."""
    settings: Settings
    secrets: tuple[_Secret, ...]


class _Snapshot(Struct, frozen=True):
    """One coherent state of a config file."""

    path: Path
    data: bytes
    mtime_ns: int
    digest: str

    @classmethod
    def take(cls, config_file: Path) -> "_Snapshot":
        path = Path(os.path.abspath(config_file))  # noqa: PTH100 - links stay as they were named
        data, mtime_ns = read_config_file(path)
        return cls(path, data, mtime_ns, hashlib.blake2b(data, digest_size=20).hexdigest())

    def describes(self, entry: _Entry) -> bool:
        """Whether `entry` was made of these very bytes, by this very version."""
        mine = (_SCHEMA, agent_core.__version__, str(self.path), len(self.data))
        theirs = (entry.schema, entry.version, entry.path, entry.size)
        return (*mine, self.mtime_ns, self.digest) == (*theirs, entry.mtime_ns, entry.digest)


class _MemoryEntry:
    """An entry of the process's own layer, and how often it served."""

    def __init__(self, entry: _Entry, now: float) -> None:
        self.entry = entry
        self.access_count = 0
        self.last_access = now


class ConfigurationCache:
    """Settings of config files, in this process and on disk. Safe to use from threads.

    `max_cache_size` bounds the files remembered here and the entries on disk, the least
    recently used going first. `cache_ttl_seconds` is how long an entry is trusted; None
    leaves it to each file's own `config_cache_ttl`, and 0 turns the cache off.
    Without a `directory` nothing is kept on disk.
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
        """The settings of the file, from the cache where it can. Raises `ConfigError`."""
        snapshot = _Snapshot.take(Path(config_file))
        found = self._find(snapshot)
        if found is not None:
            return found
        settings = parse_settings(snapshot.data, snapshot.path)
        self._store(snapshot, settings)
        return settings

    def get_config(self, config_file: str | Path) -> Settings | None:
        """The cached settings of the file, or None. Raises `ConfigError` for no such file."""
        return self._find(_Snapshot.take(Path(config_file)))

    def cache_config(self, config_file: str | Path, config: Settings) -> bool:
        """Keeps `config` for the file, if it is what the file says now; returns whether it did."""
        snapshot = _Snapshot.take(Path(config_file))
        if parse_settings(snapshot.data, snapshot.path) != config:
            return False
        return self._store(snapshot, config)

    def clear_cache(self) -> None:
        """Forgets every entry, here and on disk, and starts the statistics again."""
        with self._lock:
            self._memory.clear()
            self._counts = dict.fromkeys(self._counts, 0)
        if self._disk is not None:
            self._disk.remove(lambda entry: True)

    def optimize_cache(self) -> dict[str, int]:
        """Drops the entries past their time: `stale_entries_removed`, `remaining_entries`."""
        with self._lock:
            stale = [k for k, kept in self._memory.items() if not self._fresh(kept.entry)]
            for key in stale:
                del self._memory[key]
            remaining = set(self._memory)
        removed = set(stale)
        if self._disk is not None:
            gone, left = self._disk.remove(lambda entry: not self._fresh(entry))
            removed |= gone
            remaining |= left
        return {"stale_entries_removed": len(removed), "remaining_entries": len(remaining)}

    def get_cache_stats(self) -> dict[str, Any]:
        """What this process asked for and got; times in seconds, rates in percent.

        `total_hits` includes `disk_hits`. `disk_entries` counts what all processes left.
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
        asked = counts["hits"] + counts["misses"]
        return {
            "cache_size": len(entries),
            "max_cache_size": self.max_cache_size,
            "hit_rate_percent": round(100 * counts["hits"] / asked, 1) if asked else 0.0,
            "total_hits": counts["hits"],
            "total_misses": counts["misses"],
            "invalidations": counts["invalid"],
            "evictions": counts["evicted"],
            "cache_entries": entries,
            "disk_hits": counts["disk_hits"],
            "disk_entries": 0 if self._disk is None else len(self._disk.files()),
        }

    def _find(self, snapshot: _Snapshot) -> Settings | None:
        entry = self._find_in_memory(snapshot)
        if entry is None and self._disk is not None:
            entry = self._disk.read(snapshot.path)
            if entry is not None:
                entry = self._accept(snapshot, entry)
        with self._lock:
            self._counts["misses" if entry is None else "hits"] += 1
        return None if entry is None else _settings_of(entry, snapshot.data)

    def _find_in_memory(self, snapshot: _Snapshot) -> _Entry | None:
        """The entry of this process's own layer; one that no longer fits is dropped."""
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
        """`entry` from the disk, remembered here, or None where it does not fit the file."""
        fits = snapshot.describes(entry) and self._fresh(entry)
        with self._lock:
            self._counts["disk_hits" if fits else "invalid"] += 1
            if fits:
                self._remember(entry)
        return entry if fits else None

    def _remember(self, entry: _Entry) -> None:
        """Puts `entry` into this process's layer; the lock is held."""
        self._memory[entry.path] = _MemoryEntry(entry, self._clock())
        self._memory.move_to_end(entry.path)
        while len(self._memory) > self.max_cache_size:
            self._memory.popitem(last=False)
            self._counts["evicted"] += 1

    def _store(self, snapshot: _Snapshot, settings: Settings) -> bool:
        entry = _entry_for(snapshot, settings, self._clock())
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
        # An age below zero means that the clock was set back: then nothing is known of it.
        return 0 <= self._clock() - entry.created < ttl


class _Disk:
    """The entries that outlive the process: one file each, `<checksum>\\n<JSON>`.

    Files of other names are nobody's here: they are neither counted nor deleted.
    Nothing here raises for what the file system does: a cache that fails is a miss.
    """

    _NAME = re.compile(r"[0-9a-f]{32}\.json|\.[0-9a-f]{16}\.tmp")

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def files(self) -> list[Path]:
        """The cache's own files, the least recently used first; half-written ones, too."""
        try:
            found = [
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path)
                for entry in os.scandir(self._folder)
                if self._NAME.fullmatch(entry.name)
            ]
        except OSError:
            return []
        return [Path(path) for _, path in sorted(found)]

    def read(self, config_file: Path) -> _Entry | None:
        """The entry kept for `config_file`, marked as used; None where there is no sound one."""
        if not self._is_private():
            return None
        return self._read_entry(self._place(str(config_file)), touch=True)

    def write(self, entry: _Entry) -> None:
        """Keeps `entry` in place of what was there, and drops what is beyond the limit."""
        payload = msgspec.json.encode(entry)
        half = self._folder / f".{os.urandom(8).hex()}.tmp"
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(half, flags, 0o600), "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(_checksum(payload) + b"\n" + payload)
            half.replace(self._place(entry.path))
            for path in self.files()[: -self._limit]:
                path.unlink(missing_ok=True)

    def remove(self, unwanted: Callable[[_Entry], bool]) -> tuple[set[str], set[str]]:
        """Deletes unsound and unwanted entries; the config files of those gone and left."""
        gone, left = set(), set()
        for path in self.files() if self._is_private() else ():
            entry = self._read_entry(path, touch=False)
            if entry is not None and not unwanted(entry):
                left.add(entry.path)
                continue
            with suppress(OSError):
                path.unlink()
                gone.add(path.name if entry is None else entry.path)
        return gone, left

    def _place(self, config_file: str) -> Path:
        name = hashlib.blake2b(os.fsencode(config_file), digest_size=16).hexdigest()
        return self._folder / f"{name}.json"

    def _is_private(self) -> bool:
        """Whether the folder is ours alone; where only its mode is too wide, it is narrowed."""
        try:
            found = self._folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                return False
            if found.st_mode & 0o077:
                self._folder.chmod(0o700)
        except OSError:
            return False
        return True

    @staticmethod
    def _read_entry(path: Path, *, touch: bool) -> _Entry | None:
        """The entry in `path`; None for a link, a stranger's file, an open or a damaged one."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
                found = os.fstat(descriptor)
                private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
                if not (private and stat.S_ISREG(found.st_mode)):
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


def _entry_for(snapshot: _Snapshot, settings: Settings, now: float) -> _Entry | None:
    """The entry for `settings`, or None where a secret is not spelled out in the file.

    A key written with escapes, say, has no bytes of its own to point to.
    """
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
        secrets=tuple(secrets),
    )


def _without_secrets(provider: ProviderSettings) -> ProviderSettings:
    url = None if provider.base_url else provider.base_url
    return msgspec.structs.replace(provider, api_key="", base_url=url)


def _settings_of(entry: _Entry, data: bytes) -> Settings:
    """The settings with their secrets, taken from the bytes that `entry` was made of."""
    providers = dict(entry.settings.model_providers)
    for name, field, start, length in map(msgspec.structs.astuple, entry.secrets):
        value = data[start : start + length].decode()
        providers[name] = msgspec.structs.replace(providers[name], **{field: value})
    return msgspec.structs.replace(entry.settings, model_providers=providers)
