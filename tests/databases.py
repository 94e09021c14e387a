"""Databases for tests: SQLite files, and a real MySQL-family server that is found or started.

The server is `HOTPLUG_TEST_MYSQL_URL` if set; else one on 127.0.0.1:3306 that lets root in with an empty
password; else a private one on a temporary directory, shared by all workers of the run and ended by its pid
when the run ends. A missing server fails the run: a suite that skips the real database proves nothing about
it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import pymysql
from sqlalchemy.engine import URL, make_url

from tests import run_folder

INSTALL = "apt-get install -y --no-install-recommends mariadb-server-core"
URL_VARIABLE = "HOTPLUG_TEST_MYSQL_URL"
_START_WITHIN_S = 60
_PLACES = ("/usr/sbin", "/usr/libexec", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")


class NoServer(Exception):
    """There is no MySQL-family server to test on."""


def end_server() -> None:
    """End the private server, if this run started one."""
    if _started().exists():
        pid = json.loads(_started().read_text())["pid"]
        os.kill(pid, signal.SIGTERM)
        _wait_for_end(pid)


def server_url() -> URL:
    """Return the URL, without a database, of the server that this run tests on.

    Raises
    ------
    NoServer
        With the command that installs one.
    """
    if given := os.environ.get(URL_VARIABLE):
        return make_url(given)
    found = URL.create("mysql+pymysql", "root", host="127.0.0.1", port=3306)
    if _lets_in(found):
        return found
    # One server for all workers: whoever comes first starts it.
    with run_folder.alone("server"):
        started = _started()
        if not started.exists():
            pid, port = start_server(run_folder.path() / "server")
            started.write_text(json.dumps({"pid": pid, "port": port}))
        port = json.loads(started.read_text())["port"]
    return URL.create("mysql+pymysql", "root", host="127.0.0.1", port=port)


def _started() -> Path:
    return run_folder.path() / "server.json"


def start_server(folder: Path) -> tuple[int, int]:
    """Start a private server on `folder` and a free port; return (pid, port) once it answers.

    Raises
    ------
    NoServer
        None is installed, or it does not start; the end of its log is in the message.
    """
    program = _find("mariadbd", "mysqld")
    if program is None:
        raise NoServer(f"No MySQL or MariaDB server was found. Install one: {INSTALL}")
    folder.mkdir(parents=True)
    data, log = folder / "data", folder / "server.log"
    _initialise(program, data, log)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(program, "--no-defaults", f"--datadir={data}", f"--socket={folder}/server.sock"),
        *(f"--pid-file={folder}/server.pid", f"--port={port}", "--bind-address=127.0.0.1"),
        *("--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"),
        *("--character-set-server=utf8mb4", f"--log-error={log}", *_user()),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    url = URL.create("mysql+pymysql", "root", host="127.0.0.1", port=port)
    end = time.monotonic() + _START_WITHIN_S
    while not _lets_in(url):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise NoServer(f"{program} does not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)
    return process.pid, port


@contextmanager
def new_database() -> Iterator[str]:
    """Yield the URL of a database of its own, empty, and drop it afterwards."""
    url = server_url().set(database=f"hotplug_test_{uuid4().hex[:16]}")
    with closing(_connect(url.set(database=""))) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {url.database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        drop_database(url)


def drop_database(url: URL) -> None:
    """Drop the database that the URL names, if it is there."""
    with closing(_connect(url.set(database=""))) as connection, connection.cursor() as cursor:
        # A test that left a transaction open must not hang the run.
        cursor.execute("SET SESSION lock_wait_timeout = 20")
        if cursor.execute("SHOW DATABASES LIKE %s", (url.database,)):
            cursor.execute(f"DROP DATABASE {url.database}")


def _connect(url: URL) -> pymysql.connections.Connection:
    return pymysql.connect(
        host=url.host or "127.0.0.1",
        port=url.port or 3306,
        user=url.username or "root",
        password=str(url.password or ""),
        connect_timeout=3,
        read_timeout=30,
        ssl_disabled=True,
    )


def _lets_in(url: URL) -> bool:
    try:
        _connect(url).close()
    except pymysql.err.OperationalError:
        return False
    return True


def _find(*names: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _user() -> list[str]:
    # A server refuses to run as root unless it is told to.
    return ["--user=root"] if os.geteuid() == 0 else []


def _initialise(program: str, data: Path, log: Path) -> None:
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if "MariaDB" in version:
        installer = _find("mariadb-install-db", "mysql_install_db")
        if installer is None:
            raise NoServer(f"mariadb-install-db was not found. Install it: {INSTALL}")
        options = ["--auth-root-authentication-method=normal", "--skip-test-db"]
        command = [installer, "--no-defaults", f"--datadir={data}", *options, *_user()]
    else:
        command = [program, "--no-defaults", f"--datadir={data}", "--initialize-insecure", *_user()]
    with log.open("wb") as output:
        result = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if result.returncode != 0:
        raise NoServer(f"{command[0]} failed:\n{log.read_text()[-2000:]}")


def _wait_for_end(pid: int) -> None:
    end = time.monotonic() + _START_WITHIN_S
    while time.monotonic() < end:
        try:
            # Our own child must be reaped; a server that another worker started has been adopted by init.
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise NoServer(f"the test server {pid} does not end")
