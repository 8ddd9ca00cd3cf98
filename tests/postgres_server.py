"""A real PostgreSQL server for tests: made in a folder of its own, on a free port of loopback, ended with the tests.

Debian: ``apt-get install postgresql``. Where there is no ``initdb`` the tests are skipped and say so. The server never
runs as root, which it refuses: there it is started as the user "postgres", or "nobody".
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

PASSWORD = "a-secret-4711"


class Server:
    """A server that is up. ``owner``: the user who may do everything, with ``PASSWORD``."""

    def __init__(self, folder: Path, programs: Path, port: int) -> None:
        self.folder, self.port, self._programs = folder, port, programs
        self._databases = 0

    def url(self, database: str, user: str = "owner", password: str = PASSWORD) -> str:
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement gives, where it gives rows."""
        where = f"host=127.0.0.1 port={self.port} dbname={database} user=owner password={PASSWORD}"
        with closing(psycopg.connect(where, autocommit=True)) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        self.execute(f"CREATE DATABASE kvorum_{self._databases}")
        return self.url(f"kvorum_{self._databases}")

    def start(self) -> None:
        places = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder}"
        told = f"{places} -c fsync=off -c max_connections=200"
        self._control("-l", str(self.folder / "log"), "-o", told, "start")

    def stop(self, how: str = "fast") -> None:
        self._control("-m", how, "stop")

    def _control(self, *words: str) -> None:
        as_user(self._programs / "pg_ctl", "-D", str(self.folder / "data"), "-w", *words)


def as_user(program: Path, *words: str) -> None:
    """Run a program of PostgreSQL, not as root."""
    drop: list[str] = []
    if os.geteuid() == 0:
        user = system_user()
        drop = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    done = subprocess.run([*drop, str(program), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/")
    assert done.returncode == 0, done.stdout


def system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def programs() -> Path | None:
    """The folder of initdb."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


@contextmanager
def postgres() -> Iterator[Server]:
    there = programs()
    if there is None:
        pytest.skip("No PostgreSQL: there is no initdb (Debian: apt-get install postgresql).")
    folder = Path(tempfile.mkdtemp(prefix="kvorum-pg-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            user = system_user()
            for path in (folder, folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        made = ["-D", str(folder / "data"), "-U", "owner", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        as_user(there / "initdb", *made, "-E", "UTF8", "--locale=C", "--no-sync")
        with closing(socket.socket()) as place:
            place.bind(("127.0.0.1", 0))
            port = place.getsockname()[1]
        server = Server(folder, there, port)
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():  # a test that fails may have stopped it
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
