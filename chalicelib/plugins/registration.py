"""Registering a package: one function for every way in.

A package on disk, already hashed, becomes a version: checked, compiled where it is wasm, placed under its final key,
loaded where the plugin is enabled, and written in one transaction. Every side effect is an enumerated step; a kill
between any two leaves either nothing that a reader can see or the whole.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from chalicelib.core import audit, telemetry
from chalicelib.core.caller import Caller
from chalicelib.core.database import Unit, is_duplicate
from chalicelib.core.errors import (
    Conflict,
    Forbidden,
    HotplugError,
    Invalid,
    NotFound,
    PreconditionFailed,
)
from chalicelib.core.ids import new_suffix
from chalicelib.core.representation import check_if_match
from chalicelib.core.settings import VERSION
from chalicelib.core.steps import declare, step
from chalicelib.plugins import activation, catalog, graph, loading, rendering
from chalicelib.plugins.configs import resolution
from chalicelib.plugins.decision import Act, Installed, Offer, Terms, decide
from chalicelib.plugins.models import ENABLED, Plugin, PluginVersion
from chalicelib.plugins.ownership import hold_owner
from chalicelib.plugins.package.archive import check_archive
from chalicelib.plugins.package.contents import Package, read_package
from chalicelib.plugins.services import Services

STEPS = declare("register", ("check", "compile", "store_compiled", "place", "load", "commit"))
# Two writers of one name collide on a unique key; the loser looks again and then knows what it is.
_ATTEMPTS = 4
_REFUSALS = (Conflict, Forbidden, Invalid, NotFound, PreconditionFailed)

Commit = Callable[[Callable[[Unit], Any]], Any]
Place = Callable[[str], str]
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Artifact:
    """A package on disk whose digest was taken while it was streamed.

    Parameters
    ----------
    place
        Puts exactly these bytes under a key and returns the version id of what it put.
    """

    path: Path
    checksum: str
    size: int
    source: str
    place: Place


@dataclass(frozen=True)
class Registered:
    """The outcome: what was done (`Act.NOTHING` where the very same version was active already), and the plugin's
    resource."""

    plugin_id: str
    version: str
    act: Act
    resource: dict[str, Any]


Also = Callable[[Unit, Registered], Any]


def registered_only(session: Unit, registered: Registered) -> Registered:
    """Add nothing to the registering unit of work."""
    return registered


@dataclass(frozen=True)
class _Plan:
    """What is to be done, as seen at one moment."""

    act: Act
    plugin_id: str
    plugin: Plugin | None
    version: PluginVersion | None


@dataclass(frozen=True)
class _Stored:
    """What was made outside the unit, and the generation of the plugin that it was made for (None: a new one)."""

    version: PluginVersion | None = None
    generation: int | None = None


@contextmanager
def _measured() -> Iterator[None]:
    """Count an install as registered, refused or failed, and how long it took."""
    began = time.perf_counter()
    name = "plugin.install_failures"
    try:
        yield
        name = "plugin.installs"
    except _REFUSALS:
        name = "plugin.install_refusals"
        raise
    finally:
        telemetry.metric(name, 1)
        telemetry.metric("plugin.install_time", (time.perf_counter() - began) * 1000, "Milliseconds")


def object_key(plugin_id: str, version: str) -> str:
    """Return where a version's package is stored."""
    return f"plugins/{plugin_id}/{version}/{plugin_id}_{version}.zip"


class Registration:
    """Registering one package.

    Parameters
    ----------
    services
        Database, storage, runtime functions and the hot cache of this process.
    caller
        For whom: the app that will own the plugin.
    artifact, terms
        What came, and how.
    package
        The package as already read from `artifact.path`, None to read it here.
    if_match
        The entity tag that the plugin of an update must still have.
    watch
        Told of each step before it begins.
    """

    def __init__(
        self,
        services: Services,
        caller: Caller,
        artifact: Artifact,
        terms: Terms,
        package: Package | None = None,
        *,
        if_match: str | None = None,
        watch: Watch = lambda name: None,
    ) -> None:
        self._if_match = if_match
        self._watch = watch
        self._services = services
        self._caller = caller
        self._artifact = artifact
        self._terms = terms
        if package is None:
            self._step("check")
            package = read_package(artifact.path, platform_version=VERSION)
        self._package = package
        self._manifest = package.manifest
        self._placed: list[tuple[str, str]] = []
        # True once a unit found that another writer had registered the very same package meanwhile.
        self._unused = False

    def run(self, commit: Commit, also: Also = registered_only) -> Any:
        """Register the package and return what `also` made of it.

        Parameters
        ----------
        commit
            Runs a unit of work: `database.run`, or the edge's `request.write`.
        also
            Runs in the same unit of work with what was registered: a task's end, the request's answer.

        Raises
        ------
        errors.Invalid, errors.Conflict, errors.Forbidden
            The package's or the publisher's fault, with every reason; nothing was written.
        errors.Unavailable
            Ours; the same call may be repeated.
        """
        fields = {
            "app": self._caller.alias_id,
            "source": self._artifact.source,
            "plugin": self._manifest.name,
        }
        telemetry.event("plugin.installing", **fields, version=self._manifest.version)
        with (
            _measured(),
            telemetry.operation("plugin.install", **fields, version=self._manifest.version) as operation,
        ):
            with operation.phase("plan"), self._services.database.reads() as session:
                plan = self._plan(session, lock=False)
            try:
                with operation.phase("store"):
                    stored = self._store(plan)
            except HotplugError:
                self._discard()
                raise
            try:
                with operation.phase("commit"):
                    outcome = self._commit(plan, stored, commit, also)
            except _REFUSALS:
                # Refused for good: what was placed has no owner. After any other error the outcome may be unknown
                # and the objects may be in use; the sweep knows.
                self._discard()
                raise
            if self._unused:
                self._discard()
            operation.note(pluginId=plan.plugin_id, act=plan.act.value)
        telemetry.event(
            "plugin.installed",
            pluginId=plan.plugin_id,
            version=self._manifest.version,
            key=object_key(plan.plugin_id, self._manifest.version),
            act=plan.act.value,
        )
        return outcome

    def _step(self, name: str) -> None:
        self._watch(name)
        step("register", name)

    # -- deciding ------------------------------------------------------------------------------------------------

    def _plan(self, session: Session, *, lock: bool) -> _Plan:
        plugin = self._existing(session, lock=lock)
        version = None
        installed = None
        if plugin is not None:
            version = catalog.version_row(session, plugin.plugin_id, self._manifest.version)
            installed = Installed(plugin.plugin_id, plugin.name, plugin.version, plugin.checksum)
        tombstone = activation.bound_checksum(session, self._caller.app_id, self._manifest)
        offer = Offer(self._manifest.name, self._manifest.version, self._artifact.checksum)
        act = decide(offer, self._terms, installed, version.checksum if version else None, tombstone)
        if act is not Act.NOTHING:
            self._check_surroundings(session, plugin)
        plugin_id = plugin.plugin_id if plugin else f"plugin_{self._manifest.name}_{new_suffix()}"
        return _Plan(act, plugin_id, plugin, version)

    def _existing(self, session: Session, *, lock: bool) -> Plugin | None:
        if self._terms.target is not None:
            try:
                plugin = catalog.owned(session, self._caller, self._terms.target, lock=lock)
            except NotFound:
                message = "The plugin that this package updates is not installed."
                raise NotFound(message, code="plugin.not_found") from None
            check_if_match(self._if_match, rendering.detail(plugin))
            return plugin
        query = select(Plugin).where(Plugin.app_id == self._caller.app_id, Plugin.name == self._manifest.name)
        return session.scalars(query.with_for_update() if lock else query).one_or_none()

    def _check_surroundings(self, session: Session, plugin: Plugin | None) -> None:
        """Refuse what would break the plugin, or what needs it."""
        enabled = plugin is not None and plugin.is_enabled == ENABLED
        graph.check_dependencies(
            session,
            self._caller.app_id,
            self._manifest.dependencies,
            own_name=self._manifest.name,
            enabled=enabled,
        )
        if plugin is None:
            graph.refuse_newcomer(session, self._caller.app_id, self._manifest.name)
            return
        graph.check_dependents(session, plugin, self._manifest.version)
        activation.check_configs(session, plugin.plugin_id, self._manifest)
        if enabled:
            activation.check_granted(plugin, self._manifest)

    # -- side effects, all before the unit of work -----------------------------------------------------------------

    def _store(self, plan: _Plan) -> _Stored:
        generation = plan.plugin.generation if plan.plugin else None
        if plan.act is Act.NOTHING:
            return _Stored(None, generation)
        version = plan.version or self._build_version(plan.plugin_id)
        if plan.plugin is not None and plan.plugin.is_enabled == ENABLED:
            self._step("load")
            self._smoke_load(plan.plugin, version)
        return _Stored(version, generation)

    def _smoke_load(self, plugin: Plugin, version: PluginVersion) -> None:
        """Load the new version before the old one stops being active: a failure changes nothing."""
        services = self._services
        candidate = catalog.registration(plugin, version)
        config = resolution.resolve(
            services.database, services.cache, candidate, app_id=plugin.app_id, subject=None, config_id=None
        )
        loading.smoke_load(
            services.storage,
            services.functions,
            candidate,
            tenant=self._caller.alias_id,
            config=config,
            cache=loading.cache_state(services.cache),
        )

    def _build_version(self, plugin_id: str) -> PluginVersion:
        number = self._manifest.version
        version = PluginVersion(
            plugin_id=plugin_id,
            version=number,
            checksum=self._artifact.checksum,
            size=self._artifact.size,
            manifest=self._manifest.document,
            runtime=self._manifest.runtime,
            created_by=self._caller.credential_id,
        )
        if self._manifest.runtime == "wasm":
            self._compile(version)
        version.s3_path = object_key(plugin_id, number)
        self._step("place")
        version.s3_version = self._artifact.place(version.s3_path)
        self._placed.append((version.s3_path, version.s3_version))
        telemetry.event("plugin.stored", pluginId=plugin_id, version=number, key=version.s3_path)
        return version

    def _compile(self, version: PluginVersion) -> None:
        """Compile once and for all; the module's key is its content, and the version row names its VersionId."""
        from chalicelib.plugins.runtime.compile import engine_id

        self._step("compile")
        digest, compiled = compile_entry_point(self._artifact.path, self._manifest.entry_point)
        version.wasm_sha256 = digest
        version.compiled_engine = engine_id()
        version.compiled_path = f"compiled/{digest}/{version.compiled_engine}.cwasm"
        version.compiled_sha256 = hashlib.sha256(compiled).hexdigest()
        version.compiled_size = len(compiled)
        self._step("store_compiled")
        version.compiled_version = self._services.storage.upload(
            version.compiled_path, compiled, sha256=version.compiled_sha256
        )
        self._placed.append((version.compiled_path, version.compiled_version))

    def _discard(self) -> None:
        while self._placed:
            key, version_id = self._placed.pop()
            try:
                self._services.storage.delete(key, version_id)
            except HotplugError as error:
                # The refusal is what the publisher must see; the sweep removes objects that no row names.
                telemetry.exception("plugin.discard_failed", error, key=key)

    # -- the unit of work ----------------------------------------------------------------------------------------

    def _commit(self, plan: _Plan, stored: _Stored, commit: Commit, also: Also) -> Any:
        def work(session: Unit) -> Any:
            return also(session, self._write(session, plan, stored))

        for _ in range(_ATTEMPTS):
            self._step("commit")
            try:
                return commit(work)
            except IntegrityError as error:
                if not is_duplicate(error):
                    raise
                # Another writer took the name, the version or the suffix between our look and our insert: the next
                # round sees it under the lock.
                continue
        raise Conflict("Too many installs of this name at once.", code="plugin.contended", retry_after=1)

    def _write(self, session: Unit, plan: _Plan, stored: _Stored) -> Registered:
        graph.lock(session)
        hold_owner(session, self._caller)
        now = self._plan(session, lock=True)
        self._unused = now.act is Act.NOTHING
        if now.plugin is not None and now.act is Act.NOTHING:
            return Registered(now.plugin.plugin_id, now.plugin.version, now.act, rendering.detail(now.plugin))
        generation = now.plugin.generation if now.plugin else None
        if stored.version is None or generation != stored.generation:
            # Loaded and placed for another state of the plugin than the one that is locked now.
            raise Conflict(
                "The plugin was changed meanwhile; try again.", code="plugin.changed", retry_after=1
            )
        version = now.version or stored.version
        if now.version is None:
            # A unit that runs again after a deadlock needs a row of its own.
            version = activation.fresh_version(stored.version)
            session.add(version)
        before = rendering.detail(now.plugin) if now.plugin else None
        if now.plugin is None:
            plugin = activation.create(session, self._caller, version, self._manifest, self._artifact.source)
        else:
            plugin = activation.activate(session, self._caller, now.plugin, version, self._manifest, "update")
        activation.remember(session, self._caller.app_id, self._manifest, self._artifact.checksum)
        resource = rendering.detail(plugin)
        action = "plugin.update" if now.plugin else "plugin.install"
        audit.record(session, self._caller, action, "plugin", plugin.plugin_id, before=before, after=resource)
        session.flush()
        return Registered(plugin.plugin_id, version.version, now.act, resource)


def compile_entry_point(path: Path, entry_point: str) -> tuple[str, bytes]:
    """Return (SHA-256 of the module, compiled module) of a package's wasm entry point.

    Raises
    ------
    errors.Invalid
        A module that is too large, not valid, or too expensive to compile.
    """
    from chalicelib.plugins.runtime.compile import MAX_MODULE_BYTES, compile_module

    with tempfile.TemporaryDirectory(prefix="hotplug-compile-") as folder:
        module, compiled = Path(folder, "module.wasm"), Path(folder, "module.cwasm")
        module.write_bytes(check_archive(path).read(entry_point, max_bytes=MAX_MODULE_BYTES))
        compile_module(module, compiled)
        return hashlib.sha256(module.read_bytes()).hexdigest(), compiled.read_bytes()
