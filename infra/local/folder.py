"""The folder that holds a stack's state, `.local/`: what is in it and who may use it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import time
from pathlib import Path

KEY_BYTES = 32

# After a stack was killed its reaper holds the lock until the children are gone.
LOCK_WAIT_S = 10


class FolderInUse(RuntimeError):
    """Another stack runs on this folder."""


class StateFolder:
    """Paths and secrets of one stack. Everything here survives a stop and a kill, except `environments`."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.logs = self.path / "logs"
        self.environments = self.path / "environments"
        self.database = self.path / "hotplug.db"
        self.master_key = self.path / "master.key"
        self.admin = self.path / "admin.json"
        self.lock = -1

    def open(self) -> None:
        """Create the folder where it is missing and lock it.

        Raises
        ------
        FolderInUse
        """
        # The database, the bucket and the logs are its owner's, like the keys.
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.chmod(0o700)  # `make demo` may have made it, on its way to a folder within
        self.lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_WAIT_S
        while not self._try_lock():
            if time.monotonic() > deadline or self._holder_lives():
                holder = os.pread(self.lock, 32, 0).decode().strip()
                self.close()
                raise FolderInUse(
                    f"{self.path} is in use by the stack with process id {holder}: stop it, or take another folder"
                )
            time.sleep(0.05)
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, str(os.getpid()).encode(), 0)
        self.logs.mkdir(exist_ok=True)
        shutil.rmtree(self.environments, ignore_errors=True)
        self.environments.mkdir()
        if not self.master_key.exists():
            write_private(self.master_key, secrets.token_bytes(KEY_BYTES))

    def close(self) -> None:
        """Let others use the folder."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def storage_credentials(self) -> tuple[str, str]:
        """Return the access key and secret of this folder's S3 and SQS, made once.

        They are random because every user of the machine reaches these ports: a well-known secret would let them
        sign anything.
        """
        path = self.path / "storage.json"
        if not path.exists():
            made = {"accessKeyId": f"AKIA{secrets.token_hex(8).upper()}", "secret": secrets.token_urlsafe(30)}
            write_private(path, json.dumps(made).encode())
        kept = json.loads(path.read_text())
        return str(kept["accessKeyId"]), str(kept["secret"])

    def admin_credential(self) -> str | None:
        """Return the first admin's `key:secret`, or None before `migrate` made it."""
        return str(json.loads(self.admin.read_text())["adminCredential"]) if self.admin.exists() else None

    def keep_admin_credential(self, credential: str) -> None:
        """Keep what `migrate` shows only once."""
        write_private(self.admin, json.dumps({"adminCredential": credential}).encode())

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder_lives(self) -> bool:
        text = os.pread(self.lock, 32, 0).decode().strip()
        if not text.isdigit():
            return False
        try:
            os.kill(int(text), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    temporary = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
