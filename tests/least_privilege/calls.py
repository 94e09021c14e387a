"""Calls as the recorder noted them: whose they are, and what each needs of a role."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.functions import FunctionTable

# An action, by what an operation of the API asks of a role; `Version` is added where one is named.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "GetObject"): "s3:GetObject",
    ("s3", "PutObject"): "s3:PutObject",
    ("s3", "CopyObject"): "s3:PutObject",
    ("s3", "DeleteObject"): "s3:DeleteObject",
    ("s3", "ListObjectVersions"): "s3:ListBucketVersions",
    ("lambda", "Invoke"): "lambda:InvokeFunction",
    ("lambda", "SendDurableExecutionCallbackSuccess"): "lambda:SendDurableExecutionCallbackSuccess",
    ("lambda", "GetDurableExecution"): "lambda:GetDurableExecution",
    ("lambda", "GetDurableExecutionState"): "lambda:GetDurableExecutionState",
    ("lambda", "CheckpointDurableExecution"): "lambda:CheckpointDurableExecution",
    ("sqs", "SendMessage"): "sqs:SendMessage",
    ("kms", "GenerateDataKey"): "kms:GenerateDataKey",
    ("kms", "Decrypt"): "kms:Decrypt",
    ("kms", "Encrypt"): "kms:Encrypt",
    ("secretsmanager", "GetSecretValue"): "secretsmanager:GetSecretValue",
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    ("bedrock-runtime", "Converse"): "bedrock:InvokeModel",
}
VERSIONED = {"s3:GetObject": "s3:GetObjectVersion", "s3:DeleteObject": "s3:DeleteObjectVersion"}
BUCKET, QUEUE = "hotplug", "hotplug-installs"
_FUNCTION = "arn:aws:lambda:eu-central-1:123456789012:function:hotplug-prod-"
_BEDROCK = "arn:aws:bedrock:eu-central-1"
# A system's inference profile is called as its model, after where it leads; whoever asks it needs both.
# https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-prereq.html
_PROFILE = re.compile(r"(?:us|eu|apac|global)\.(.+)")
# What the deployment calls the secrets of whoever names them so.
SECRETS = {
    "LlmKeySecret": "Storage/LlmKeySecret",
    "DatabaseSecret": "Storage/DatabaseSecret",
    "AdminSecret": "Storage/AdminSecret",
    "MasterSecret": "Database/Cluster.MasterUserSecret.SecretArn",
}


@dataclass(frozen=True)
class Need:
    """One action on one resource, named as in the deployment, and the condition keys that the call carries."""

    action: str
    resource: str
    context: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True)
class Call:
    """A call and the function, as it is deployed, whose code made it."""

    function: str
    service: str
    operation: str
    parameters: dict[str, Any]

    def needs(self) -> tuple[Need, ...]:
        """Return all that a role must grant for this call.

        Raises
        ------
        LookupError
            Nobody has said yet which action this operation asks for.
        """
        action = ACTIONS.get((self.service, self.operation), "")
        if not action:
            raise LookupError(
                f"{self.function} calls {self.service} {self.operation}, which ACTIONS does not know"
            )
        if "VersionId" in self.parameters:
            action = VERSIONED[action]
        needs = [Need(action, self._resource(), self._context())]
        if profile := _PROFILE.fullmatch(self.parameters.get("modelId", "")):
            needs.append(Need(action, f"{_BEDROCK}::foundation-model/{profile[1]}"))
        if source := self.parameters.get("CopySource"):
            needs.append(Need("s3:GetObjectVersion", _object(source["Bucket"], source["Key"])))
        return tuple(needs)

    def _resource(self) -> str:
        named = self.parameters
        if self.service == "s3":
            return _object(named["Bucket"], named.get("Key"))
        if self.service == "lambda":
            # A callback and an execution are named by ids that only the local service knows.
            own = (
                f"{named['FunctionName']}:live"
                if self.operation == "Invoke"
                else "run:1/durable-execution/r/1"
            )
            return _FUNCTION + own
        if self.service == "sqs":
            assert named["QueueUrl"].rpartition("/")[2] == QUEUE, named["QueueUrl"]
            return "Storage/InstallQueue.Arn"
        if self.service == "secretsmanager":
            return SECRETS[named["SecretId"].rpartition(":")[2].partition("-")[0]]
        if self.service == "bedrock-runtime":
            is_profile = _PROFILE.fullmatch(named["modelId"])
            kind = ":123456789012:inference-profile" if is_profile else "::foundation-model"
            return f"{_BEDROCK}{kind}/{named['modelId']}"
        return "Storage/DataKey.Arn"

    def _context(self) -> frozenset[str]:
        return frozenset(
            f"kms:EncryptionContext:{name}" for name in self.parameters.get("EncryptionContext", {})
        )


def _object(bucket: str, key: str | None) -> str:
    assert bucket == BUCKET, bucket
    return "Storage/Bucket.Arn" + ("" if key is None else f"/{key}")


def place_of(resource: str) -> str:
    """Return where in a service a resource is: the folder of the bucket, the function, the secret, the kind of a model;
    else empty."""
    if "Bucket.Arn/" in resource:
        return resource.partition("Bucket.Arn/")[2].partition("/")[0]
    if resource.startswith(_FUNCTION):
        return resource.removeprefix(_FUNCTION).partition(":")[0]
    if found := re.match(r"arn:aws:bedrock:[^:]*:[^:]*:([a-z-]+)/", resource):
        return found[1]
    return next((name for name, named in SECRETS.items() if named == resource), "")


def read(recording: Path, table: FunctionTable) -> Iterator[Call]:
    """Yield the calls of a recording.

    Parameters
    ----------
    table
        The functions as they are deployed: the one function that serves all endpoints is told by its route.

    Raises
    ------
    AssertionError
        A call of that function which no request made: nobody can say whose it is.
    """
    routes = {(route.method, route.path): route.function.name for route in table.routes}
    for line in recording.read_text().splitlines() if recording.exists() else ():
        noted = json.loads(line)
        function, route = noted.pop("function"), noted.pop("route")
        service, operation = noted.pop("service"), noted.pop("operation")
        if function not in table.by_name:
            assert route is not None, f"{function} calls {service} {operation} outside any request"
            function = routes[route[0], route[1]]
        yield Call(function, service, operation, noted)
