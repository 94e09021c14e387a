"""`make package`: Chalice's own package, then one function for each endpoint, the layer, and the templates of a stage.

It needs the package registry and no AWS credentials. docs: infra/aws/README.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from infra.aws import archive, dependencies, gateway
from infra.aws.dependencies import PackagingFailed, Target
from infra.aws.functions import CODE, LAYER, REGISTER_CONCURRENCY
from infra.aws.root import Packaged, templates
from infra.aws.stages import STAGES
from infra.aws.template import Json, ref
from infra.functions import ROOT, FunctionTable, function_table

CODE_PLACE, LAYER_PLACE = "/var/task", "/opt/python"
CERTIFICATES = Path(__file__).with_name("certificates")
# What Chalice asks of a region; nothing of it gets into the package.
_ANY_REGION = "us-east-1"


@dataclass(frozen=True)
class Built:
    """A package.

    Parameters
    ----------
    notes
        What whoever packaged should know, a line each.
    """

    folder: Path
    release: str
    bytecode: bool
    zipped: dict[str, int]
    unpacked: int
    notes: tuple[str, ...]


def build(stage: str, target: Target, folder: Path) -> Built:
    """Build everything that `aws cloudformation package` takes, into `folder`, which is replaced.

    Raises
    ------
    PackagingFailed
        It cannot be built, or what was built could not be deployed: the message says why.
    """
    table = function_table(per_endpoint=True)
    with tempfile.TemporaryDirectory(prefix="hotplug-package-") as temporary:
        work = Path(temporary)
        packaged = chalice_package(stage, table, work / "chalice")
        code, layer = work / "code", work / "layer"
        _code(work / "chalice" / "out" / "deployment.zip", code)
        layer.mkdir()
        dependencies.install(target, layer)
        check_binaries(layer)
        bytecode = dependencies.compile_all(target, code, CODE_PLACE)
        bytecode = dependencies.compile_all(target, layer, LAYER_PLACE) and bytecode
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        archive.write_zip(folder / CODE, {"": code})
        archive.write_zip(folder / LAYER, {"python/": layer})
    zips = [folder / CODE, folder / LAYER]
    release = archive.digest(zips)[:16]
    write_templates(folder, stage, table, packaged, release, target.runtime)
    unpacked = sum(archive.unpacked_size(path) for path in zips)
    built = Built(
        folder,
        release,
        bytecode,
        {path.name: path.stat().st_size for path in zips},
        unpacked,
        tuple(_notes(target, bytecode)),
    )
    _check_sizes(built)
    return built


def write_templates(
    folder: Path, stage: str, table: FunctionTable, packaged: Packaged, release: str, runtime: str
) -> None:
    """Write the templates of a stage as JSON."""
    for name, template in templates(STAGES[stage], table, packaged, release, runtime).items():
        (folder / name).write_text(json.dumps(template.as_dict(), indent=1) + "\n")


# -- what Chalice does ---------------------------------------------------------------------------------------------


def chalice_package(stage: str, table: FunctionTable, work: Path) -> Packaged:
    """Run `chalice package` on a copy of the application, with our template merged in, and read what it wrote.

    The copy has no requirements: the wheels are the layer's, and Chalice would fetch those of the running Python.
    """
    work.mkdir(parents=True)
    shutil.copy(ROOT / "app.py", work)
    for name in ("chalicelib", ".chalice"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    (work / "requirements.txt").touch()
    (work / "merged.json").write_text(json.dumps(gateway.merged()))
    run = "import sys; from chalice.cli import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        run,
        "package",
        "--stage",
        stage,
        "--merge-template",
        "merged.json",
        "out",
    ]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "HOTPLUG_"))}
    env["AWS_DEFAULT_REGION"] = _ANY_REGION
    # Chalice imports the copy before it packs it: bytecode by time would be in the package, and differ each time.
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(
        command, cwd=work, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise PackagingFailed(f"chalice package failed:\n{(done.stderr or done.stdout).strip()}")
    resources = json.loads((work / "out" / "sam.json").read_text())["Resources"]
    return Packaged(resources["RestAPI"], _events(resources, table))


def _events(resources: Json, table: FunctionTable) -> dict[str, Json]:
    """Return what triggers each function: Chalice's events, led to our queues, with what Chalice has no word for."""
    by_handler = {function.handler: function for function in table.functions if function.kind != "api"}
    found = {}
    for resource in resources.values():
        function = by_handler.get(resource["Properties"].get("Handler", ""))
        if function is None or not (events := resource["Properties"].get("Events")):
            continue
        for event in events.values():
            properties = event["Properties"]
            if event["Type"] == "SQS":
                dead = str(function.queue).endswith("-dead")
                properties["Queue"] = ref("InstallDeadQueueArn" if dead else "InstallQueueArn")
                # One bad package of a batch must not bring the others again.
                properties["FunctionResponseTypes"] = ["ReportBatchItemFailures"]
                properties["ScalingConfig"] = {
                    "MaximumConcurrency": function.concurrency or REGISTER_CONCURRENCY
                }
            elif event["Type"] == "Schedule":
                properties["DeadLetterConfig"] = {"Arn": ref("ScheduleDeadQueueArn")}
                # The next firing does what one missed.
                properties["RetryPolicy"] = {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 300}
            else:
                raise PackagingFailed(f"{function.name}: nothing here deploys an event of {event['Type']}")
        found[function.name] = events
    return found


# -- the zips ------------------------------------------------------------------------------------------------------


def _code(deployment: Path, folder: Path) -> None:
    """Unpack what Chalice packed and add what it does not know: migrations, and the certificates of databases."""
    with zipfile.ZipFile(deployment) as packed:
        packed.extractall(folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.md", "generate.py")
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=ignored)
    shutil.copytree(CERTIFICATES, folder / "certificates")


def check_binaries(layer: Path) -> None:
    """Read every binary's symbol versions.

    Raises
    ------
    PackagingFailed
        The target's C library is older than one of them needs.
    """
    bad = []
    for path in sorted(layer.rglob("*")):
        if path.is_file() and archive.is_binary(path):
            needed = archive.glibc_needed(path)
            if needed > dependencies.TARGET_GLIBC:
                bad.append(f"{path.relative_to(layer)} needs glibc {needed[0]}.{needed[1]}")
    if bad:
        raise PackagingFailed("the target cannot load: " + "; ".join(bad))


def _check_sizes(built: Built) -> None:
    for name, size in built.zipped.items():
        if size > archive.MAX_ZIPPED:
            raise PackagingFailed(f"{name} has {size} bytes, more than {archive.MAX_ZIPPED}")
    if built.unpacked > archive.MAX_UNZIPPED:
        raise PackagingFailed(f"unpacked it has {built.unpacked} bytes, more than {archive.MAX_UNZIPPED}")


def _notes(target: Target, bytecode: bool) -> list[str]:
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    notes = []
    if not bytecode:
        notes.append(
            f"No Python {target.version} was found to make bytecode with: a cold start takes about three times as "
            f"long. Install python{target.version}, or set HOTPLUG_TARGET_PYTHON."
        )
    if running != target.version:
        notes.append(
            f"This is Python {running}, the package is for {target.version}: it was inspected and not run. "
            "The routes were read with the running one."
        )
    if target.version != dependencies.TARGET_PYTHON:
        notes.append(
            f"Not for the deployment's target, python{dependencies.TARGET_PYTHON}: before 3.12 Lambda's C library is "
            "too old for wasmtime, so no plugin of WebAssembly would run."
        )
    return notes
