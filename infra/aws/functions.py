"""One function resource for each endpoint and event, each with a role, memory and timeout of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.aws import rights
from infra.aws.database import DATABASE, MASTER, USER
from infra.aws.network import GROUPS
from infra.aws.template import NO_VALUE, Json, Template, arn, att, choose, logical, ref, sub, trust
from infra.functions import DURABLE_RETENTION_DAYS, DURABLE_TIMEOUT_S, Function

CODE, LAYER = "code.zip", "dependencies.zip"
ALIAS = "live"
# What a function, and so each version that is published of it, says of the release that it belongs to.
RELEASE = "Hotplug release {}"
# Where the zip has the certificates: the proxy's are Amazon's public roots, the cluster's are RDS's own.
PROXY_CA, CLUSTER_CA = "/var/task/certificates/amazon-roots.pem", "/var/task/certificates/rds.pem"
# How many packages are registered at once: each may hold 1 GB of memory and one connection for two minutes.
REGISTER_CONCURRENCY = 10

# What the function stacks get from the others. Values are outputs of those or parameters of the deployment.
PARAMETERS = (
    "Prefix", "PythonRuntime", "LogDays", "LogLevel", "LayerArn", "AppSubnets", "RuntimeSubnets", "RuntimeGroup",
    *GROUPS.values(), "MigrateGroup", "Bucket", "BucketArn", "StorageKeyArn", "DataKeyArn", "DataKeyId",
    "FormerMasterKeyArn", "InstallQueueArn", "InstallQueueUrl", "InstallDeadQueueArn", "ScheduleDeadQueueArn",
    "ProxyEndpoint", "ProxyId", "ClusterEndpoint", "MasterSecretArn", "DatabaseSecretArn", "AdminSecretArn",
    "LlmKeySecretArn", "LlmProvider", "LlmUrl", "LlmModel", "BedrockModel",
)  # fmt: skip
LLM_CONDITIONS: dict[str, Json] = {
    "AsksEndpoint": {"Fn::Equals": [ref("LlmProvider"), "openai"]},
    "AsksBedrock": {"Fn::Equals": [ref("LlmProvider"), "bedrock"]},
    "AsksModel": {"Fn::Or": [{"Condition": "AsksEndpoint"}, {"Condition": "AsksBedrock"}]},
}

KEY_CONDITIONS: dict[str, Json] = {
    "HasFormerKey": {"Fn::Not": [{"Fn::Equals": [ref("FormerMasterKeyArn"), ""]}]},
}


@dataclass(frozen=True)
class Domain:
    """The functions that share a stack, a log group and a set of alarms."""

    name: str
    functions: tuple[Function, ...]

    @property
    def stack(self) -> str:
        return logical("functions", self.name)


# Not with the others: it must have run before they change, and a plugin's output is not the platform's log.
OWN_DOMAINS = {"migrate": "migration", "runtime": "runtime", "runtime_network": "runtime"}


def domains(functions: Sequence[Function]) -> tuple[Domain, ...]:
    """Return the functions by domain: endpoints by their module, what events trigger together."""
    found: dict[str, list[Function]] = {}
    for function in functions:
        name = function.name.partition("-")[0] if function.kind == "api" else "events"
        found.setdefault(OWN_DOMAINS.get(function.name, name), []).append(function)
    return tuple(Domain(name, tuple(members)) for name, members in sorted(found.items()))


def function_stack(domain: Domain, events: Mapping[str, Json], release: str) -> Template:
    """Return the template of one domain's functions.

    Parameters
    ----------
    events
        What triggers them, by function name, as `chalice package` wrote it.
    release
        Names the content of the zips.
    """
    template = Template(f"Hotplug: functions of {domain.name}", transform=True)
    for function in domain.functions:
        _function(template, function, events.get(function.name, {}), release)
    _log_group(template, domain)
    # Only what is used: cfn-lint and readers should not wonder about the others.
    if any("ask_model" in function.rights for function in domain.functions):
        template.conditions |= LLM_CONDITIONS
    if any(rights.OPENS_KEYS & set(function.rights) for function in domain.functions):
        template.conditions |= KEY_CONDITIONS
    used = _references(template.resources) | _references(template.conditions)
    for name in PARAMETERS:
        if name in used:
            template.parameter(name)
    return template


def _references(value: Any) -> set[str]:
    import re

    if isinstance(value, Mapping):
        found: set[str] = set()
        for key, inner in value.items():
            if key == "Ref":
                found.add(inner)
            elif key == "Fn::Sub":
                text = inner if isinstance(inner, str) else inner[0]
                found |= set(re.findall(r"\$\{(\w+)\}", text))
                found |= _references(inner[1]) if isinstance(inner, list) else set()
            else:
                found |= _references(inner)
        return found
    if isinstance(value, list | tuple):
        return set().union(*(_references(inner) for inner in value)) if value else set()
    return set()


def _log_group(template: Template, domain: Domain) -> None:
    template.add("LogGroup", "AWS::Logs::LogGroup", {
        "LogGroupName": sub(f"/hotplug/${{Prefix}}/{domain.name}"), "RetentionInDays": ref("LogDays"),
        "KmsKeyId": ref("StorageKeyArn"),
    }, DeletionPolicy="Delete", UpdateReplacePolicy="Retain")  # fmt: skip


def _function(template: Template, function: Function, event: Json, release: str) -> None:
    name = logical(function.name)
    role = f"{name}Role"
    template.add(role, "AWS::IAM::Role", {
        "AssumeRolePolicyDocument": trust("lambda.amazonaws.com"),
        "Policies": [rights.role_policy("use", _statements(function))],
    })  # fmt: skip
    properties: Json = {
        "FunctionName": sub(f"${{Prefix}}-{function.name}"),
        # A version is published where this text changes: SAM does not see that only the layer is another, since that is
        # a parameter's value. Versions take the text over, so that each says its release (releases.py).
        "Description": RELEASE.format(release),
        "Handler": function.handler, "Runtime": ref("PythonRuntime"), "CodeUri": CODE, "Layers": [ref("LayerArn")],
        "Architectures": ["x86_64"], "Timeout": function.timeout_s, "MemorySize": function.memory_mb,
        "Role": att(role, "Arn"), "Tracing": "Active",
        "LoggingConfig": {"LogGroup": ref("LogGroup")},
        "Environment": {"Variables": variables(function)},
        # Gateway, queue and schedules call the alias; going back is to point it at the version before.
        "AutoPublishAlias": ALIAS, "AutoPublishAliasAllProperties": True, "VersionDeletionPolicy": "Retain",
    }  # fmt: skip
    if (network := _network(function)) is not None:
        properties["VpcConfig"] = network
    if function.per_tenant:
        properties["TenancyConfig"] = {"TenantIsolationMode": "PER_TENANT"}
    if function.durable:
        properties["DurableConfig"] = {
            "ExecutionTimeout": DURABLE_TIMEOUT_S,
            "RetentionPeriodInDays": DURABLE_RETENTION_DAYS,
            # Of the checkpoints. The function's own `KmsKeyArn` would be of its environment, where nothing is secret.
            "KMSKeyArn": ref("StorageKeyArn"),
        }
    if event:
        properties["Events"] = event
    template.add(name, "AWS::Serverless::Function", properties)


def _statements(function: Function) -> list[Json]:
    own = arn("lambda", f"function:${{Prefix}}-{function.name}")
    found = [rights.logs(att("LogGroup", "Arn")), rights.tracing()]
    if _network(function) is not None:
        found += rights.network(own)
    if function.queue is not None:
        found.append(rights.poller(ref(_queue_of(function))))
    if function.durable:
        found += rights.durable(function.name)
    return found + [one for one in rights.statements(function.rights) if one not in found]


def _queue_of(function: Function) -> str:
    return "InstallDeadQueueArn" if str(function.queue).endswith("-dead") else "InstallQueueArn"


def _network(function: Function) -> Json | None:
    """Return where a function stands; `runtime_network` is outside: what it calls is the internet, and no address of
    ours is there."""
    if function.name == "runtime":
        return {"SubnetIds": _list("RuntimeSubnets"), "SecurityGroupIds": [ref("RuntimeGroup")]}
    if function.per_tenant or not function.rights:
        return None
    groups = [ref(GROUPS[place]) for place in sorted(rights.reach(function.rights))]
    if "administer_database" in function.rights:
        groups.append(ref("MigrateGroup"))
    return {"SubnetIds": _list("AppSubnets"), "SecurityGroupIds": groups}


def _list(parameter: str) -> Json:
    return {"Fn::Split": [",", ref(parameter)]}


def variables(function: Function) -> Json:
    """Return a function's environment: names of things, and of secrets, never a secret."""
    common: Json = {**function.environment, "HOTPLUG_LOG_LEVEL": ref("LogLevel")}
    # Functions that run what tenants uploaded hold nothing that is worth stealing.
    if function.per_tenant:
        return common
    if "administer_database" in function.rights:
        return common | {
            "MYSQL_HOST": ref("ClusterEndpoint"), "MYSQL_USER": MASTER, "MYSQL_DB": DATABASE,
            "HOTPLUG_DATABASE_CA": CLUSTER_CA, "HOTPLUG_MASTER_SECRET": ref("MasterSecretArn"),
            "HOTPLUG_DATABASE_SECRET": ref("DatabaseSecretArn"), "HOTPLUG_ADMIN_SECRET": ref("AdminSecretArn"),
        }  # fmt: skip
    if not function.rights:
        return common
    found = common | {
        "MYSQL_HOST": ref("ProxyEndpoint"), "MYSQL_USER": USER, "MYSQL_DB": DATABASE, "HOTPLUG_DATABASE_AUTH": "iam",
        "HOTPLUG_DATABASE_CA": PROXY_CA, "HOTPLUG_BUCKET": ref("Bucket"), "HOTPLUG_KMS_KEY_ID": ref("DataKeyId"),
        "HOTPLUG_INSTALL_QUEUE_URL": ref("InstallQueueUrl"),
        "HOTPLUG_RUNTIME_FUNCTION": sub(f"${{Prefix}}-runtime:{ALIAS}"),
        "HOTPLUG_RUN_FUNCTION": sub(f"${{Prefix}}-run:{ALIAS}"),
        "HOTPLUG_RUNTIME_NETWORK_FUNCTION": sub(f"${{Prefix}}-runtime_network:{ALIAS}"),
    }  # fmt: skip
    if "internet" in function.rights:
        found["HOTPLUG_VPC_RANGES"] = "10.72.0.0/16"
    if "ask_model" in function.rights:
        found |= {
            "HOTPLUG_LLM_PROVIDER": choose("AsksModel", ref("LlmProvider"), NO_VALUE),
            "HOTPLUG_LLM_MODEL": choose("AsksModel", ref("LlmModel"), NO_VALUE),
            "HOTPLUG_LLM_URL": choose("AsksEndpoint", ref("LlmUrl"), NO_VALUE),
            "HOTPLUG_LLM_KEY_SECRET": choose("AsksEndpoint", ref("LlmKeySecretArn"), NO_VALUE),
        }
    return found
