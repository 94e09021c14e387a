"""API Gateway: the routes that Chalice wrote, each led to the function of its endpoint.

What Chalice is told beforehand (`merged`) and what is done to its template afterwards (`api_stack`).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable

from infra.aws.functions import ALIAS
from infra.aws.template import Json, Template, att, choose, logical, ref, sub, trust
from infra.functions import Function, Route

STAGE = "api"
# What the gateway answers itself, in the shape of every other problem: (response type, status, code, title).
# https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
PROBLEMS = (
    ("DEFAULT_4XX", None, "gateway.refused", "Request refused"),
    ("DEFAULT_5XX", None, "gateway.failed", "Gateway failed"),
    # A path or method that nobody declared: without credentials of its own the gateway takes it for a missing token.
    ("MISSING_AUTHENTICATION_TOKEN", 404, "route.not_found", "Not found"),
    ("RESOURCE_NOT_FOUND", 404, "route.not_found", "Not found"),
    ("REQUEST_TOO_LARGE", 413, "request.too_large", "Too large"),
    ("UNSUPPORTED_MEDIA_TYPE", 415, "request.media_type", "Unsupported media type"),
    ("THROTTLED", 429, "rate.limited", "Too many requests"),
    ("QUOTA_EXCEEDED", 429, "rate.limited", "Too many requests"),
    ("INTEGRATION_FAILURE", 502, "gateway.bad_answer", "Bad gateway"),
    ("INTEGRATION_TIMEOUT", 504, "gateway.timeout", "Gateway timeout"),
)
ACCESS_LOG = {
    "requestId": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    # The declared path, not the one that was sent: that may hold anything.
    "route": "$context.resourcePath",
    "status": "$context.status",
    "responseBytes": "$context.responseLength",
    "ms": "$context.responseLatency",
    "functionMs": "$context.integrationLatency",
    "functionStatus": "$context.integrationStatus",
    "error": "$context.error.responseType",
    "trace": "$context.xrayTraceId",
}


def merged() -> Json:
    """Return what `chalice package --merge-template` merges into Chalice's own template."""
    properties: Json = {
        "Name": sub("${Prefix}"),
        "EndpointConfiguration": {"Type": "REGIONAL"},
        "TracingEnabled": True,
        "OpenApiVersion": "2.0",
        "AccessLogSetting": {"DestinationArn": att("AccessLog", "Arn"), "Format": json.dumps(ACCESS_LOG)},
        "MethodSettings": [{
            # Metrics of the API and its stage come anyway. Those of each method would be billed, five for each.
            "ResourcePath": "/*", "HttpMethod": "*", "MetricsEnabled": False, "DataTraceEnabled": False,
            "ThrottlingRateLimit": ref("Rate"), "ThrottlingBurstLimit": ref("Burst"),
        }],
        "DefinitionBody": {"x-amazon-apigateway-gateway-responses": _gateway_responses()},
    }  # fmt: skip
    return {"Resources": {"RestAPI": {"Properties": properties}}}


def _gateway_responses() -> Json:
    return {kind: _problem(status, code, title) for kind, status, code, title in PROBLEMS}


def _problem(status: int | None, code: str, title: str) -> Json:
    document = {
        "type": f"urn:hotplug:problem:{code}",
        "title": title,
        "status": "$STATUS",
        "detail": title + ".",
        # Escaped by the gateway; the path is the client's own.
        "instance": "$context.path",
        "code": code,
        "requestId": "$context.requestId",
    }
    text = json.dumps(document)
    # A template is text: what stands without quotes becomes a number.
    text = text.replace('"$STATUS"', str(status) if status else "$context.status")
    response: Json = {
        "responseTemplates": {"application/json": text},
        "responseParameters": {
            "gatewayresponse.header.Content-Type": "'application/problem+json'",
            "gatewayresponse.header.Cache-Control": "'no-store'",
            "gatewayresponse.header.X-Request-Id": "context.requestId",
        },
    }
    if status == 429:
        response["responseParameters"]["gatewayresponse.header.Retry-After"] = "'1'"
    return response | ({"statusCode": status} if status else {})


def api_stack(rest_api: Json, routes: Iterable[Route]) -> Template:
    """Return the template of the API.

    Parameters
    ----------
    rest_api
        The resource `RestAPI` of Chalice's template, merged.

    Raises
    ------
    ValueError
        Chalice and the function table name different routes.
    """
    template = Template("Hotplug: API", transform=True)
    for name in ("Prefix", "LogDays", "StorageKeyArn", "DomainName", "CertificateArn", "GatewayAccount"):
        template.parameter(name)
    for name in ("Rate", "Burst"):
        template.parameter(name, "Number")
    template.conditions["HasDomain"] = {"Fn::Not": [{"Fn::Equals": [ref("DomainName"), ""]}]}
    template.conditions["SetsGatewayAccount"] = {"Fn::Equals": [ref("GatewayAccount"), "create"]}
    template.add("AccessLog", "AWS::Logs::LogGroup", {
        "LogGroupName": sub("/hotplug/${Prefix}/access"), "RetentionInDays": ref("LogDays"),
        "KmsKeyId": ref("StorageKeyArn"),
    }, DeletionPolicy="Delete", UpdateReplacePolicy="Retain")  # fmt: skip
    _account(template)
    properties = copy.deepcopy(rest_api["Properties"])
    served = {(route.method, route.path): route.function for route in routes}
    _integrate(properties["DefinitionBody"], served)
    # A stage with an access log is refused while the account has no role for it. A reference waits for the role; what
    # exists under a condition only cannot be depended on by name.
    told = sub("Hotplug (logs by ${GatewayAccountRole})")
    properties["Description"] = choose("SetsGatewayAccount", told, "Hotplug")
    template.add("RestApi", "AWS::Serverless::Api", properties)
    for (method, path), function in sorted(served.items()):
        _permission(template, method, path, function)
    _plan_and_domain(template)
    return template


def _integrate(document: Json, served: dict[tuple[str, str], Function]) -> None:
    """Let every operation call its own function, by its alias."""
    found = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method == "options" and (method.upper(), path) not in served:
                continue
            found.add((method.upper(), path))
            operation["x-amazon-apigateway-integration"]["uri"] = _uri(served[method.upper(), path])
    if odd := sorted(found ^ set(served)):
        raise ValueError(f"Chalice's routes and the function table differ: {odd}")


def _uri(function: Function) -> Json:
    return sub(
        "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/"
        "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:"
        f"function:${{Prefix}}-{function.name}:{ALIAS}/invocations"
    )


def _permission(template: Template, method: str, path: str, function: Function) -> None:
    """Let the gateway call a function for one method on one path of one stage."""
    pattern = re.sub(r"\{[^}]+\}", "*", path)
    template.add(f"{logical(function.name)}Permission", "AWS::Lambda::Permission", {
        "Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com",
        "FunctionName": sub(
            f"arn:${{AWS::Partition}}:lambda:${{AWS::Region}}:${{AWS::AccountId}}:function:${{Prefix}}-{function.name}:{ALIAS}"
        ),
        "SourceArn": sub(
            "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:"
            f"${{RestApi}}/{STAGE}/{method}{pattern}"
        ),
    })  # fmt: skip


def _account(template: Template) -> None:
    """API Gateway writes access logs with one role for each account and region.

    Who sets it must be allowed to pass it, so it is nobody else's; AWS documents no condition on the account that the
    gateway would meet.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
    """
    template.add("GatewayRole", "AWS::IAM::Role", {
        "AssumeRolePolicyDocument": trust("apigateway.amazonaws.com"),
        "ManagedPolicyArns": [sub(
            "arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
        )],
    }, Condition="SetsGatewayAccount", DeletionPolicy="Retain", UpdateReplacePolicy="Retain")  # fmt: skip
    template.add("GatewayAccountRole", "AWS::ApiGateway::Account", {"CloudWatchRoleArn": att("GatewayRole", "Arn")},
                 Condition="SetsGatewayAccount", DeletionPolicy="Retain", UpdateReplacePolicy="Retain")  # fmt: skip


def _plan_and_domain(template: Template) -> None:
    # Acts on requests with a gateway key only. The bound that holds for everybody is the stage's.
    template.add("UsagePlan", "AWS::ApiGateway::UsagePlan", {
        "UsagePlanName": ref("Prefix"), "ApiStages": [{"ApiId": ref("RestApi"), "Stage": ref("RestApi.Stage")}],
        "Throttle": {"RateLimit": ref("Rate"), "BurstLimit": ref("Burst")},
    })  # fmt: skip
    template.add("Domain", "AWS::ApiGateway::DomainName", {
        "DomainName": ref("DomainName"), "RegionalCertificateArn": ref("CertificateArn"),
        "EndpointConfiguration": {"Types": ["REGIONAL"]}, "SecurityPolicy": "TLS_1_2",
    }, Condition="HasDomain")  # fmt: skip
    template.add("DomainPath", "AWS::ApiGateway::BasePathMapping", {
        "DomainName": ref("Domain"), "RestApiId": ref("RestApi"), "Stage": ref("RestApi.Stage"),
    }, Condition="HasDomain")  # fmt: skip
    own = sub(f"https://${{RestApi}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}/{STAGE}")
    template.output("Url", choose("HasDomain", sub("https://${DomainName}"), own))
    template.output("DomainTarget", choose("HasDomain", att("Domain", "RegionalDomainName"), ""),
                    "What the domain's name must be an alias of")  # fmt: skip
    template.output("ApiName", ref("Prefix"))
