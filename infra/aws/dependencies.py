"""The layer: what the functions import, for the target's Python and C library, with bytecode and nothing idle.

Wheels are fetched for the target and not for the machine that packages, so any Python can package for any. Bytecode
needs the target's own interpreter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.functions import ROOT

# The C library of Lambda's python3.12 and later (Amazon Linux 2023).
TARGET_GLIBC = (2, 34)
TARGET_PYTHON = "3.13"
LOCK = Path(__file__).with_name("dependencies.lock")
# Of botocore's 400 services, those that the functions call.
SERVICES = ("bedrock-runtime", "kms", "lambda", "s3", "secretsmanager", "sqs")
_PLATFORMS = (
    "manylinux_2_34",
    "manylinux_2_28",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_5",
    "manylinux1",
)
# Chalice's own runtime comes with the code; the rest of it, and what that needs, is a command line.
_BUILD_ONLY = ("chalice",)
_JUNK_FOLDERS = frozenset({"tests", "test", "__pycache__", "bin", "include"})
# Parts of packages that nothing of ours imports: a web framework, SQLAlchemy's own tests, a parser of C.
_UNUSED = ("aws_lambda_powertools/event_handler", "sqlalchemy/testing", "pycparser", "dateutil/zoneinfo")
_JUNK_SUFFIXES = frozenset({".pyi", ".pyx", ".pxd", ".c", ".h", ".pth", ".exe"})
# Of what a wheel says of itself, its name, version and entry points are read; the rest describes an installation.
_KEPT_METADATA = frozenset({"METADATA", "entry_points.txt", "top_level.txt"})


class PackagingFailed(RuntimeError):
    """The package cannot be built; the message says why."""


@dataclass(frozen=True)
class Target:
    """What the package is for.

    Parameters
    ----------
    version
        `3.13`.
    interpreter
        A Python of that version, which makes the bytecode; None where this machine has none.
    """

    version: str
    interpreter: Path | None

    @property
    def runtime(self) -> str:
        return f"python{self.version}"


def find_target(version: str) -> Target:
    """Return the target with an interpreter of this machine, if there is one: the running one, one on the PATH, one of
    pyenv's."""
    for path in _interpreters(version):
        if _version_of(path) == version:
            return Target(version, path)
    return Target(version, None)


def _interpreters(version: str) -> Iterator[Path]:
    yield Path(sys.executable)
    if named := os.environ.get("HOTPLUG_TARGET_PYTHON"):
        yield Path(named)
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(versions.glob(f"{version}*/bin/python"))


def _version_of(interpreter: Path) -> str | None:
    try:
        done = subprocess.run(
            [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def install(target: Target, folder: Path, *, locked: bool = True) -> None:
    """Install what requirements.txt names into an empty folder, pruned, without bytecode.

    Parameters
    ----------
    locked
        In the versions of the lock; False resolves anew.

    Raises
    ------
    PackagingFailed
        A wheel for the target is missing, or the registry cannot be reached.
    """
    requirements = folder.parent / "requirements.txt"
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line.partition("==")[0] not in _BUILD_ONLY]
    requirements.write_text("\n".join(wanted) + "\n")
    lock = ["--constraint", str(LOCK)] if locked else []
    platforms = [part for name in _PLATFORMS for part in ("--platform", f"{name}_x86_64")]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder),
        *platforms, "--python-version", target.version, "--implementation", "cp", "--only-binary=:all:", "--no-compile",
        *lock, "-r", str(requirements),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise PackagingFailed(f"the dependencies cannot be installed:\n{done.stderr.strip()}")
    prune(folder)


def prune(folder: Path) -> None:
    """Remove what no function imports: tests, sources of C, type stubs, commands, services that nobody calls."""
    for path in sorted(folder.rglob("*"), reverse=True):
        inside = path.relative_to(folder).parts
        if path.is_dir() and not path.is_symlink():
            if path.name in _JUNK_FOLDERS:
                shutil.rmtree(path)
            continue
        metadata = any(part.endswith(".dist-info") for part in inside)
        if path.suffix in _JUNK_SUFFIXES or (
            metadata and path.name not in _KEPT_METADATA and "licen" not in str(path).lower()
        ):
            path.unlink()
    for name in _UNUSED:
        shutil.rmtree(folder / name)
    data = folder / "botocore" / "data"
    for service in data.iterdir():
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def compile_all(target: Target, folder: Path, place: str) -> bool:
    """Put bytecode beside every module, True where it could be made.

    Parameters
    ----------
    place
        Where the folder is in the function, for tracebacks.
    """
    if target.interpreter is None:
        return False
    command = [
        str(target.interpreter), "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash",
        "-s", str(folder), "-p", place, str(folder),
    ]  # fmt: skip
    # Sets of constants are written in the order of their hashes.
    env = {"PATH": os.defpath, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise PackagingFailed(f"{place} does not compile:\n{done.stdout.strip()}\n{done.stderr.strip()}")
    return True


def installed(folder: Path) -> dict[str, str]:
    """Return name → version of what a folder holds."""
    found = {}
    for metadata in folder.glob("*.dist-info/METADATA"):
        fields = dict(line.split(": ", 1) for line in metadata.read_text().splitlines()[:12] if ": " in line)
        found[fields["Name"].lower().replace("_", "-").replace(".", "-")] = fields["Version"]
    return found


def write_lock(folder: Path) -> None:
    """Write what a fresh resolution chose, for `python -m infra.aws lock`."""
    lines = [f"{name}=={version}" for name, version in sorted(installed(folder).items())]
    head = "# Every wheel of the layer, so that the same commit gives the same bytes: `python -m infra.aws lock`.\n"
    LOCK.write_text(head + "\n".join(lines) + "\n")
