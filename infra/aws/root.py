"""The stack that is deployed: its parameters, and the nested stacks in the order in which they depend on each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.aws.database import database
from infra.aws.functions import LAYER, Domain, domains, function_stack
from infra.aws.gateway import api_stack
from infra.aws.network import network
from infra.aws.stages import Stage
from infra.aws.storage import storage
from infra.aws.template import Json, Template, att, logical, ref, sub
from infra.aws.watch import watch
from infra.functions import FunctionTable

ROOT = "template.json"
MIGRATION = "migration"
MIGRATE_TIMEOUT_S = 600
_KEY_ARN = "^(arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+)?$"


@dataclass(frozen=True)
class Packaged:
    """What `chalice package` wrote, by what it is for.

    Parameters
    ----------
    rest_api
        The resource of the API.
    events
        What triggers a function, by the function's name.
    """

    rest_api: Json
    events: Mapping[str, Json]


def templates(
    stage: Stage, table: FunctionTable, packaged: Packaged, release: str, runtime: str
) -> dict[str, Template]:
    """Return every template by file name.

    Parameters
    ----------
    table
        The functions, one for each endpoint.
    release
        Names the content of the zips: a new one runs `migrate` again, and publishes a version of every function.
    runtime
        What the zips were built for, "python3.13". No parameter of the deployment: an update keeps the values that its
        parameters had, and so would go on with the runtime of the zips before.
    """
    groups = domains(table.functions)
    nested = {"storage": storage(), "network": network(stage), "database": database(stage)}
    for domain in groups:
        template = function_stack(domain, packaged.events, release)
        if domain.name == MIGRATION:
            _migration(template, release)
        nested[f"functions-{domain.name}"] = template
    nested["api"] = api_stack(packaged.rest_api, table.routes)
    nested["watch"] = watch(groups)
    return {ROOT: _root(stage, nested, groups, runtime)} | {
        f"{name}.json": found for name, found in nested.items()
    }


def _migration(template: Template, release: str) -> None:
    """Run `migrate` in every deployment of another release, before any other function changes: revisions only add, so
    that the functions of the release before go on meanwhile.

    Another cluster runs it, too. It is told here which one: the version that `live` leads to has the environment of its
    release.
    """
    template.add("Migration", "Custom::Migration", {
        "ServiceToken": ref("Migrate.Alias"), "ServiceTimeout": MIGRATE_TIMEOUT_S, "Release": release,
        "Run": template.parameter("MigrationRun"), "Host": ref("ClusterEndpoint"),
        "MasterSecret": ref("MasterSecretArn"),
    })  # fmt: skip
    template.output("Revision", att("Migration", "Revision"))


def _parameters(root: Template, stage: Stage) -> None:
    add = root.parameter
    add(
        "Stage",
        Default=stage.name,
        AllowedPattern="^[a-z][a-z0-9]{1,11}$",
        Description="Names everything: hotplug-STAGE-…",
    )
    add(
        "S3PrefixListId",
        AllowedPattern="^pl-[0-9a-f]+$",
        Description="The region's managed prefix list com.amazonaws.REGION.s3",
    )
    add("AlarmMail", Default="", Description="Who is told of alarms; empty: nobody")
    add("DomainName", Default="", Description="A name of your own for the API; needs CertificateArn")
    add("CertificateArn", Default="", Description="Certificate for DomainName, in this region")
    add(
        "GatewayAccount",
        Default="create",
        AllowedValues=["create", "exists"],
        Description="exists: API Gateway has a role for its logs in this account and region already",
    )
    add("MasterKeyArn", Default="", AllowedPattern=_KEY_ARN,
        Description="KMS key that wraps the data keys of apps; empty: the stack's own")  # fmt: skip
    add("FormerMasterKeyArn", Default="", AllowedPattern=_KEY_ARN,
        Description="After a change of that key: the one before, until nothing is wrapped by it")  # fmt: skip
    add(
        "InterfaceEndpoints",
        Default="yes" if stage.interface_endpoints else "no",
        AllowedValues=["yes", "no"],
        Description="Reach AWS APIs inside the network instead of over NAT",
    )
    add(
        "MinCapacity",
        "Number",
        Default=stage.min_acu,
        # 0 would let a cluster pause, but the proxy keeps a connection open, so it never does.
        MinValue=0.5,
        MaxValue=256,
        Description="Aurora capacity units",
    )
    add(
        "MaxCapacity",
        "Number",
        Default=stage.max_acu,
        MinValue=1,
        MaxValue=256,
        Description="Aurora capacity units",
    )
    add(
        "MaxProxyConnections",
        "Number",
        Default=1000,
        MinValue=10,
        Description="Clients of the proxy beyond which an alarm rings",
    )
    add(
        "BackupDays",
        "Number",
        Default=stage.backup_days,
        MinValue=1,
        MaxValue=35,
        Description="How far back the database can be restored",
    )
    add(
        "DeletionProtection",
        Default=str(stage.deletion_protection).lower(),
        AllowedValues=["true", "false"],
        Description="Whether the database refuses to be deleted",
    )
    add(
        "Snapshot",
        Default="",
        Description="Make the database from this cluster snapshot (only when it is made)",
    )
    add(
        "MigrationRun",
        Default="1",
        AllowedPattern="^[0-9A-Za-z-]{1,64}$",
        Description="Another value runs migrate again, without another release",
    )
    add(
        "LogDays",
        "Number",
        Default=stage.log_days,
        AllowedValues=[1, 3, 5, 7, 14, 30, 60, 90, 180, 365],
        Description="How long logs are kept",
    )
    add(
        "LogLevel",
        Default="INFO",
        AllowedValues=["DEBUG", "INFO", "WARNING", "ERROR"],
        Description="Of all functions",
    )
    add("Rate", "Number", Default=stage.rate, MinValue=1, Description="Requests a second, over all callers")
    add("Burst", "Number", Default=stage.burst, MinValue=1, Description="Requests at once, over all callers")
    add(
        "LlmProvider",
        Default="none",
        AllowedValues=["none", "openai", "bedrock"],
        Description="Where agents' language model is; its key goes into Secrets Manager",
    )
    add("LlmUrl", Default="", Description="Base URL of chat completions, for openai")
    add("LlmModel", Default="", Description="The model")
    add("BedrockModel", Default="amazon.nova-lite-v1:0", MinLength=1,
        Description="For bedrock: the foundation model that LlmModel means; a * admits more")  # fmt: skip


def _root(stage: Stage, nested: Mapping[str, Template], groups: Sequence[Domain], runtime: str) -> Template:
    root = Template(f"Hotplug, stage {stage.name}", transform=True)
    _parameters(root, stage)
    root.rules["DomainHasCertificate"] = {
        "RuleCondition": {"Fn::Not": [{"Fn::Equals": [ref("DomainName"), ""]}]},
        "Assertions": [{"Assert": {"Fn::Not": [{"Fn::Equals": [ref("CertificateArn"), ""]}]},
                        "AssertDescription": "DomainName needs CertificateArn"}],
    }  # fmt: skip
    root.add("Layer", "AWS::Serverless::LayerVersion", {
        "LayerName": sub("hotplug-${Stage}-dependencies"), "Description": "What the functions import",
        "ContentUri": LAYER, "CompatibleRuntimes": [runtime], "RetentionPolicy": "Retain",
    })  # fmt: skip
    own = {"Prefix": sub("hotplug-${Stage}"), "LayerArn": ref("Layer"), "PythonRuntime": runtime}
    made = {output: name for name, template in nested.items() for output in template.outputs}
    for name, template in nested.items():
        values: Json = {}
        for parameter in template.parameters:
            if parameter in root.parameters:
                values[parameter] = ref(parameter)
            elif parameter in own:
                values[parameter] = own[parameter]
            else:
                values[parameter] = att(logical(made[parameter]), f"Outputs.{parameter}")
        root.add(logical(name), "AWS::CloudFormation::Stack", {
            "TemplateURL": f"{name}.json", "Parameters": values,
        }, DeletionPolicy="Delete", UpdateReplacePolicy="Delete", **_after(name, groups))  # fmt: skip
    _outputs(root)
    return root


def _after(name: str, groups: Sequence[Domain]) -> Json:
    """What a stack waits for beyond what it refers to: functions for the migration, the API for its functions."""
    migration = [logical("functions", MIGRATION)]
    rest = [logical("functions", domain.name) for domain in groups if domain.name != MIGRATION]
    if name == f"functions-{MIGRATION}":
        return {}
    if name.startswith("functions-"):
        return {"DependsOn": migration}
    if name in ("api", "watch"):
        return {"DependsOn": rest + migration if name == "watch" else rest}
    return {}


def _outputs(root: Template) -> None:
    root.output("Url", att("Api", "Outputs.Url"), "Where the API is")
    root.output("DomainTarget", att("Api", "Outputs.DomainTarget"), "What DomainName must be an alias of")
    root.output("Bucket", att("Storage", "Outputs.Bucket"))
    root.output(
        "AdminSecretArn", att("Storage", "Outputs.AdminSecretArn"), "The first admin's apiKey and apiSecret"
    )
    root.output(
        "LlmKeySecretArn", att("Storage", "Outputs.LlmKeySecretArn"), "Put the language model's key here"
    )
    root.output("NatAddresses", att("Network", "Outputs.NatAddresses"), "What called servers see")
    root.output("Revision", att(logical("functions", MIGRATION), "Outputs.Revision"), "Of the database")
