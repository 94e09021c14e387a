"""Reading built templates as CloudFormation would: transformed, conditions decided, references followed from stack to
stack. What a resource is called afterwards is `Stack/LogicalId`, and an attribute of it `Stack/LogicalId.Attribute`."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
REGION, ACCOUNT, PARTITION = "eu-central-1", "123456789012", "aws"
PSEUDO = {
    "AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::Partition": PARTITION, "AWS::URLSuffix": "amazonaws.com",
}  # fmt: skip
# What whoever deploys must give, and a provider so that every path is taken.
GIVEN = {"S3PrefixListId": "pl-6ea54007", "AlarmMail": "ops@example.com", "LlmProvider": "openai",
         "LlmUrl": "https://llm.example/v1", "LlmModel": "m"}  # fmt: skip
_NOTHING = object()


def transformed(document: Json, **parameters: str) -> Json:
    """Return a template as aws-sam-translator, which is what CloudFormation runs, makes it for some parameters."""
    if "Transform" not in document:
        return document
    from boto3 import Session
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    # It would warn of each translation that nobody collects how long it took.
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    translator = Translator({}, Parser(), boto_session=Session(region_name=REGION))
    made: Json = translator.translate(uploaded(document, "packages"), parameter_values=parameters)
    return made


def uploaded(document: Json, bucket: str) -> Json:
    """Return a template with its local files in a bucket, as `aws cloudformation package` puts them there."""
    found = copy.deepcopy(document)
    for resource in found["Resources"].values():
        for name in ("CodeUri", "ContentUri"):
            local = str(resource["Properties"].get(name, "s3://"))
            if not local.startswith("s3://"):
                resource["Properties"][name] = f"s3://{bucket}/{local}"
    return found


@dataclass
class Deployment:
    """All resources of a deployment, references resolved."""

    resources: dict[str, Json] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of_type(self, kind: str) -> dict[str, Json]:
        return {
            name: resource["Properties"]
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def function(self, name: str) -> Json:
        """Return the properties of one Lambda function by the part of its name behind the stage."""
        (found,) = [
            properties
            for properties in self.of_type("AWS::Lambda::Function").values()
            if properties["FunctionName"].partition("-")[2].partition("-")[2] == name
        ]
        return found

    def functions(self) -> dict[str, Json]:
        """Return every Lambda function by the part of its name behind the stage."""
        return {
            properties["FunctionName"].partition("-")[2].partition("-")[2]: properties
            for properties in self.of_type("AWS::Lambda::Function").values()
        }

    def statements(self, function: Json) -> list[Json]:
        """Return the statements of a function's role."""
        role = self.resources[function["Role"].removesuffix(".Arn")]["Properties"]
        return [
            statement
            for policy in role["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            if statement
        ]


def deployed(documents: Mapping[str, Json], **given: str) -> Deployment:
    """Return what deploying the templates makes."""
    found = Deployment()
    root = documents["template.json"]
    parameters = {name: str(declared.get("Default", "")) for name, declared in root["Parameters"].items()}
    found.outputs = _stack("", documents, "template.json", parameters | GIVEN | given, found)
    return found


def _stack(
    name: str, documents: Mapping[str, Json], file: str, parameters: dict[str, str], found: Deployment
) -> dict[str, Any]:
    document = transformed(documents[file])
    reader = _Reader(name, document, parameters)
    resources = {
        key: value for key, value in document["Resources"].items() if reader.holds(value.get("Condition"))
    }
    for key in _ordered(resources):
        resource = resources[key]
        properties = reader.value(resource.get("Properties", {}))
        if resource["Type"] == "AWS::CloudFormation::Stack":
            reader.nested[key] = _stack(
                key, documents, properties["TemplateURL"], properties["Parameters"], found
            )
            continue
        found.resources[f"{name}/{key}"] = {"Type": resource["Type"], "Properties": properties}
    return {key: reader.value(value["Value"]) for key, value in document.get("Outputs", {}).items()}


def _ordered(resources: Json) -> Iterator[str]:
    """Yield nested stacks after those that they refer to or wait for."""
    done: set[str] = set()
    left = list(resources)
    while left:
        for key in left:
            text = json.dumps(resources[key])
            waits = {other for other in resources if other != key and re.search(rf'"{other}(\.|")', text)}
            if resources[key]["Type"] != "AWS::CloudFormation::Stack" or waits <= done:
                done.add(key)
                left.remove(key)
                yield key
                break
        else:
            raise ValueError(f"stacks wait for each other: {left}")


class _Reader:
    """Intrinsic functions of one template."""

    def __init__(self, stack: str, document: Json, parameters: dict[str, str]) -> None:
        self._stack = stack
        self._conditions = document.get("Conditions", {})
        self._parameters = parameters
        unknown = set(document.get("Parameters", {})) - set(parameters)
        assert not unknown, f"{stack}: no value for {unknown}"
        self.nested: dict[str, dict[str, Any]] = {}

    def holds(self, condition: str | None) -> bool:
        return True if condition is None else bool(self._condition(self._conditions[condition]))

    def _condition(self, expression: Any) -> bool:
        ((kind, argument),) = expression.items()
        if kind == "Condition":
            return self.holds(argument)
        if kind == "Fn::Equals":
            return bool(str(self.value(argument[0])) == str(self.value(argument[1])))
        if kind == "Fn::Not":
            return not self._condition(argument[0])
        if kind == "Fn::Or":
            return any(self._condition(inner) for inner in argument)
        if kind == "Fn::And":
            return all(self._condition(inner) for inner in argument)
        raise ValueError(kind)

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [found for inner in value if (found := self.value(inner)) is not _NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((kind, argument),) = value.items()
            if kind == "Ref":
                return self._ref(argument)
            if kind == "Condition" and isinstance(argument, str):
                return value
            if kind.startswith("Fn::"):
                return self._function(kind, argument)
        pairs = {key: self.value(inner) for key, inner in value.items()}
        return {key: inner for key, inner in pairs.items() if inner is not _NOTHING}

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NOTHING
        return PSEUDO.get(name) or self._parameters.get(name, f"{self._stack}/{name}")

    def _function(self, kind: str, argument: Any) -> Any:
        if kind == "Fn::GetAtt":
            name, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
            if name in self.nested:
                return self.nested[name][attribute.removeprefix("Outputs.")]
            return f"{self._stack}/{name}.{attribute}"
        if kind == "Fn::Sub":
            text, own = (argument, {}) if isinstance(argument, str) else argument
            own = {key: self.value(inner) for key, inner in own.items()}
            return re.sub(
                r"\$\{([^}]+)\}", lambda match: str(own.get(match[1]) or self._named(match[1])), text
            )
        if kind == "Fn::If":
            return self.value(argument[1] if self.holds(argument[0]) else argument[2])
        if kind == "Fn::Join":
            return argument[0].join(str(inner) for inner in self.value(argument[1]))
        if kind == "Fn::Split":
            return str(self.value(argument[1])).split(argument[0])
        if kind == "Fn::Select":
            index, chosen = int(argument[0]), self.value(argument[1])
            return chosen[index] if index < len(chosen) else f"{'.'.join(chosen)}[{index}]"
        if kind == "Fn::GetAZs":
            return [f"{REGION}a", f"{REGION}b"]
        raise ValueError(kind)

    def _named(self, name: str) -> Any:
        if "." in name and name not in self._parameters:
            return self._function("Fn::GetAtt", name)
        return self._ref(name)
