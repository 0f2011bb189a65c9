"""PostgreSQL's own programs for a backup: pg_dump, pg_restore and psql.

Whom they connect to, and the password, they are told by their environment alone: a command line can be read by everybody on the machine.
"""

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, cast

from psycopg import pq
from sqlalchemy import Engine

from keeper.domain.errors import KeeperError
from keeper.postgres.embedded_errors import BinariesMissingError

DUMP: Final = "pg_dump"
RESTORE: Final = "pg_restore"
SQL: Final = "psql"
# A table that is being altered keeps a backup waiting no longer.
_LOCK_MS: Final = 60_000
_TOLD_LINES: Final = 8
_SHARE_BYTES: Final = 1024 * 1024
# Programs of 17 and newer set this first, and older servers do not know it.
_TRANSACTION_TIMEOUT: Final = b"SET transaction_timeout = 0;\n"
_KNOWS_TRANSACTION_TIMEOUT: Final = 17
# Of what belongs to the database and not to Keeper, nothing is made anew.
_NOT_OURS: Final = re.compile(r"^\d+; \d+ \d+ (SCHEMA - public|COMMENT - SCHEMA public|COMMENT - EXTENSION )")
_TABLE_TOLD: Final = re.compile(r'(?:dumping contents of|processing data for) table "[^"]+"')

OnTable = Callable[[], None]


class ProgramFailed(KeeperError):
    """One of PostgreSQL's programs ended with an error; what it said last is in the text."""

    def __init__(self, program: str, said: str) -> None:
        self.program = program
        super().__init__(f"{program} failed: {said or 'it said nothing'}")


class ProgramTooOld(KeeperError):
    """The programs are of an older PostgreSQL than what they are to work with."""

    def __init__(self, program: str, major: int, *, wanted: int, wanted_by: str) -> None:
        self.major = major
        self.wanted = wanted
        super().__init__(
            f"{program} is of PostgreSQL {major}, {wanted_by} of PostgreSQL {wanted}: "
            f"set KEEPER_POSTGRES_BIN to the bin folder of PostgreSQL {wanted} or newer"
        )


class Programs:
    """The programs in one folder, for one database.

    Args:
        folder: of `pg_dump` and the others, all of the same version.
        engine: of the database they connect to.
    """

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder = folder
        self._environment = environment_of(engine)

    def major(self, program: str) -> int:
        """The major version of a program.

        Raises:
            BinariesMissingError: it is not there, or does not run.
        """
        try:
            said = subprocess.run(
                [self._path(program), "--version"], capture_output=True, text=True, check=True, timeout=30, env=self._environment
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise BinariesMissingError(self.folder, f"`{program} --version` failed: {error}") from error
        found = re.search(r"\) (\d+)", said)
        if found is None:
            raise BinariesMissingError(self.folder, f"`{program} --version` says {said.strip()!r}")
        return int(found[1])

    def check(self, program: str, *, wanted: int, wanted_by: str) -> int:
        """Its major version, where that is not below `wanted`.

        Raises:
            ProgramTooOld: it is.
            BinariesMissingError: see `major`.
        """
        major = self.major(program)
        if major < wanted:
            raise ProgramTooOld(program, major, wanted=wanted, wanted_by=wanted_by)
        return major

    def dump(self, to: Path, *, snapshot: str, extensions: Sequence[str], on_table: OnTable) -> None:
        """Write Keeper's schema as of `snapshot` into the file, which is there already and keeps its mode.

        Raises:
            ProgramFailed: the file is of no use.
        """
        command: list[str | Path] = [
            self._path(DUMP),
            "--format=custom",
            f"--file={to}",
            f"--snapshot={snapshot}",
            "--schema=public",
            "--verbose",
        ]
        command += [f"--extension={name}" for name in extensions]
        command += ["--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions", "--no-security-labels"]
        command += ["--no-password", f"--lock-wait-timeout={_LOCK_MS}"]
        with self._start(command, stdout=subprocess.DEVNULL) as running, _told_by(running, on_table) as told:
            code = running.wait()
        if code != 0:
            raise ProgramFailed(DUMP, _last_of(told))

    def list_archive(self, path: Path) -> list[str]:
        """The table of contents of a backup, an entry a line.

        Raises:
            ProgramFailed: it is none.
        """
        done = subprocess.run(
            [self._path(RESTORE), "--list", path], capture_output=True, text=True, errors="replace", check=False, env=self._environment
        )
        if done.returncode != 0:
            raise ProgramFailed(RESTORE, _last_of(done.stderr.splitlines()))
        return [line for line in done.stdout.splitlines() if line and not line.startswith(";")]

    def read_through(self, path: Path) -> None:
        """Read a backup to its end as a restore would.

        Raises:
            ProgramFailed: a part of it cannot be read.
        """
        done = subprocess.run(
            [self._path(RESTORE), f"--file={os.devnull}", path],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=self._environment,
        )
        if done.returncode != 0:
            raise ProgramFailed(RESTORE, _last_of(done.stderr.splitlines()))

    def restore(self, path: Path, *, before: str, after: str, server_major: int, on_table: OnTable) -> None:
        """Run `before`, the backup and `after` in one transaction: all of it or, wherever anything fails or anybody dies, nothing.

        psql is told to commit only after pg_restore has ended well; a pipe that ends earlier is the end of the transaction.

        Raises:
            ProgramFailed: nothing was changed.
        """
        entries = [line for line in self.list_archive(path) if not _NOT_OURS.match(line)]
        with tempfile.TemporaryDirectory(prefix="keeper-restore-") as folder, tempfile.TemporaryFile() as errors:
            chosen = Path(folder, "entries")
            chosen.write_text("\n".join(entries) + "\n")
            read: list[str | Path] = [
                self._path(RESTORE),
                "--file=-",
                f"--use-list={chosen}",
                "--no-owner",
                "--no-privileges",
                "--verbose",
                path,
            ]
            # Its complaints name no row's values: they may be secrets.
            run: list[str | Path] = [self._path(SQL), "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]
            run += ["--set=VERBOSITY=terse", "--set=SHOW_CONTEXT=never"]
            with self._start(run, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors) as running:
                into = cast("IO[bytes]", running.stdin)
                said: list[str] = []
                try:
                    into.write(f"BEGIN;\n{before}\n".encode())
                    said = self._pour(read, into, server_major, on_table)
                    into.write(f"\n{after}\nCOMMIT;\n".encode())
                    into.close()
                except BrokenPipeError:
                    with suppress(BrokenPipeError):
                        into.close()
                except BaseException:
                    running.kill()
                    with suppress(BrokenPipeError):
                        into.close()
                    raise
                code = running.wait()
            if code != 0:
                errors.seek(0)
                raise ProgramFailed(SQL, _last_of([*said, *errors.read().decode(errors="replace").splitlines()]))

    def _pour(self, command: Sequence[str | Path], into: IO[bytes], server_major: int, on_table: OnTable) -> list[str]:
        """What pg_restore writes, into psql. Returns what it complained of.

        Raises:
            ProgramFailed: the backup cannot be read to its end.
            BrokenPipeError: psql has ended.
        """
        with self._start(command, stdout=subprocess.PIPE) as running, _told_by(running, on_table) as told:
            output = cast("IO[bytes]", running.stdout)
            try:
                first = output.read(_SHARE_BYTES)
                into.write(first if server_major >= _KNOWS_TRANSACTION_TIMEOUT else first.replace(_TRANSACTION_TIMEOUT, b"", 1))
                while share := output.read(_SHARE_BYTES):
                    into.write(share)
            except BaseException:
                running.kill()
                raise
            code = running.wait()
        if code != 0:
            raise ProgramFailed(RESTORE, _last_of(told))
        return told

    def _path(self, program: str) -> Path:
        path = self.folder / program
        if not path.exists():
            raise BinariesMissingError(self.folder, f"{program} is missing")
        return path

    @contextmanager
    def _start(
        self, command: Sequence[str | Path], *, stdin: int = subprocess.DEVNULL, stdout: int, stderr: int | IO[bytes] = subprocess.PIPE
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A program that is ended with the block."""
        with subprocess.Popen(command, env=self._environment, stdin=stdin, stdout=stdout, stderr=stderr, umask=0o077) as running:
            try:
                yield running
            finally:
                if running.poll() is None:
                    running.kill()


def environment_of(engine: Engine) -> dict[str, str]:
    """The environment of a program that shall connect as the engine does. No setting of ours is in it."""
    _, words = engine.dialect.create_connect_args(engine.url)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEEPER_")}
    for option in pq.Conninfo.get_defaults():
        value = words.get(option.keyword.decode())
        if value is not None and option.envvar is not None:
            environment[option.envvar.decode()] = str(value)
    return environment | {"LC_ALL": "C", "PGAPPNAME": "keeper backup"}


@contextmanager
def _told_by(running: subprocess.Popen[bytes], on_table: OnTable) -> Iterator[list[str]]:
    """Reads what a program says while it works: its complaints, when the block has ended, and its tables, one call for each."""
    told: list[str] = []

    def read(lines: Iterable[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if _TABLE_TOLD.search(text):
                on_table()
            elif re.search(r"\b(error|fatal|warning|detail|hint):", text, re.IGNORECASE):
                told.append(text)

    reader = threading.Thread(target=read, args=(cast("IO[bytes]", running.stderr),), name="backup-progress")
    reader.start()
    try:
        yield told
    finally:
        if running.poll() is None:
            running.kill()
        reader.join()


def _last_of(lines: Sequence[str]) -> str:
    return " · ".join(line.strip() for line in lines[-_TOLD_LINES:] if line.strip())
