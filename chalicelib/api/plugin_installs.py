"""/api/v1/plugins/install, the install tasks, updates and the manifest check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chalice.app import Blueprint

from chalicelib.api.body import UPLOAD_LIMIT
from chalicelib.api.endpoint import BASE, endpoint
from chalicelib.api.parameters import PAGE, page_of
from chalicelib.api.plugin_schemas import INSTALL, INSTALL_STATES, OPENED_INSTALL, PLUGIN, VALIDATION
from chalicelib.api.request import Answer, Request, UploadedFile
from chalicelib.core.database import Unit
from chalicelib.core.errors import Invalid, Violation
from chalicelib.plugins import installs, uploads
from chalicelib.plugins.decision import Act
from chalicelib.plugins.registration import Registered
from chalicelib.plugins.services import plugin_services

blueprint = Blueprint(__name__)

# What is new is not enabled, so nothing is loaded; what must be compiled is registered by another function.
REGISTERS = ("database", "write_artifacts")
# An enabled plugin's new version is loaded with the configuration in force, decrypted.
UPDATES = (*REGISTERS, "presign_packages", "invoke_runtime", "open_secrets")
DECLARED: dict[str, Any] = {
    "filename": {"type": "string", "minLength": 1, "maxLength": 255},
    "size": {"type": "integer", "minimum": 1, "maximum": 2**31},
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}


def _order(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a JSON install: a local package to be uploaded, or one from a market."""
    return {
        "type": "object",
        "required": ["source"],
        "properties": {
            "source": {"enum": ["local", "market"]},
            **DECLARED,
            "marketId": {"type": "string", "minLength": 1, "maxLength": 128},
            "version": {"type": "string", "minLength": 1, "maxLength": 32},
            **extra,
        },
        "additionalProperties": False,
        "allOf": [
            {
                "if": {"properties": {"source": {"const": "local"}}, "required": ["source"]},
                "then": {"required": ["filename", "size", "sha256"]},
            },
            {
                "if": {"properties": {"source": {"const": "market"}}, "required": ["source"]},
                "then": {"required": ["marketId"]},
            },
        ],
    }


def _form(extra: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["source"],
        "properties": {
            "source": {"enum": ["local", "market"]},
            "manifest": {"type": "string"},
            "marketId": {"type": "string"},
            **extra,
        },
        "additionalProperties": False,
    }


@endpoint(
    blueprint, "POST", "/plugins/install", role="publisher", idempotent=True,
    body=_order({}), multipart=_form({}), max_body_bytes=UPLOAD_LIMIT,
    errors=(409, 422), rights=REGISTERS, memory_mb=1024,
    returns={200: PLUGIN, 201: PLUGIN, 202: OPENED_INSTALL},
    summary="Install a plugin: a small package at once, any size by an upload of its own",
)  # fmt: skip
def install_plugin(request: Request) -> Answer:
    return _receive(request, None, allow_downgrade=False)


@endpoint(
    blueprint, "PUT", "/plugins/{pluginId}", role="publisher", if_match="honoured",
    body=_order({"allowDowngrade": {"type": "boolean"}}),
    multipart=_form({"allowDowngrade": {"enum": ["true", "false"]}}), max_body_bytes=UPLOAD_LIMIT,
    errors=(409, 422, 502, 504), rights=UPDATES, memory_mb=1024,
    returns={200: PLUGIN, 202: OPENED_INSTALL}, summary="Update a plugin: same id, a higher version",
)  # fmt: skip
def update_plugin(request: Request) -> Answer:
    allow_downgrade = request.body.get("allowDowngrade") in (True, "true")
    return _receive(request, request.path["pluginId"], allow_downgrade=allow_downgrade)


def _receive(request: Request, target: str | None, *, allow_downgrade: bool) -> Answer:
    if request.body["source"] == "market":
        raise Invalid("This deployment has no market.", code="market.disabled")
    order = uploads.Order(request.caller, target, allow_downgrade, request.if_match)

    def write(work: Callable[[Unit], Any]) -> Answer:
        return request.write(lambda session: _outcome(work(session)))

    if _is_form(request):
        file = _file(request, "file", "manifest")
        received = uploads.Received(file.filename, file.content, _manifest(request))
        answer: Answer = uploads.receive(plugin_services(), order, received, write)
    else:
        body = request.body
        answer = uploads.await_upload(
            plugin_services(), order, body["filename"], body["size"], body["sha256"], write
        )
    return answer


def _outcome(outcome: Registered | uploads.Opened) -> Answer:
    if isinstance(outcome, uploads.Opened):
        location = f"{BASE}/plugins/installs/{outcome.install_id}"
        return Answer(outcome.resource, 202, {"Location": location, "Retry-After": "1"})
    if outcome.act is not Act.CREATE:
        return Answer(outcome.resource)
    return Answer(outcome.resource, 201, {"Location": f"{BASE}/plugins/{outcome.plugin_id}"})


def _is_form(request: Request) -> bool:
    return (request.headers.get("content-type") or "").lower().startswith("multipart/form-data")


def _file(request: Request, *known: str) -> UploadedFile:
    """Return the package of a form, which may carry no files but those that are `known`."""
    problems = [
        Violation(f"/{name[:64]}", "form.name", "no such file is expected")
        for name in request.files
        if name not in known
    ]
    if "file" not in request.files:
        problems.append(Violation("/file", "schema.required", "the package is missing"))
    if problems:
        raise Invalid("The form does not hold.", errors=problems)
    return request.files["file"]


def _manifest(request: Request) -> str | None:
    """Return the manifest beside the package: a text field, or a file as `curl -F manifest=@manifest.json` sends it."""
    beside: str | None = request.body.get("manifest")
    if "manifest" not in request.files:
        return beside
    try:
        return request.files["manifest"].content.decode()
    except UnicodeDecodeError:
        problem = Violation("/manifest", "json.encoding", "is not UTF-8")
        raise Invalid("The form does not hold.", errors=[problem]) from None


@endpoint(
    blueprint, "POST", "/plugins/validate-manifest", role="viewer", max_body_bytes=UPLOAD_LIMIT,
    body={"type": "object"}, multipart={"type": "object", "additionalProperties": False},
    returns={200: VALIDATION}, summary="Check a manifest or a whole package; stores nothing",
)  # fmt: skip
def validate_manifest(request: Request) -> dict[str, Any]:
    if _is_form(request):
        return uploads.validate_package(_file(request, "file").content)
    return uploads.validate_manifest(request.body)


@endpoint(
    blueprint, "GET", "/plugins/installs", role="viewer",
    query={**PAGE, "state": {"type": "string", "enum": list(INSTALL_STATES)}},
    returns={200: page_of(INSTALL)}, summary="The app's install tasks, newest first",
)  # fmt: skip
def list_installs(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return installs.list_tasks(session, request.caller, request.page(), state=request.query.get("state"))


@endpoint(
    blueprint, "GET", "/plugins/installs/{installId}", role="viewer",
    returns={200: INSTALL}, summary="How far an install is, and why it ended as it did",
)  # fmt: skip
def get_install(request: Request) -> dict[str, Any]:
    with request.reads() as session:
        return installs.show(session, request.caller, request.path["installId"])


@endpoint(
    blueprint, "POST", "/plugins/installs/{installId}/retry", role="publisher", idempotent=True, errors=(409,),
    body={"type": "object", "maxProperties": 0}, body_optional=True, rights=("database", "announce"),
    returns={202: INSTALL}, summary="Try a failed install again",
)  # fmt: skip
def retry_install(request: Request) -> Answer:
    answer = request.write(
        lambda session: Answer(
            installs.retry(session, request.caller, request.path["installId"]),
            status=202,
            headers={"Location": f"{BASE}/plugins/installs/{request.path['installId']}", "Retry-After": "1"},
        )
    )
    uploads.announce(plugin_services(), request.caller, request.path["installId"])
    return answer


@endpoint(
    blueprint, "DELETE", "/plugins/installs/{installId}", role="publisher", if_match="honoured", errors=(409,),
    returns={200: INSTALL}, summary="Cancel an install that has not ended",
)  # fmt: skip
def cancel_install(request: Request) -> Answer:
    return request.write(
        lambda session: installs.cancel(session, request.caller, request.path["installId"], request.if_match)
    )
