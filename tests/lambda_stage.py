"""A stage's functions in an emulated Lambda, deployed into as CloudFormation does."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
import zipfile
from typing import Any

from infra.aws import versions
from infra.aws.functions import RELEASE
from infra.aws.versions import DeployedFunction
from tests.ministack import Ministack

STAGE, PREFIX = "dev", "hotplug-dev"
ROLE = "arn:aws:iam::000000000000:role/r"


def code(text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", f"def app(event, context):\n    return {text!r}\n")
    return packed.getvalue()


class Stage:
    """A stage, deployed into as CloudFormation does: `$LATEST`, then a version, then the alias."""

    def __init__(self, aws: Ministack) -> None:
        self.aws = aws
        self.client = aws.client("lambda")

    def create(self, name: str, **more: Any) -> None:
        body = {
            "FunctionName": name, "Role": ROLE, "Runtime": "python3.11", "Handler": "app.app",
            "Code": {"ZipFile": base64.b64encode(code("none")).decode()}, **more,
        }  # fmt: skip
        # Not by boto3: the emulator makes durable only what says `Enabled`, which the API does not have.
        request = urllib.request.Request(
            f"{self.aws.url}/2015-03-31/functions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def release(self, name: str, release: str, layer: str = "", level: str = "INFO") -> int:
        """Deploy a release of a function and return its version."""
        number = self.publish(name, release, layer, level)
        try:
            self.client.update_alias(FunctionName=name, Name="live", FunctionVersion=str(number))
        except self.client.exceptions.ResourceNotFoundException:
            self.client.create_alias(FunctionName=name, Name="live", FunctionVersion=str(number))
        return number

    def publish(self, name: str, release: str, layer: str = "", level: str = "INFO") -> int:
        self.configure(name, release, layer, level)
        self.client.update_function_code(FunctionName=name, ZipFile=code(release))
        return int(self.client.publish_version(FunctionName=name)["Version"])

    def configure(self, name: str, release: str, layer: str = "", level: str = "INFO") -> None:
        self.client.update_function_configuration(
            FunctionName=name,
            Description=RELEASE.format(release),
            Environment={"Variables": {"HOTPLUG_LOG_LEVEL": level}},
            Layers=[layer] if layer else [],
        )

    def layer(self, text: str) -> str:
        made = self.client.publish_layer_version(
            LayerName=versions.layer_name(STAGE), Content={"ZipFile": code(text)}
        )
        return str(made["LayerVersionArn"])

    def seen(self, name: str) -> DeployedFunction:
        (found,) = [one for one in versions.functions(self.client, STAGE) if one.name == name]
        return found

    def state(self, name: str) -> tuple[int, list[int], set[int]]:
        """Return where `live` points, which versions there are, and which are withdrawn."""
        found = self.seen(name)
        return found.live, [version.number for version in found.versions], set(found.withdrawn)

    def layers(self) -> list[int]:
        return sorted(versions.layer_versions(self.client, STAGE))
