"""Signing in to the database with the function's role: a token of 15 minutes instead of a password.

boto3 signs the same (`generate_db_auth_token`; a test compares), and costs 360 ms of import on a cold start.
https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.Connecting.html
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy import event
from sqlalchemy.engine import Engine

LIFE_S = 900
_ALGORITHM, _SERVICE = "AWS4-HMAC-SHA256", "rds-db"


class NoCredentials(RuntimeError):
    """The environment has no credentials of a role: outside Lambda nobody signs in with a token."""


def auth_token(
    host: str,
    port: int,
    user: str,
    *,
    environment: Mapping[str, str] = os.environ,
    now: datetime | None = None,
) -> str:
    """Return the token with which `user` signs in at `host`.

    Parameters
    ----------
    host
        As RDS names it: the signature covers it, so an alias of one's own does not do.
    environment
        Where Lambda puts the role's credentials and the region.

    Raises
    ------
    NoCredentials
    """
    try:
        key, secret = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        region = environment["AWS_REGION"]
    except KeyError as error:
        raise NoCredentials(f"{error.args[0]} is not set") from error
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{region}/{_SERVICE}/aws4_request"
    query = {
        "Action": "connect",
        "DBUser": user,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{key}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(LIFE_S),
        "X-Amz-SignedHeaders": "host",
    }
    if session := environment.get("AWS_SESSION_TOKEN"):
        query["X-Amz-Security-Token"] = session
    canonical = "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))
    request = "\n".join(
        ("GET", "/", canonical, f"host:{host}:{port}", "", "host", hashlib.sha256(b"").hexdigest())
    )
    to_sign = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    signing_key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    signature = hmac.digest(signing_key, to_sign.encode(), "sha256").hex()
    return f"{host}:{port}/?{canonical}&X-Amz-Signature={signature}"


def sign_in_with_tokens(engine: Engine) -> None:
    """Let every new connection of `engine` sign in with a token made for it; those that stand outlive theirs."""

    def give_token(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
        options["password"] = auth_token(options["host"], int(options.get("port", 3306)), options["user"])

    event.listen(engine, "do_connect", give_token)
