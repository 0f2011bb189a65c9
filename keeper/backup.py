"""The verbs `backup` and `restore`: the database as one file, and back.

A backup is two files: what pg_dump wrote, and beside it, with `.json` behind its name, what the backup says of itself, counted in the very
moment that pg_dump saw. Both are written under other names and get theirs when they were read again, the dump last.

A restore is one transaction: what was there goes, the backup comes, its rows are counted, and what must not happen twice is held; or
nothing of it happens. Neither Elasticsearch nor Kafka is in a backup: the one is rebuilt from PostgreSQL, the other gets the kept events.
"""

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Engine

from keeper.domain.errors import KeeperError
from keeper.domain.events import Sink
from keeper.notify.channels import ChannelCipher, ChannelKeyWrong
from keeper.postgres import backup as sql
from keeper.postgres.backup import DatabaseState, NewestEvent
from keeper.postgres.installation import KEEPA, SCHEMA_REVISION, SchemaMismatch, SourceMismatch, select_now
from keeper.postgres.programs import DUMP, RESTORE, SQL, OnTable, Programs

FORMAT: Final = 1
_ENDING: Final = ".dump"
_MANIFEST: Final = ".json"
_PARTIAL: Final = ".keeper-partial"
# A connection that was closed is known to the server for a moment.
_LEAVING_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05
_TABLE: Final = re.compile(r"^\d+; \d+ \d+ TABLE public (\S+) ")


class BackupUnusable(KeeperError):
    """A file that is no whole backup, or a place where none can be made."""


class NothingToBackUp(KeeperError):
    """The database has never been used by Keeper."""


class DatabaseNotEmpty(KeeperError):
    """A restore would drop what is there."""


class DatabaseInUse(KeeperError):
    """Keeper is at work in the database that is to be restored."""


class ServerOlder(KeeperError):
    """The server is of an older PostgreSQL than the one the backup was made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself.

    Attributes:
        source: which Keepa its data are of; None where none was asked yet.
        taken_at: the moment it shows, by the machine's clock.
        business_at: the same by Keeper's clock, which may be a simulator's.
        server_major: of the PostgreSQL it was made of.
        program_major: of the pg_dump that made it.
        channel_key: fingerprint of the key that channels are encrypted with. The key itself is in no backup.
        counts: rows by table.
        waiting: messages that were not acknowledged, by sink.
        seconds: how long it took.
    """

    format: int = FORMAT
    keeper_version: str
    schema_revision: str
    source: str | None
    taken_at: datetime
    business_at: datetime
    server_major: int
    program_major: int
    size_bytes: int
    sha256: str
    channel_key: str | None
    counts: dict[str, int]
    waiting: dict[str, int]
    newest_event: NewestEvent | None
    seconds: float


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What one backup did.

    Attributes:
        removed: older backups that were deleted.
    """

    path: Path
    manifest: Manifest
    removed: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """What one restore did.

    Attributes:
        revision: of the schema now.
        held: notifications that waited when the backup was made and are kept back now, because they may have been sent since.
        queued: notifications that the next relay sends.
        unreadable_channels: whose URL the present key does not open, as `user/name`.
        sinks: where else events go.
        replaced: whether something was dropped for it.
    """

    manifest: Manifest
    revision: str
    held: int
    queued: int
    unreadable_channels: tuple[str, ...]
    sinks: tuple[str, ...]
    replaced: bool


def backup(
    engine: Engine,
    programs: Programs,
    target: Path,
    *,
    keep: int | None = None,
    on_tables: Callable[[int], None] = lambda _tables: None,
    on_table: OnTable = lambda: None,
) -> BackedUp:
    """Write a backup while everything goes on.

    Args:
        target: a new file, or a folder, in which the file gets a name of its own; one that ends in `/` is made.
        keep: of the backups in the folder that are of the same Keepa the newest so many stay; None for all.
        on_tables: told how many tables there are.
        on_table: called for each.

    Raises:
        NothingToBackUp: there is no schema of Keeper's.
        BackupUnusable: no file can be made there, or it could not be read again.
        ProgramTooOld, ProgramFailed, BinariesMissingError: see there.
    """
    started = time.monotonic()
    with engine.begin() as connection:
        state = sql.select_state(connection)
    if state.revision is None:
        raise NothingToBackUp(f"the database {state.name} holds nothing of Keeper's yet")
    major = programs.check(DUMP, wanted=state.server_major, wanted_by="the server")
    with sql.hold_snapshot(engine) as (connection, snapshot):
        path = _name_file(target, state.source, snapshot.taken_at, is_kept_by_number=keep is not None)
        with _partial_file(path) as partial:
            on_tables(state.tables)
            # First: what is counted is locked, so that nobody drops a partition of it between the dump and the count.
            counts = sql.count_rows(connection)
            programs.dump(partial, snapshot=snapshot.name, extensions=sql.select_extensions(connection), on_table=on_table)
            _read_again(programs, partial, counts)
            size, digest = _digest(partial)
            manifest = Manifest(
                keeper_version=version("keeper"),
                schema_revision=state.revision,
                source=state.source,
                taken_at=snapshot.taken_at,
                business_at=snapshot.business_at,
                server_major=state.server_major,
                program_major=major,
                size_bytes=size,
                sha256=digest,
                channel_key=state.channel_key,
                counts=counts,
                waiting=sql.count_waiting(connection),
                newest_event=sql.select_newest_event(connection),
                seconds=round(time.monotonic() - started, 3),
            )
            _put_in_place(partial, path, manifest)
    return BackedUp(path, manifest, () if keep is None else _remove_older(path, state.source, keep))


def read_manifest(path: Path) -> Manifest:
    """What a backup says of itself.

    Raises:
        BackupUnusable: it says nothing, or it is not the file it speaks of.
    """
    beside = _manifest_of(path)
    try:
        manifest = msgspec.json.decode(beside.read_bytes(), type=Manifest)
        size, digest = _digest(path)
    except FileNotFoundError as error:
        raise BackupUnusable(
            f"{path} is no whole backup: there is no {error.filename}. A backup is both files, {path.name} and {beside.name}"
        ) from None
    except OSError as error:
        raise BackupUnusable(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackupUnusable(f"{beside} is not what a backup says of itself: {error}") from error
    if manifest.format != FORMAT:
        raise BackupUnusable(f"{path} is a backup of form {manifest.format}, this Keeper reads form {FORMAT} only: use the newer Keeper")
    if (size, digest) != (manifest.size_bytes, manifest.sha256):
        raise BackupUnusable(f"{path} is not as it was written: {size} bytes with another checksum, {manifest.size_bytes} were written")
    return manifest


def restore(
    engine: Engine,
    programs: Programs,
    path: Path,
    *,
    source: str,
    cipher: ChannelCipher | None,
    is_replacing: bool = False,
    is_sending: bool = False,
    on_tables: Callable[[int], None] = lambda _tables: None,
    on_table: OnTable = lambda: None,
) -> Restored:
    """Put a backup into a database that holds nothing, and bring it to this Keeper's schema.

    Notifications that waited when it was made become dead letters: they may have been sent since. What was delivered stays delivered.
    Revisions and numbers go on above all that may have been given since the backup, so that a search index or a mail reader that lives on
    takes nothing new for old. The token ledger forgets, and learns from Keepa's next answer.

    Args:
        source: the Keepa that is set: `keepa` or `simulator`.
        cipher: of the present key; None where none is set.
        is_replacing: what the database holds may be dropped.
        is_sending: the notifications that waited are left to the next relay.
        on_tables: told how many tables there are.
        on_table: called for each.

    Raises:
        BackupUnusable: see `read_manifest`.
        SourceMismatch: the backup is of the other Keepa.
        SchemaMismatch: of a newer Keeper.
        DatabaseNotEmpty, DatabaseInUse, ServerOlder, ProgramTooOld, ProgramFailed, BinariesMissingError: nothing was changed.
    """
    manifest = read_manifest(path)
    _check_fits(manifest, source)
    programs.check(RESTORE, wanted=manifest.program_major, wanted_by="the pg_dump that made the backup")
    programs.major(SQL)
    # Our own connections of before are nobody else's.
    engine.dispose()
    state, is_empty = _look_when_alone(engine)
    _check_target(state, manifest, is_empty=is_empty, is_replacing=is_replacing)
    on_tables(sum(" TABLE DATA " in entry for entry in programs.list_archive(path)))
    reason = f"restored from a backup of {_told(manifest.taken_at)}, it may have been sent since: `keeper alerts retry` sends it"
    programs.restore(
        path,
        before=sql.DROP_EVERYTHING,
        after=sql.write_after(manifest.counts, held_reason=None if is_sending else reason),
        server_major=state.server_major,
        on_table=on_table,
    )
    # What these connections know of tables and types is of those that are gone.
    engine.dispose()
    # Alembic, which few processes need.
    from keeper.postgres.migrate import migrate

    with engine.begin() as connection:
        now = select_now(connection)
    revision = migrate(engine, now=now)
    sql.analyze(engine)
    with engine.begin() as connection:
        channels = sql.select_channels(connection)
        queued = sql.count_waiting(connection).get(Sink.NOTIFY.value, 0)
        sinks = tuple(sql.select_sinks(connection))
    return Restored(
        manifest,
        revision or SCHEMA_REVISION,
        held=manifest.waiting.get(Sink.NOTIFY.value, 0) - queued,
        queued=queued,
        unreadable_channels=tuple(f"{one.user}/{one.name}" for one in channels if not _opens(cipher, one.url_encrypted)),
        sinks=sinks,
        replaced=not is_empty,
    )


def look_at(engine: Engine) -> tuple[DatabaseState, bool]:
    """What the database is, and whether there is nothing in it that somebody would miss."""
    with engine.begin() as connection:
        state = sql.select_state(connection)
        return state, not state.tables or (state.revision is not None and not sql.has_rows(connection))


def _look_when_alone(engine: Engine) -> tuple[DatabaseState, bool]:
    """`look_at`, after those who are just going have gone."""
    deadline = time.monotonic() + _LEAVING_SECONDS
    while True:
        state, is_empty = look_at(engine)
        if not state.others or time.monotonic() > deadline:
            return state, is_empty
        time.sleep(_POLL_SECONDS)


def _check_fits(manifest: Manifest, source: str) -> None:
    if manifest.source not in (None, source):
        known, asked = (
            ("the real Keepa", "no Keepa key is set") if manifest.source == KEEPA else ("the simulator", "a real Keepa key is set")
        )
        raise SourceMismatch(f"the backup holds data of {known}, but {asked}; change KEEPER_KEEPA_API_KEY, or take another backup")
    if manifest.schema_revision > SCHEMA_REVISION:
        raise SchemaMismatch(
            f"the backup is of schema {manifest.schema_revision}, this Keeper knows only up to {SCHEMA_REVISION}: "
            f"restore it with Keeper {manifest.keeper_version} or newer"
        )


def _check_target(state: DatabaseState, manifest: Manifest, *, is_empty: bool, is_replacing: bool) -> None:
    if state.server_major < manifest.server_major:
        raise ServerOlder(
            f"the backup was made of PostgreSQL {manifest.server_major}, the server is PostgreSQL {state.server_version}: "
            f"restore it into PostgreSQL {manifest.server_major} or newer"
        )
    if not is_empty and state.revision is None:
        raise DatabaseNotEmpty(f"the database {state.name} holds {state.tables} tables that are not Keeper's; give Keeper one of its own")
    if not is_empty and not is_replacing:
        raise DatabaseNotEmpty(
            f"the database {state.name} is in use by Keeper already; --replace drops what it holds, or take an empty one"
        )
    if state.others:
        raise DatabaseInUse(
            f"Keeper is at work in the database {state.name}: {', '.join(state.others)}; "
            "end it first (`make down`, or stop its containers) and restore then"
        )


def _opens(cipher: ChannelCipher | None, token: str) -> bool:
    try:
        return cipher is not None and bool(cipher.decrypt(token))
    except ChannelKeyWrong:
        return False


def _name_file(target: Path, source: str | None, taken_at: datetime, *, is_kept_by_number: bool) -> Path:
    """Where the backup goes; the folder is there then.

    Raises:
        BackupUnusable: it cannot be made there.
    """
    try:
        if target.is_dir() or not target.suffix:
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _free(target / f"{_prefix(source)}{taken_at.astimezone(UTC):%Y%m%dT%H%M%S%fZ}{_ENDING}")
    except OSError as error:
        raise BackupUnusable(f"no backup can be made in {target}: {error.strerror or error}") from error
    if is_kept_by_number:
        raise BackupUnusable(f"--keep counts the backups of a folder, and {target} is to be a file; name a folder")
    if not target.parent.is_dir():
        raise BackupUnusable(f"no backup can be made as {target}: there is no folder {target.parent}")
    return _free(target)


def _free(path: Path) -> Path:
    for taken in (path, _manifest_of(path)):
        if taken.exists():
            raise BackupUnusable(f"{taken} is there already; give another name")
    return path


def _prefix(source: str | None) -> str:
    return f"keeper-{source or 'unused'}-"


def _manifest_of(path: Path) -> Path:
    return path.with_name(path.name + _MANIFEST)


@contextmanager
def _partial_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path` for its owner alone, locked and gone at the end. What backups that died have left goes, too.

    Raises:
        BackupUnusable: it cannot be made.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        _sweep(path.parent)
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BackupUnusable(f"no backup can be made in {path.parent}: {error.strerror or error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield partial
    finally:
        os.close(fd)
        partial.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    for left in folder.glob(f".*{_PARTIAL}"):
        with suppress(FileNotFoundError, BlockingIOError, PermissionError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _read_again(programs: Programs, partial: Path, counts: Mapping[str, int]) -> None:
    """Raises:
    BackupUnusable: a table is not in it.
    ProgramFailed: it cannot be read to its end.
    """
    tables = {found[1] for entry in programs.list_archive(partial) if (found := _TABLE.match(entry))}
    if missing := sorted(counts.keys() - tables):
        raise BackupUnusable(f"the backup lacks {', '.join(missing)} and was deleted")
    programs.read_through(partial)


def _digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _put_in_place(partial: Path, path: Path, manifest: Manifest) -> None:
    """The dump gets its name last: where there is one, both are whole."""
    beside = _manifest_of(path)
    new = partial.with_name(f"{partial.name}{_MANIFEST}{_PARTIAL}")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            # As long as it has this name: who sweeps takes what nobody holds.
            fcntl.flock(fd, fcntl.LOCK_EX)
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            with partial.open("rb") as dump:
                os.fsync(dump.fileno())
            new.rename(beside)
        partial.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise BackupUnusable(f"{path} could not be put in place: {error.strerror or error}") from error


def _remove_older(path: Path, source: str | None, keep: int) -> tuple[Path, ...]:
    """By their names, which begin alike and go on with the time."""
    whole = sorted(one for one in path.parent.glob(f"{_prefix(source)}*{_ENDING}") if _manifest_of(one).exists())
    removed = tuple(whole[: -max(keep, 1)])
    for old in removed:
        old.unlink(missing_ok=True)
        _manifest_of(old).unlink(missing_ok=True)
    return removed


def _told(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
