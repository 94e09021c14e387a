"""The plugins of one deployment in this process: what a test does to them over the API, and what it then finds."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from chalicelib.core import process, storage
from chalicelib.core.audit import AuditLog
from chalicelib.core.cache_log import CacheChange, CacheVersion
from chalicelib.core.caller import Caller
from chalicelib.core.database import DatabaseService
from chalicelib.core.errors import NotFound
from chalicelib.core.hotcache import HotCache
from chalicelib.core.storage import PresignedPost
from chalicelib.plugins import catalog, incoming, services
from chalicelib.plugins.configs.models import PluginConfig
from chalicelib.plugins.install_models import PluginDependency, PluginInstall, PluginRemoval, PluginTombstone
from chalicelib.plugins.models import Plugin, PluginHistory, PluginVersion
from tests.fakes.functions import MemoryFunctions
from tests.fakes.storage import MemoryStorage
from tests.http import Client, Deployment, Response, deployed
from tests.plugin_rows import answer, failure

PLUGINS = "/api/v1/plugins"
INSTALL = f"{PLUGINS}/install"
INSTALLS = f"{PLUGINS}/installs"
CODE = b"class Plugin:\n    def execute(self, action, params, context):\n        return {}\n"
# (module (func (export "_start"))) with a memory: the smallest WASI command.
WASM = bytes.fromhex(
    "0061736d01000000010401600000030201000503010001071302066d656d6f72790200065f737461727400000a040102000b"
)
LOCAL = {"source": "local"}
# Everything that a change of a plugin may write.
KEPT: tuple[Any, ...] = (
    Plugin, PluginConfig, PluginDependency, PluginHistory, PluginInstall, PluginRemoval, PluginTombstone,
    PluginVersion, AuditLog, CacheVersion, CacheChange,
)  # fmt: skip


def manifest(name: str = "notifier", version: str = "1.0.0", **members: Any) -> dict[str, Any]:
    """Return a small good manifest."""
    base = {"name": name, "version": version, "pluginType": "notify", "entryPoint": "main.py"}
    return base | members


def package(name: str = "notifier", version: str = "1.0.0", *, code: bytes = CODE, **members: Any) -> bytes:
    """Return a package; the same arguments give the same bytes."""
    document = manifest(name, version, **members)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for entry, content in (
            ("manifest.json", json.dumps(document).encode()),
            (document["entryPoint"], code),
        ):
            file.writestr(zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0)), content)
    return packed.getvalue()


def wasm_package(version: str = "1.0.0", **members: Any) -> bytes:
    """Return a package whose entry point is a WASI command that does nothing."""
    return package(version=version, code=WASM, entryPoint="main.wasm", **members)


def declared(content: bytes, **members: Any) -> dict[str, Any]:
    """Return the JSON body that declares an upload."""
    sha256 = hashlib.sha256(content).hexdigest()
    return {"source": "local", "filename": "x.zip", "size": len(content), "sha256": sha256, **members}


@dataclass
class World:
    """One deployment with a bucket and runtime functions in memory.

    Parameters
    ----------
    replies
        What the runtime answers, one after the other; after the last it always loads.
    """

    deployment: Deployment
    bucket: MemoryStorage
    functions: MemoryFunctions
    replies: list[Any]

    def __post_init__(self) -> None:
        # A warm function of its own: another process with another connection.
        self.elsewhere = DatabaseService(self.deployment.url)
        self.warm = HotCache(self.elsewhere)
        self.warm.refresh()
        me = self.client.get("/api/v1/me").json
        self._caller = Caller(int(me["appId"]), "admin", 1, "viewer", "r")

    @property
    def client(self) -> Client:
        return self.deployment.client

    def publisher(self, app: str = "acme", role: str = "publisher") -> Client:
        """Return a client of an app."""
        return Client(self.client.app, self.deployment.credential(app, role))

    # -- what a publisher does ---------------------------------------------------------------------------------

    def install(self, content: bytes | None = None, client: Client | None = None, **form: str) -> Response:
        files = {"file": ("x.zip", package() if content is None else content)}
        return (client or self.client).post(INSTALL, files=files, form=LOCAL | form)

    def installed(self, *arguments: Any, client: Client | None = None, **members: Any) -> str:
        """Install a package and return its plugin id."""
        done = self.install(package(*arguments, **members), client)
        assert done.status == 201, done.body
        return str(done.json["pluginId"])

    def enabled(self, *arguments: Any, client: Client | None = None, **members: Any) -> str:
        """Install and enable a package and return its plugin id."""
        plugin_id = self.installed(*arguments, client=client, **members)
        done = (client or self.client).post(f"{PLUGINS}/{plugin_id}/enable")
        assert done.status == 200, done.body
        return plugin_id

    def update(
        self,
        plugin_id: str,
        content: bytes,
        client: Client | None = None,
        *,
        headers: Any = None,
        **form: str,
    ) -> Response:
        files = {"file": ("x.zip", content)}
        return (client or self.client).put(
            f"{PLUGINS}/{plugin_id}", files=files, form=LOCAL | form, headers=headers
        )

    def act(self, plugin_id: str, action: str, client: Client | None = None, **options: Any) -> Response:
        return (client or self.client).post(f"{PLUGINS}/{plugin_id}/{action}", **options)

    def get(self, plugin_id: str, more: str = "", client: Client | None = None) -> Any:
        found = (client or self.client).get(f"{PLUGINS}/{plugin_id}{more}")
        assert found.status == 200, found.body
        return found.json

    def upload(self, opened: dict[str, Any], content: bytes) -> str:
        """Upload a declared package and let the bucket's event arrive; return what became of it."""
        upload = opened["upload"]
        form = PresignedPost(upload["url"], upload["fields"], upload["expiresAt"])
        return self.arrived(form.fields["key"], self.bucket.post(form, content))

    def arrived(self, key: str, version_id: str | None = None) -> str:
        """Deliver the bucket's event of an object."""
        process.cache().refresh()
        return incoming.register_artifact(services.plugin_services(), key, version_id)

    def task(self, install_id: str) -> Any:
        found = self.client.get(f"{INSTALLS}/{install_id}")
        assert found.status == 200, found.body
        return found.json

    # -- what is found -----------------------------------------------------------------------------------------

    def seen(self, plugin_id: str) -> str | None:
        """Return version and status as a warm function elsewhere answers them, None for a 404."""
        try:
            found = self.registration(plugin_id).resource
        except NotFound:
            return None
        return f"{found['version']} {found['status']}"

    def registration(self, plugin_id: str) -> catalog.Registration:
        """Return what a warm function elsewhere runs a plugin with."""
        self.warm.refresh()
        return catalog.find(self.warm, self._caller, plugin_id)

    def rows(self, model: Any, **values: Any) -> list[Any]:
        with process.database().reads() as session:
            return list(session.scalars(select(model).filter_by(**values)))

    def everything(self) -> dict[str, Any]:
        """Return all rows of plugins and every object, to be compared after a request that must change nothing."""
        found: dict[str, Any] = {
            model.__tablename__: sorted(
                repr([getattr(row, column.key) for column in model.__mapper__.column_attrs])
                for row in self.rows(model)
            )
            for model in KEPT
        }
        return found | {"objects": list(self.bucket.list_versions(""))}

    def objects(self) -> list[str]:
        return [one.key for one in self.bucket.list_versions("")]

    def audited(self) -> list[tuple[str, str]]:
        """Return (action, object id) of the audit log, oldest first."""
        rows = sorted(self.rows(AuditLog), key=lambda row: row.id)
        return [(row.action, row.object_id) for row in rows if row.object_type in ("plugin", "install")]

    def history(self, plugin_id: str) -> list[tuple[str, str, str | None, str]]:
        """Return (action, version, from version, outcome) of a plugin, oldest first."""
        rows = sorted(self.rows(PluginHistory, plugin_id=plugin_id), key=lambda row: row.id)
        return [(row.action, row.version, row.from_version, row.outcome) for row in rows]

    @contextmanager
    def bumps(self, *keys: str) -> Iterator[None]:
        """Check that what happens within bumps scope `plugins` once, for exactly these plugins."""
        before = self._bumps()
        yield
        after = self._bumps()
        assert {key for _, key in after - before} == set(keys)
        assert len({version for version, _ in after - before}) == (1 if keys else 0)

    def _bumps(self) -> set[tuple[int, str]]:
        return {(row.version, row.item_key) for row in self.rows(CacheChange, scope="plugins")}

    def loads(self) -> list[dict[str, Any]]:
        """Return the loads that the runtime functions were asked for."""
        return [call.payload for call in self.functions.invocations]


@contextmanager
def world(url: str, **settings: str) -> Iterator[World]:
    """Serve Hotplug on an empty database, with a bucket and runtime functions in memory."""
    replies: list[Any] = []

    def runtime(event: dict[str, Any]) -> dict[str, Any]:
        reply = replies.pop(0) if replies else answer()
        if isinstance(reply, Exception):
            raise reply
        found: dict[str, Any] = reply(event) if callable(reply) else reply
        return found

    bucket, functions = MemoryStorage(), MemoryFunctions(runtime=runtime, runtime_network=runtime)
    storage.use(bucket)
    services.use(functions)
    try:
        with deployed(url, None, **settings) as deployment:
            made = World(deployment, bucket, functions, replies)
            try:
                yield made
            finally:
                made.elsewhere.close()
    finally:
        storage.use(None)
        services.use(None)


def load_failure(message: str = "ImportError: no module named x") -> dict[str, Any]:
    """Return what the runtime answers about a plugin that does not load."""
    return failure("load", "plugin.init_failed", message)
