"""Deterministic JSON encoding: equal data gives equal bytes."""

from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()


def encode_json(value: Any) -> bytes:
    """`value` as compact UTF-8 JSON. Dictionary keys keep their order.

    A lone surrogate has no UTF-8 form, but tool output may contain one, for instance in a
    file name. It becomes "?", because one bad character must not end a session.
    """
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _ENCODER.encode(_without_surrogates(value))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value
