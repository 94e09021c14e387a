"""How long an agent's calls to the outside may take together, where whoever asks it cannot wait for ever."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chalicelib.core.errors import UpstreamTimeout
from chalicelib.core.llm.model import DEFAULT_OPTIONS, ChatMessage, ChatOptions, Completion, Llm


@dataclass(frozen=True)
class TimeLeft:
    """What is left of the time of an invocation.

    Parameters
    ----------
    ends
        By `time.monotonic`; by default never.
    """

    ends: float = math.inf

    @classmethod
    def of(cls, seconds: float | None) -> TimeLeft:
        """Return the time left from now; None for no limit."""
        return cls() if seconds is None else cls(time.monotonic() + seconds)

    def seconds(self, most: float) -> float:
        """Return the seconds that a call may take, at most `most`.

        Raises
        ------
        errors.UpstreamTimeout
            `agent.timeout`: none are left.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise UpstreamTimeout("The agent had no time left for another call.", code="agent.timeout")
        return min(left, most)

    def milliseconds(self, most: int) -> int:
        """Return the milliseconds that a call may take, at least one; see `seconds`."""
        return max(1, int(self.seconds(most / 1000) * 1000))


class BoundedLlm:
    """A model that is not waited for longer than there is time.

    Parameters
    ----------
    inner
        Whom to ask.
    """

    def __init__(self, inner: Llm, left: TimeLeft) -> None:
        self._inner = inner
        self._left = left

    @property
    def configured(self) -> bool:
        return self._inner.configured

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        """See `Llm.chat`."""
        within = self._left.seconds(options.timeout_s)
        return self._inner.chat(messages, replace(options, timeout_s=within))
