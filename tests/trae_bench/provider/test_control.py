"""Frames between parent and server, split at any position."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trae_bench.provider.control import FrameReader, pack

FRAMES = st.lists(
    st.tuples(
        st.dictionaries(st.text(min_size=1).filter(lambda key: key != "blobs"), st.integers()),
        st.lists(st.binary()),
    ),
    max_size=4,
)


@given(FRAMES, st.integers(1, 50))
def test_frames_survive_a_round_trip(
    frames: list[tuple[dict[str, Any], list[bytes]]], cut: int
) -> None:
    stream = b"".join(pack(message, blobs) for message, blobs in frames)
    reader = FrameReader()
    found = []
    for start in range(0, len(stream), cut):
        reader.feed(stream[start : start + cut])
        while frame := reader.next():
            message, blobs = frame
            del message["blobs"]
            found.append((message, blobs))
    assert found == frames
