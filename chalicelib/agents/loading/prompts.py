"""The files of an agent's prompts/ folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from chalicelib.core.errors import HotplugError

MAX_BYTES = 256 * 1024
MAX_NAME = 255


def read_prompt(folder: Path, file: str) -> str:
    """Return the text of a file of `folder`/prompts.

    Parameters
    ----------
    folder
        The agent's directory.
    file
        A path in prompts/, with `/` between its parts.

    Raises
    ------
    HotplugError
        `agent.prompt`: the path leads out of prompts/ (by `..`, from the root, or over a link), there is no such
        regular file, it has more than 256 KiB, or it is not UTF-8.
    """
    prompts = folder / "prompts"
    parts = file.split("/")
    if not file or len(file) > MAX_NAME or "\0" in file or "\\" in file or {"", ".", ".."} & set(parts):
        raise _refused(file, "is no path inside prompts/")
    try:
        found = prompts.joinpath(*parts).resolve(strict=True)
        if not found.is_relative_to(prompts.resolve(strict=True)):
            raise _refused(file, "leads out of prompts/")
        # A named pipe would wait for its other end.
        descriptor = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refused(file, "is no regular file")
            raw = opened.read(MAX_BYTES + 1)
    except (OSError, RuntimeError):  # RuntimeError: links that lead in a circle, before Python 3.13
        raise _refused(file, "cannot be read") from None
    if len(raw) > MAX_BYTES:
        raise _refused(file, f"has more than {MAX_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _refused(file, "is not UTF-8") from None


def _refused(file: str, why: str) -> HotplugError:
    return HotplugError(f"The prompt {file[:MAX_NAME]!r} {why}.", code="agent.prompt")
