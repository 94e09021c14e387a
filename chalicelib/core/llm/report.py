"""What operators see of the calls of language models: a line and counts for each, nothing of what was said."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.core import telemetry
from chalicelib.core.llm.model import DEFAULT_OPTIONS, ChatMessage, ChatOptions, Completion, Llm


class ReportedLlm:
    """A model whose calls are reported.

    Parameters
    ----------
    inner
        Whom to ask.
    app_id
        On whose behalf.
    model
        Of calls that name none.
    """

    def __init__(self, inner: Llm, app_id: int, model: str | None) -> None:
        self._inner = inner
        self._app_id = app_id
        self._model = model

    @property
    def configured(self) -> bool:
        return self._inner.configured

    def chat(self, messages: Sequence[ChatMessage], options: ChatOptions = DEFAULT_OPTIONS) -> Completion:
        """See `Llm.chat`."""
        telemetry.metric("llm.calls", 1)
        with telemetry.operation("llm.chat", app_id=self._app_id, model=options.model or self._model) as line:
            try:
                answer = self._inner.chat(messages, options)
            except Exception:
                telemetry.metric("llm.failures", 1)
                raise
            used = answer.usage
            line.note(
                inputTokens=used.input_tokens,
                outputTokens=used.output_tokens,
                finishReason=answer.finish_reason,
            )
        telemetry.metric("llm.tokens_in", used.input_tokens)
        telemetry.metric("llm.tokens_out", used.output_tokens)
        return answer
