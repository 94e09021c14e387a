"""What nodes that ask a language model need from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.core.llm.model import Llm

Key = Callable[[], str | None]


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
    """

    llm: Callable[[int], Llm]
    llm_at: Callable[[int, str, str | None, Key], Llm]
    secret: Callable[[int, str, str], str]


def model_services() -> ModelServices:
    """Return what this process has."""
    from chalicelib.apps import secrets
    from chalicelib.core import process

    return ModelServices(
        process.llm,
        process.llm_at,
        lambda app_id, name, url: secrets.reveal_for(process.database(), app_id, name, url),
    )
