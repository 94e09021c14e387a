"""What is kept outside the database: the bucket, the queues of its events, the keys, the deployment's own secrets."""

from __future__ import annotations

from infra.aws.template import Json, Template, allow, arn, att, choose, policy, ref, sub
from infra.functions import DURABLE

# Six times the timeout of the function that takes from it, as Lambda asks for: a message that is being worked on does
# not come again.
REGISTER_VISIBILITY_S, DEAD_VISIBILITY_S = 720, 360
MAX_RECEIVES = 5
FOURTEEN_DAYS_S = 1_209_600
# The sweep ends what lies unclaimed after seven days; the rule is for what even the sweep did not see.
INCOMING_DAYS = 9
DURABLE_ARNS = [arn("lambda", f"function:${{Prefix}}-{name}") for name in sorted(DURABLE)]


def storage() -> Template:
    """Return the template of the bucket, the queues, the keys and the secrets."""
    template = Template("Hotplug: bucket, queues, keys, secrets")
    template.parameter("Prefix")
    template.parameter("MasterKeyArn")
    template.conditions["HasMasterKey"] = {"Fn::Not": [{"Fn::Equals": [ref("MasterKeyArn"), ""]}]}
    _keys(template)
    _queues(template)
    _bucket(template)
    _secrets(template)
    return template


def _key(template: Template, name: str, description: str, *statements: Json) -> None:
    account = {
        "Sid": "Account",
        "Effect": "Allow",
        "Principal": {"AWS": sub("arn:${AWS::Partition}:iam::${AWS::AccountId}:root")},
        "Action": "kms:*",
        "Resource": "*",
    }
    # Without the key nothing that it encrypted can be read: it outlives the stack.
    template.add(name, "AWS::KMS::Key", {
        "Description": sub(f"${{Prefix}}: {description}"), "EnableKeyRotation": True, "PendingWindowInDays": 30,
        "KeyPolicy": policy(account, *statements),
    }, DeletionPolicy="Retain", UpdateReplacePolicy="Retain")  # fmt: skip
    template.add(f"{name}Alias", "AWS::KMS::Alias", {
        "AliasName": sub(f"alias/${{Prefix}}-{name.removesuffix('Key').lower()}"), "TargetKeyId": ref(name),
    })  # fmt: skip
    template.output(f"{name}Arn", att(name, "Arn"))


def _keys(template: Template) -> None:
    # A key policy cannot name its key: there `*` means this key.
    logs = {
        "Sid": "Logs",
        "Effect": "Allow",
        "Principal": {"Service": sub("logs.${AWS::Region}.${AWS::URLSuffix}")},
        "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*", "kms:Describe*"],
        "Resource": "*",
        "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": arn("logs", "log-group:/hotplug/${Prefix}/*")}},
    }  # fmt: skip
    alarms = {
        "Sid": "Alarms",
        "Effect": "Allow",
        "Principal": {"Service": "cloudwatch.amazonaws.com"},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey*"],
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:SourceAccount": ref("AWS::AccountId")}},
    }
    # What durable executions keep; who else may read it is said by roles.
    executions = {
        "Sid": "Executions",
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        "Resource": "*",
        "Condition": {
            "StringEquals": {
                "aws:SourceAccount": ref("AWS::AccountId"),
                "aws:SourceArn": DURABLE_ARNS,
                "kms:EncryptionContext:aws:lambda:FunctionArn": DURABLE_ARNS,
            }
        },
    }
    _key(template, "DataKey", "wraps the data keys of apps")
    # Instead of it, a key of the deployment's owner. The stack's stays, for there is a way back.
    template.output("DataKeyId", choose("HasMasterKey", ref("MasterKeyArn"), ref("DataKey")))
    template.output("DataKeyArn", choose("HasMasterKey", ref("MasterKeyArn"), att("DataKey", "Arn")))
    _key(
        template,
        "StorageKey",
        "bucket, database, secrets, logs, durable executions",
        logs,
        alarms,
        executions,
    )


def _queues(template: Template) -> None:
    template.add("InstallDeadQueue", "AWS::SQS::Queue", {
        "QueueName": sub("${Prefix}-installs-dead"), "VisibilityTimeout": DEAD_VISIBILITY_S,
        "MessageRetentionPeriod": FOURTEEN_DAYS_S, "SqsManagedSseEnabled": True,
        "RedriveAllowPolicy": {"redrivePermission": "byQueue", "sourceQueueArns": [arn("sqs", "${Prefix}-installs")]},
    }, UpdateReplacePolicy="Delete", DeletionPolicy="Delete")  # fmt: skip
    template.add("InstallQueue", "AWS::SQS::Queue", {
        "QueueName": sub("${Prefix}-installs"), "VisibilityTimeout": REGISTER_VISIBILITY_S,
        "MessageRetentionPeriod": FOURTEEN_DAYS_S, "SqsManagedSseEnabled": True,
        "RedrivePolicy": {"deadLetterTargetArn": att("InstallDeadQueue", "Arn"), "maxReceiveCount": MAX_RECEIVES},
    }, UpdateReplacePolicy="Delete", DeletionPolicy="Delete")  # fmt: skip
    # What schedules could not deliver: an alarm watches its depth.
    template.add("ScheduleDeadQueue", "AWS::SQS::Queue", {
        "QueueName": sub("${Prefix}-schedules-dead"), "MessageRetentionPeriod": FOURTEEN_DAYS_S,
        "SqsManagedSseEnabled": True,
    }, UpdateReplacePolicy="Delete", DeletionPolicy="Delete")  # fmt: skip
    encrypted_only = {
        "Sid": "TlsOnly", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": att("InstallQueue", "Arn"),
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }  # fmt: skip
    bucket = sub("arn:${AWS::Partition}:s3:::${Prefix}-${AWS::AccountId}-${AWS::Region}")
    from_bucket = {
        "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": att("InstallQueue", "Arn"),
        "Condition": {
            "ArnEquals": {"aws:SourceArn": bucket},
            "StringEquals": {"aws:SourceAccount": ref("AWS::AccountId")},
        },
    }  # fmt: skip
    template.add("InstallQueuePolicy", "AWS::SQS::QueuePolicy", {
        "Queues": [ref("InstallQueue")], "PolicyDocument": policy(from_bucket, encrypted_only),
    })  # fmt: skip
    from_rules = {
        "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage",
        "Resource": att("ScheduleDeadQueue", "Arn"),
        "Condition": {"ArnLike": {"aws:SourceArn": arn("events", "rule/*")},
                      "StringEquals": {"aws:SourceAccount": ref("AWS::AccountId")}},
    }  # fmt: skip
    template.add("ScheduleDeadQueuePolicy", "AWS::SQS::QueuePolicy", {
        "Queues": [ref("ScheduleDeadQueue")], "PolicyDocument": policy(from_rules),
    })  # fmt: skip
    for name in ("InstallQueue", "InstallDeadQueue", "ScheduleDeadQueue"):
        template.output(f"{name}Arn", att(name, "Arn"))
        template.output(f"{name}Name", att(name, "QueueName"))
    template.output("InstallQueueUrl", ref("InstallQueue"))


def _bucket(template: Template) -> None:
    template.add("Bucket", "AWS::S3::Bucket", {
        # Named beforehand: the queue's policy names it, and the bucket sends to the queue.
        "BucketName": sub("${Prefix}-${AWS::AccountId}-${AWS::Region}"),
        # Rows name object versions: without versions nothing that is registered would stay what it was.
        "VersioningConfiguration": {"Status": "Enabled"},
        "BucketEncryption": {"ServerSideEncryptionConfiguration": [{
            "BucketKeyEnabled": True,
            "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": att("StorageKey", "Arn")},
        }]},
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": True, "BlockPublicPolicy": True, "IgnorePublicAcls": True, "RestrictPublicBuckets": True,
        },
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "LifecycleConfiguration": {"Rules": [
            {"Id": "incoming", "Status": "Enabled", "Prefix": "incoming/", "ExpirationInDays": INCOMING_DAYS,
             "NoncurrentVersionExpiration": {"NoncurrentDays": 1}},
            {"Id": "parts", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
        ]},
        "NotificationConfiguration": {"QueueConfigurations": [{
            "Event": "s3:ObjectCreated:*", "Queue": att("InstallQueue", "Arn"),
            "Filter": {"S3Key": {"Rules": [{"Name": "prefix", "Value": "incoming/"}]}},
        }]},
    }, DependsOn="InstallQueuePolicy", DeletionPolicy="Retain", UpdateReplacePolicy="Retain")  # fmt: skip
    everything = [att("Bucket", "Arn"), sub("${Bucket.Arn}/*")]
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": everything}
    template.add("BucketPolicy", "AWS::S3::BucketPolicy", {
        "Bucket": ref("Bucket"),
        "PolicyDocument": policy(
            {"Sid": "TlsOnly", **deny, "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
            {"Sid": "Tls12", **deny, "Condition": {"NumericLessThan": {"s3:TlsVersion": "1.2"}}},
        ),
    })  # fmt: skip
    template.output("Bucket", ref("Bucket"))
    template.output("BucketArn", att("Bucket", "Arn"))


def _secrets(template: Template) -> None:
    """What no template holds: each is generated where it is kept."""
    length = {"ExcludePunctuation": True, "PasswordLength": 48}
    for name, description, generated in (
        # The key of an admin is public, its secret is not; `migrate` stores the hash of this one.
        ("AdminSecret", "first admin: apiKey, apiSecret",
         {"SecretStringTemplate": '{"apiKey": "admin"}', "GenerateStringKey": "apiSecret", **length}),
        ("DatabaseSecret", "the user of the functions, for the proxy and `migrate` alone",
         {"SecretStringTemplate": '{"username": "hotplug"}', "GenerateStringKey": "password", **length}),
        # Refused by every provider until yours is put in its place.
        ("LlmKeySecret", "the language model's key; put yours here", length),
    ):  # fmt: skip
        template.add(name, "AWS::SecretsManager::Secret", {
            "Description": sub(f"${{Prefix}}: {description}"), "KmsKeyId": att("StorageKey", "Arn"),
            "GenerateSecretString": generated,
        }, DeletionPolicy="Retain", UpdateReplacePolicy="Retain")  # fmt: skip
        template.output(f"{name}Arn", ref(name))


def reading(secret_arn: Json) -> list[Json]:
    """Reading one secret and, by it alone, the key that encrypts it."""
    via = {"StringEquals": {"kms:ViaService": sub("secretsmanager.${AWS::Region}.${AWS::URLSuffix}")}}
    return [
        allow("secretsmanager:GetSecretValue", secret_arn),
        allow("kms:Decrypt", ref("StorageKeyArn"), via),
    ]
