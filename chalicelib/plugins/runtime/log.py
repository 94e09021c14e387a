"""What a plugin wrote to stderr during one invocation, kept up to a limit."""

from __future__ import annotations

from chalicelib.plugins.runtime.faults import MAX_LOG_BYTES

CUT_MARK = "\n[log cut]\n"


class Log:
    """The first MAX_LOG_BYTES that were written; the rest is counted as cut and forgotten."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._cut = False

    def write(self, piece: bytes) -> None:
        room = MAX_LOG_BYTES - len(CUT_MARK) - len(self._kept)
        self._cut = self._cut or len(piece) > room
        self._kept += piece[: max(0, room)]

    def text(self) -> str:
        """Return the log as text; bytes that are not UTF-8 are replaced."""
        # A replacement character has three bytes: binary noise must not become three times the limit.
        text = self._kept.decode("utf-8", errors="replace").encode("utf-8")
        cut = self._cut or len(text) > MAX_LOG_BYTES - len(CUT_MARK)
        kept = text[: MAX_LOG_BYTES - len(CUT_MARK)].decode("utf-8", errors="ignore")
        return kept + CUT_MARK if cut else kept
