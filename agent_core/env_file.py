"""Reads API keys from a file `.env`, as Trae Agent does."""

import io
import logging
import re
from collections.abc import Mapping
from pathlib import Path

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Z0-9_]+_(API_KEY|BASE_URL)")
_MAX_SIZE = 64 * 1024
"""Bytes. A longer file is not read."""


def with_env_file(environ: Mapping[str, str], folder: Path) -> Mapping[str, str]:
    """`environ` with the keys and addresses of `folder`'s `.env` that it lacks.

    The file may come with the project, so it can set nothing else. Its address for a provider
    counts only together with its key: otherwise it could send the user's key elsewhere. An
    unreadable file is a warning.
    """
    path = folder / ".env"
    if not path.is_file():
        return environ
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE + 1)
    except OSError as error:
        _LOG.warning("%s: not read: %s.", path, error.strerror or error)
        return environ
    if len(data) > _MAX_SIZE:
        _LOG.warning("%s: not read: longer than %d bytes.", path, _MAX_SIZE)
        return environ
    found = {name: value for name, value in _values(data).items() if not environ.get(name)}
    added = {}
    for name, value in found.items():
        owner = name.removesuffix("_BASE_URL")
        if owner != name and f"{owner}_API_KEY" not in found:
            _LOG.warning("%s: %s is ignored, because its key is not in the file.", path, name)
        else:
            added[name] = value
    return {**environ, **added}


def _values(data: bytes) -> dict[str, str]:
    from dotenv import dotenv_values  # needed only if there is a file

    text = io.StringIO(data.decode("utf-8", "replace"))
    values = dotenv_values(stream=text, interpolate=False)
    # A blank key does not count when a key is sent, so it must not admit an address. A null
    # character would keep each shell from starting.
    return {
        name: value
        for name, value in values.items()
        if value and value.strip() and "\0" not in value and _NAME.fullmatch(name)
    }
