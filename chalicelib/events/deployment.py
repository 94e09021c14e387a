"""`migrate` as a resource of a deployment: CloudFormation asks, and waits for an answer at a URL that it names.

The cluster's master is used here and nowhere else: to migrate, and to make the user of all other functions, who may
read and write rows and nothing more. Neither the answer nor the log holds anything of a secret.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import make_url, text

from chalicelib.core import process, telemetry
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import HotplugError
from chalicelib.core.settings import settings
from chalicelib.events import migration

PHYSICAL_ID = "hotplug-database"
ANSWER_TIMEOUT_S, ANSWER_ATTEMPTS = 10, 3
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
_USER = re.compile(r"[a-z][a-z_]{0,31}")
_HOST = re.compile(r"[a-z0-9.-]+\.amazonaws\.com(\.cn)?")


def handle(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Migrate: as CloudFormation's custom resource where the event is one, else as `migration.migrate` says.

    A failure is answered and logged, not raised: Lambda would run it twice again, long after the deployment was
    rolled back.
    """
    if "ResponseURL" not in event:
        return migration.migrate(dict(event), context)
    return answer(event, lambda: deploy(event.get("ResourceProperties", {})), send)


def answer(
    event: Mapping[str, Any],
    work: Callable[[], dict[str, str]],
    put: Callable[[str, bytes], None],
) -> dict[str, Any]:
    """Do `work` for a request of CloudFormation, put the answer to its URL, and return it."""
    document: dict[str, Any] = {
        "Status": "SUCCESS",
        "PhysicalResourceId": event.get("PhysicalResourceId") or PHYSICAL_ID,
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")},
    }
    try:
        # The database outlives the resource, and what is in it too.
        if event["RequestType"] != "Delete":
            document["Data"] = work()
    except Exception as error:  # noqa: BLE001 - unanswered, the deployment would wait for its timeout
        telemetry.exception("deployment.failed", error)
        why = error.code if isinstance(error, HotplugError) else type(error).__name__
        document |= {"Status": "FAILED", "Reason": f"{why}; the log of migrate says more"}
    finally:
        telemetry.flush()
    put(event["ResponseURL"], json.dumps(document).encode())
    return document


def deploy(properties: Mapping[str, str]) -> dict[str, str]:
    """Migrate the deployment's database and make its user.

    Parameters
    ----------
    properties
        Of the resource: `Host` and `MasterSecret` of the cluster as it is now. A version of this function that was
        published before the cluster was replaced has those of the old one in its environment.

    Returns
    -------
    `{"Revision": …}`

    Raises
    ------
    errors.HotplugError
        As `DeploymentSecrets.value` and `migration.migrate_database` do.
    """
    master, user, admin = (
        json.loads(process.deployment_secrets().value(name))
        for name in (
            properties.get("MasterSecret") or os.environ["HOTPLUG_MASTER_SECRET"],
            os.environ["HOTPLUG_DATABASE_SECRET"],
            os.environ["HOTPLUG_ADMIN_SECRET"],
        )
    )
    url = make_url(settings().database_url).set(username=master["username"], password=master["password"])
    if host := properties.get("Host"):
        url = url.set(host=host)
    database = DatabaseService(url.render_as_string(hide_password=False), ca_file=settings().database_ca)
    try:
        report = migration.migrate_database(database, admin=first_admin(admin))
        make_user(database, user["username"], user["password"])
    finally:
        database.close()
    telemetry.event("deployment.migrated", revision=report["revision"], tables=report["tables"])
    return {"Revision": report["revision"]}


def first_admin(secret: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the first admin: its key, and only the hash of its secret."""
    digest = hashlib.sha256(secret["apiSecret"].encode()).hexdigest()
    return {"HOTPLUG_ADMIN_API_KEY": secret["apiKey"], "HOTPLUG_ADMIN_SECRET_HASH": digest}


def make_user(database: DatabaseService, name: str, password: str) -> None:
    """Make the user of the functions, or give it this password, and its rights on this database alone."""
    if not _USER.fullmatch(name):
        raise ValueError("the user's name is not one")
    quoted = database.engine.dialect.identifier_preparer.quote_identifier(str(database.engine.url.database))
    with database.connection() as connection:
        connection.execute(
            text(f"CREATE USER IF NOT EXISTS '{name}'@'%' IDENTIFIED BY :password REQUIRE SSL"),
            {"password": password},
        )
        connection.execute(
            text(f"ALTER USER '{name}'@'%' IDENTIFIED BY :password REQUIRE SSL"), {"password": password}
        )
        connection.execute(text(f"GRANT {RIGHTS} ON {quoted}.* TO '{name}'@'%'"))


def send(url: str, body: bytes) -> None:
    """Put an answer to CloudFormation's URL, which is S3's; tried three times.

    Raises
    ------
    ValueError
        The URL leads elsewhere than to AWS.
    OSError
        It could not be put.
    """
    import http.client

    parts = urlsplit(url)
    if parts.scheme != "https" or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("CloudFormation's answer does not go to AWS")
    for attempt in range(1, ANSWER_ATTEMPTS + 1):
        connection = http.client.HTTPSConnection(parts.netloc, timeout=ANSWER_TIMEOUT_S)
        try:
            # S3 signed the URL for an empty type.
            connection.request("PUT", f"{parts.path}?{parts.query}", body, {"Content-Type": ""})
            status = connection.getresponse().status
            if status == 200:
                return
            raise OSError(f"CloudFormation's answer was refused with status {status}")
        except (OSError, http.client.HTTPException) as error:
            if attempt == ANSWER_ATTEMPTS:
                raise OSError("CloudFormation could not be answered") from error
            time.sleep(attempt)
        finally:
            connection.close()
