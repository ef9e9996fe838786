"""Facts about the host are plain data."""

import os

import msgspec
import pytest

from trae_bench._util import host_facts


def test_the_fingerprint_is_stable_plain_data() -> None:
    first, second = host_facts.fingerprint(), host_facts.fingerprint()
    assert msgspec.json.decode(msgspec.json.encode(first)) == first
    for facts in (first, second):
        for name in host_facts.CHANGING:
            facts.pop(name, None)
    assert first == second
    assert {"system", "kernel", "cores", "python"} <= first.keys()


def test_the_load_is_rounded_as_the_kernel_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (7.63916015625, 1.0, 1.0))
    assert host_facts.fingerprint()["load"] == 7.64
