"""The cores of a duet and of the provider."""

from pathlib import Path

import pytest

from trae_bench._util import cpu_affinity


@pytest.mark.parametrize(
    ("usable", "siblings", "duet", "provider"),
    [
        ((), "", None, None),
        ((3,), "3", 3, 3),
        ((0, 1), "0-1", 1, 0),
        ((0, 1, 2, 3), "2-3", 3, 0),
        ((2, 3, 6, 7), "3,7", 7, 2),
        ((3, 6, 7), "3,7", 7, 6),
    ],
)
def test_the_provider_avoids_the_core_of_the_duet(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    usable: tuple[int, ...],
    siblings: str,
    duet: int | None,
    provider: int | None,
) -> None:
    monkeypatch.setattr(cpu_affinity, "cores", lambda: usable)
    monkeypatch.setattr(cpu_affinity, "_CPU", tmp_path)
    if duet is not None:
        (tmp_path / f"cpu{duet}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{duet}/topology/thread_siblings_list").write_text(siblings + "\n")
    assert (cpu_affinity.duet_core(), cpu_affinity.provider_core()) == (duet, provider)
