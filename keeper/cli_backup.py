"""The commands of a backup, and of a restore."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keeper.cli_common import HOUSE, CommandFailed, Json, open_resources, read_settings, show_json
from keeper.cli_streams import reindex_one
from keeper.domain.errors import KeeperError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from keeper.backup import BackedUp, Manifest, Restored
    from keeper.settings import Settings

_MEGABYTE = 1_000_000


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.command("backup", rich_help_panel=HOUSE)(backup)
    app.command("restore", rich_help_panel=HOUSE)(restore)


def backup(
    target: Annotated[
        Path,
        typer.Argument(metavar="FILE|FOLDER", help="A new file (it needs an ending), or a folder for files with the time in their name"),
    ],
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Of the backups in the folder the newest so many stay", show_default=False)
    ] = None,
    is_json: Json = False,
) -> None:
    """Write the database into a file while everything goes on: what was there at one moment, read again after writing.

    Beside it comes a small file, with .json behind its name, that says what is in it; a restore needs both. The key of the channels is in
    neither, nor are Prefect's own database, Kafka and Elasticsearch.

    Examples: [bold]keeper backup before-upgrade.dump[/bold] · [bold]keeper backup /var/backups/keeper --keep 14[/bold]
    """
    from keeper.backup import backup as backup_verb
    from keeper.resources import open_database, postgres_programs
    from keeper.terminal import progress

    settings = read_settings()
    engine = open_database(settings, application_name="keeper backup")
    try:
        with progress("backing up", is_shown=not is_json) as bar:
            done = backup_verb(
                engine,
                postgres_programs(settings, engine),
                target,
                keep=keep,
                on_tables=bar.grow,
                on_table=lambda: bar.advance(1),
            )
        _note(engine, "BACKUP", done.path.name)
    finally:
        engine.dispose()
    if is_json:
        show_json(_backup_fields(done))
        return
    _show_backup(done)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `keeper backup` wrote it", exists=True, dir_okay=False)],
    is_replacing: Annotated[bool, typer.Option("--replace", help="Drop what the database holds now")] = False,
    is_sure: Annotated[bool, typer.Option("--yes", help="With --replace: do not ask")] = False,
    is_sending: Annotated[bool, typer.Option("--send-waiting", help="Send the alerts that waited when the backup was made")] = False,
    is_reindexing: Annotated[
        bool, typer.Option("--reindex/--no-reindex", help="Rebuild the indices of Elasticsearch, where it is set")
    ] = True,
    is_json: Json = False,
) -> None:
    """Put a backup into an empty database, in one transaction: all of it or nothing. End Keeper first.

    What was delivered when the backup was made is not sent again. What waited then may have been sent since: it is held, and
    `keeper alerts retry` sends it. What came after the backup is not in it.

    Examples: [bold]keeper restore before-upgrade.dump[/bold] · [bold]keeper restore keeper.dump --replace[/bold]
    """
    from keeper.backup import look_at, read_manifest
    from keeper.backup import restore as restore_verb
    from keeper.postgres.installation import KEEPA, SIMULATOR
    from keeper.resources import ChannelKeyMissing, channel_cipher, open_database, postgres_programs
    from keeper.terminal import progress

    settings = read_settings()
    engine = open_database(settings, application_name="keeper restore")
    try:
        if is_replacing and not is_sure:
            state, is_empty = look_at(engine)
            if not is_empty:
                _confirm(state.name, read_manifest(file))
        try:
            cipher = channel_cipher(settings)
        except ChannelKeyMissing:
            cipher = None
        with progress("restoring", is_shown=not is_json) as bar:
            done = restore_verb(
                engine,
                postgres_programs(settings, engine),
                file,
                source=SIMULATOR if settings.is_simulated else KEEPA,
                cipher=cipher,
                is_replacing=is_replacing,
                is_sending=is_sending,
                on_tables=bar.grow,
                on_table=lambda: bar.advance(1),
            )
        # Into the log that came with the backup: the one before is gone.
        _note(engine, "RESTORE", file.name)
    finally:
        engine.dispose()
    rebuilt, trouble = _rebuild(settings) if is_reindexing else ({}, "")
    if is_json:
        show_json(_restore_fields(done) | {"documents": rebuilt})
    else:
        _show_restore(done, rebuilt)
    if trouble:
        raise CommandFailed(f"the database is restored, the indices are not rebuilt: {trouble}; `keeper reindex` does that")


def _note(engine: "Engine", action: str, file: str) -> None:
    """Done is done: a schema of before the audit log has none, and that is no failure."""
    from sqlalchemy.exc import SQLAlchemyError

    from keeper.audit import Action, note, operator

    try:
        with engine.begin() as connection:
            note(connection, operator(), Action[action], file)
    except SQLAlchemyError as error:
        typer.echo(f"not noted in the audit log: {type(error).__name__}", err=True)


def _confirm(database: str, manifest: "Manifest") -> None:
    from keeper.terminal import say

    say(
        f"The database {database} is in use by Keeper. Everything in it goes: people, channels, watches, prices and what was told. "
        f"In its place comes the backup of {_at(manifest)}."
    )
    typer.confirm("Go on?", abort=True, err=True)


def _rebuild(settings: "Settings") -> tuple[dict[str, int], str]:
    """Documents by alias, and why not all."""
    from keeper.search.mapping import Alias

    rebuilt: dict[str, int] = {}
    if settings.elasticsearch.url:
        try:
            with open_resources() as resources:
                for alias in Alias:
                    rebuilt[alias.value] = reindex_one(resources, alias, is_old_dropped=False)[0].documents
        except KeeperError as error:
            return rebuilt, str(error)
    return rebuilt, ""


def _backup_fields(done: "BackedUp") -> dict[str, object]:
    return {"file": str(done.path), "removed": [str(path) for path in done.removed], "manifest": done.manifest}


def _restore_fields(done: "Restored") -> dict[str, object]:
    return {
        "manifest": done.manifest,
        "schema_revision": done.revision,
        "held": done.held,
        "queued": done.queued,
        "unreadable_channels": list(done.unreadable_channels),
        "sinks": list(done.sinks),
        "replaced": done.replaced,
    }


def _show_backup(done: "BackedUp") -> None:
    from keeper.terminal import say

    _show_counts(done.manifest)
    size = done.manifest.size_bytes / _MEGABYTE
    say(f"{done.path}: {size:.1f} MB in {done.manifest.seconds:.1f} s, schema {done.manifest.schema_revision}, read again after writing.")
    if waiting := _waiting(done.manifest):
        say(f"Not yet delivered at that moment: {waiting}.")
    if done.manifest.channel_key is not None:
        key = f"The key of the channels ({done.manifest.channel_key})"
        say(f"{key} is not in it: keep KEEPER_CHANNELS_KEYS, or channel.key of the data folder, at another place.")
    if done.removed:
        say(f"Removed {len(done.removed)} older: {', '.join(path.name for path in done.removed)}.")


def _show_restore(done: "Restored", rebuilt: dict[str, int]) -> None:
    from keeper.terminal import say

    manifest = done.manifest
    _show_counts(manifest)
    older = f", migrated from {manifest.schema_revision}" if manifest.schema_revision != done.revision else ""
    say(f"Restored the backup of {_at(manifest)}, schema {done.revision}{older}.")
    newest = f"; the last event in it is of {manifest.newest_event.recorded_at:%Y-%m-%d %H:%M:%S} UTC" if manifest.newest_event else ""
    say(
        f"What came after is not in it{newest}. Prices come back from Keepa's history with the next check. An alert or a report that was "
        "sent after the backup may be sent once more. What was removed or revoked since, keys and channels too, is there again."
    )
    if done.held:
        say(f"{done.held} notifications that waited then are held, for they may have been sent since: `keeper alerts retry --all`")
    if done.queued:
        say(f"{done.queued} notifications that waited then go out with the next relay.")
    if done.unreadable_channels:
        say(f"The present key does not open {len(done.unreadable_channels)} channels: {', '.join(done.unreadable_channels)}.")
        say(f"Set KEEPER_CHANNELS_KEYS to the key {manifest.channel_key or 'they were made with'}, or add these channels anew.")
    for alias, documents in rebuilt.items():
        say(f"{alias}: {documents} documents, rebuilt.")
    if "kafka" in done.sinks:
        say("Kafka gets what waited. A new Kafka gets all kept events: `keeper sink off kafka`, then `keeper sink on kafka --from oldest`")
    say(
        "The token ledger learns from Keepa's next answer. Prefect's own database is in no backup: `make up` or the bootstrap deploys anew."
    )


def _show_counts(manifest: "Manifest") -> None:
    from keeper.terminal import show_table

    show_table(("Table", "Rows"), [(table, f"{rows:,}") for table, rows in manifest.counts.items() if rows], right=("Rows",))


def _waiting(manifest: "Manifest") -> str:
    return ", ".join(f"{messages:,} for {sink}" for sink, messages in manifest.waiting.items())


def _at(manifest: "Manifest") -> str:
    return f"{manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
