"""What nodes that ask a language model need from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chalicelib.core.llm.model import ChatMessage, Llm
from chalicelib.flows.engine.call import Call

Key = Callable[[], str | None]


def no_history(call: Call, max_tokens: int) -> Sequence[ChatMessage]:
    """Nothing was said before."""
    return ()


@dataclass(frozen=True)
class ModelServices:
    """What nodes that ask a model use. Several threads call all of it at once.

    Parameters
    ----------
    llm
        Returns the deployment's model as one app (its id) uses it.
    llm_at
        Returns the model at an endpoint: the id of the app that uses it, URL, model, what returns the key. It
        raises `errors.Invalid` for a URL that is none.
    secret
        Returns the value of an app's secret: the app's id, the secret's name, the URL that it will be sent to. It
        raises `errors.NotFound`, and `errors.Forbidden` where it may not be sent there.
    history
        Returns what was said before in this node's conversation, oldest first, each user's message followed by the
        assistant's. Its second argument is the node's `maxTokens`, or `asking.TOKEN_LIMIT` where it states none;
        the history takes 0.8 of that, counted in bytes.
    """

    llm: Callable[[int], Llm]
    llm_at: Callable[[int, str, str | None, Key], Llm]
    secret: Callable[[int, str, str], str]
    history: Callable[[Call, int], Sequence[ChatMessage]] = no_history


def model_services(history: Callable[[Call, int], Sequence[ChatMessage]] = no_history) -> ModelServices:
    """Return what this process has."""
    from chalicelib.apps import secrets
    from chalicelib.core import process

    return ModelServices(
        process.llm,
        process.llm_at,
        lambda app_id, name, url: secrets.reveal_for(process.database(), app_id, name, url),
        history,
    )
