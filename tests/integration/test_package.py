"""The package as `make package` builds it: small enough, the same bytes again, loadable on the target, and loaded from
bytecode."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.aws import archive, dependencies, package
from infra.aws.dependencies import TARGET_GLIBC, TARGET_PYTHON, PackagingFailed, Target, find_target
from infra.aws.package import Built, build
from infra.walkthrough.packaged import unpack
from tests.packages import RUNNING, package_to_run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Package:
    """A package, its layer as it was before bytecode was made, and both zips unpacked where Lambda unpacks them."""

    built: Built
    target: Target
    wheels: Path
    code: Path
    layer: Path


@dataclass(frozen=True)
class Runnable:
    """A package whose Python is here, unpacked."""

    target: Target
    code: Path
    layer: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The deployable package."""
    return make(find_target(TARGET_PYTHON), tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def runnable(made: Package, tmp_path_factory: pytest.TempPathFactory) -> Runnable:
    """The same where this machine has the target's Python, else one by the same recipe for the running one."""
    if made.built.bytecode:
        return Runnable(made.target, made.code, made.layer)
    unpacked = unpack(package_to_run(), tmp_path_factory.mktemp("running") / "unpacked")
    return Runnable(find_target(RUNNING), unpacked.code, unpacked.packages)


def make(target: Target, folder: Path) -> Package:
    install = dependencies.install

    def keep(target: Target, layer: Path) -> None:
        install(target, layer)
        shutil.copytree(layer, folder / "wheels")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "install", keep)
        # A package is built without credentials, and whatever is set does not get into it.
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("HOTPLUG_LLM_KEY", "sk-must-not-be-packed")
        built = build("prod", target, folder / "out")
    with zipfile.ZipFile(built.folder / "code.zip") as code:
        code.extractall(folder / "task")
    with zipfile.ZipFile(built.folder / "dependencies.zip") as layer:
        layer.extractall(folder / "opt")
    return Package(built, target, folder / "wheels", folder / "task", folder / "opt" / "python")


def test_it_stays_within_the_limits(made: Package) -> None:
    for name, size in made.built.zipped.items():
        assert size == (made.built.folder / name).stat().st_size < 45_000_000, name
    assert made.built.unpacked < 250_000_000


def test_the_same_input_gives_the_same_bytes(made: Package, tmp_path: Path) -> None:
    """Built again in another folder, from the same wheels unpacked in another order and at another time."""

    def again(_: Target, layer: Path) -> None:
        files = [path for path in made.wheels.rglob("*") if path.is_file()]
        random.Random(7).shuffle(files)
        for file in files:
            copy = layer / file.relative_to(made.wheels)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
            os.utime(copy, (1_000_000_000, 1_000_000_000))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "install", again)
        second = build("prod", made.target, tmp_path / "deep" / "elsewhere")
    assert {p.name: digest(p) for p in made.built.folder.iterdir()} == {
        p.name: digest(p) for p in second.folder.iterdir()
    }
    assert second.release == made.built.release


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_binary_loads_on_the_target(made: Package) -> None:
    binaries = [path for path in made.layer.rglob("*") if path.is_file() and archive.is_binary(path)]
    assert len(binaries) > 10
    needed = {path.name: archive.glibc_needed(path) for path in binaries}
    assert max(needed.values()) <= TARGET_GLIBC, needed
    # wasmtime's wheel says that it is older than it is.
    assert needed["_libwasmtime.so"] >= (2, 17)
    tags = {match[1] for path in binaries if (match := re.search(r"\.cpython-(\d+)-", path.name))}
    assert tags == {TARGET_PYTHON.replace(".", "")}


def test_a_binary_of_a_newer_c_library_stops_packaging(made: Package, tmp_path: Path) -> None:
    (library,) = made.layer.rglob("_libwasmtime.so")
    shutil.copy(library, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "TARGET_GLIBC", (2, 5))
        with pytest.raises(PackagingFailed, match=r"_libwasmtime\.so needs glibc 2\."):
            package.check_binaries(tmp_path)


def test_every_wheel_is_pinned_and_every_pin_is_a_wheel(made: Package) -> None:
    lock = dict(line.split("==") for line in dependencies.LOCK.read_text().splitlines() if "==" in line)
    assert dependencies.installed(made.layer) | {"pycparser": lock["pycparser"]} == lock
    direct = dict(
        line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line
    )
    for name, version in direct.items():
        if name not in dependencies._BUILD_ONLY:
            assert lock[name.lower().replace("_", "-")] == version


def test_nothing_that_nobody_needs_is_in_it(made: Package) -> None:
    names = [path.relative_to(made.layer).as_posix() for path in made.layer.rglob("*")]
    names += [path.relative_to(made.code).as_posix() for path in made.code.rglob("*")]
    unwanted = r"(^|/)(tests?|pip|setuptools|moto|pytest|awslambdaric|chalice/cli|infra|bench)(/|$)|\.pyi$"
    assert not [name for name in names if re.search(unwanted, name)]
    data = made.layer / "botocore" / "data"
    assert {path.name for path in data.iterdir() if path.is_dir()} == set(dependencies.SERVICES)
    assert {path.name for path in made.code.iterdir()} == {
        "app.py", "chalicelib", "chalice", "migrations", "certificates", "__pycache__",
    }  # fmt: skip


def test_nothing_secret_is_in_it(made: Package) -> None:
    """Neither a setting of whoever packaged, nor a private key, nor the name of a folder of that machine."""
    home = str(ROOT).encode()
    for path in [*made.code.rglob("*"), *made.built.folder.glob("*.json")]:
        if path.is_file():
            content = path.read_bytes()
            assert b"sk-must-not-be-packed" not in content, path
            assert b"PRIVATE KEY-----" not in content, path
            assert home not in content, path


def test_the_templates_name_the_runtime_that_was_built_for(made: Package) -> None:
    root = json.loads((made.built.folder / "template.json").read_text())
    given = {
        resource["Properties"]["Parameters"]["PythonRuntime"]
        for name, resource in root["Resources"].items()
        if name.startswith("Functions")
    }
    assert given == {f"python{TARGET_PYTHON}"}
    # An update by `aws cloudformation deploy` keeps the value that a parameter had.
    assert "PythonRuntime" not in root["Parameters"]


# -- run with the Python that it is for ----------------------------------------------------------------------------

IMPORTS = """
import importlib, json, os, sys
compiled = []
from importlib.machinery import SourceFileLoader
original = SourceFileLoader.source_to_code
def noted(self, data, path, **options):
    compiled.append(str(path))
    return original(self, data, path, **options)
SourceFileLoader.source_to_code = noted
import app
for name in %r:
    importlib.import_module(name)
import boto3
for service in %r:
    boto3.client(service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
import wasmtime
wasmtime.Module(wasmtime.Engine(), b"\\0asm\\1\\0\\0\\0")
from openapi_spec_validator.schemas import schema_v31
from chalicelib.core.json_schema import schemas
files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
outside = [file for file in files if "site-packages" in file]
version = sys.version_info[:2]
print(json.dumps({"compiled": compiled, "outside": outside, "modules": len(sys.modules), "version": version}))
"""
ENTRIES = (
    "chalicelib.events.deployment", "chalicelib.events.execution", "chalicelib.events.registration",
    "chalicelib.events.schedules", "chalicelib.core.idempotency", "chalicelib.tools.mcp_client.connection",
    "chalicelib.tools.mcp_client.http_transport", "chalicelib.plugins.runtime.service",
    "chalicelib.core.keys.secret_box",
    "alembic.command", "jsonschema", "jsonschema_rs", "tenacity", "yaml", "cryptography.hazmat.primitives.ciphers.aead",
    "python_multipart", "httpcore", "aws_lambda_powertools.metrics", "semantic_version",
)  # fmt: skip


@pytest.fixture(scope="module")
def imported(runnable: Runnable) -> Iterator[dict[str, object]]:
    """What importing all that functions import did, with the zips unpacked where nothing can be written."""
    assert runnable.target.interpreter is not None
    script = IMPORTS % (ENTRIES, dependencies.SERVICES)
    done = subprocess.run(
        [runnable.target.interpreter, "-B", "-c", script],
        cwd=runnable.code,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": f"{runnable.code}:{runnable.layer}",
            "HOTPLUG_DATABASE_URL": "sqlite:///x",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout.splitlines()[-1])


def test_all_that_functions_import_is_in_it(imported: dict[str, object], runnable: Runnable) -> None:
    assert imported["outside"] == []
    assert imported["version"] == [int(part) for part in runnable.target.version.split(".")]


def test_every_module_is_loaded_from_bytecode(imported: dict[str, object]) -> None:
    assert imported["compiled"] == []
    assert isinstance(imported["modules"], int) and imported["modules"] > 500


def test_bytecode_is_not_compared_with_its_source(runnable: Runnable) -> None:
    """A zip's times are those of 1980, so bytecode that is compared by time would be thrown away, silently."""
    modules = [*runnable.layer.rglob("*.pyc"), *runnable.code.rglob("*.pyc")]
    assert len(modules) > 1500
    flags = {int.from_bytes(path.read_bytes()[4:8], "little") for path in modules}
    assert flags == {0b01}  # PEP 552: hash-based, unchecked


def test_without_the_targets_python_the_cost_is_said(tmp_path: Path) -> None:
    target = Target("3.13", None)
    assert not dependencies.compile_all(target, tmp_path, "/opt/python")
    (note,) = [note for note in package._notes(target, False) if "bytecode" in note]
    assert "three times as long" in note and "HOTPLUG_TARGET_PYTHON" in note


def test_a_package_for_an_older_python_says_what_it_cannot_do() -> None:
    notes = package._notes(Target("3.11", None), True)
    assert any("wasmtime" in note for note in notes)
