"""Packages that come over the API: small ones in the request, any size by a presigned upload."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit
from chalicelib.core.errors import Invalid, TooLarge, Unavailable, Violation
from chalicelib.core.representation import canonical, check_if_match, timestamp
from chalicelib.core.settings import ONE_MIB, VERSION, settings
from chalicelib.core.steps import declare, step
from chalicelib.plugins import catalog, incoming, installs, queue, rendering
from chalicelib.plugins.decision import Terms
from chalicelib.plugins.install_models import PluginInstall
from chalicelib.plugins.package.contents import Package, pack_entry_point, read_package
from chalicelib.plugins.package.manifest import Manifest, parse_manifest
from chalicelib.plugins.registration import Artifact, Registration
from chalicelib.plugins.services import Services

STEPS = declare("upload", ("open", "put", "answer", "announce"))
# A package in the request itself; larger ones are uploaded to S3 directly.
MAX_INLINE_BYTES = 4 * ONE_MIB
# A first entry, or the end of an empty archive; "PK" alone may begin a program.
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")

# Runs the unit of work that answers the request; it returns what the edge made of the unit's value.
Write = Callable[[Callable[[Unit], Any]], Any]


@dataclass(frozen=True)
class Order:
    """Who installs or updates what.

    Parameters
    ----------
    target
        The plugin to update, None to install.
    if_match
        The entity tag that the plugin must still have.
    """

    caller: Caller
    target: str | None
    allow_downgrade: bool
    if_match: str | None


@dataclass(frozen=True)
class Received:
    """A file of a form, and the manifest that may stand beside it."""

    filename: str
    content: bytes
    manifest: str | None


@dataclass(frozen=True)
class Opened:
    """An install that goes on behind the answer. `resource` is the task, with `upload` where the client uploads."""

    install_id: str
    resource: dict[str, Any]


def receive(services: Services, order: Order, received: Received, write: Write) -> Any:
    """Install a package that came in the request.

    Wasm is compiled by the registering function, which may take long: the outcome is `Opened`. Everything else is
    registered at once (`Registered`); a refused package leaves nothing behind.

    Raises
    ------
    errors.Invalid, errors.Conflict, errors.Forbidden, errors.TooLarge
    """
    content = _package_bytes(received)
    with tempfile.TemporaryDirectory(prefix="hotplug-upload-") as folder:
        path = Path(folder, "package.zip")
        path.write_bytes(content)
        package = read_package(path, platform_version=VERSION)
        _same_manifest(received, package)
        if package.manifest.runtime == "wasm":
            return _hand_over(services, order, received.filename, content, write)
        return _register(services, order, path, content, package, write)


def _package_bytes(received: Received) -> bytes:
    if len(received.content) > MAX_INLINE_BYTES:
        raise TooLarge(
            f"More than {MAX_INLINE_BYTES} bytes: declare it as JSON and upload it where the answer says.",
            code="plugin.too_large_inline",
        )
    if received.content.startswith(_ZIP_MAGIC) or received.manifest is None:
        return received.content
    # A bare entry point with its manifest beside it is packed here.
    return pack_entry_point(received.filename, received.content, received.manifest.encode())


def _same_manifest(received: Received, package: Package) -> None:
    """A manifest beside a zip must be the one inside: otherwise one was reviewed and the other installed."""
    if received.manifest is None or not received.content.startswith(_ZIP_MAGIC):
        return
    beside = parse_manifest(received.manifest.encode(), files=None, platform_version=VERSION)
    if canonical(beside.document) != canonical(package.manifest.document):
        problem = Violation("/manifest", "manifest.differs", "not the manifest inside the package")
        raise Invalid("The manifest differs from the package's.", errors=[problem])


def _register(
    services: Services, order: Order, path: Path, content: bytes, package: Package, write: Write
) -> Any:
    checksum = hashlib.sha256(content).hexdigest()

    def place(key: str) -> str:
        return services.storage.upload(key, content, sha256=checksum)

    artifact = Artifact(path, checksum, len(content), "local", place)
    terms = Terms(target=order.target, allow_downgrade=order.allow_downgrade)
    return Registration(services, order.caller, artifact, terms, package, if_match=order.if_match).run(write)


def _hand_over(services: Services, order: Order, filename: str, content: bytes, write: Write) -> Any:
    """Put the package where an upload would put it: the bucket's event does the rest."""
    checksum = hashlib.sha256(content).hexdigest()
    task = _open(services, order, filename, len(content), checksum)
    step("upload", "put")
    services.storage.upload(task.object_key, content, sha256=checksum)
    step("upload", "answer")
    return write(
        lambda session: Opened(task.install_id, installs.show(session, order.caller, task.install_id))
    )


def _open(services: Services, order: Order, filename: str, size: int, sha256: str) -> PluginInstall:
    task = _new_task(order, filename, size, sha256)

    def work(session: Unit) -> None:
        _check_target(session, order)
        # A unit that runs again after a deadlock needs a row of its own.
        installs.save(session, order.caller, installs.copy_of(task))

    step("upload", "open")
    services.database.run(work)
    return task


def _new_task(order: Order, filename: str, size: int, sha256: str) -> PluginInstall:
    return installs.new_task(
        order.caller,
        filename=filename,
        size=size,
        sha256=sha256,
        target=order.target,
        allow_downgrade=order.allow_downgrade,
    )


def _check_target(session: Unit, order: Order) -> None:
    if order.target is not None:
        plugin = catalog.owned(session, order.caller, order.target)
        check_if_match(order.if_match, rendering.detail(plugin))


def await_upload(
    services: Services, order: Order, filename: str, size: int, sha256: str, write: Write
) -> Any:
    """Open an install whose package the client uploads itself, and say where to.

    Parameters
    ----------
    size
        Bytes that will be uploaded, exactly.
    sha256
        Their SHA-256 in hex.
    """
    task = _new_task(order, filename, size, sha256)
    post = services.storage.presign_post(
        task.object_key, size=size, sha256_hex=sha256, seconds=installs.UPLOAD_S
    )
    upload = {"url": post.url, "fields": post.fields, "expiresAt": timestamp(post.expires_at)}

    def work(session: Unit) -> Opened:
        _check_target(session, order)
        resource = installs.save(session, order.caller, installs.copy_of(task))
        return Opened(task.install_id, resource | {"upload": upload})

    step("upload", "open")
    return write(work)


def announce(services: Services, caller: Caller, install_id: str) -> None:
    """Tell the install queue about an object that it has given up, as S3 would.

    Raises
    ------
    errors.Unavailable
        The queue is away, or none is configured; the sweep announces it again.
    """
    with services.database.reads() as session:
        task = installs.find(session, caller, install_id)
    url = settings().install_queue_url
    if url is None:
        raise Unavailable("No install queue is configured.", code="install.no_queue")
    step("upload", "announce")
    queue.send(url, incoming.announcement(settings().bucket, task.object_key, task.object_version))


def validate_manifest(document: Any) -> dict[str, Any]:
    """Check a manifest that stands alone; its entry point cannot be looked for.

    Raises
    ------
    errors.Invalid
    """
    return _validation(parse_manifest(canonical(document), files=None, platform_version=VERSION))


def validate_package(content: bytes) -> dict[str, Any]:
    """Check a whole package.

    Raises
    ------
    errors.Invalid
    """
    with tempfile.TemporaryDirectory(prefix="hotplug-validate-") as folder:
        path = Path(folder, "package.zip")
        path.write_bytes(content)
        return _validation(read_package(path, platform_version=VERSION).manifest)


def _validation(manifest: Manifest) -> dict[str, Any]:
    return {"valid": True, "manifest": manifest.document, "warnings": list(manifest.warnings)}
