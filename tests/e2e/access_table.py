"""Who may do what: one line per endpoint, written by hand from the rules, not from the code.

Each line gives the status for the roles viewer, caller, publisher and admin, in that order, on

- what the caller's own app owns,
- what another app owns and keeps private,
- what another app owns and shares with all (its plugin, tool or MCP server; what each app keeps of it, which is
  configs, runs and credentials, stays its own),

and for those who are nobody: no credential, a wrong secret, a disabled app, an expired and a removed credential.

`-` stands where there is no such case. `#` names a variant of the request. Admins manage the apps, keys and jobs of
the whole deployment, so `/apps`, `/audit`, `/instances` and `/maintenance` know no other tenant. Agents
belong to the deployment, what was said to them to the app that said it.
"""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("viewer", "caller", "publisher", "admin")
TARGETS = ("own", "other", "shared")

TABLE = """
GET    /health                                               | 200 200 200 200 | -               | -               | 200
GET    /openapi.json                                         | 200 200 200 200 | -               | -               | 200
GET    /api/v1/me                                            | 200 200 200 200 | -               | -               | 401
GET    /api/v1/audit                                         | 403 403 403 200 | -               | -               | 401
GET    /api/v1/instances                                     | 403 403 403 200 | -               | -               | 401
GET    /api/v1/maintenance                                   | 403 403 403 200 | -               | -               | 401
POST   /api/v1/maintenance/{job}                             | 403 403 403 200 | -               | -               | 401

GET    /api/v1/apps                                          | 403 403 403 200 | -               | -               | 401
POST   /api/v1/apps                                          | 403 403 403 201 | -               | -               | 401
GET    /api/v1/apps/{aliasId}                                | 403 403 403 200 | 403 403 403 200 | -               | 401
PATCH  /api/v1/apps/{aliasId}                                | 403 403 403 200 | 403 403 403 200 | -               | 401
DELETE /api/v1/apps/{aliasId}                                | 403 403 403 409 | 403 403 403 409 | -               | 401
DELETE /api/v1/apps/{aliasId}#empty                          | -               | 403 403 403 204 | -               | 401
GET    /api/v1/apps/{aliasId}/credentials                    | 403 403 403 200 | 403 403 403 200 | -               | 401
POST   /api/v1/apps/{aliasId}/credentials                    | 403 403 403 201 | 403 403 403 201 | -               | 401
DELETE /api/v1/apps/{aliasId}/credentials/{credentialId}     | 403 403 403 204 | 403 403 403 204 | -               | 401
POST   /api/v1/apps/{aliasId}/webhook-secret                 | 403 403 403 201 | 403 403 403 201 | -               | 401
GET    /api/v1/apps/{aliasId}/secrets                        | 403 403 403 200 | 403 403 403 200 | -               | 401
PUT    /api/v1/apps/{aliasId}/secrets/{name}                 | 403 403 403 200 | 403 403 403 200 | -               | 401
DELETE /api/v1/apps/{aliasId}/secrets/{name}                 | 403 403 403 204 | 403 403 403 204 | -               | 401

POST   /api/v1/plugins/install                               | 403 403 201 201 | -               | -               | 401
POST   /api/v1/plugins/install#declared                      | 403 403 202 202 | -               | -               | 401
GET    /api/v1/plugins/installs                              | 200 200 200 200 | -               | -               | 401
GET    /api/v1/plugins/installs/{installId}                  | 200 200 200 200 | 404 404 404 404 | -               | 401
POST   /api/v1/plugins/installs/{installId}/retry            | 403 403 202 202 | 403 403 404 404 | -               | 401
DELETE /api/v1/plugins/installs/{installId}                  | 403 403 200 200 | 403 403 404 404 | -               | 401
POST   /api/v1/plugins/validate-manifest                     | 200 200 200 200 | -               | -               | 401

GET    /api/v1/plugins                                       | 200 200 200 200 | -               | -               | 401
GET    /api/v1/plugins/metrics                               | 200 200 200 200 | -               | -               | 401
GET    /api/v1/plugins/{pluginId}                            | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
PUT    /api/v1/plugins/{pluginId}                            | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
PUT    /api/v1/plugins/{pluginId}#declared                   | 403 403 202 202 | 403 403 404 404 | 403 403 403 403 | 401
PATCH  /api/v1/plugins/{pluginId}                            | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
PATCH  /api/v1/plugins/{pluginId}#shared                     | 403 403 403 200 | 403 403 403 404 | 403 403 403 403 | 401
DELETE /api/v1/plugins/{pluginId}                            | 403 403 204 204 | 403 403 404 404 | 403 403 403 403 | 401
POST   /api/v1/plugins/{pluginId}/enable                     | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
POST   /api/v1/plugins/{pluginId}/disable                    | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
POST   /api/v1/plugins/{pluginId}/rollback                   | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
PUT    /api/v1/plugins/{pluginId}/grants                     | 403 403 403 200 | 403 403 403 404 | 403 403 403 403 | 401
GET    /api/v1/plugins/{pluginId}/versions                   | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
GET    /api/v1/plugins/{pluginId}/versions/{version}         | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
GET    /api/v1/plugins/{pluginId}/history                    | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
GET    /api/v1/plugins/{pluginId}/download                   | 403 302 302 302 | 403 404 404 404 | 403 302 302 302 | 401

POST   /api/v1/plugins/{pluginId}/configs                    | 403 403 201 201 | 403 403 404 404 | 403 403 201 201 | 401
POST   /api/v1/plugins/{pluginId}/configs#global             | 403 403 403 201 | 403 403 404 404 | 403 403 403 403 | 401
GET    /api/v1/plugins/{pluginId}/configs                    | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
GET    /api/v1/plugins/{pluginId}/configs/{configId}         | 200 200 200 200 | 404 404 404 404 | 404 404 404 404 | 401
PUT    /api/v1/plugins/{pluginId}/configs/{configId}         | 403 403 200 200 | 403 403 404 404 | 403 403 404 404 | 401
DELETE /api/v1/plugins/{pluginId}/configs/{configId}         | 403 403 204 204 | 403 403 404 404 | 403 403 404 404 | 401
GET    /api/v1/plugins/{pluginId}/configs/{configId}#global  | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
PUT    /api/v1/plugins/{pluginId}/configs/{configId}#global  | 403 403 403 200 | 403 403 404 404 | 403 403 403 403 | 401
DELETE /api/v1/plugins/{pluginId}/configs/{configId}#global  | 403 403 403 204 | 403 403 404 404 | 403 403 403 403 | 401

POST   /api/v1/mcp                                           | 403 200 200 200 | -               | -               | 401
GET    /api/v1/mcp                                           | 403 405 405 405 | -               | -               | 401
DELETE /api/v1/mcp                                           | 403 405 405 405 | -               | -               | 401

POST   /api/v1/plugins/{pluginId}/execute                    | 403 200 200 200 | 403 404 404 404 | 403 200 200 200 | 401
GET    /api/v1/plugins/{pluginId}/executions                 | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
GET    /api/v1/plugins/{pluginId}/executions/{executionId}   | 200 200 200 200 | 404 404 404 404 | 404 404 404 404 | 401

POST   /api/v1/tools                                         | 403 403 201 201 | -               | -               | 401
POST   /api/v1/tools#batch                                   | 403 403 201 201 | -               | -               | 401
POST   /api/v1/tools#shared                                  | 403 403 403 201 | -               | -               | 401
POST   /api/v1/tools/debug                                   | 403 403 200 200 | -               | -               | 401
GET    /api/v1/tools                                         | 200 200 200 200 | -               | -               | 401
GET    /api/v1/tools/{toolId}                                | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
GET    /api/v1/tools/{toolId}#document                       | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
DELETE /api/v1/tools/{toolId}                                | 403 403 204 204 | 403 403 404 404 | 403 403 403 403 | 401
GET    /api/v1/tools/{toolId}/versions                       | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
POST   /api/v1/tools/{toolId}/versions                       | 403 403 201 201 | 403 403 404 404 | 403 403 403 403 | 401
GET    /api/v1/tools/{toolId}/versions/{version}             | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
PATCH  /api/v1/tools/{toolId}/versions/{version}             | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
PATCH  /api/v1/tools/{toolId}/versions/{version}#shared      | 403 403 403 200 | 403 403 403 404 | 403 403 403 403 | 401
DELETE /api/v1/tools/{toolId}/versions/{version}             | 403 403 204 204 | 403 403 404 404 | 403 403 403 403 | 401
POST   /api/v1/tools/{toolId}/versions/{version}/restore     | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
POST   /api/v1/tools/{toolId}/run                            | 403 200 200 200 | 403 404 404 404 | 403 200 200 200 | 401
GET    /api/v1/tools/{toolId}/executions                     | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
PUT    /api/v1/tools/{toolId}/credentials                    | 403 403 200 200 | 403 403 404 404 | 403 403 200 200 | 401
GET    /api/v1/tools/{toolId}/credentials                    | 403 403 200 200 | 403 403 404 404 | 403 403 200 200 | 401
DELETE /api/v1/tools/{toolId}/credentials                    | 403 403 204 204 | 403 403 404 404 | 403 403 204 204 | 401
DELETE /api/v1/tools/{toolId}/credentials/{scheme}           | 403 403 204 204 | 403 403 404 404 | 403 403 204 204 | 401

POST   /api/v1/mcp/servers                                   | 403 403 201 201 | -               | -               | 401
POST   /api/v1/mcp/servers#shared                            | 403 403 403 201 | -               | -               | 401
GET    /api/v1/mcp/servers                                   | 200 200 200 200 | -               | -               | 401
GET    /api/v1/mcp/servers/{serverId}                        | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
PATCH  /api/v1/mcp/servers/{serverId}                        | 403 403 200 200 | 403 403 404 404 | 403 403 403 403 | 401
PATCH  /api/v1/mcp/servers/{serverId}#shared                 | 403 403 403 200 | 403 403 403 404 | 403 403 403 403 | 401
DELETE /api/v1/mcp/servers/{serverId}                        | 403 403 204 204 | 403 403 404 404 | 403 403 403 403 | 401
GET    /api/v1/mcp/servers/{serverId}/tools                  | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
GET    /api/v1/mcp/servers/{serverId}/executions             | 200 200 200 200 | 404 404 404 404 | 200 200 200 200 | 401
POST   /api/v1/mcp/servers/{serverId}/tools/{toolName}/call  | 403 200 200 200 | 403 404 404 404 | 403 200 200 200 | 401
PUT    /api/v1/mcp/servers/{serverId}/credentials            | 403 403 200 200 | 403 403 404 404 | 403 403 200 200 | 401
GET    /api/v1/mcp/servers/{serverId}/credentials            | 403 403 200 200 | 403 403 404 404 | 403 403 200 200 | 401
DELETE /api/v1/mcp/servers/{serverId}/credentials            | 403 403 204 204 | 403 403 404 404 | 403 403 204 204 | 401
DELETE /api/v1/mcp/servers/{serverId}/credentials/{scheme}   | 403 403 204 204 | 403 403 404 404 | 403 403 204 204 | 401

GET    /api/v1/agents                                        | 200 200 200 200 | -               | -               | 401
GET    /api/v1/agents/tables                                 | 403 403 403 200 | -               | -               | 401
PATCH  /api/v1/agents/tables/{table}                         | 403 403 403 200 | -               | -               | 401
GET    /api/v1/agents/{agentName}                            | 200 200 200 200 | -               | -               | 401
POST   /api/v1/agents/{agentName}/disable                    | 403 403 403 200 | -               | -               | 401
POST   /api/v1/agents/{agentName}/enable                     | 403 403 403 200 | -               | -               | 401
POST   /api/v1/agents/{agentName}/reload                     | 403 403 403 200 | -               | -               | 401
POST   /api/v1/agents/{agentName}/invoke                     | 403 200 200 200 | -               | -               | 401
GET    /api/v1/agents/{agentName}/threads                    | 403 200 200 200 | -               | -               | 401
GET    /api/v1/agents/{agentName}/threads/{threadId}/messages | 403 200 200 200 | 403 404 404 404 | -              | 401
DELETE /api/v1/agents/{agentName}/threads/{threadId}         | 403 204 204 204 | 403 404 404 404 | -               | 401
POST   /api/v1/agents/{agentName}/moves                      | 403 403 403 202 | -               | -               | 401
GET    /api/v1/agents/{agentName}/moves                      | 403 403 403 200 | -               | -               | 401
GET    /api/v1/agents/{agentName}/moves/{moveId}             | 403 403 403 200 | -               | -               | 401
DELETE /api/v1/agents/{agentName}/moves/{moveId}             | 403 403 403 200 | -               | -               | 401
POST   /api/v1/flows                                         | 403 403 201 201 | -               | -               | 401
GET    /api/v1/flows                                         | 200 200 200 200 | -               | -               | 401
GET    /api/v1/flows/{flowId}                                | 200 200 200 200 | 404 404 404 404 | -               | 401
PUT    /api/v1/flows/{flowId}                                | 403 403 200 200 | 403 403 404 404 | -               | 401
DELETE /api/v1/flows/{flowId}                                | 403 403 204 204 | 403 403 404 404 | -               | 401
POST   /api/v1/flows/{flowId}/validate                       | 403 403 200 200 | 403 403 404 404 | -               | 401
POST   /api/v1/flows/{flowId}/publish                        | 403 403 200 200 | 403 403 404 404 | -               | 401
POST   /api/v1/flows/{flowId}/take-off                       | 403 403 200 200 | 403 403 404 404 | -               | 401
GET    /api/v1/flows/{flowId}/versions                       | 200 200 200 200 | 404 404 404 404 | -               | 401
GET    /api/v1/flows/{flowId}/published                      | 200 200 200 200 | 404 404 404 404 | -               | 401
GET    /api/v1/flows/{flowId}/diagram.svg                    | 200 200 200 200 | 404 404 404 404 | -               | 401
PUT    /api/v1/flows/{flowId}/comparisons/{version}          | 403 403 200 200 | 403 403 404 404 | -               | 401
GET    /api/v1/flows/{flowId}/comparisons/{version}          | 200 200 200 200 | 404 404 404 404 | -               | 401
DELETE /api/v1/flows/{flowId}/comparisons/{version}          | 403 403 204 204 | 403 403 404 404 | -               | 401
GET    /api/v1/flows/{flowId}/licenses                       | 403 403 200 200 | 403 403 404 404 | -               | 401
PUT    /api/v1/flows/{flowId}/licenses/{aliasId}             | 403 403 200 200 | 403 403 404 404 | -               | 401
GET    /api/v1/flows/{flowId}/history                        | 403 200 200 200 | 403 404 404 404 | -               | 401
GET    /api/v1/flows/{flowId}/runs                           | 200 200 200 200 | 404 404 404 404 | -               | 401
POST   /api/v1/flows/{flowId}/runs                           | 403 200 200 200 | 403 404 404 404 | -               | 401
POST   /api/v1/flows/{flowId}/debug-runs                     | 403 403 200 200 | 403 403 404 404 | -               | 401
POST   /api/v1/flows/{flowId}/nodes/{nodeId}/debug           | 403 403 200 200 | 403 403 404 404 | -               | 401
GET    /api/v1/runs/{runId}                                  | 200 200 200 200 | 404 404 404 404 | -               | 401
GET    /api/v1/runs/{runId}/nodes                            | 200 200 200 200 | 404 404 404 404 | -               | 401
GET    /api/v1/runs/{runId}/events                           | 200 200 200 200 | 404 404 404 404 | -               | 401
POST   /api/v1/runs/{runId}/resume                           | 403 409 409 409 | 403 404 404 404 | -               | 401
POST   /api/v1/runs/{runId}/cancel                           | 403 200 200 200 | 403 404 404 404 | -               | 401
"""


@dataclass(frozen=True)
class Line:
    """One line: expected status by (target, role), and that of everyone who is nobody."""

    method: str
    path: str
    variant: str
    expected: dict[tuple[str, str], int]
    nobody: int

    @property
    def endpoint(self) -> str:
        """Method and path template, as in the OpenAPI document."""
        return f"{self.method} {self.path}"

    @property
    def name(self) -> str:
        """The endpoint with its variant."""
        return f"{self.endpoint}#{self.variant}" if self.variant else self.endpoint

    @property
    def deployment_wide(self) -> bool:
        """Whether admins see all tenants here."""
        return self.path.startswith(
            ("/api/v1/apps", "/api/v1/audit", "/api/v1/instances", "/api/v1/maintenance")
        )


def read_table(text: str = TABLE) -> list[Line]:
    """Return the lines of the table.

    Raises
    ------
    ValueError
        A line that is not complete.
    """
    lines = []
    for row in text.splitlines():
        if not row.strip():
            continue
        what, *cells, nobody = (cell.strip() for cell in row.split("|"))
        method, target = what.split()
        path, _, variant = target.partition("#")
        expected = {}
        for target_name, cell in zip(TARGETS, cells, strict=True):
            if cell == "-":
                continue
            for role, status in zip(ROLES, cell.split(), strict=True):
                expected[target_name, role] = int(status)
        lines.append(Line(method, path, variant, expected, int(nobody)))
    return lines
