"""The functions as they are packaged, instead of the checkout: what `make demo PACKAGE=…` runs."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from infra.aws.functions import CODE, LAYER


@dataclass(frozen=True)
class Unpacked:
    """A package as Lambda unpacks it: the code at /var/task, the layer's packages at /opt/python."""

    code: Path
    packages: Path

    @property
    def variables(self) -> dict[str, str]:
        """What lets a process find the layer's packages before those of its own interpreter, as Lambda does."""
        return {"PYTHONPATH": str(self.packages)}


def unpack(package: Path, folder: Path) -> Unpacked:
    """Unpack a package, which must have been built for the running interpreter, into `folder`, which is replaced.

    Raises
    ------
    FileNotFoundError
        There is no package.
    """
    for name in (CODE, LAYER):
        if not (package / name).is_file():
            raise FileNotFoundError(f"{package / name}: build it with `python -m infra.aws package`")
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(package / CODE) as zipped:
        zipped.extractall(folder / "code")
    with zipfile.ZipFile(package / LAYER) as zipped:
        zipped.extractall(folder / "layer")
    return Unpacked(folder / "code", folder / "layer" / "python")
