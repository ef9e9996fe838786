"""Reads config files: JSON or YAML, in the guide's or Trae Agent's shape, into `Settings`.

The suffix (`.json`, `.yaml`, `.yml`) selects the format; see `config_formats` and
`config_shapes`.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from agent_core.config import Settings
from agent_core.config_formats import decode, reader_of
from agent_core.config_shapes import InvalidValue, notes_on, settings_of
from agent_core.errors import ConfigError

DEFAULT_FILES = ("trae_config.yaml", "trae_config.yml", "trae_config.json")
"""Files that the command line looks for if none is named, in this order."""


class ConfigFile(Struct, frozen=True):
    """The contents of a file."""

    settings: Settings
    notes: tuple[str, ...] = ()
    """Warnings: which settings have no effect, by line."""


def parse_file(data: bytes, path: Path) -> ConfigFile:
    """The contents of the file `path`, `data`. The suffix selects the format.

    Raises `ConfigError`, which names file, line, field and remedy and shows no key. Raises
    `MissingDependencyError` for YAML if PyYAML is not installed.
    """
    reader, text = reader_of(path), decode(data, path)
    raw = reader.parse(text, path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected an object with settings, got {type(raw).__name__}.")

    def located(keys: tuple[str, ...], message: str) -> str:
        line = reader.line(text, tuple(re.sub(r"\[\d+\]$", "", key) for key in keys))
        place = f"{path}, line {line}" if line else str(path)
        return f"{place}, {'.'.join(keys) or 'the top level'}: {message}"

    try:
        settings = settings_of(raw)
    except InvalidValue as error:
        raise ConfigError(located(error.path, str(error))) from None
    return ConfigFile(settings, tuple(located(keys, note) for keys, note in notes_on(raw)))


def parse_settings(data: bytes, path: Path) -> Settings:
    """The settings of `parse_file`."""
    return parse_file(data, path).settings


def read_config_file(path: Path) -> tuple[bytes, int]:
    """The bytes of one consistent state of `path`, and its mtime in ns.

    Compares the status of the open file before and after reading, and reads again if it
    changed. Raises `ConfigError`.
    """
    try:
        for _ in range(8):
            with path.open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                data = file.read()
                after = os.fstat(file.fileno())
            if len(data) == after.st_size and before.st_mtime_ns == after.st_mtime_ns:
                return data, after.st_mtime_ns
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"{path}: cannot be read ({reason}); check --config or TRAE_CONFIG_FILE."
        ) from None
    raise ConfigError(f"{path}: keeps changing while it is read; try again later.")


def location_of(path: Path, *candidates: tuple[str, ...]) -> str:
    """A prefix for an error: the file, and line and path of the first of `candidates` in it."""
    reader, text = reader_of(path), decode(read_config_file(path)[0], path)
    for candidate in candidates:
        if line := reader.line(text, candidate):
            return f"{path}, line {line}, {'.'.join(candidate)}: "
    return f"{path}: "


def find_config_file(environ: Mapping[str, str], folder: Path) -> Path | None:
    """The file named by `TRAE_CONFIG_FILE`, else the first of `DEFAULT_FILES` in `folder`."""
    if named := environ.get("TRAE_CONFIG_FILE"):
        return Path(named)
    return next((path for name in DEFAULT_FILES if (path := folder / name).is_file()), None)
