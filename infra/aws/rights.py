"""What each right that an endpoint declares means on AWS: statements of its role, and where its network leads.

Nothing else grants anything. What AWS itself does with a function's role, and no line of ours calls, stands in
`SERVICE_SIDE` with its reason; a test holds both against the calls that were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from infra.aws.template import NO_VALUE, Json, allow, arn, choose, policy, ref, sub

# Security groups by what they reach; a function gets those that its rights need.
DATABASE, STORAGE, SERVICES, INTERNET = "database", "storage", "services", "internet"

_PLUGINS, _COMPILED, _INCOMING = (
    "${BucketArn}/plugins/*",
    "${BucketArn}/compiled/*",
    "${BucketArn}/incoming/*",
)
_RUNS = "${BucketArn}/runs/*"
# A durable execution belongs to a version of its function: function:NAME:VERSION/durable-execution/…
_EXECUTIONS = "function:${Prefix}-run:*"


def _objects(actions: Iterable[str], *keys: str) -> Json:
    return allow([f"s3:{action}" for action in actions], [sub(key) for key in keys])


def _bucket_key(*actions: str) -> Json:
    """The bucket's KMS key, used by S3 on behalf of who signed the request, and by nobody directly."""
    via = {"StringEquals": {"kms:ViaService": sub("s3.${AWS::Region}.${AWS::URLSuffix}")}}
    return allow([f"kms:{action}" for action in actions], ref("StorageKeyArn"), via)


def _missing_is_404() -> Json:
    """S3 answers 404 for an object that is not there only to who may list; others get 403."""
    return allow("s3:ListBucket", ref("BucketArn"))


def _listing() -> Json:
    return allow("s3:ListBucketVersions", ref("BucketArn"))


def _data_keys(*actions: str, key: str = "DataKeyArn") -> Json:
    """A key that wraps the data keys of apps, never without an app in the encryption context."""
    named = {"Null": {"kms:EncryptionContext:hotplug:app": "false"}}
    return allow([f"kms:{action}" for action in actions], ref(key), named)


# Rights that unwrap data keys, those of a former master too.
OPENS_KEYS = frozenset({"open_secrets", "seal_secrets"})


def _former_key() -> Json:
    """What a former master wrapped is unwrapped by it until it is wrapped anew."""
    return choose("HasFormerKey", _data_keys("Decrypt", key="FormerMasterKeyArn"), NO_VALUE)


def _secret_key() -> Json:
    """The key that encrypts the deployment's secrets, used by Secrets Manager on behalf of who reads one."""
    via = {"StringEquals": {"kms:ViaService": sub("secretsmanager.${AWS::Region}.${AWS::URLSuffix}")}}
    return allow("kms:Decrypt", ref("StorageKeyArn"), via)


def _execution_key(name: str) -> Json:
    """The key of a durable function's data: Lambda encrypts by itself, and decrypts on behalf of who asks.

    https://docs.aws.amazon.com/lambda/latest/dg/durable-encryption.html
    """
    via = {
        "StringEquals": {
            "kms:ViaService": sub("lambda.${AWS::Region}.${AWS::URLSuffix}"),
            "kms:EncryptionContext:aws:lambda:FunctionArn": arn("lambda", f"function:${{Prefix}}-{name}"),
        }
    }
    return allow("kms:Decrypt", ref("StorageKeyArn"), via)


@dataclass(frozen=True)
class Right:
    """What one right grants, and which networks the calls need."""

    statements: Callable[[], list[Json]]
    reaches: frozenset[str] = frozenset()


RIGHTS: dict[str, Right] = {
    # An IAM token for the proxy's user; there is no password in any function but `migrate`.
    "database": Right(
        lambda: [allow("rds-db:connect", arn("rds-db", "dbuser:${ProxyId}/hotplug"))],
        frozenset({DATABASE}),
    ),
    # Data keys of apps: whoever opens secrets unwraps them, whoever seals one makes an app's first.
    "open_secrets": Right(lambda: [_data_keys("Decrypt"), _former_key()], frozenset({SERVICES})),
    "seal_secrets": Right(
        lambda: [_data_keys("GenerateDataKey", "Decrypt"), _former_key()], frozenset({SERVICES})
    ),
    # A change of the master: beside `open_secrets`, which unwraps.
    "rewrap_keys": Right(lambda: [_data_keys("Encrypt")], frozenset({SERVICES})),
    # A presigned URL does what its signer may. Signing itself needs no network. Rows name versions, so nothing reads a
    # key's newest object.
    "presign": Right(lambda: [_objects(["GetObjectVersion"], _PLUGINS, _COMPILED), _bucket_key("Decrypt")]),
    # The same for who hands out or loads packages and never a compiled module.
    "presign_packages": Right(lambda: [_objects(["GetObjectVersion"], _PLUGINS), _bucket_key("Decrypt")]),
    "read_artifacts": Right(
        lambda: [
            _objects(["GetObjectVersion"], _PLUGINS),
            _missing_is_404(),
            _bucket_key("Decrypt"),
        ],
        frozenset({STORAGE}),
    ),
    # Uploads through the API go to their final place; larger ones by a presigned form to incoming/, and what must be
    # compiled is handed over there, too. What was placed and then refused, because it lost a race, is deleted by its
    # version.
    "write_artifacts": Right(
        lambda: [
            _objects(["PutObject"], _PLUGINS, _INCOMING),
            _objects(["DeleteObjectVersion"], _PLUGINS),
            _bucket_key("GenerateDataKey", "Decrypt"),
        ],
        frozenset({STORAGE}),
    ),
    # Registering what was uploaded: read it, copy it to its place, remove it from where it came.
    "register_artifacts": Right(
        lambda: [
            _objects(["GetObject", "GetObjectVersion"], _INCOMING),
            _objects(["PutObject"], _PLUGINS, _COMPILED),
            _objects(["DeleteObjectVersion"], _INCOMING, _PLUGINS, _COMPILED),
            _missing_is_404(),
            _bucket_key("GenerateDataKey", "Decrypt"),
        ],
        frozenset({STORAGE}),
    ),
    # The jobs list versions and delete one by its version: of what is registered, or of what has arrived.
    "remove_artifacts": Right(
        lambda: [_listing(), _objects(["DeleteObjectVersion"], _PLUGINS, _COMPILED)], frozenset({STORAGE})
    ),
    "remove_uploads": Right(
        lambda: [_listing(), _objects(["DeleteObjectVersion"], _INCOMING)], frozenset({STORAGE})
    ),
    # Whether an upload came at all, of which no version is known; and whether the one that an install names is there.
    "find_uploads": Right(
        lambda: [_objects(["GetObject"], _INCOMING), _missing_is_404(), _bucket_key("Decrypt")],
        frozenset({STORAGE}),
    ),
    "check_uploads": Right(
        lambda: [
            _objects(["GetObject", "GetObjectVersion"], _INCOMING),
            _missing_is_404(),
            _bucket_key("Decrypt"),
        ],
        frozenset({STORAGE}),
    ),
    "invoke_runtime": Right(
        lambda: [
            allow(
                "lambda:InvokeFunction",
                [
                    arn("lambda", "function:${Prefix}-runtime:live"),
                    arn("lambda", "function:${Prefix}-runtime_network:live"),
                ],
            )
        ],
        frozenset({SERVICES}),
    ),
    # Durable runs: started through the alias, answered where they wait. Starting asks for no key, answering does.
    "start_runs": Right(
        lambda: [allow("lambda:InvokeFunction", arn("lambda", "function:${Prefix}-run:live"))],
        frozenset({SERVICES}),
    ),
    "answer_runs": Right(
        lambda: [
            allow("lambda:SendDurableExecutionCallbackSuccess", arn("lambda", _EXECUTIONS)),
            _execution_key("run"),
        ],
        frozenset({SERVICES}),
    ),
    "watch_runs": Right(
        lambda: [allow("lambda:GetDurableExecution", arn("lambda", _EXECUTIONS))], frozenset({SERVICES})
    ),
    # What is too large for a checkpoint; it is read by its version.
    "keep_run_values": Right(
        lambda: [
            _objects(["PutObject", "GetObjectVersion"], _RUNS),
            _bucket_key("GenerateDataKey", "Decrypt"),
        ],
        frozenset({STORAGE}),
    ),
    "remove_run_values": Right(
        lambda: [_listing(), _objects(["DeleteObjectVersion"], _RUNS)], frozenset({STORAGE})
    ),
    "announce": Right(lambda: [allow("sqs:SendMessage", ref("InstallQueueArn"))], frozenset({SERVICES})),
    "internet": Right(list, frozenset({INTERNET})),
    "ask_model": Right(
        lambda: [
            choose("AsksEndpoint", allow("secretsmanager:GetSecretValue", ref("LlmKeySecretArn")), NO_VALUE),
            choose("AsksEndpoint", _secret_key(), NO_VALUE),
            # An inference profile calls the model in the profile's regions, with the caller's right to the model.
            choose(
                "AsksBedrock",
                allow(
                    "bedrock:InvokeModel",
                    [
                        sub("arn:${AWS::Partition}:bedrock:*::foundation-model/${BedrockModel}"),
                        arn("bedrock", "inference-profile/*${BedrockModel}"),
                    ],
                ),
                NO_VALUE,
            ),
        ],
        frozenset({SERVICES, INTERNET}),
    ),
    # Connects to the cluster itself, as its master, and makes the user of all others.
    "administer_database": Right(
        lambda: [
            allow(
                "secretsmanager:GetSecretValue",
                [ref("MasterSecretArn"), ref("DatabaseSecretArn"), ref("AdminSecretArn")],
            ),
            _secret_key(),
        ],
        # S3, because the answer to CloudFormation goes into a bucket of CloudFormation's, over a URL that it signed.
        frozenset({SERVICES, STORAGE}),
    ),
}


# -- what AWS does with a role, and no line of ours ----------------------------------------------------------------

# Actions that no recording of our calls shows, each with who uses it. The test of least privilege reads this table.
SERVICE_SIDE: dict[str, str] = {
    "logs:CreateLogStream": "Lambda writes the function's output to its log group.",
    "logs:PutLogEvents": "Lambda writes the function's output to its log group.",
    "xray:PutTraceSegments": "Lambda's active tracing. The action knows no resource.",
    "xray:PutTelemetryRecords": "Lambda's active tracing. The action knows no resource.",
    "ec2:CreateNetworkInterface": "Lambda attaches the function to the network. Denied to the function's own code.",
    "ec2:DescribeNetworkInterfaces": "As above. The action knows no resource.",
    "ec2:DescribeSubnets": "As above. The action knows no resource.",
    "ec2:DeleteNetworkInterface": "As above.",
    "ec2:AssignPrivateIpAddresses": "As above.",
    "ec2:UnassignPrivateIpAddresses": "As above.",
    "sqs:ReceiveMessage": "Lambda's poller takes messages off the queue.",
    "sqs:DeleteMessage": "Lambda's poller, once they are done.",
    "sqs:ChangeMessageVisibility": "Lambda's poller, for those that are not.",
    "sqs:GetQueueAttributes": "Lambda's poller.",
    "rds-db:connect": "The proxy checks the token that the function signed; nothing is called.",
    "s3:ListBucket": "S3 asks for it before it says 404 instead of 403 for an object that is not there.",
    "kms:Decrypt (via s3)": "S3, for the bucket's key, on behalf of who reads or signed.",
    "kms:GenerateDataKey (via s3)": "S3, for the bucket's key, on behalf of who writes or signed.",
    "kms:Decrypt (via secretsmanager)": "Secrets Manager, for the secret's key, on behalf of who reads it.",
    "kms:Decrypt (via lambda)": "Lambda, for the key of a durable execution, on behalf of who runs or answers it.",
    "lambda:CheckpointDurableExecution": "The durable SDK, for the execution that it runs in.",
    "lambda:GetDurableExecutionState": "The durable SDK, for the execution that it runs in.",
}
NETWORK_ACTIONS = tuple(sorted(action for action in SERVICE_SIDE if action.startswith("ec2:")))
TRACE_ACTIONS = tuple(sorted(action for action in SERVICE_SIDE if action.startswith("xray:")))
POLLER_ACTIONS = tuple(sorted(action for action in SERVICE_SIDE if action.startswith("sqs:")))


def logs(log_group_arn: Json) -> Json:
    """Writing to the log group of the function's domain."""
    return allow(["logs:CreateLogStream", "logs:PutLogEvents"], log_group_arn)


def tracing() -> Json:
    return allow(TRACE_ACTIONS, "*", sid="Tracing")


def network(function_arn: Json) -> list[Json]:
    """Let Lambda attach a function to the network, and refuse the same to the function's code, which has the
    same role.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
    """
    deny = {
        "Sid": "NotByCode",
        "Effect": "Deny",
        "Action": list(NETWORK_ACTIONS),
        "Resource": "*",
        "Condition": {"ArnLike": {"lambda:SourceFunctionArn": function_arn}},
    }
    return [allow(NETWORK_ACTIONS, "*", sid="Network"), deny]


def poller(queue_arn: Json) -> Json:
    return allow(POLLER_ACTIONS, queue_arn)


def durable(name: str) -> list[Json]:
    """Checkpoints of the executions of one function, all its versions, under the deployment's key.

    https://docs.aws.amazon.com/lambda/latest/dg/durable-security.html
    """
    return [
        allow(
            ["lambda:CheckpointDurableExecution", "lambda:GetDurableExecutionState"],
            arn("lambda", f"function:${{Prefix}}-{name}:*"),
        ),
        _execution_key(name),
    ]


def statements(rights: Iterable[str]) -> list[Json]:
    """Return the statements of some rights, none of them twice.

    Raises
    ------
    KeyError
        A right that means nothing here: an endpoint declared what nobody grants.
    """
    found: list[Json] = []
    for right in sorted(set(rights)):
        found += [statement for statement in RIGHTS[right].statements() if statement not in found]
    return found


def reach(rights: Iterable[str]) -> frozenset[str]:
    """Return which security groups some rights need."""
    return frozenset().union(*(RIGHTS[right].reaches for right in rights)) if rights else frozenset()


def role_policy(name: str, found: list[Json]) -> Json:
    return {"PolicyName": name, "PolicyDocument": policy(*found)}
