"""`keeper …`: a thin command line. Each command parses, calls one verb, and shows what it did.

What a command works with is imported inside it: `keeper --help` would otherwise wait a second for SQLAlchemy, Apprise and httpx.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from keeper import (
    cli_access,
    cli_arbitrage,
    cli_backup,
    cli_collect,
    cli_deals,
    cli_discover,
    cli_forecast,
    cli_metrics,
    cli_opportunities,
    cli_reports,
    cli_streams,
    cli_watchdog,
)
from keeper.cli_common import (
    HOUSE,
    MARKET,
    PEOPLE,
    TITLE_LENGTH,
    CommandFailed,
    Json,
    Market,
    NothingKnown,
    end_by_signal,
    make_group,
    open_resources,
    read_settings,
    reading,
    show_json,
    show_money,
)
from keeper.domain.access import Role
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money, minor_digits
from keeper.domain.price_type import PriceType
from keeper.domain.watch import DEFAULT_HYSTERESIS_PCT, Watch, WatchChange, WatchState
from keeper.domain.watch_list import LARGEST_BYTES, Existing, ListForm, decode_list, guess_form
from keeper.domain.wording import read_asin, read_price_type, read_span_seconds

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keeper.check import Checked
    from keeper.postgres.users import UserRow
    from keeper.relay import Relayed
    from keeper.resources import Resources
    from keeper.settings import Settings
    from keeper.tokens import TokenReport

T = TypeVar("T")
_INTERRUPTED = 130
_RELAY_SECONDS = 60.0
_PAGE = 1000
_MOST_SHOWN = 100
_IS_JSON = "keeper.is_json"
_MASK = "********"
# Variables of commands and of the tests, no settings.
_READ_ELSEWHERE = frozenset({"KEEPER_CHANNEL_URL", "KEEPER_RECORDINGS", "KEEPER_REQUIRE_SERVICES", "KEEPER_BENCH_DATABASE_URL"})


class SimulatorRuns(KeeperError):
    """A second simulator on one data folder."""


class FileUnusable(KeeperError):
    """A file that cannot be read, or not be made."""


class NotSimulated(KeeperError):
    """A command for the simulator while the real Keepa is in use."""


class _Keeper(TyperGroup):
    """The edge of the program: an error Keeper can name is one line, Ctrl-C is quiet, anything else a traceback without values."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_IS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeeperError as error:
            _fail(str(error), is_json=ctx.meta[_IS_JSON])
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None
        except typer.BadParameter as error:
            if not ctx.meta[_IS_JSON]:
                raise
            _fail(error.format_message(), is_json=True, exit_code=error.exit_code)
        except Exception as error:
            if not _is_database_gone(error):
                raise
            said = str(getattr(error, "orig", error)).strip().splitlines()
            _fail(f"PostgreSQL does not answer: {said[0] if said else type(error).__name__}", is_json=ctx.meta[_IS_JSON])


def _fail(text: str, *, is_json: bool, exit_code: int = 1) -> NoReturn:
    line = json.dumps({"error": text}, ensure_ascii=False) if is_json else f"keeper: {' '.join(text.split())}"
    print(line, file=sys.stderr)
    raise typer.Exit(exit_code) from None


def _is_database_gone(error: Exception) -> bool:
    """Whether SQLAlchemy or psycopg says so; where neither was imported, neither said anything."""
    sqlalchemy, psycopg = sys.modules.get("sqlalchemy.exc"), sys.modules.get("psycopg")
    return any(module is not None and isinstance(error, module.OperationalError) for module in (sqlalchemy, psycopg))


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign gets a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="keeper")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


app = typer.Typer(
    cls=_Keeper,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    pretty_exceptions_short=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Keeper watches Amazon prices through Keepa and tells you in time.

    A first round, with nothing installed but Keeper (the simulator stands in for Keepa until KEEPER_KEEPA_API_KEY is set):

      [bold]keeper simulator &[/bold]                                         a Keepa on this machine

      [bold]keeper user add anna[/bold]                                       you, and your API key

      [bold]keeper channel add phone ntfys://ntfy.sh/secret-topic[/bold]      where alerts go

      [bold]keeper watch add B00OCMRV40 --target 49.90[/bold]                 what to watch

      [bold]keeper check[/bold]                                               check what is due, now

      [bold]keeper history B00OCMRV40[/bold]                                  a chart
    """,
)
user_app = make_group("Add and list people.")
channel_app = make_group("Where alerts go: mail, Telegram, Discord, ntfy, Slack.")
watch_app = make_group("What is watched, and at which price you want to hear of it.")
alerts_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="rich",
    help="""The newest alerts, with what each channel answered.

    Examples:

      [bold]keeper alerts --limit 50[/bold]

      [bold]keeper alerts retry --all[/bold]        send what was given up once more
    """,
)
simulator_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="rich",
    help="""A Keepa that runs on this machine; without a subcommand it serves until Ctrl-C.

    Keeper finds it by a note in its data folder, so nothing need be set.

    Examples:

      [bold]keeper simulator --speed 60[/bold]        an hour of the market in a minute

      [bold]keeper simulator jump 3d[/bold]           three days ahead, for Keeper and the simulator together

      [bold]keeper simulator --port 8765 --products 1000 --rate 100[/bold]
    """,
)
app.add_typer(user_app, name="user", rich_help_panel=PEOPLE)
app.add_typer(channel_app, name="channel", rich_help_panel=PEOPLE)
app.add_typer(watch_app, name="watch", rich_help_panel=MARKET)
app.add_typer(alerts_app, name="alerts", rich_help_panel=MARKET)
app.add_typer(simulator_app, name="simulator", rich_help_panel=HOUSE)
cli_backup.add_commands(app)
cli_access.add_commands(app)
cli_collect.add_commands(app)
cli_arbitrage.add_commands(app)
cli_deals.add_commands(app)
cli_opportunities.add_commands(app)
cli_forecast.add_commands(app)
cli_discover.add_commands(app)
cli_streams.add_commands(app)
cli_reports.add_commands(app)
cli_metrics.add_commands(app)
cli_watchdog.add_commands(app)


_asin = reading(read_asin)
_price_type = reading(read_price_type)
_seconds = reading(read_span_seconds)


def _moment(text: str) -> float:
    """Unix seconds of an ISO 8601 moment; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a moment; write it like 2026-03-01T08:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


UserName = Annotated[str | None, typer.Option("--user", "-u", help="Whose; needed where there are several users", show_default=False)]
Asin = Annotated[str, typer.Argument(parser=_asin, metavar="ASIN", help="Ten letters or digits, or a link to the product's page")]
Asins = Annotated[list[str], typer.Argument(parser=_asin, metavar="ASIN...", help="One or many; links to product pages work too")]
WatchIds = Annotated[list[int], typer.Argument(metavar="ID...", help="As `keeper watch list` shows them")]
FormOfList = Annotated[
    ListForm | None, typer.Option("--format", case_sensitive=False, help="Where the file's name does not say it", show_default=False)
]
KindOfPrice = Annotated[
    PriceType, typer.Option("--price-type", "-t", parser=_price_type, metavar="TYPE", help="NEW, AMAZON, USED, buybox, …")
]


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"keeper {version('keeper')}")
        raise typer.Exit


@app.callback()
def _root(_: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version")] = False) -> None:
    # The text is the program's; a docstring here would replace it.
    pass


# --- people


@user_app.command("add")
def user_add(
    name: Annotated[str, typer.Argument(help="Letters, digits and . _ @ + -")],
    is_admin: Annotated[bool, typer.Option("--admin", help="May also do over the API what concerns everybody")] = False,
    is_json: Json = False,
) -> None:
    """Add a user and make their first API key, which is shown this once.

    Example: [bold]keeper user add anna[/bold]
    """
    from keeper.accounts import add_user
    from keeper.audit import Action, note, operator
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        new = add_user(connection, name, is_admin=is_admin)
        note(connection, operator(), Action.USER_ADD, f"{name}, {'admin' if is_admin else 'user'}")
    if is_json:
        show_json({"user_id": new.user_id, "name": name, "api_key": new.shown_key})
        return
    say(f"Added {name}. The API key is shown only now, keep it safe:")
    print(new.shown_key)


@user_app.command("list")
def user_list(is_json: Json = False) -> None:
    """Everybody, with the number of their watches, channels and API keys."""
    from keeper.postgres.users import select_users
    from keeper.terminal import show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        found = select_users(connection)
    if is_json:
        show_json(found)
        return
    show_table(
        ["Name", "Role", "Watches", "Channels", "API keys", "Report", "Since"],
        [(one.name, one.role, one.watches, one.channels, one.api_keys, _report_time(one), f"{one.created_at:%Y-%m-%d}") for one in found],
        right=["Watches", "Channels", "API keys"],
    )


def _report_time(user: "UserRow") -> str:
    return "–" if user.report_hour is None else f"{user.report_hour:02d}:00 {user.timezone}"


@user_app.command("set")
def user_set(
    name: Annotated[str, typer.Argument(help="Who")],
    timezone: Annotated[str | None, typer.Option(help="Where their day is, like Europe/Berlin")] = None,
    report_hour: Annotated[int | None, typer.Option(min=0, max=23, help="When their daily report comes, an hour of their own day")] = None,
    is_without_reports: Annotated[bool, typer.Option("--no-reports", help="No daily report")] = False,
    wants_empty: Annotated[
        bool | None, typer.Option("--empty-reports/--no-empty-reports", help="A report on days without deals, too")
    ] = None,
    is_json: Json = False,
) -> None:
    """Say when somebody's daily report comes. What is not named stays.

    Example: [bold]keeper user set anna --timezone Europe/Vienna --report-hour 6 --empty-reports[/bold]
    """
    from keeper.accounts import ReaderChange, change_reader
    from keeper.audit import Action, note, operator
    from keeper.postgres.users import find_user
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        change = ReaderChange(timezone, report_hour, is_without_reports, wants_empty)
        user = change_reader(connection, find_user(connection, name), change)
        note(connection, operator(), Action.USER_SET, name)
    if is_json:
        show_json(user)
        return
    when = "no daily report" if user.report_hour is None else f"the daily report at {user.report_hour:02d}:00 {user.timezone}"
    say(f"{user.name}: {when}{', on days without deals too' if user.wants_empty_reports else ''}")


@user_app.command("role")
def user_role(
    name: Annotated[str, typer.Argument(help="Who")],
    role: Annotated[Role, typer.Argument(case_sensitive=False, help="admin: may also do over the API what concerns everybody")],
    is_json: Json = False,
) -> None:
    """Make somebody an admin, or an admin a user again, whose keys of scope admin may then only write.

    Example: [bold]keeper user role anna admin && keeper key add root --scope admin --user anna[/bold]
    """
    from keeper.accounts import change_role
    from keeper.audit import Action, note, operator
    from keeper.postgres.users import find_user
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        is_new = change_role(connection, find_user(connection, name), role)
        if is_new:
            note(connection, operator(), Action.USER_ROLE, f"{name} to {role}")
    if is_json:
        show_json({"name": name, "role": role, "is_new": is_new})
        return
    say(f"{name} has the role {role} now." if is_new else f"{name} had the role {role} already.")


@channel_app.command("add")
def channel_add(
    name: Annotated[str, typer.Argument(help="What you call it")],
    url: Annotated[
        str | None,
        typer.Argument(envvar="KEEPER_CHANNEL_URL", help="An Apprise URL; asked for, unseen, where there is none", show_default=False),
    ] = None,
    is_from_stdin: Annotated[bool, typer.Option("--url-stdin", help="Read the URL from standard input")] = False,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Add a channel. Its URL holds passwords: it is stored encrypted and never shown again.

    So that it does not stay in the shell's history, leave it out (you are asked), or give it by --url-stdin or KEEPER_CHANNEL_URL.

    Examples:

      [bold]keeper channel add mail 'mailtos://me:password@example.org?smtp=mail.example.org&to=me@example.org'[/bold]

      [bold]pass show keeper/telegram | keeper channel add phone --url-stdin[/bold]
    """
    from keeper.accounts import add_channel
    from keeper.audit import Action, note, operator
    from keeper.notify.channels import mask_url
    from keeper.postgres.users import find_name, find_user
    from keeper.terminal import say

    if is_from_stdin:
        url = sys.stdin.readline().strip()
    elif url is None:
        if not sys.stdin.isatty():
            raise typer.BadParameter("give the channel's URL, or --url-stdin")
        url = str(typer.prompt("URL", hide_input=True))
    with open_resources() as resources:
        cipher = resources.cipher()
        with resources.engine.begin() as connection:
            user_id = find_user(connection, user)
            schemes = resources.settings.channels.schemes
            channel_id = add_channel(connection, cipher, user_id, name=name, url=url, schemes=schemes)
            note(connection, operator(), Action.CHANNEL_ADD, f"channel {channel_id} of {find_name(connection, user_id)}")
    shown = mask_url(url)
    if is_json:
        show_json({"channel_id": channel_id, "name": name, "url": shown})
        return
    say(f"Added channel {name} ({shown}). `keeper channel test {name}` sends a first message.")


@channel_app.command("list")
def channel_list(user: UserName = None, is_json: Json = False) -> None:
    """Channels of everybody, or of one user; their URLs masked."""
    from keeper.postgres.users import find_user, select_channels
    from keeper.terminal import show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        found = select_channels(connection, user_id=find_user(connection, user) if user else None)
    if is_json:
        show_json([{"channel_id": one.channel_id, "user": one.user, "name": one.name, "url": one.shown} for one in found])
        return
    show_table(["User", "Name", "URL", "Since"], [(one.user, one.name, one.shown, f"{one.created_at:%Y-%m-%d}") for one in found])


@channel_app.command("test")
def channel_test(name: Annotated[str, typer.Argument(help="The channel's name")], user: UserName = None, is_json: Json = False) -> None:
    """Send a test message now, and say what the far side answered."""
    from uuid import uuid4

    from keeper.audit import Action, noting, operator
    from keeper.notify.message import compose_test
    from keeper.postgres.users import find_channel, find_user
    from keeper.terminal import say

    with open_resources() as resources:
        cipher = resources.cipher()
        with resources.engine.begin() as connection:
            channel = find_channel(connection, find_user(connection, user), name)
        with noting(resources.engine, operator(), Action.CHANNEL_TEST, f"channel {channel.channel_id} of {channel.user}"):
            receipt = resources.sender().send(cipher.decrypt(channel.url_encrypted), compose_test(name), message_id=str(uuid4()))
    if is_json:
        show_json(receipt)
        return
    answer = f": {receipt.answer}" if receipt.answer else ""
    say(f"{receipt.channel} took the message after {receipt.elapsed_seconds:.1f} s{answer}")


@channel_app.command("remove")
def channel_remove(name: Annotated[str, typer.Argument(help="The channel's name")], user: UserName = None, is_json: Json = False) -> None:
    """Remove a channel, with what still waits for it."""
    from keeper.audit import Action, note, operator
    from keeper.postgres.users import delete_channel, find_channel, find_user
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        channel = find_channel(connection, find_user(connection, user), name)
        delete_channel(connection, channel.channel_id)
        note(connection, operator(), Action.CHANNEL_REMOVE, f"channel {channel.channel_id} of {channel.user}")
    if is_json:
        show_json({"removed": name})
        return
    say(f"Removed channel {name} ({channel.shown}).")


@channel_app.command("key")
def channel_key() -> None:
    """Print a new key that encrypts channel URLs, for KEEPER_CHANNELS_KEYS. Stores nothing.

    With the embedded database Keeper makes its key by itself; a database of your own needs one that all machines share.
    """
    from keeper.notify.channels import make_key

    print(make_key())


@channel_app.command("rotate")
def channel_rotate(is_json: Json = False) -> None:
    """Encrypt all channels with the first key of KEEPER_CHANNELS_KEYS, so that the others can be dropped.

    Set KEEPER_CHANNELS_KEYS=NEW,OLD everywhere, run this, then set KEEPER_CHANNELS_KEYS=NEW.
    """
    from keeper.accounts import rotate_channels
    from keeper.audit import Action, note, operator
    from keeper.terminal import say

    with open_resources() as resources:
        cipher = resources.cipher()
        with resources.engine.begin() as connection:
            count = rotate_channels(connection, cipher)
            note(connection, operator(), Action.CHANNEL_ROTATE, f"{count} channels")
    if is_json:
        show_json({"channels": count, "key_fingerprint": cipher.fingerprint})
        return
    say(f"{count} channels are encrypted with key {cipher.fingerprint} now; the other keys can go.")


# --- prices


@watch_app.command("add")
def watch_add(
    asins: Asins,
    marketplace: Market = Marketplace.DE,
    target: Annotated[
        str | None, typer.Option("--target", help="Tell me at this price or below, in the store's currency", show_default=False)
    ] = None,
    price_type: KindOfPrice = PriceType.NEW,
    every: Annotated[str, typer.Option("--every", help="How often to check, from 1m to 30d")] = "6h",
    hysteresis: Annotated[
        float, typer.Option("--hysteresis", help="How far above the target the price must have been before a second alert, percent")
    ] = DEFAULT_HYSTERESIS_PCT,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Watch one product or many. Without a target the price is recorded, and nobody is told.

    Examples:

      [bold]keeper watch add B00OCMRV40 --target 49.90[/bold]

      [bold]keeper watch add B00OCMRV40 B08DG4C63H --marketplace FR --every 30m --price-type buybox[/bold]
    """
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.postgres.watches import WatchExists, insert_watch, insert_watches
    from keeper.terminal import say

    amount = None if target is None else Money.parse(target, marketplace.currency)
    interval = timedelta(seconds=_seconds(every))
    wanted = [Watch(asin, marketplace, price_type, amount, interval, hysteresis) for asin in dict.fromkeys(asins)]
    with open_resources() as resources, resources.engine.begin() as connection:
        user_id, now = find_user(connection, user), select_now(connection)
        if len(wanted) == 1:
            ids = [insert_watch(connection, user_id, wanted[0], now=now).watch_id]
        else:
            ids = insert_watches(connection, user_id, wanted, now=now)
    if not ids:
        raise WatchExists("you watch all of these already; `keeper watch list` shows them")
    known = len(wanted) - len(ids)
    if is_json:
        show_json({"watch_ids": ids, "already_watched": known})
        return
    told = f"you are told at {amount} or below" if amount else "without a target, so nobody is told"
    what = f"watch {ids[0]} of {wanted[0].asin}" if len(wanted) == 1 else f"{len(ids)} watches"
    say(f"Added {what} in {marketplace}, {told}." + (f" {known} were there already." if known else ""))


@watch_app.command("list")
def watch_list(
    is_paused: Annotated[bool, typer.Option("--paused", help="Only those that are paused")] = False,
    is_all: Annotated[bool, typer.Option("--all", help="Paused ones too")] = False,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Active watches of everybody, or of one user, with the current price.

    Examples: [bold]keeper watch list[/bold] · [bold]keeper watch list --all --user anna[/bold]
    """
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.postgres.watches import WatchRow, select_watches
    from keeper.terminal import ago, shorten, show_table, span

    state = WatchState.ALL if is_all else WatchState.PAUSED if is_paused else WatchState.ACTIVE
    found: list[WatchRow] = []
    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user) if user else None
        now = select_now(connection)
        while page := select_watches(connection, user_id=user_id, state=state, after_id=found[-1].watch_id if found else 0, limit=_PAGE):
            found += page
    if is_json:
        show_json([one._asdict() for one in found])
        return

    def next_check(one: WatchRow) -> str | None:
        if one.next_check_at is None:
            return None
        return ago(one.next_check_at, now) if one.next_check_at > now else "due"

    show_table(
        ["ID", "User", "ASIN", "Store", "Price of", "Title", "Now", "Target", "Every", "State", "Checked", "Next", "Problem"],
        [
            (
                one.watch_id,
                one.user,
                one.asin,
                one.marketplace,
                one.price_type,
                shorten(one.title, TITLE_LENGTH),
                show_money(one.amount_minor, one.currency),
                show_money(one.target_minor, one.currency),
                span(one.interval_seconds),
                "paused" if one.is_paused else "active",
                ago(one.last_checked_at, now),
                next_check(one),
                one.last_failure or "",
            )
            for one in found
        ],
        right=["ID", "Now", "Target"],
    )


@watch_app.command("remove")
def watch_remove(
    ids: WatchIds,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Stop watching. What was recorded stays. All of them, or none where one is unknown."""
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.postgres.watches import remove_watches
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        remove_watches(connection, find_user(connection, user), ids, now=select_now(connection))
    if is_json:
        show_json({"removed": ids})
        return
    say(f"Removed {'watch' if len(ids) == 1 else 'watches'} {', '.join(map(str, ids))}.")


@watch_app.command("target")
def watch_target(
    watch_id: Annotated[int, typer.Argument(metavar="ID", help="As `keeper watch list` shows it")],
    amount: Annotated[str, typer.Argument(help="The new target in the store's currency, or `none`")],
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Change a target; the watch is armed again.

    Example: [bold]keeper watch target 7 44.90[/bold]
    """
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.postgres.watches import find_watch, update_watches
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user)
        watch = find_watch(connection, user_id, watch_id)
        target = None if amount.strip().lower() == "none" else Money.parse(amount, watch.currency)
        change = WatchChange(target=target, clears_target=target is None)
        update_watches(connection, user_id, [watch_id], change, now=select_now(connection))
    if is_json:
        show_json({"watch_id": watch_id, "target_minor": target.amount_minor if target else None, "currency": watch.currency})
        return
    say(f"Watch {watch_id} of {watch.asin} has {f'the target {target}' if target else 'no target'} now.")


@watch_app.command("pause")
def watch_pause(ids: WatchIds, user: UserName = None, is_json: Json = False) -> None:
    """Keep watches without checking them. All of them, or none where one is unknown.

    Example: [bold]keeper watch pause 7 9[/bold]
    """
    _set_paused(ids, user, is_paused=True, is_json=is_json)


@watch_app.command("resume")
def watch_resume(ids: WatchIds, user: UserName = None, is_json: Json = False) -> None:
    """Go on with paused watches; they are due at once. All of them, or none where one is unknown.

    Example: [bold]keeper watch resume 7[/bold] (`keeper watch list --paused` shows them)
    """
    _set_paused(ids, user, is_paused=False, is_json=is_json)


def _set_paused(ids: list[int], user: str | None, *, is_paused: bool, is_json: bool) -> None:
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.postgres.watches import update_watches
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user)
        update_watches(connection, user_id, ids, WatchChange(is_paused=is_paused), now=select_now(connection))
    if is_json:
        show_json({"paused" if is_paused else "resumed": ids})
        return
    say(f"{'Paused' if is_paused else 'Resumed'} {'watch' if len(ids) == 1 else 'watches'} {', '.join(map(str, ids))}.")


@watch_app.command("import")
def watch_import(
    file: Annotated[Path, typer.Argument(help="CSV or JSON; - is standard input")],
    is_all_or_nothing: Annotated[bool, typer.Option("--all-or-nothing", help="Write nothing where one row is rejected")] = False,
    existing: Annotated[
        Existing,
        typer.Option(
            "--existing", case_sensitive=False, help="Watches you have already: left as they are, or changed to what the file says"
        ),
    ] = Existing.KEEP,
    form: FormOfList = None,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Add watches from a file, up to 10,000. Rows that cannot be read are named by line, and the command ends with 1.

    CSV begins with the names of its columns: asin, and any of marketplace, price_type, target, interval, hysteresis_pct, is_paused.
    JSON is a list of objects with the same names. A file from `keeper watch export` changes nothing.

    Examples:

      [bold]keeper watch import watches.csv --all-or-nothing[/bold]

      [bold]printf 'asin,target\\nB00OCMRV40,49.90\\n' | keeper watch import -[/bold]

      [bold]keeper watch import watches.csv --existing update[/bold]        targets and intervals as the file has them
    """
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.terminal import say, show_table
    from keeper.watchlist import import_watches

    content = _read_bytes(file, LARGEST_BYTES + 1)
    listed = decode_list(content, form or _form_of(file) or guess_form(content))
    with open_resources() as resources, resources.engine.begin() as connection:
        done = import_watches(
            connection,
            find_user(connection, user),
            listed,
            now=select_now(connection),
            is_all_or_nothing=is_all_or_nothing,
            existing=existing,
        )
    lines = len({problem.line for problem in done.rejected})
    if is_json:
        show_json(done)
    else:
        say(f"Added {done.added}, changed {done.updated}, left {done.kept} as they were.")
        if done.rejected:
            shown = done.rejected[:_MOST_SHOWN]
            show_table(["Line", "Field", "What is wrong"], [(one.line, one.field, one.message) for one in shown], right=["Line"])
    if lines:
        written = "; nothing was written" if is_all_or_nothing else ""
        listed_all = "" if is_json or len(done.rejected) <= _MOST_SHOWN else f"; these are the first {_MOST_SHOWN} faults, --json has all"
        raise CommandFailed(f"{lines} of {done.rows} rows were rejected{written}{listed_all}")


def _read_bytes(file: Path, most: int) -> bytes:
    """At most so many bytes of a file, or of standard input."""
    try:
        with nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise FileUnusable(f"{file} cannot be read: {error.strerror}") from error


def _form_of(file: Path) -> ListForm | None:
    """What a file's name says."""
    suffix = file.suffix.lower().removeprefix(".")
    return ListForm(suffix) if suffix in [one.value for one in ListForm] else None


@watch_app.command("export")
def watch_export(
    file: Annotated[Path | None, typer.Argument(help="Where to; standard output without", show_default=False)] = None,
    form: FormOfList = None,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Write all watches of a user, paused ones too, so that `keeper watch import` can read them again.

    Examples: [bold]keeper watch export watches.csv[/bold] · [bold]keeper watch export --format json | jq[/bold]
    """
    from keeper.postgres.users import find_user
    from keeper.postgres.watches import WatchRow
    from keeper.terminal import progress, say
    from keeper.watchlist import export_watches, write_csv, write_json

    wanted = form or (_form_of(file) if file else None) or (ListForm.JSON if is_json and not file else ListForm.CSV)
    write = write_csv if wanted is ListForm.CSV else write_json
    count = 0
    # A bar between the lines of a terminal would be in their way.
    is_shown = file is not None or not sys.stdout.isatty()
    with open_resources() as resources, progress("exporting", is_shown=is_shown) as bar:
        with resources.engine.begin() as connection:
            user_id = find_user(connection, user)
        rows = export_watches(resources.engine, user_id)

        def counted() -> Iterator[WatchRow]:
            nonlocal count
            for row in rows:
                count += 1
                if count % _PAGE == 0:
                    bar.advance(_PAGE)
                yield row

        text = write(counted())
        if file is None:
            for line in text:
                sys.stdout.write(line)
        else:
            _write_whole(file, text)
    if file is not None and is_json:
        show_json({"file": str(file), "watches": count})
    elif file is not None:
        say(f"Exported {count} watches to {file}.")


def _write_whole(file: Path, lines: Iterable[str]) -> None:
    """All of it under its name, or what was there before."""
    # A pipe or a device is written to; a file is replaced.
    part = file if file.exists() and not file.is_file() else file.resolve().with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as opened:
            opened.writelines(lines)
        if part != file:
            part.replace(file.resolve())
    except OSError as error:
        raise FileUnusable(f"{file} cannot be written: {error.strerror}") from error
    finally:
        if part != file:
            part.unlink(missing_ok=True)


@app.command(rich_help_panel=MARKET)
def check(
    asins: Annotated[
        list[str] | None,
        typer.Argument(parser=_asin, metavar="[ASIN...]", help="These now; without any, all that is due", show_default=False),
    ] = None,
    marketplace: Market = Marketplace.DE,
    is_json: Json = False,
) -> None:
    """Check prices now, and send the alerts that come of it.

    Named products go first in the queue for tokens. Without names, what is due is checked as far as the tokens go.

    Examples: [bold]keeper check[/bold] · [bold]keeper check B00OCMRV40 --marketplace IT[/bold]
    """
    from keeper.terminal import say

    with open_resources(keepa=True) as resources:
        try:
            done = _check_named(resources, list(dict.fromkeys(asins)), marketplace) if asins else _check_due(resources)
        except Exception:
            # The shares before are recorded, and their events do not wait for the next check.
            _relay_recorded(resources, is_new=False)
            raise
        relayed, problem, waiting = _relay_recorded(resources, is_new=done.alerts > 0)
        if is_json:
            show_json(
                {
                    "source": resources.source,
                    "checked": done.checked,
                    "failed": len(done.failures),
                    "failures": done.failures,
                    "tokens": done.tokens,
                    "changes": done.changes,
                    "history_points": done.history_points,
                    "alerts": done.alerts,
                    "delivered": relayed.delivered if relayed else 0,
                    "waiting": waiting,
                    "falls": done.falls,
                }
            )
        else:
            _show_checked(resources, done, relayed, is_named=bool(asins))
            for sink, why in waiting.items():
                say(f"events wait for {sink}: {why}")
    if problem:
        raise CommandFailed(f"the alerts are recorded, but wait: {problem}")
    if done.failures:
        raise CommandFailed(f"{len(done.failures)} products were not checked")


def _check_named(resources: "Resources", asins: Sequence[str], marketplace: Marketplace) -> "Checked":
    from keeper.check import Checked, check_products
    from keeper.postgres.watches import select_buybox_asins
    from keeper.terminal import progress

    with resources.engine.begin() as connection:
        with_buybox = select_buybox_asins(connection, asins, marketplace.value)
    done = Checked()
    with progress("checking") as bar:
        bar.grow(len(asins))
        for buybox in (False, True):
            share = [asin for asin in asins if (asin in with_buybox) == buybox]
            if share:
                done.add(
                    check_products(
                        resources.engine,
                        resources.keepa,
                        share,
                        marketplace,
                        buybox=buybox,
                        settings=resources.token_settings,
                        max_wait_seconds=resources.settings.tokens.longest_wait_seconds,
                    )
                )
                bar.advance(len(share))
    return done


def _check_due(resources: "Resources") -> "Checked":
    from keeper.check import check_due
    from keeper.terminal import progress

    with progress("checking") as bar:
        return check_due(
            resources.engine,
            resources.keepa,
            settings=resources.token_settings,
            batch_size=resources.settings.keepa.batch_size,
            requests_at_once=resources.settings.keepa.requests_at_once,
            on_planned=bar.grow,
            on_checked=bar.advance,
        )


def _relay_recorded(resources: "Resources", *, is_new: bool) -> "tuple[Relayed | None, str | None, dict[str, str]]":
    """What became of the alerts, of earlier checks too; why none could be sent; why events wait, by sink. What was recorded stays recorded.

    Args:
        is_new: this check brought alerts.
    """
    from keeper.domain.events import Sink
    from keeper.postgres.outbox import has_due_message
    from keeper.relay import relay_all

    problem = None
    with resources.engine.begin() as connection:
        has_alerts = is_new or has_due_message(connection, Sink.NOTIFY)
    if has_alerts:
        try:
            resources.alert_sink()
        except KeeperError as error:
            problem = str(error)
    done = relay_all(
        resources.engine,
        resources.sinks(),
        settings=resources.relay_settings,
        longest_seconds=_RELAY_SECONDS,
        circuits=resources.circuits,
    )
    told = done.pop(Sink.NOTIFY)
    waiting = {name: one.down for name, one in done.items() if one.down}
    if problem or not has_alerts:
        return None, problem, waiting
    return told, told.down, waiting


def _show_checked(resources: "Resources", done: "Checked", relayed: "Relayed | None", *, is_named: bool) -> None:
    from keeper.postgres.products import select_titles
    from keeper.terminal import ago, say, shorten, show_table

    with resources.engine.begin() as connection:
        if not is_named and not done.checked and not done.failures:
            say(_why_nothing(connection))
            return
        titles = {
            marketplace: select_titles(connection, [one.asin for one in done.falls], marketplace)
            for marketplace in {one.marketplace for one in done.falls}
        }
    now = resources.now()
    for product, why in sorted(done.failures.items()):
        say(f"{product}: {why}")
    if done.falls:
        show_table(
            ["ASIN", "Store", "Title", "Before", "Now", "Fall", "Since"],
            [
                (
                    one.asin,
                    one.marketplace,
                    shorten(titles[one.marketplace].get(one.asin), TITLE_LENGTH),
                    show_money(one.previous_minor, one.currency),
                    show_money(one.amount_minor, one.currency),
                    f"{100 * ((one.previous_minor or 0) - (one.amount_minor or 0)) / (one.previous_minor or 1):.1f} %",
                    ago(one.observed_at, now),
                )
                for one in done.falls
            ],
            right=["Before", "Now", "Fall"],
            title="Largest falls",
        )
    source = " (simulator)" if resources.source == "simulator" else ""
    say(f"{done.sentence}, {done.changes} prices changed, {done.alerts} alerts{_delivered(done, relayed)}{source}")


def _delivered(done: "Checked", relayed: "Relayed | None") -> str:
    if relayed is None:
        return ""
    if not relayed.delivered and not relayed.refused and not relayed.dead and relayed.is_complete:
        return ", delivered by another relay, or no channel yet (`keeper alerts` shows it)" if done.alerts else ""
    parts = [f"{relayed.delivered} delivered"]
    parts += [f"{relayed.refused} refused and tried again later"] if relayed.refused else []
    parts += [f"{relayed.dead} given up"] if relayed.dead else []
    return f" ({', '.join(parts)})"


def _why_nothing(connection: "Connection") -> str:
    from keeper.postgres.installation import select_now
    from keeper.postgres.watches import next_due_at
    from keeper.terminal import ago

    now, due_at = select_now(connection), next_due_at(connection, shorter_than=timedelta(days=3650))
    if due_at is None:
        return "Nothing is watched; `keeper watch add ASIN` starts."
    if due_at <= now:
        return "What is due waits for tokens, or is being checked by another run; `keeper tokens` says more."
    return f"Nothing is due; the next check is {ago(due_at, now)}."


@app.command(rich_help_panel=MARKET)
def history(
    asin: Asin,
    marketplace: Market = Marketplace.DE,
    price_type: KindOfPrice = PriceType.NEW,
    days: Annotated[int, typer.Option("--days", "-d", min=1, max=3650, help="How far back")] = 90,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """A price's history as a chart in the terminal; the line of dots is your target.

    Example: [bold]keeper history B00OCMRV40 --days 365[/bold]
    """
    from keeper.postgres.installation import select_now
    from keeper.postgres.prices import select_history
    from keeper.postgres.products import select_titles
    from keeper.postgres.users import find_user
    from keeper.postgres.watches import select_target

    with open_resources() as resources, resources.engine.begin() as connection:
        now = select_now(connection)
        start = now - timedelta(days=days)
        points = select_history(connection, asin, marketplace.value, price_type.value, start=start, end=now)
        user_id = find_user(connection, user) if user else None
        target_minor = select_target(connection, asin, marketplace.value, price_type.value, user_id=user_id)
        title = select_titles(connection, [asin], marketplace.value).get(asin)
    currency = marketplace.currency
    if not points:
        raise NothingKnown(
            f"nothing is known of {asin} in {marketplace} ({price_type}); `keeper check {asin} --marketplace {marketplace}` asks Keepa"
        )
    if is_json:
        show_json(
            {
                "asin": asin,
                "marketplace": marketplace,
                "price_type": price_type,
                "title": title,
                "currency": currency,
                "target_minor": target_minor,
                "points": [{"observed_at": one.observed_at, "amount_minor": one.amount_minor} for one in points],
            }
        )
        return
    _show_chart(
        [(one.observed_at, one.amount_minor) for one in points],
        title=f"{asin} {marketplace} {price_type.value}: {title or 'no title known'}",
        currency=currency,
        target_minor=target_minor,
        start=start,
        now=now,
    )


def _show_chart(
    points: Sequence[tuple[datetime, int | None]], *, title: str, currency: str, target_minor: int | None, start: datetime, now: datetime
) -> None:
    from shutil import get_terminal_size

    from keeper.terminal import ago, draw_prices, say

    scale = 10 ** minor_digits(currency)
    size = get_terminal_size()
    known = [(amount, at) for at, amount in points if amount is not None]
    say(title)
    if known:
        drawn = draw_prices(
            [(at, None if amount is None else amount / scale) for at, amount in points],
            start=max(start, points[0][0]),
            end=now,
            target=None if target_minor is None else target_minor / scale,
            size=(size.columns, min(size.lines - 6, 24)),
            is_coloured=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        )
        print(drawn)
    at, amount = points[-1]
    facts = [f"now {show_money(amount, currency) if amount is not None else 'no offer'} (since {ago(at, now).removesuffix(' ago')})"]
    if known:
        low, high = min(known), max(known)
        facts += [f"lowest {show_money(low[0], currency)} {ago(max(low[1], start), now)}", f"highest {show_money(high[0], currency)}"]
    if target_minor is not None:
        facts.append(f"target {show_money(target_minor, currency)}")
    say(", ".join(facts))


@alerts_app.callback()
def alerts(
    ctx: typer.Context,
    user: UserName = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many")] = 20,
    is_json: Json = False,
) -> None:
    # The text is the group's; a docstring here would replace it.
    if ctx.invoked_subcommand is not None:
        return
    from keeper.postgres.alerts import select_alerts
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.terminal import ago, say, shorten, show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        now = select_now(connection)
        found = select_alerts(connection, user_id=find_user(connection, user) if user else None, limit=limit)
    if is_json:
        show_json(found)
        return
    if not found:
        say("No alerts yet.")
        return
    show_table(
        ["ID", "When", "User", "ASIN", "Store", "Title", "Price", "Before", "Target", "Channel", "Delivery"],
        [
            (
                one.alert_id,
                ago(one.created_at, now),
                one.user,
                one.asin,
                one.marketplace,
                shorten(one.title, TITLE_LENGTH),
                show_money(one.amount_minor, one.currency),
                show_money(one.previous_minor, one.currency),
                show_money(one.target_minor, one.currency),
                one.channel or "–",
                _receipt(one.status, one.tries or 0, one.receipt, one.last_failure),
            )
            for one in found
        ],
        right=["ID", "Price", "Before", "Target"],
    )


@alerts_app.command("retry")
def alerts_retry(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ALERT_ID...]", help="As `keeper alerts` shows them")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Every delivery that was given up")] = False,
    is_json: Json = False,
) -> None:
    """Queue deliveries that were given up once more; the relay sends them with their old message ids.

    Examples: [bold]keeper alerts retry --all[/bold] · [bold]keeper alerts retry 17 18 && keeper relay --once[/bold]
    """
    from keeper.audit import Action, note, operator
    from keeper.postgres.outbox import retry_dead_alerts
    from keeper.terminal import say

    if bool(ids) == is_all:
        raise typer.BadParameter("name the alerts to send once more, or --all")
    with open_resources() as resources, resources.engine.begin() as connection:
        count = retry_dead_alerts(connection, None if is_all else ids)
        if count:
            note(connection, operator(), Action.ALERT_RETRY, f"{count} deliveries")
    if ids and not count:
        raise NothingKnown("no delivery of these alerts was given up; `keeper alerts` shows them all")
    if is_json:
        show_json({"retried": count})
        return
    say(f"{count} deliveries wait for the relay again; `keeper relay --once` sends them now." if count else "Nothing was given up.")


def _receipt(status: str | None, tries: int, receipt: str | None, failure: str | None) -> str:
    if status is None:
        return "no channel"
    said = receipt if status == "delivered" else failure
    times = f" after {tries} tries" if tries > 1 else ""
    return f"{status}{times}{f': {said}' if said else ''}"


@app.command(rich_help_panel=MARKET)
def tokens(
    is_fresh: Annotated[bool, typer.Option("--refresh", help="Ask Keepa now; that is free of tokens")] = False, is_json: Json = False
) -> None:
    """Keepa's tokens: what is there, what refills, who spent it, what the watches need, and how long it lasts."""
    from keeper.tokens import ask_bucket, report_tokens

    with open_resources(keepa=is_fresh) as resources:
        if is_fresh:
            ask_bucket(resources.engine, resources.keepa)
        with resources.engine.begin() as connection:
            report = report_tokens(connection)
        source = resources.source
    if report is None:
        raise NothingKnown("Keepa has not been asked for its tokens yet; `keeper tokens --refresh` does")
    if not is_json:
        _show_tokens(report, source)
        return
    bucket, forecast = report.bucket, report.forecast
    empty_in_minutes = forecast.minutes_until_empty_as_spent
    show_json(
        {
            "source": source,
            "tokens": report.tokens,
            "capacity": bucket.capacity,
            "refill_per_minute": bucket.refill_per_minute,
            "flow_reduction_per_minute": bucket.flow_reduction_per_minute,
            "reserved": sum(one.granted for one in report.reserved),
            "waiting": sum(one.waiting for one in report.reserved),
            "reserved_by_operation": report.reserved,
            "observed_at": bucket.observed_at,
            "full_at": bucket.payable_at(bucket.capacity, report.now),
            "empty_in_seconds": None if empty_in_minutes is None else 60 * empty_in_minutes,
            "last_hour": report.last_hour,
            "last_day": report.last_day,
            "hours": report.hours,
            "watched_products": report.demand.products,
            "forecast": forecast,
            "foreign_tokens": report.foreign_tokens,
            "foreign_seen_at": report.foreign_seen_at,
        }
    )


def _show_tokens(report: "TokenReport", source: str) -> None:
    from keeper.terminal import ago, say, show_table, span

    bucket, forecast, now = report.bucket, report.forecast, report.now
    say(f"{report.tokens} of {bucket.capacity} tokens ({source}), from Keepa's word {ago(bucket.observed_at, now)}")
    reduction = bucket.flow_reduction_per_minute
    say(f"refill {bucket.refill_per_minute} a minute" + (f", of which trackings eat {reduction:g}" if reduction else ""))
    reserved, waiting = sum(one.granted for one in report.reserved), sum(one.waiting for one in report.reserved)
    if report.reserved:
        say(f"{reserved} reserved for requests under way, {waiting} asked for by requests that wait")
    if forecast.minutes_until_empty_as_spent:
        say(f"at the last hour's pace empty in {span(60 * forecast.minutes_until_empty_as_spent)}")
    elif forecast.minutes_until_full is None:
        say("never full again: trackings eat the refill")
    elif forecast.minutes_until_full > 0:
        say(f"full in {span(60 * forecast.minutes_until_full)} if nobody spends")
    else:
        say("full: what refills now is lost")
    if report.demand.products:
        say(_needs(report))
    if report.foreign_tokens:
        say(f"others on this key have spent {report.foreign_tokens} tokens, seen {ago(report.foreign_seen_at, now)}")
    in_hour = {one.operation: one.tokens for one in report.last_hour}
    set_aside = {one.operation: one.granted + one.waiting for one in report.reserved}
    spent = {one.operation: one for one in report.last_day}
    if spent or set_aside:
        right = ["Tokens, hour", "Tokens, day", "Reserved", "Calls, day", "Failed, day", "ASINs, day"]
        show_table(
            ["Operation", *right],
            [
                (operation, in_hour.get(operation, 0), one.tokens, set_aside.get(operation, 0), one.calls, one.failed, one.asins)
                if (one := spent.get(operation))
                else (operation, 0, 0, set_aside[operation], 0, 0, 0)
                for operation in [*spent, *(name for name in set_aside if name not in spent)]
            ],
            right=right,
        )
    if spent:
        show_table(
            ["Hour (UTC)", "Tokens", "Calls", "Failed"],
            [(f"{one.hour_at.astimezone(UTC):%d %b %H:%M}", one.tokens, one.calls, one.failed) for one in report.hours if one.calls],
            right=["Tokens", "Calls", "Failed"],
        )


def _needs(report: "TokenReport") -> str:
    """Whether the refill carries the watches, in words."""
    from keeper.terminal import span

    forecast, count = report.forecast, report.demand.products
    share = "" if forecast.needed_pct is None else f", {forecast.needed_pct:.0f} % of the refill"
    per_minute = forecast.planned_per_minute
    products = f"{count} product" if count == 1 else f"{count} products"
    needs = f"the watches ({products}) need {per_minute:.{1 if per_minute >= 1 else 3}f} tokens a minute{share}"
    if forecast.watches_fit:
        return needs
    empty = forecast.minutes_until_empty_as_planned
    return f"{needs}: more than refills, {f'empty in {span(60 * empty)}' if empty else 'some are checked later than they ask for'}"


# --- the simulator


@simulator_app.callback()
def simulator(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on; its control endpoints have no password")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 0,
    speed: Annotated[float, typer.Option(min=1, max=10_000, help="Simulated seconds in a second")] = 1.0,
    products: Annotated[int, typer.Option(min=1, max=100_000, help="Size of the catalog")] = 47,
    seed: Annotated[int, typer.Option(help="One seed, one world")] = 1,
    rate: Annotated[int, typer.Option(min=1, help="Tokens in a simulated minute; the bucket holds an hour of them")] = 20,
    tokens_at_start: Annotated[int | None, typer.Option("--tokens", help="Balance to start with; full without", show_default=False)] = None,
    start_at: Annotated[
        str | None, typer.Option(help="Simulated time to start at, like 2026-03-01T08:00; now without", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(help="The only key accepted; any of Keepa's form without", show_default=False)] = None,
) -> None:
    # The text is the group's; a docstring here would replace it.
    if ctx.invoked_subcommand is not None:
        return
    from keeper.resources import simulator_note
    from keeper.simulator.server import serve

    started_at = None if start_at is None else _moment(start_at)
    note = simulator_note(read_settings())
    _refuse_second_simulator(note)
    _warn_of_other_clock(ctx)
    ended = end_by_signal()

    def leave_note(url: str) -> None:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_name(f"{note.name}.{os.getpid()}")
        draft.write_text(json.dumps({"url": url, "pid": os.getpid()}))
        draft.replace(note)

    try:
        serve(
            host,
            port,
            speed=speed,
            products=products,
            seed=seed,
            refill_per_minute=rate,
            start_at=started_at,
            tokens=tokens_at_start,
            key=key,
            until=ended,
            on_listening=leave_note,
        )
    except OSError as error:
        raise CommandFailed(f"the simulator cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from None
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    finally:
        if _read_note(note).get("pid") == os.getpid():
            note.unlink(missing_ok=True)


def _warn_of_other_clock(ctx: typer.Context) -> None:
    """A database that has a clock already keeps it, and the next command sets the simulator to it."""
    from keeper.resources import embedded_server

    asked = [name for name in ("speed", "start_at") if (said := ctx.get_parameter_source(name)) is not None and said.name == "COMMANDLINE"]
    settings = read_settings()
    if asked and (settings.database_url is not None or embedded_server(settings).status().major is not None):
        options = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        print(
            f"keeper: where Keeper's database has a business time already, that wins over {options} as soon as a command runs; "
            "`keeper simulator speed 60` and `keeper simulator jump 3d` change both",
            file=sys.stderr,
        )


def _read_note(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_second_simulator(note: Path) -> None:
    from keeper.resources import NoKeepa, fetch_simulator_state

    known = _read_note(note)
    if "url" not in known:
        return
    try:
        fetch_simulator_state(str(known["url"]))
    except NoKeepa:
        return
    raise SimulatorRuns(f"a simulator runs at {known['url']} already (pid {known.get('pid', 'unknown')}); end it first, or set KEEPER_DATA")


@contextmanager
def _simulated() -> "Iterator[tuple[Resources, str]]":
    from keeper.resources import keepa_url

    if not read_settings().is_simulated:
        raise NotSimulated("KEEPER_KEEPA_API_KEY is set, so the real Keepa is in use, and its clock is everybody's")
    with open_resources() as resources:
        yield resources, keepa_url(resources.settings)


@simulator_app.command("jump")
def simulator_jump(span: Annotated[str, typer.Argument(help="How far ahead: 90s, 30m, 6h, 3d, 1w")], is_json: Json = False) -> None:
    """Move business time forward, in Keeper's database and the simulator together.

    Example: [bold]keeper simulator jump 3d && keeper check[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.resources import jump_clock

    seconds = _seconds(span)
    with _simulated() as (resources, url):
        with noting(resources.engine, operator(), Action.CLOCK_MOVE, f"{seconds:g} s ahead"):
            jump_clock(resources.engine, url, seconds=seconds)
        _show_time(resources, is_json=is_json)


@simulator_app.command("speed")
def simulator_speed(
    speed: Annotated[float, typer.Argument(min=1, max=10_000, help="Business seconds in a second")], is_json: Json = False
) -> None:
    """Let business time run faster, or at its real pace again (1).

    Example: [bold]keeper simulator speed 60[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.resources import jump_clock

    with _simulated() as (resources, url):
        with noting(resources.engine, operator(), Action.CLOCK_MOVE, f"{speed:g} s in a second"):
            jump_clock(resources.engine, url, speed=speed)
        _show_time(resources, is_json=is_json)


@simulator_app.command("status")
def simulator_status(is_json: Json = False) -> None:
    """Where the simulator is, what time it has there, and the tokens of each key it has seen."""
    from keeper.resources import fetch_simulator_state, keepa_url
    from keeper.terminal import say

    settings = read_settings()
    if not settings.is_simulated:
        raise NotSimulated("KEEPER_KEEPA_API_KEY is set, so the real Keepa is in use")
    url = keepa_url(settings)
    state: dict[str, Any] = fetch_simulator_state(url)
    if is_json:
        show_json({"url": url} | state)
        return
    say(f"The simulator at {url} has {state['products']} products (seed {state['seed']}).")
    say(f"Its time is {_utc(datetime.fromtimestamp(state['now_ms'] / 1000, UTC))}, {state['speed']:g} s in a second.")
    for key, bucket in state["keys"].items():
        say(f"Key {key}: {bucket.get('tokens', bucket.get('tokens_left', '?'))} of {bucket['capacity']} tokens")


def _show_time(resources: "Resources", *, is_json: bool) -> None:
    from keeper.postgres.installation import select_clock_speed
    from keeper.terminal import say

    with resources.engine.begin() as connection:
        speed = select_clock_speed(connection)
    now = resources.now()
    if is_json:
        show_json({"now": now, "speed": speed})
        return
    say(f"Business time is {_utc(now)} now, {speed:g} s in a second.")


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- running it


@app.command(rich_help_panel=HOUSE)
def migrate(
    to: Annotated[str, typer.Option("--to", help="A revision, `head`, or `base`: no tables at all")] = "head",
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask before data is dropped")] = False,
    is_json: Json = False,
) -> None:
    """Bring the database to this Keeper's schema. Safe to repeat; the embedded database is migrated by itself.

    Example: [bold]KEEPER_DATABASE_URL=postgresql://… keeper migrate[/bold]
    """
    from keeper.audit import Action, note, operator
    from keeper.postgres.migrate import known_head
    from keeper.resources import migrate_database, open_database
    from keeper.terminal import say

    if to == "base" and not is_sure:
        typer.confirm("This drops every table of Keeper with all that is in it. Go on?", abort=True, err=True)
    engine = open_database(read_settings(), application_name="keeper migrate")
    try:
        revision = migrate_database(engine, to)
        if revision == known_head():
            # An older schema may have no log.
            with engine.begin() as connection:
                note(connection, operator(), Action.MIGRATE, f"schema {revision}")
    finally:
        engine.dispose()
    if is_json:
        show_json({"revision": revision})
        return
    say(f"The database is at schema {revision}." if revision else "The database holds no schema of Keeper any more.")


@app.command("settings", rich_help_panel=HOUSE)
def show_settings(is_json: Json = False) -> None:
    """Every setting as it is in force, secrets masked. Set them as environment variables or in a file .env."""
    from keeper.settings import SettingsInvalid, list_fields
    from keeper.terminal import show_table

    problem: KeeperError | None = None
    try:
        values = _effective(read_settings())
    except SettingsInvalid as error:
        problem, values = error, {}
    _warn_of_unknown_settings(is_json=is_json)
    rows = [(name, values[name] if name in values else _plain(default), text) for name, text, default in list_fields()]
    if is_json and problem is None:
        show_json([{"variable": name, "value": value, "description": text} for name, value, text in rows])
    elif not is_json:
        heading = "Value" if problem is None else "Default"
        show_table(["Variable", heading, "Meaning"], [(name, _shown(value), text) for name, value, text in rows])
    if problem is not None:
        raise problem


def _warn_of_unknown_settings(*, is_json: bool) -> None:
    """Names of the environment that look like settings and are none would be passed over in silence."""
    from difflib import get_close_matches

    from keeper.settings import Settings, list_fields, variable_of

    fields = [name for name, _, _ in list_fields()]
    known = _READ_ELSEWHERE.union(fields, (variable_of((name,)) for name in Settings.model_fields))
    for name in sorted(os.environ):
        if not name.upper().startswith("KEEPER_") or name.upper() in known:
            continue
        close = get_close_matches(name.upper(), fields, n=1)
        warning = f"{name} is no setting of Keeper{f'; did you mean {close[0]}?' if close else ''}"
        print(json.dumps({"warning": warning}) if is_json else f"keeper: warning: {warning}", file=sys.stderr)


def _effective(settings: "Settings") -> dict[str, object]:
    from pydantic import BaseModel

    from keeper.settings import variable_of

    found: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            found |= {variable_of((name, inner)): _plain(getattr(value, inner)) for inner in type(value).model_fields}
        else:
            found[variable_of((name,))] = _plain(value)
    return found


def _plain(value: object) -> object:
    """A setting's value for display: secrets masked, everything else a JSON value."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return _MASK if hasattr(value, "get_secret_value") else str(value)


def _shown(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


@app.command(rich_help_panel=HOUSE)
def dashboard() -> None:
    """Serve the dashboard until Ctrl-C. It asks the REST API, which `make up` or `python -m api` serves.

    Example: [bold]keeper dashboard[/bold]
    """
    found = read_settings()
    asked = found.dashboard
    arguments = ["--host", asked.host, "--port", str(asked.port), "--api-url", asked.api_url or found.api_address]
    arguments += ["--ca-file", str(asked.ca_file)] if asked.ca_file else []
    sys.stdout.flush()
    # In this process's place, so that who ends it ends the dashboard.
    os.execv(sys.executable, [sys.executable, "-m", "dashboard", *arguments])  # noqa: S606


@app.command(rich_help_panel=HOUSE)
def doctor(is_json: Json = False) -> None:
    """Look at everything Keeper needs, and say what to do. Ends with 1 when something is broken.

    Example: [bold]keeper doctor[/bold]
    """
    from keeper.doctor import Finding, Health, examine
    from keeper.terminal import say_finding

    found: list[Finding] = []
    for finding in examine(read_settings()):
        found.append(finding)
        if not is_json:
            say_finding(finding.about, finding.health.value, finding.text, finding.remedy)
    broken = [one for one in found if one.health is Health.BROKEN]
    if is_json:
        show_json({"ok": not broken, "findings": found})
    if broken:
        raise CommandFailed(f"{len(broken)} of {len(found)} checks found something broken: {', '.join(one.about for one in broken)}")
