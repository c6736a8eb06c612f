"""Private PostgreSQL and MariaDB servers, so that tests meet the real thing.

Each has its data, socket and log in one folder, listens on one loopback port and
is ended by its process id. As root they run as an unprivileged user, since
PostgreSQL refuses root. Nothing of the system's own servers is read or touched.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, Self

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from tests.support.mta.postfix import SEARCH_PATH, free_port

_USER: Final = "nobody"
_STARTUP: Final = 60.0
_PASSWORD: Final = "s3cret-word"  # noqa: S105 - of a server that lives for a test
_names = itertools.count()


def _postgresql(program: str) -> str | None:
    """Return the absolute place of a program that Debian keeps off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(found[-1]) if found else shutil.which(program)


def _mariadb(program: str) -> str | None:
    return shutil.which(program, path=SEARCH_PATH)


def missing_reason(kind: str) -> str | None:
    """Say why no such server can run here; None when one can."""
    if kind == "postgresql" and not (_postgresql("initdb") and _postgresql("postgres")):
        return "PostgreSQL is not installed"
    if kind == "mariadb" and not (
        _mariadb("mariadbd") and _mariadb("mariadb-install-db")
    ):
        return "MariaDB is not installed"
    return None


class Server(Protocol):
    """A database server of the test's own."""

    def fresh(self) -> str:
        """Return the URL of a new, empty database, password included."""
        ...

    @property
    def pid(self) -> int:
        """Its first process."""
        ...

    def start(self) -> None:
        """Start it, and wait until it answers."""

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it, and wait for that."""

    def restart(self, *, signal_number: int = signal.SIGTERM) -> None:
        """End it and start it again; what was committed is there."""
        ...


class _Server:
    """What both kinds have in common."""

    charset = ""
    #: Ends it at once; its data is thrown away.
    last_signal = signal.SIGKILL

    def __init__(self, base: Path) -> None:
        """Keep the folder and take a port."""
        self.base = base
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.base.chmod(0o755)
        data = self.base / "data"
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.base, _USER)
            shutil.chown(data, _USER)
        self.lay_out(data)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(self.last_signal)

    @property
    def pid(self) -> int:
        """Its first process."""
        assert self._process is not None
        return self._process.pid

    def lay_out(self, data: Path) -> None:
        """Write an empty data folder."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        """Return how the server is started."""
        raise NotImplementedError

    def admin(self) -> URL:
        """Return the URL of the database that is always there."""
        raise NotImplementedError

    def run(self, *command: str) -> None:
        """Run a command as the server's user."""
        subprocess.run(
            _as_user(command),
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.base,
            timeout=120,
        )

    def start(self) -> None:
        """Start and wait until it answers."""
        log = (self.base / "log").open("ab")
        self._process = subprocess.Popen(
            _as_user(self.command()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.base,
        )
        log.close()
        deadline = time.monotonic() + _STARTUP
        engine = sa.create_engine(self.admin(), poolclass=sa.NullPool)
        while True:
            try:
                with engine.connect():
                    return
            except sa.exc.DBAPIError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.05)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it and wait for that."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self, *, signal_number: int = signal.SIGTERM) -> None:
        """End it and start it again; what was committed is there."""
        self.stop(signal_number)
        self.start()

    def fresh(self) -> str:
        """Return the URL of a new, empty database, password included."""
        name = f"test{next(_names)}"
        engine = sa.create_engine(
            self.admin(), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}{self.charset}")
        return self.admin().set(database=name).render_as_string(hide_password=False)


def _as_user(command: Sequence[str]) -> Sequence[str]:
    if os.geteuid() != 0:
        return command
    clear = ("setpriv", f"--reuid={_USER}", "--regid=nogroup", "--clear-groups", "--")
    return (*clear, *command)


class PostgreSQL(_Server):
    """A PostgreSQL without fsync: the machine's death is not what is tested."""

    last_signal = signal.SIGQUIT  # ends its children, too

    def lay_out(self, data: Path) -> None:
        """Run initdb."""
        word = self.base / "word"
        word.write_text(_PASSWORD)
        word.chmod(0o644)
        self.run(
            str(_postgresql("initdb")), "-D", str(data), "-U", "drainer", "-E", "UTF8",
            "--locale=C", "-A", "scram-sha-256", "--pwfile", str(word), "--no-sync",
        )  # fmt: skip

    def command(self) -> Sequence[str]:
        """Return how the server is started: SIGINT is its fast shutdown."""
        return (
            str(_postgresql("postgres")), "-D", str(self.base / "data"),
            "-c", "listen_addresses=127.0.0.1", "-p", str(self.port),
            "-k", str(self.base), "-F", "-c", "shared_buffers=32MB",
        )  # fmt: skip

    def stop(self, signal_number: int = signal.SIGINT) -> None:
        """End it without waiting for its clients."""
        if signal_number == signal.SIGTERM:
            signal_number = signal.SIGINT
        super().stop(signal_number)

    def admin(self) -> URL:
        """Return the URL of the database that is always there."""
        return URL.create(
            "postgresql+psycopg",
            "drainer",
            _PASSWORD,
            "127.0.0.1",
            self.port,
            "postgres",
        )


class MariaDB(_Server):
    """A MariaDB without fsync."""

    charset = " CHARACTER SET utf8mb4"

    def lay_out(self, data: Path) -> None:
        """Run mariadb-install-db, and let the first start make the user."""
        self.run(
            str(_mariadb("mariadb-install-db")), "--no-defaults", f"--datadir={data}",
            "--skip-test-db", "--auth-root-authentication-method=normal",
        )  # fmt: skip
        # Read at every start: the second time the user is there already.
        (self.base / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS drainer@'%' IDENTIFIED BY '{_PASSWORD}';\n"
            "GRANT ALL ON *.* TO drainer@'%';\n"
        )
        (self.base / "init.sql").chmod(0o644)

    def command(self) -> Sequence[str]:
        """Return how the server is started."""
        return (
            str(_mariadb("mariadbd")), "--no-defaults",
            f"--datadir={self.base / 'data'}", "--bind-address=127.0.0.1",
            f"--port={self.port}", f"--socket={self.base / 'socket'}",
            f"--pid-file={self.base / 'pid'}", f"--init-file={self.base / 'init.sql'}",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0", "--innodb-buffer-pool-size=64M",
            "--max-allowed-packet=64M", "--skip-name-resolve",
        )  # fmt: skip

    def admin(self) -> URL:
        """Return the URL of the database that is always there."""
        return URL.create(
            "mariadb+pymysql", "drainer", _PASSWORD, "127.0.0.1", self.port, "mysql"
        )


def administrator(url: str) -> sa.Engine:
    """Return an engine beside the database of a URL."""
    place = make_url(url)
    known = "postgres" if place.get_backend_name() == "postgresql" else "mysql"
    return sa.create_engine(
        place.set(database=known), poolclass=sa.NullPool, isolation_level="AUTOCOMMIT"
    )


def drop(url: str) -> None:
    """Drop the database, whoever uses it."""
    name = make_url(url).database
    force = " WITH (FORCE)" if url.startswith("postgresql") else ""
    with administrator(url).connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


@contextlib.contextmanager
def serving(kind: str) -> Iterator[Server]:
    """Start a server of this kind; it and its folder are gone afterwards."""
    base = Path(tempfile.mkdtemp(prefix=f"drainer-{kind}-"))
    try:
        server = PostgreSQL(base) if kind == "postgresql" else MariaDB(base)
        with server:
            yield server
    finally:
        shutil.rmtree(base, ignore_errors=True)
