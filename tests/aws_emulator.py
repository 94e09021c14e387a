"""The package deployed into ministack by the commands that infra/aws/README.md gives, as one stack with nested ones.

What ministack cannot do is done here instead: after `package` every template is transformed (nested ones it never
transforms), resources of types that it does not know are left out, and so is the migration, whose answer goes to AWS's
addresses alone. What referred to one of those gets the text of `stand_in`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from botocore.exceptions import ClientError

from infra.aws import dependencies
from tests.aws_templates import Json, transformed
from tests.ministack import Ministack

README = Path(__file__).resolve().parents[1] / "infra/aws/README.md"
STAGE, STACK, BUCKET, REGION = "prod", "hotplug-prod", "packages", "us-east-1"
COMMAND_TIMEOUT_S, DEPLOY_TIMEOUT_S = 120, 60
# Its handler answers a URL of AWS's only, and there is no database that it could migrate.
LEFT_OUT = "Custom::Migration"
# Attributes that ministack's resources do not have.
NO_ATTRIBUTES = {("AWS::RDS::DBCluster", "MasterUserSecret.SecretArn")}


def documented(title: str = "Deploying") -> list[str]:
    """Return the commands of a section of the README, each on one line."""
    section = README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def stand_in(name: str) -> str:
    """Return what stands for a resource that is not there, in the form of an ARN."""
    return f"arn:aws:none:none:none:none:{name}"


@dataclass
class Account:
    """An emulated account into which a package is deployed.

    Parameters
    ----------
    folder
        Holds build/STAGE, where the commands expect the package.
    refused
        Types of resources that ministack does not know, by nested stack.
    capabilities
        What the templates as packaged ask whoever deploys to acknowledge.
    root, nested
        The templates that were deployed, after the transform.
    sizes
        Bytes of each template as `package` wrote it.
    stacks
        The nested stacks as DescribeStacks has them, by logical id in the root's template.
    events
        What the stack went through, in order: logical id and status.
    """

    aws: Ministack
    folder: Path
    refused: dict[str, set[str]] = field(default_factory=dict)
    capabilities: set[str] = field(default_factory=set)
    root: Json = field(default_factory=dict)
    nested: dict[str, Json] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    stacks: dict[str, Json] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)

    def run(self, command: str, given: str = "") -> str:
        """Run a documented command as the shell would, with `given` as its input, and return what it printed."""
        cli = Path(sys.executable).with_name("aws")
        if not cli.exists():
            raise RuntimeError(f"{cli} is missing: {sys.executable} -m pip install -r requirements-dev.txt")
        command = command.replace("PACKAGES", BUCKET)
        # Nobody's own settings: only what the emulator needs, and the region as the README names it.
        env = {
            "PATH": f"{cli.parent}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.folder),
            **self.aws.environment,
            "AWS_REGION": REGION,
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=self.folder, env=env, input=given, text=True,
            capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def deploy(self) -> None:
        """Run the commands up to `deploy`, and wait for the stack."""
        make_bucket, find_list, packaging, package, deploy, *_ = documented()
        assert packaging == f"make package STAGE={STAGE}", "the package is there already"
        self.run(make_bucket)
        prefix_list = self.run(f"{find_list}; printf %s $S3_LIST")
        self.run(package)
        self._transform(self.folder / f"build/{STAGE}/deploy.json")
        # The command polls every 30 seconds; the stack is made in one.
        self.run(f"S3_LIST={prefix_list}; {deploy} --no-execute-changeset")
        client = self.aws.client("cloudformation")
        (change_set,) = client.list_change_sets(StackName=STACK)["Summaries"]
        client.execute_change_set(ChangeSetName=change_set["ChangeSetId"])
        end = time.monotonic() + DEPLOY_TIMEOUT_S
        while (stack := client.describe_stacks(StackName=STACK)["Stacks"][0])["StackStatus"].endswith(
            "IN_PROGRESS"
        ):
            assert time.monotonic() < end, "the stack does not end"
            time.sleep(0.05)
        events = client.describe_stack_events(StackName=STACK)["StackEvents"]
        failures = [(event["LogicalResourceId"], event.get("ResourceStatusReason"))
                    for event in events if "FAILED" in event["ResourceStatus"]]  # fmt: skip
        assert stack["StackStatus"] == "CREATE_COMPLETE", failures
        self.outputs = outputs_of(stack)
        self.events = [(event["LogicalResourceId"], event["ResourceStatus"]) for event in reversed(events)]
        for resource in client.describe_stack_resources(StackName=STACK)["StackResources"]:
            if resource["ResourceType"] == "AWS::CloudFormation::Stack":
                (child,) = client.describe_stacks(StackName=resource["PhysicalResourceId"])["Stacks"]
                self.stacks[resource["LogicalResourceId"]] = child

    def _transform(self, packaged: Path) -> None:
        """Do for every template what CloudFormation would do, and ministack does not."""
        s3, client = self.aws.client("s3"), self.aws.client("cloudformation")
        self.sizes[packaged.name] = packaged.stat().st_size
        document = json.loads(packaged.read_text())
        for name, resource in document["Resources"].items():
            if resource["Type"] != "AWS::CloudFormation::Stack":
                continue
            url = resource["Properties"]["TemplateURL"]
            key = urlsplit(url).path.removeprefix(f"/{BUCKET}/")
            body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            self.sizes[name] = len(body)
            self.capabilities |= set(client.get_template_summary(TemplateURL=url).get("Capabilities", []))
            made = transformed(yaml.load(body, yaml.CSafeLoader))
            s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(made))
            self.refused[name] = self._unknown(url)
            self.nested[name] = without(made, self.refused[name] | {LEFT_OUT})
            s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(self.nested[name]))
        self.root = transformed(document)
        packaged.write_text(json.dumps(self.root))

    def _unknown(self, url: str) -> set[str]:
        try:
            self.aws.client("cloudformation").validate_template(TemplateURL=url)
        except ClientError as refused:
            message = str(refused)
            assert "Unrecognized resource types: [" in message, message
            return set(message.partition("[")[2].partition("]")[0].split(", "))
        return set()


def link_installed(_: dependencies.Target, layer: Path) -> None:
    """Fill a layer with what is installed here of the packages that the lock names."""
    unused = re.compile(
        rf"(.*/)?(\.\.|__pycache__)/|botocore/data/(?!({'|'.join(dependencies.SERVICES)})/)[^/]+/"
    )
    for line in dependencies.LOCK.read_text().splitlines():
        name, pinned, _ = line.partition("==")
        for file in (metadata.files(name) or ()) if pinned else ():
            if not unused.match(file.as_posix()):
                (layer / file).parent.mkdir(parents=True, exist_ok=True)
                (layer / file).symlink_to(file.locate())
    dependencies.prune(layer)


def outputs_of(stack: Json) -> dict[str, str]:
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def without(document: Json, types: set[str]) -> Json:
    """Return a template without the resources of some types, and with stand-ins for what referred to them."""
    kinds = {name: resource["Type"] for name, resource in document["Resources"].items()}
    gone = {name for name, kind in kinds.items() if kind in types}

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if value.get("Ref") in gone:
            return value["Ref"]
        if attribute := value.get("Fn::GetAtt"):
            name, key = attribute if isinstance(attribute, list) else attribute.split(".", 1)
            if name in gone or (kinds.get(name), key) in NO_ATTRIBUTES:
                return stand_in(name)
        return {key: walk(inner) for key, inner in value.items()}

    resources = {name: walk(resource) for name, resource in document["Resources"].items() if name not in gone}
    for resource in resources.values():
        if after := resource.get("DependsOn"):
            resource["DependsOn"] = [
                name for name in ([after] if isinstance(after, str) else after) if name in resources
            ]
    return {**document, "Resources": resources, "Outputs": walk(document.get("Outputs", {}))}
