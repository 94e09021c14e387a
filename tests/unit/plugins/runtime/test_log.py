from __future__ import annotations

import pytest

from chalicelib.plugins.runtime.faults import MAX_LOG_BYTES
from chalicelib.plugins.runtime.log import CUT_MARK, Log

ROOM = MAX_LOG_BYTES - len(CUT_MARK)


def written(*pieces: bytes) -> str:
    log = Log()
    for piece in pieces:
        log.write(piece)
    return log.text()


def test_what_fits_is_kept() -> None:
    assert written(b"a\n", "ü".encode(), b"") == "a\nü"
    assert written(b"x" * ROOM) == "x" * ROOM


@pytest.mark.parametrize(
    "pieces", [(b"x" * (ROOM + 1),), (b"x" * ROOM, b"y"), (b"x" * 10 * MAX_LOG_BYTES, b"y")]
)
def test_the_rest_is_cut_and_marked(pieces: tuple[bytes, ...]) -> None:
    assert written(*pieces) == "x" * ROOM + CUT_MARK


def test_noise_does_not_grow_when_it_becomes_text() -> None:
    text = written(b"\xff" * ROOM)

    assert len(text.encode()) <= MAX_LOG_BYTES
    assert text.startswith("\ufffd")
    assert text.endswith(CUT_MARK)
