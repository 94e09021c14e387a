"""CloudFormation templates as data: resources by logical id, and the intrinsic functions that they use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
SAM = "AWS::Serverless-2016-10-31"


def ref(name: str) -> Json:
    return {"Ref": name}


def att(name: str, attribute: str) -> Json:
    return {"Fn::GetAtt": [name, attribute]}


def sub(text: str, **variables: Any) -> Json:
    return {"Fn::Sub": [text, variables]} if variables else {"Fn::Sub": text}


def choose(condition: str, yes: Any, no: Any) -> Json:
    return {"Fn::If": [condition, yes, no]}


def arn(service: str, resource: str) -> Json:
    """Return the ARN of a resource of this account and region; `resource` may use parameters, `${Prefix}-runtime`."""
    return sub(f"arn:${{AWS::Partition}}:{service}:${{AWS::Region}}:${{AWS::AccountId}}:{resource}")


NO_VALUE = ref("AWS::NoValue")


def allow(actions: Sequence[str] | str, resource: Any, condition: Json | None = None, sid: str = "") -> Json:
    """Return one statement of a policy."""
    statement: Json = {
        "Effect": "Allow",
        "Action": [actions] if isinstance(actions, str) else list(actions),
        "Resource": resource,
    }
    if condition:
        statement["Condition"] = condition
    return {"Sid": sid, **statement} if sid else statement


def policy(*statements: Json) -> Json:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def trust(service: str) -> Json:
    """Return the policy that lets one AWS service take a role."""
    return policy({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})


def logical(*words: str) -> str:
    """Return a logical id, which is letters and digits only: ("plugin_runs", "execute") → PluginRunsExecute."""
    text = "-".join(words).replace("_", "-").replace(".", "-")
    return "".join(word[:1].upper() + word[1:] for word in text.split("-"))


@dataclass
class Template:
    """One template. `transform` is for those that hold serverless resources."""

    description: str
    transform: bool = False
    parameters: dict[str, Json] = field(default_factory=dict)
    conditions: dict[str, Json] = field(default_factory=dict)
    resources: dict[str, Json] = field(default_factory=dict)
    outputs: dict[str, Json] = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    mappings: Json = field(default_factory=dict)
    rules: Json = field(default_factory=dict)

    def parameter(self, name: str, kind: str = "String", **properties: Any) -> Json:
        """Declare a parameter and return a reference to it."""
        self.parameters[name] = {"Type": kind, **properties}
        return ref(name)

    def add(self, name: str, kind: str, properties: Mapping[str, Any], **attributes: Any) -> Json:
        """Add a resource and return a reference to it.

        Raises
        ------
        ValueError
            There is one of that name.
        """
        if name in self.resources:
            raise ValueError(f"two resources are called {name}")
        self.resources[name] = {"Type": kind, **attributes, "Properties": dict(properties)}
        return ref(name)

    def output(self, name: str, value: Any, description: str = "") -> None:
        self.outputs[name] = {"Value": value, **({"Description": description} if description else {})}

    def as_dict(self) -> Json:
        """Return the template in the order in which people read it."""
        document: Json = {"AWSTemplateFormatVersion": "2010-09-09", "Description": self.description}
        if self.transform:
            document["Transform"] = SAM
        for name, value in (
            ("Metadata", self.metadata),
            ("Parameters", self.parameters),
            ("Mappings", self.mappings),
            ("Rules", self.rules),
            ("Conditions", self.conditions),
            ("Resources", self.resources),
            ("Outputs", self.outputs),
        ):
            if value:
                document[name] = value
        return document
