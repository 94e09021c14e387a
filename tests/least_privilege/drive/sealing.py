"""Everything that seals a secret, each for an app that has no data key yet: it makes one, and unwraps it."""

from __future__ import annotations

from tests.e2e.tenants import SERVER_KEY, Tenant, fresh_name, package, upload
from tests.least_privilege.drive.world import World

SECRET_SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}, "token": {"type": "string", "format": "password"}},
}
SERVERS = "/api/v1/mcp/servers"


def drive(world: World) -> None:
    """Seal one of each kind, and open what a server's call needs."""
    one = world.tenant()
    one.admin("POST", f"/api/v1/apps/{one.alias}/webhook-secret", 201)
    one = world.tenant()
    one.admin("PUT", f"/api/v1/apps/{one.alias}/secrets/token", 200, json={"value": "hush"})
    configured(world.tenant(), {"token": "hush"})
    one = world.tenant()
    path = configured(one, {"word": "open"})
    one.admin("PUT", path, 200, json={"configItems": {"token": "hush"}})
    world.tenant().register_tool(fresh_name("sealed"))
    one = world.tenant()
    one.admin("PUT", f"{SERVERS}/{asked(one)}/credentials", 200, json=SERVER_KEY)
    one = world.tenant()
    one.admin("PATCH", f"{SERVERS}/{asked(one)}", 200, json={"credentials": SERVER_KEY})
    one = world.tenant()
    server = one.register_server(fresh_name("sealed"))
    one.admin("POST", f"{SERVERS}/{server['serverId']}/tools/text/call", 200, json={})


def configured(tenant: Tenant, items: dict[str, str]) -> str:
    """Configure a plugin of the tenant's and return the config's path."""
    content = package(fresh_name("sealed"), configSchema=SECRET_SCHEMA)
    made = tenant.admin("POST", "/api/v1/plugins/install", 201, **upload(content)).json()
    path = f"/api/v1/plugins/{made['pluginId']}/configs"
    body = {"name": "sealed", "scope": "app", "isDefault": True, "configItems": items}
    return f"{path}/{tenant.admin('POST', path, 201, json=body).json()['configId']}"


def asked(tenant: Tenant) -> str:
    """Register an MCP server without credentials and return its id."""
    body = {"name": fresh_name("open"), "url": tenant.upstreams.mcp}
    return str(tenant.admin("POST", SERVERS, 201, json=body).json()["serverId"])
