"""Handing out a package: a presigned URL for a few minutes, and the digest to check it by."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from chalicelib.core.storage import Storage
from chalicelib.plugins.models import PluginVersion

DOWNLOAD_S = 300


@dataclass(frozen=True)
class Link:
    """Where to fetch a package. `digest` is a Repr-Digest field (RFC 9530)."""

    url: str
    digest: str


def link(storage: Storage, version: PluginVersion) -> Link:
    """Return a link to exactly the bytes that were registered as `version`."""
    filename = f"{version.plugin_id}_{version.version}.zip"
    url = storage.presign_get(version.s3_path, version.s3_version, DOWNLOAD_S, filename=filename)
    digest = base64.b64encode(bytes.fromhex(version.checksum)).decode()
    return Link(url, f"sha-256=:{digest}:")
