"""JSON as bytes, the same bytes for the same data, whoever asks."""

from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()


def encode_json(value: Any) -> bytes:
    """`value` as compact UTF-8 JSON, keys in their order.

    Half a surrogate pair has no UTF-8 form, and a tool's output may hold one (a file
    name that is no text, say). It becomes "?", because one odd character must not end
    a session.
    """
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _ENCODER.encode(_scrubbed(value))


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_scrubbed(key): _scrubbed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(item) for item in value]
    return value
