"""The commands about events, their sinks and consumers, and search."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeper.cli_common import (
    HOUSE,
    STREAMS,
    TITLE_LENGTH,
    CommandFailed,
    Json,
    Market,
    NothingKnown,
    await_resources,
    end_by_signal,
    log_to_stderr,
    make_group,
    open_resources,
    read_settings,
    show_json,
)
from keeper.domain.events import KINDS, Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.search import LARGEST_PAGE, LARGEST_TOTAL, SearchPage, SearchQuery, SearchSort, SearchSubject

if TYPE_CHECKING:
    from keeper.kafka.consumer import ReceivedMessage, TopicConsumer
    from keeper.reindex import Reindexed
    from keeper.relay import Relayed
    from keeper.resources import Resources
    from keeper.status import SinkStatus, Status

    Batch = Sequence[ReceivedMessage]
    Rejected = Sequence[tuple[ReceivedMessage, str]]

_ONCE_SECONDS = 240.0

_PRODUCTS_TO_COME = (
    "Products that do not change any more are in no event: once Elasticsearch is configured, `keeper reindex products` brings them all, "
    "and until then searches do not find them."
)
_PRODUCTS_LEFT = (
    "The relay enriches products from here on. What waited for the enriching consumer may be missing in `products`: "
    "`keeper reindex products` brings it from PostgreSQL."
)

sink_app = make_group("Where events go: Kafka, search, enrichment; switched on by the settings, and off here.")
dlq_app = make_group("What consumers could not read: dead letters of Kafka's topics, with the reason.")


class Consumer(StrEnum):
    """What `keeper consume` can do."""

    PRICES = "prices"
    DEALS = "deals"
    ENRICH = "enrich"


class Start(StrEnum):
    """From where a sink that is switched on gets events."""

    OLDEST = "oldest"
    NOW = "now"


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.command(rich_help_panel=HOUSE)(relay)
    app.command(rich_help_panel=HOUSE)(status)
    app.command(rich_help_panel=STREAMS)(consume)
    app.command(rich_help_panel=STREAMS)(search)
    app.command(rich_help_panel=STREAMS)(reindex)
    app.add_typer(sink_app, name="sink", rich_help_panel=STREAMS)
    app.add_typer(dlq_app, name="dlq", rich_help_panel=STREAMS)


# --- relay


def relay(is_once: Annotated[bool, typer.Option("--once", help="Deliver what waits now, and end")] = False, is_json: Json = False) -> None:
    """Deliver events as they come, to channels, Kafka and Elasticsearch, until SIGTERM or Ctrl-C. Any number may run side by side.

    It wakes when something is recorded, when a refused message is due again, and every 30 seconds. A system that is down delays no other.
    """
    if is_once:
        _relay_once(is_json=is_json)
        return
    from keeper.relay import keep_relaying
    from keeper.terminal import say

    log_to_stderr(read_settings())
    ended = end_by_signal()
    with await_resources(ended) as resources:
        # Channels that cannot be read are said now, not at the first alert.
        resources.alert_sink()
        sinks = resources.sinks()
        names = ", ".join(sink.name for sink in sinks)
        keep_relaying(
            resources.engine,
            sinks,
            settings=resources.relay_settings,
            stop=ended,
            circuits=resources.circuits,
            on_listening=lambda: show_json({"relay": "listening"}) if is_json else say(f"Relaying to {names}; Ctrl-C ends it."),
            on_relayed=_teller(is_json=is_json),
        )


def _teller(*, is_json: bool) -> "Callable[[str, Relayed], None]":
    """Tells what was done, and an outage once."""
    outages: dict[str, str] = {}

    def tell(sink: str, done: "Relayed") -> None:
        is_news = done.known > 0 or (done.down is not None and sink not in outages)
        if done.down is None:
            outages.pop(sink, None)
        else:
            outages[sink] = done.down
        if not is_news:
            return
        if is_json:
            show_json({"sink": sink} | _counts(done))
        else:
            print(f"{sink}: {_relayed(done)}")
        sys.stdout.flush()

    return tell


def _relay_once(*, is_json: bool) -> None:
    from keeper.relay import relay_all
    from keeper.resources import configured_sinks
    from keeper.terminal import say

    with open_resources() as resources:
        resources.alert_sink()
        by_sink = relay_all(resources.engine, resources.sinks(), settings=resources.relay_settings, longest_seconds=_ONCE_SECONDS)
        shown = {Sink.NOTIFY, *configured_sinks(resources.settings)}
    if is_json:
        dead = sum(done.dead for done in by_sink.values())
        counts = {
            "delivered": sum(done.delivered for done in by_sink.values()),
            "refused": sum(done.refused for done in by_sink.values()),
            "dead": dead,
            "is_complete": all(done.is_complete for done in by_sink.values()),
        }
        show_json(counts | {"sinks": {name: _counts(done) | {"is_complete": done.is_complete} for name, done in by_sink.items()}})
    else:
        for name, done in by_sink.items():
            if done.known or done.down or name in shown:
                say(f"{name}: {_relayed(done)}")
    problems = [f"{name} is down: {done.down}" for name, done in by_sink.items() if done.down]
    problems += [f"{done.dead} messages to {name} were given up; {_why_dead(name)}" for name, done in by_sink.items() if done.dead]
    if problems:
        raise CommandFailed("; ".join(problems))


def _why_dead(sink: str) -> str:
    return "`keeper alerts` says why" if sink == Sink.NOTIFY else "`keeper doctor` says why"


def _counts(done: "Relayed") -> dict[str, object]:
    return {"delivered": done.delivered, "refused": done.refused, "dead": done.dead, "down": done.down}


def _relayed(done: "Relayed") -> str:
    text = f"delivered {done.delivered}, refused {done.refused}, given up {done.dead}"
    return f"{text}; the far side is down: {done.down}" if done.down else text


# --- status and sinks


def status(is_json: Json = False) -> None:
    """How each system is, what waits for it, how far the consumers are, what the indices hold. A report: ends with 0 whatever it says.

    Example: [bold]keeper status --json | jq .sinks[/bold]
    """
    from keeper.status import look

    found = look(read_settings())
    if is_json:
        show_json(found)
        return
    _show_status(found)


def _show_status(found: "Status") -> None:
    from keeper.terminal import say, show_table

    show_table(["System", "Is", "What"], [(one.name, one.condition, one.text) for one in found.systems])
    if found.sinks:
        _show_sinks(found.sinks)
    if found.groups:
        show_table(
            ["Consumer group", "Topic", "Behind", "Why unknown"],
            [(one.group, one.topic, one.lag, one.problem) for one in found.groups],
            right=["Behind"],
        )
    if found.indices:
        show_table(
            ["Alias", "Index", "Documents", "Rows in PostgreSQL", "Kept old"],
            [(one.alias, one.index, one.documents, one.rows, len(one.old)) for one in found.indices],
            right=["Documents", "Rows in PostgreSQL", "Kept old"],
        )
    for warning in found.warnings:
        say(f"warning: {warning}")


def _show_sinks(found: "Sequence[SinkStatus]") -> None:
    from keeper.terminal import show_table, span

    def state(one: "SinkStatus") -> str:
        words = "on" if one.is_on else "off"
        if one.is_filling:
            return f"{words}, being filled"
        return words if one.is_configured or not one.is_on else f"{words}, not configured here"

    show_table(
        ["Sink", "Is", "Waiting", "For another try", "Oldest", "Given up"],
        [
            (
                one.name,
                state(one),
                one.messages,
                one.postponed,
                None if one.oldest_seconds is None else span(max(0.0, one.oldest_seconds)),
                one.dead_letters,
            )
            for one in found
        ],
        right=["Waiting", "For another try", "Oldest", "Given up"],
    )


@contextmanager
def _unswitched() -> "Iterator[Resources]":
    """The database, without the switching on of what is configured, which every other command does."""
    from keeper.resources import open_resources as open_all

    settings = read_settings()
    without = settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"bootstrap_servers": None}),
            "elasticsearch": settings.elasticsearch.model_copy(update={"url": ()}),
        }
    )
    with open_all(without, keepa=False, application_name="keeper sink") as resources:
        yield resources


@sink_app.command("list")
def sink_list(is_json: Json = False) -> None:
    """The sinks that are on or configured, with what waits for them."""
    from keeper.status import list_sinks, warn_of_sinks
    from keeper.terminal import say

    settings = read_settings()
    with _unswitched() as resources:
        found = list_sinks(resources.engine, settings)
    if is_json:
        show_json(found)
        return
    _show_sinks(found)
    for warning in warn_of_sinks(found, settings):
        say(f"warning: {warning}")


@sink_app.command("off")
def sink_off(
    name: Annotated[str, typer.Argument(help="As `keeper sink list` shows it")],
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask before what waits is dropped")] = False,
    is_json: Json = False,
) -> None:
    """Queue nothing more for a sink, and drop what waits for it. Its system must not be configured here any more.

    Example: [bold]keeper sink off kafka[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.resources import configured_sinks
    from keeper.sinks import switch_off
    from keeper.status import list_sinks
    from keeper.terminal import say

    settings = read_settings()
    if name == Sink.NOTIFY:
        raise CommandFailed("alerts go to people's channels: `keeper channel remove` ends one of them")
    if name in configured_sinks(settings):
        variable = "KEEPER_KAFKA_BOOTSTRAP_SERVERS" if name == Sink.KAFKA else "KEEPER_ELASTICSEARCH_URL"
        raise CommandFailed(f"{name} is configured here, so the next command would switch it on again: unset {variable} first, everywhere")
    with ExitStack() as held, _unswitched() as resources:
        if name.startswith(f"{Sink.SEARCH}."):
            _refuse_live_rebuild(resources, held)
        known = {one.name: one for one in list_sinks(resources.engine, settings)}
        waiting = known[name].messages if name in known else 0
        # With Elasticsearch the sink enriches from here on, and what the consumer has not read is read by nobody.
        has_search = bool(settings.elasticsearch.url) or (Sink.SEARCH in known and known[Sink.SEARCH].is_on)
        advice = _PRODUCTS_LEFT if name == Sink.KAFKA and has_search else None
        if not is_sure:
            typer.confirm(f"{waiting} messages wait for {name} and would be dropped. Go on?", abort=True, err=True)
        with noting(resources.engine, operator(), Action.SINK_OFF, name):
            dropped = switch_off(resources.engine, name)
    if dropped is None:
        raise NothingKnown(f"there is no sink {name}; `keeper sink list` shows those there are")
    if is_json:
        show_json({"sink": name, "dropped": dropped, "advice": advice})
        return
    say(f"{name} is off; {dropped} messages were dropped.")
    if advice is not None:
        say(advice)


def _refuse_live_rebuild(resources: "Resources", held: ExitStack) -> None:
    from keeper.postgres.jobs import hold_job
    from keeper.search.mapping import Alias

    for alias in Alias:
        if not held.enter_context(hold_job(resources.engine, f"reindex/{alias}")):
            raise CommandFailed(f"{alias} is being rebuilt just now, and the rebuild switches its sink off itself")


@sink_app.command("on")
def sink_on(
    name: Annotated[str, typer.Argument(help="kafka, search or enrich")],
    start: Annotated[Start, typer.Option("--from", help="The events still kept too, or only those to come")],
    is_json: Json = False,
) -> None:
    """Queue events for a sink by hand, say before its system is configured on the machines that relay.

    Example: [bold]keeper sink on kafka --from now[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.postgres.sinks import select_sinks
    from keeper.sinks import switch_configured
    from keeper.terminal import say

    choices = {sink.value: sink for sink in (Sink.KAFKA, Sink.SEARCH, Sink.ENRICH)}
    if name not in choices:
        raise typer.BadParameter(f"{name!r} is no sink; choose one of {', '.join(choices)}")
    sink = choices[name]
    with _unswitched() as resources:
        if sink is Sink.ENRICH:
            with resources.engine.begin() as connection:
                if any(row.name == Sink.KAFKA for row in select_sinks(connection)):
                    raise CommandFailed("kafka is on, so `keeper consume enrich` enriches; the sink would do the same work twice")
        with noting(resources.engine, operator(), Action.SINK_ON, name):
            is_new = bool(switch_configured(resources.engine, {sink: KINDS[sink]}, from_oldest=start is Start.OLDEST))
    advice = _PRODUCTS_TO_COME if is_new and sink is not Sink.KAFKA else None
    if is_json:
        show_json({"sink": name, "is_new": is_new, "from": start.value if is_new else None, "advice": advice})
        return
    if is_new:
        say(f"{name} receives events from now on{', and those still kept' if start is Start.OLDEST else ''}.")
        if advice is not None:
            say(advice)
    else:
        say(f"{name} was on already, and --from changed nothing.")


@sink_app.command("dead")
def sink_dead(
    name: Annotated[str, typer.Argument(help="kafka, search or enrich")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many")] = 100,
    is_json: Json = False,
) -> None:
    """What a sink's system refused for good, oldest first, with the reason.

    Example: [bold]keeper sink dead search[/bold]
    """
    from keeper.postgres.outbox import select_dead_letters
    from keeper.terminal import say, shorten, show_table

    with _unswitched() as resources, resources.engine.begin() as connection:
        found = select_dead_letters(connection, name, limit=limit)
    if is_json:
        show_json(found)
        return
    if not found:
        say(f"{name} has refused nothing.")
        return
    show_table(
        ["ID", "When (UTC)", "Kind", "Key", "Tries", "Reason"],
        [(one.id, f"{one.died_at:%Y-%m-%d %H:%M}", one.kind, shorten(one.key, TITLE_LENGTH), one.tries, one.reason) for one in found],
        right=["ID", "Tries"],
    )


@sink_app.command("retry")
def sink_retry(
    name: Annotated[str, typer.Argument(help="kafka, search or enrich")],
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID...]", help="As `keeper sink dead` shows them")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Everything it refused")] = False,
    is_json: Json = False,
) -> None:
    """Queue what a sink's system refused for good once more, in its order and with its event ids, when the cause is mended.

    Examples: [bold]keeper sink retry kafka --all[/bold] · [bold]keeper sink retry search 17 18 && keeper relay --once[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.sinks import retry_dead
    from keeper.terminal import say

    if name == Sink.NOTIFY:
        raise CommandFailed("alerts go to people's channels: `keeper alerts retry` sends what was given up once more")
    if bool(ids) == is_all:
        raise typer.BadParameter("name the dead letters to send once more, or --all")
    with _unswitched() as resources, noting(resources.engine, operator(), Action.SINK_RETRY, name):
        count = retry_dead(resources.engine, name, None if is_all else ids)
    if ids and not count:
        raise NothingKnown(f"none of these is a dead letter of {name}; `keeper sink dead {name}` shows them")
    if is_json:
        show_json({"sink": name, "retried": count})
        return
    say(f"{count} messages wait for {name} again; `keeper relay --once` delivers them now." if count else f"{name} has refused nothing.")


# --- consumers and their dead letters


def consume(
    what: Annotated[Consumer, typer.Argument(help="prices and deals record what others produce; enrich makes documents of products")],
    is_once: Annotated[bool, typer.Option("--once", help="Read to the end of the topic, and end")] = False,
    is_json: Json = False,
) -> None:
    """Work on what comes in a topic of Kafka, until SIGTERM or Ctrl-C; then the batch under way is finished and the group left.

    Any number may run side by side, as far as the topic has partitions. What cannot be read goes to the dead letters: `keeper dlq list`.

    Examples: [bold]keeper consume prices[/bold] · [bold]keeper consume enrich --once[/bold]
    """
    from keeper.consume import consume as consume_verb
    from keeper.terminal import say

    log_to_stderr(read_settings())
    stop = end_by_signal()
    messages = buried = 0

    def count(batch: int, rejected: int) -> None:
        nonlocal messages, buried
        messages, buried = messages + batch, buried + rejected
        if is_once:
            return
        if is_json:
            show_json({"messages": batch, "dead_letters": rejected})
        else:
            say(f"{batch} messages, {rejected} to the dead letters")
        sys.stdout.flush()

    with open_resources() if is_once else await_resources(stop) as resources:
        source, work, bury = _consumer(resources, what)
        if not is_once:
            show_json({"consume": "reading"}) if is_json else say(f"Consuming {what.value}; Ctrl-C ends it.")
            sys.stdout.flush()
            consume_verb(source, work, bury, stop=stop, on_batch=count)
            return
        finite = _UntilEnd(resources, source, what, stop)
        with finite.bounded(_ONCE_SECONDS):
            consume_verb(finite, work, bury, stop=stop, on_batch=count)
    if is_json:
        show_json({"messages": messages, "dead_letters": buried, "is_complete": finite.is_at_end})
    else:
        say(f"{messages} messages, {buried} to the dead letters")
    if not finite.is_at_end:
        raise CommandFailed("ended before the end of the topic; the next call goes on")


def _consumer(resources: "Resources", what: Consumer) -> "tuple[TopicConsumer, Callable[[Batch], Rejected], Callable[[Rejected], None]]":
    """A member of the group, what it does with a batch, and where it puts what cannot be read."""
    from keeper.consume import enrich_batch
    from keeper.ingest import ingest_deals, ingest_prices
    from keeper.kafka import dead_letters
    from keeper.kafka.products import EnrichedTopic

    engine, connection, publisher = resources.engine, resources.kafka_connection(), resources.publisher()
    topic, group = _place_of(what)

    def bury(rejected: "Rejected") -> None:
        dead_letters.bury(publisher, connection, topic, rejected)

    work: Callable[[Batch], Rejected]
    match what:
        case Consumer.PRICES:

            def work(batch: "Batch") -> "Rejected":
                return ingest_prices(engine, batch, now=resources.now()).rejected

        case Consumer.DEALS:
            watch_user_id = _watch_user_id(resources)

            def work(batch: "Batch") -> "Rejected":
                return ingest_deals(engine, batch, now=resources.now(), watch_user_id=watch_user_id).rejected

        case Consumer.ENRICH:
            index = resources.product_index() if resources.settings.elasticsearch.url else None
            enriched = EnrichedTopic(publisher, connection.topic_prefix)

            def work(batch: "Batch") -> "Rejected":
                return enrich_batch(engine, batch, now=resources.now, index=index, topic=enriched)

    return resources.consumer(topic, group), work, bury


def _place_of(what: Consumer) -> Any:
    """Topic and group."""
    from keeper.kafka.topics import Group, Topic

    return {
        Consumer.PRICES: (Topic.PRICE_UPDATES, Group.PRICES),
        Consumer.DEALS: (Topic.DEAL_UPDATES, Group.DEALS),
        Consumer.ENRICH: (Topic.RAW_PRODUCTS, Group.ENRICHMENT),
    }[what]


def _watch_user_id(resources: "Resources") -> int | None:
    """For whom the products of foreign deals are watched; None for nobody."""
    from keeper.postgres.users import UserUnknown, find_user

    name = resources.settings.consume.watch_user
    if name is None:
        return None
    try:
        with resources.engine.begin() as connection:
            return find_user(connection, name)
    except UserUnknown as error:
        raise CommandFailed(f"KEEPER_CONSUME_WATCH_USER: {error}") from error


class _UntilEnd:
    """A member of a group that ends when the group has committed all there is."""

    def __init__(self, resources: "Resources", source: "TopicConsumer", what: Consumer, stop: threading.Event) -> None:
        self._source = source
        self._connection = resources.kafka_connection()
        self._topic, self._group = _place_of(what)
        self._stop = stop
        self.is_at_end = False

    @contextmanager
    def bounded(self, longest_seconds: float) -> Iterator[None]:
        """Stop after so long, whatever is waited for."""
        timer = threading.Timer(longest_seconds, self._stop.set)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def read_batch(self, longest_seconds: float) -> "list[ReceivedMessage]":
        """See `keeper.consume.Source`."""
        from keeper.domain.delivery import SinkDown
        from keeper.kafka.consumer import measure_lag

        batch = self._source.read_batch(longest_seconds)
        if not batch:
            try:
                self.is_at_end = not any(measure_lag(self._connection, self._topic, self._group).values())
            except SinkDown:
                # It may come; the bound ends the wait.
                return batch
            if self.is_at_end:
                self._stop.set()
        return batch

    def commit(self, batch: "Batch") -> None:
        """See `keeper.consume.Source`."""
        self._source.commit(batch)

    def keep_alive(self) -> None:
        """See `keeper.consume.Source`."""
        self._source.keep_alive()


def _read_topic(name: str) -> Any:
    """The topic somebody names, with or without the prefix, its own name or that of its dead letters."""
    from keeper.kafka.topics import DEAD_LETTERS

    plain = name.removeprefix(read_settings().kafka.topic_prefix).removesuffix(".dlq")
    for topic in DEAD_LETTERS:
        if topic.value == plain:
            return topic
    raise typer.BadParameter(f"{name!r} has no dead letters; choose one of {', '.join(DEAD_LETTERS)}")


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise typer.BadParameter(f"{text!r} is no place; write it like 0:17, as `keeper dlq list` shows it")
    return int(partition), int(offset)


DeadTopic = Annotated[str, typer.Argument(metavar="TOPIC", help="price-updates, deal-updates or raw.keepa_updates")]
_Place = Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="As `keeper dlq list` shows it")]


def _kafka() -> Any:
    from keeper.resources import kafka_connection

    return kafka_connection(read_settings())


@dlq_app.command("list")
def dlq_list(
    topic: Annotated[str | None, typer.Argument(metavar="[TOPIC]", help="One topic's; without, those of all", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Most of each topic")] = 100,
    is_json: Json = False,
) -> None:
    """The dead letters that were not sent again, oldest first.

    Example: [bold]keeper dlq list price-updates[/bold]
    """
    from keeper.kafka.cluster import fetch_cluster
    from keeper.kafka.dead_letters import list_dead_letters
    from keeper.kafka.topics import DEAD_LETTERS, topic_name
    from keeper.terminal import say, shorten, show_table

    wanted = list(DEAD_LETTERS) if topic is None else [_read_topic(topic)]
    connection = _kafka()
    missing = fetch_cluster(connection).missing
    found = [
        (one, letter)
        for one in wanted
        if topic_name(connection, DEAD_LETTERS[one]) not in missing
        for letter in list_dead_letters(connection, one, limit=limit)
    ]
    if is_json:
        show_json([_letter(one.value, letter) for one, letter in found])
        return
    if not found:
        say("No dead letters.")
        return
    show_table(
        ["Topic", "Place", "Reason", "Key", "Bytes"],
        [
            (
                one.value,
                f"{letter.partition}:{letter.offset}",
                letter.reason,
                shorten(_text(letter.key), TITLE_LENGTH),
                letter.cut_from_bytes or len(letter.value or b""),
            )
            for one, letter in found
        ],
        right=["Bytes"],
    )


@dlq_app.command("show")
def dlq_show(topic: DeadTopic, place: _Place, is_json: Json = False) -> None:
    """One dead letter whole: why it is one, where it was, and its original bytes.

    Example: [bold]keeper dlq show price-updates 0:17[/bold]
    """
    from keeper.kafka.dead_letters import read_dead_letter
    from keeper.terminal import say

    source, (partition, offset) = _read_topic(topic), _place(place)
    letter = read_dead_letter(_kafka(), source, partition, offset)
    if is_json:
        show_json(_letter(source.value, letter))
        return
    say(f"reason: {letter.reason}")
    if letter.source_partition is not None:
        say(f"from: {letter.topic} {letter.source_partition}:{letter.source_offset}")
    say(f"key: {_text(letter.key) if letter.key is not None else 'none'}")
    for name, value in letter.headers:
        say(f"header {name}: {_text(value)}")
    if letter.cut_from_bytes is not None:
        say(f"only the beginning was kept, of {letter.cut_from_bytes} bytes")
    say(_text(letter.value) if letter.value is not None else "no value")


@dlq_app.command("retry")
def dlq_retry(
    topic: DeadTopic,
    place: Annotated[
        str | None, typer.Argument(metavar="[PARTITION:OFFSET]", help="One of them; without, all, at most 1000", show_default=False)
    ] = None,
    is_json: Json = False,
) -> None:
    """Send dead letters to their topic again, as they were; what still cannot be read comes back as a new one.

    Examples: [bold]keeper dlq retry price-updates[/bold] · [bold]keeper dlq retry price-updates 0:17[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.kafka.dead_letters import retry
    from keeper.terminal import say

    source, only = _read_topic(topic), None if place is None else _place(place)
    with open_resources() as resources:
        publisher = resources.publisher()
        publisher.connect()
        with noting(resources.engine, operator(), Action.DEAD_LETTER_RETRY, source.value):
            count = retry(publisher, resources.kafka_connection(), source, only=only)
    if is_json:
        show_json({"retried": count})
        return
    say(f"{count} messages were sent to {source.value} again." if count else "There is nothing to send again.")


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", errors="backslashreplace")


def _letter(topic: str, letter: Any) -> Mapping[str, object]:
    """For a program: bytes as text where they are UTF-8, else as base64."""
    from base64 import b64encode

    def told(value: bytes | None) -> object:
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": b64encode(value).decode()}

    return {
        "topic": topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "source_topic": letter.topic or None,
        "source_partition": letter.source_partition,
        "source_offset": letter.source_offset,
        "timestamp_ms": letter.timestamp_ms,
        "key": told(letter.key),
        "value": told(letter.value),
        "headers": [[name, told(value)] for name, value in letter.headers],
        "cut_from_bytes": letter.cut_from_bytes,
    }


# --- search


def reindex(
    alias: Annotated[
        str | None,
        typer.Argument(help="keeper-prices, keeper-deals, keeper-metrics or products; without, all four", show_default=False),
    ] = None,
    is_old_dropped: Annotated[bool, typer.Option("--drop-old", help="Delete the indices that do not serve any more")] = False,
    is_json: Json = False,
) -> None:
    """Build an index of Elasticsearch anew from PostgreSQL while writes go on, compare, and put it in place of the old one.

    The old index is kept until told: --drop-old, now or later.

    Examples: [bold]keeper reindex products[/bold] · [bold]keeper reindex --drop-old[/bold]
    """
    from keeper.audit import Action, noting, operator
    from keeper.search.mapping import Alias
    from keeper.terminal import say

    choices = {one.value: one for one in Alias}
    if alias is not None and alias not in choices:
        raise typer.BadParameter(f"{alias!r} is no index; choose one of {', '.join(choices)}")
    done: list[dict[str, object]] = []
    with open_resources() as resources:
        for one in Alias if alias is None else (choices[alias],):
            with noting(resources.engine, operator(), Action.REINDEX, one.value):
                rebuilt, dropped = reindex_one(resources, one, is_old_dropped=is_old_dropped)
            done.append(
                {
                    "alias": rebuilt.alias,
                    "old": rebuilt.old,
                    "new": rebuilt.new,
                    "copied": rebuilt.copied,
                    "documents": rebuilt.documents,
                    "delivered": rebuilt.delivered,
                    "dropped": dropped,
                }
            )
            if not is_json:
                kept = f"; {', '.join(dropped)} deleted" if dropped else f"; {rebuilt.old} is kept" if rebuilt.old else ""
                say(f"{rebuilt.alias}: {rebuilt.documents} documents in {rebuilt.new}, {rebuilt.delivered} events meanwhile{kept}")
    if is_json:
        show_json(done)


def reindex_one(resources: "Resources", alias: Any, *, is_old_dropped: bool) -> "tuple[Reindexed, list[str]]":
    from keeper.reindex import delete_old_indices
    from keeper.reindex import reindex as reindex_verb
    from keeper.terminal import progress

    client, connection = resources.search_client(), resources.search_connection()
    with progress(f"rebuilding {alias.value}") as bar:
        total = copied = 0

        def show(now_copied: int, now_total: int) -> None:
            nonlocal total, copied
            bar.grow(now_total - total)
            bar.advance(now_copied - copied)
            total, copied = now_total, now_copied

        rebuilt = reindex_verb(
            resources.engine,
            alias,
            client=client,
            connection=connection,
            settings=resources.relay_settings,
            now=resources.now(),
            prices_days=resources.settings.elasticsearch.prices_days,
            metrics_days=resources.settings.elasticsearch.metrics_days,
            on_progress=show,
        )
    return rebuilt, delete_old_indices(client, connection, alias) if is_old_dropped else []


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD...]", help="All of them must be there; in quotes a phrase. None: everything", show_default=False),
    ] = None,
    marketplace: Market = Marketplace.DE,
    price_from: Annotated[str | None, typer.Option("--price-min", help="In the store's currency, inclusive", show_default=False)] = None,
    price_to: Annotated[str | None, typer.Option("--price-max", help="Likewise", show_default=False)] = None,
    discount: Annotated[float | None, typer.Option("--discount", help="At least so many percent off", show_default=False)] = None,
    rating: Annotated[float | None, typer.Option("--rating", help="At least so many stars, 0 to 5", show_default=False)] = None,
    brands: Annotated[list[str] | None, typer.Option("--brand", help="Exact but for case; several: any of them")] = None,
    categories: Annotated[list[str] | None, typer.Option("--category", help="A name on the path, or an id; several: any of them")] = None,
    sort: Annotated[SearchSort, typer.Option("--sort", help="The order of the hits")] = SearchSort.RELEVANCE,
    is_deals: Annotated[bool, typer.Option("--deals", help="Deals instead of products")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=LARGEST_PAGE, help="Hits on a page")] = 20,
    cursor: Annotated[str | None, typer.Option("--after", help="Where the page before ended", show_default=False)] = None,
    has_facets: Annotated[bool, typer.Option("--facets", help="Also count the hits by brand, category, store, price, discount")] = False,
    is_json: Json = False,
) -> None:
    """Search the products Keeper knows, or deals: in Elasticsearch where it is configured, else in PostgreSQL.

    Examples:

      [bold]keeper search mechanische tastatur --price-max 80 --sort discount[/bold]

      [bold]keeper search '"brown switches" keychron' --facets[/bold]
    """
    from keeper.find import find

    currency = marketplace.currency
    query = SearchQuery(
        SearchSubject.DEALS if is_deals else SearchSubject.PRODUCTS,
        " ".join(words or ()),
        marketplace,
        price_from_minor=None if price_from is None else Money.parse(price_from, currency).amount_minor,
        price_to_minor=None if price_to is None else Money.parse(price_to, currency).amount_minor,
        discount_from_pct=discount,
        rating_from=rating,
        brands=tuple(brands or ()),
        categories=tuple(categories or ()),
        sort=sort,
        has_facets=has_facets,
        limit=limit,
        cursor=cursor,
    )
    with open_resources() as resources, resources.searcher() as searcher:
        page = find(searcher, query)
    if is_json:
        show_json(page)
        return
    _show_page(page)


def _show_page(page: SearchPage) -> None:
    from keeper.terminal import say, shorten, show_table

    if page.alike:
        say(f"Nothing has {', '.join(page.alike)}; taken for what is alike.")
    if not page.hits:
        say("Nothing found.")
    else:
        show_table(
            ["ASIN", "Store", "Title", "Brand", "Category", "Price", "List price", "Off", "Stars"],
            [
                (
                    one.asin,
                    one.marketplace,
                    shorten(one.title, TITLE_LENGTH),
                    one.brand,
                    one.category,
                    one.price,
                    one.list_price,
                    None if one.discount_pct is None else f"{one.discount_pct:.0f} %",
                    None if one.rating is None else f"{one.rating:.1f}",
                )
                for one in page.hits
            ],
            right=["Price", "List price", "Off", "Stars"],
        )
    for facet in page.facets:
        if facet.counts:
            show_table([facet.name.value.capitalize(), "Hits"], [(one.value, one.hits) for one in facet.counts], right=["Hits"])
    if page.total is not None and page.hits:
        say(f"{page.total} hits{' or more' if page.total >= LARGEST_TOTAL else ''}")
    if page.next_cursor is not None:
        say(f"More: the same with --after {page.next_cursor}")
