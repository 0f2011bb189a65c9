"""The only code that turns settings into live things: engine, Keepa client, sinks, cipher. And the source of `now`."""

import atexit
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import httpx
from pydantic import SecretStr
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from keeper.collection import CollectSettings
from keeper.discover import DiscoverSettings, finder_query
from keeper.domain.deal import DealQuery
from keeper.domain.deal_files import DealFileInvalid, DealFiles, parse_discovery, parse_queries, parse_seeds, read_marketplaces
from keeper.domain.discovery import DiscoveryQuery, read_list
from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.events import KINDS, Sink
from keeper.domain.exchange import EURO
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.domain.product_group import ProductGroup, ProductGroupInvalid, parse_group
from keeper.domain.seller import SellerProfile, read_seller
from keeper.enrich import EnrichSink
from keeper.exchange import keep_fresh, load_seeds, tell_age
from keeper.keepa.client import KeepaClient
from keeper.keepa.errors import RequestInvalid
from keeper.notify.channels import ChannelCipher, load_or_create_key
from keeper.notify.sender import ChannelSender
from keeper.opportunities import Reckoning
from keeper.postgres import installation, watches
from keeper.postgres.catalog import raise_revisions
from keeper.postgres.embedded import EmbeddedServer
from keeper.postgres.engine import open_engine
from keeper.postgres.exchange_rates import select_rates
from keeper.postgres.installation import KEEPA, SIMULATOR, ClockNumbers
from keeper.postgres.programs import DUMP, Programs
from keeper.postgres.sinks import lock_routes
from keeper.relay import AlertSink, Circuit, DeliverySink, RelaySettings, UnusableSink
from keeper.report import ReportSettings
from keeper.scan import ScanSettings
from keeper.settings import HOME, Settings, read_settings
from keeper.sinks import switch_configured
from keeper.tokens import TokenSettings, learn_bucket
from keeper.trade_files import read_fee_categories, read_seed_rates, read_seller_file, read_tables

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from keeper.compare import Terms
    from keeper.find import Searcher
    from keeper.kafka.connection import KafkaConnection
    from keeper.kafka.consumer import TopicConsumer
    from keeper.kafka.producer import Publisher
    from keeper.kafka.topics import Group, Topic, TopicSettings
    from keeper.opportunity_alerts import ToldOpportunities
    from keeper.search.connection import SearchConnection
    from keeper.search.products import ProductWriter

logger = logging.getLogger(__name__)

NO_RATES = "none"
# The simulator accepts any key of Keepa's form.
SIMULATOR_KEY = "simulator".ljust(64, "0")
_CONTROL_TIMEOUT = httpx.Timeout(10)


class NoKeepa(KeeperError):
    """Neither a key nor a simulator."""


class DatabaseUnreachable(TransientError):
    """PostgreSQL does not answer."""


class NotMigrated(KeeperError):
    """The database has not Keeper's schema yet."""


class ChannelKeyMissing(KeeperError):
    """An external database without a channel key."""


class NotConfigured(KeeperError):
    """A system that no setting names."""


class StoresTooFew(KeeperError):
    """Fewer stores than can be compared."""


class Closable(Protocol):
    """What holds connections."""

    def close(self) -> None:
        """End them."""


C = TypeVar("C", bound=Closable)
T = TypeVar("T")


@dataclass(slots=True)
class Resources:
    """What a process works with. Safe to share between threads.

    Attributes:
        client: None until Keepa is asked for.
        source: `keepa` or `simulator`.
        circuits: what this process knows of each sink's health.
    """

    settings: Settings
    engine: Engine
    client: KeepaClient | None
    source: str
    _opening: threading.Lock = field(default_factory=threading.Lock, repr=False)
    circuits: dict[str, Circuit] = field(default_factory=lambda: {sink.value: Circuit() for sink in Sink}, repr=False)
    _sinks: dict[Sink, DeliverySink] = field(default_factory=dict, repr=False)
    _search_client: "Elasticsearch | None" = field(default=None, repr=False)
    _opened: list[Closable] = field(default_factory=list, repr=False)
    _groups: tuple[list[ProductGroup], list[str]] | None = field(default=None, repr=False)

    @property
    def keepa(self) -> KeepaClient:
        """The client. Opened on first use, when the clock is agreed on and the bucket learned, where they are not known yet.

        Raises:
            NoKeepa: no key, and no simulator that answers.
            KeepaError: Keepa does not say its bucket.
        """
        with self._opening:
            if self.client is None:
                client = open_client(self.settings)
                try:
                    if self.settings.is_simulated:
                        agree_on_clock(self.engine, keepa_url(self.settings))
                    learn_bucket(self.engine, client)
                except BaseException:
                    client.close()
                    raise
                self.client = client
            return self.client

    def now(self) -> datetime:
        """Business time."""
        with self.engine.begin() as connection:
            return installation.select_now(connection)

    def seconds_until_short_watch(self, shorter_than: timedelta) -> float | None:
        """Seconds of the machine until the next watch of a shorter interval is due, at least 1; None without such watches."""
        with self.engine.begin() as connection:
            due_at = watches.next_due_at(connection, shorter_than=shorter_than)
            if due_at is None:
                return None
            ahead = (due_at - installation.select_now(connection)).total_seconds()
            return max(1.0, ahead / installation.select_clock_speed(connection))

    def count_overdue(self, interval: timedelta | None, *, since: datetime) -> int:
        """Products whose checks were overdue at a business time and are under way nowhere; a large number is cut."""
        with self.engine.begin() as connection:
            return watches.count_overdue(
                connection,
                now=since,
                interval_seconds=round(interval.total_seconds()) if interval else None,
            )

    @property
    def token_settings(self) -> TokenSettings:
        """How the budget is shared."""
        return TokenSettings(user_share_pct=self.settings.tokens.user_share_pct, lease_seconds=self.settings.tokens.lease_seconds)

    @property
    def collect_settings(self) -> CollectSettings:
        """How much is collected."""
        deals = self.settings.deals
        return CollectSettings(
            share_pct=deals.share_pct,
            least_fall_pct=deals.least_fall_pct,
            seeds_fresh_for=timedelta(minutes=deals.seeds_minutes),
            ends_after=timedelta(hours=deals.ends_after_hours),
            max_wait_seconds=self.settings.tokens.longest_wait_seconds,
            instant_per_hour=self.settings.reports.instant_per_hour,
        )

    @property
    def discover_settings(self) -> DiscoverSettings:
        """How far the catalog grows."""
        discovery = self.settings.discovery
        return DiscoverSettings(
            most_products=discovery.most_products,
            share_pct=discovery.share_pct,
            most_per_run=discovery.most_per_run,
            deal_age=timedelta(days=discovery.deal_days),
            max_wait_seconds=self.settings.tokens.longest_wait_seconds,
        )

    @property
    def relay_settings(self) -> RelaySettings:
        """How often a refused message is tried."""
        channels = self.settings.channels
        return RelaySettings(channels.most_tries, channels.first_wait_seconds, channels.longest_wait_seconds)

    def product_groups(self) -> list[ProductGroup]:
        """The groups deals may belong to, in the order of their files; read once. What cannot be read is logged and left out."""
        return self._read_groups()[0]

    def deal_files(self) -> DealFiles:
        """What is collected: queries of the stores that are collected in, and seeds. A file that cannot be used costs no other."""
        stores = self.deal_marketplaces()
        groups, troubles = self._read_groups()
        names = {group.name for group in groups}

        def read_queries(path: Path) -> tuple[DealQuery, ...]:
            queries = parse_queries(path.stem, read_text(path))
            for query in queries:
                _check_group(path.name, query.group, names)
            return queries

        by_file, bad_queries = read_files(self.settings.deals.queries, ".toml", read_queries)
        seeds, bad_seeds = read_files(self.settings.deals.seeds, ".csv", lambda path: parse_seeds(path.name, read_text(path)))
        queries = [query for queries in by_file for query in queries if query.marketplace in stores]
        return DealFiles(tuple(queries), tuple(seeds), (*troubles, *bad_queries, *bad_seeds))

    def discovery_queries(self) -> list[DiscoveryQuery]:
        """Where candidates for the catalog come from, in the order of the files.

        Raises:
            DealFileInvalid: names the file and what to do.
        """
        return self._read_discovery(self.settings.discovery.files)

    def _read_discovery(self, words: Sequence[str]) -> list[DiscoveryQuery]:
        groups = {group.name for group in self.product_groups()}

        def read(path: Path) -> DiscoveryQuery:
            query = parse_discovery(path.stem, read_text(path))
            _check_group(path.name, query.group, groups)
            if query.selection is not None:
                try:
                    finder_query(query.marketplace, query.selection)
                except RequestInvalid as error:
                    raise DealFileInvalid(f"{path.name}: {error}") from error
            return query

        queries, troubles = read_files(words, ".toml", read)
        if troubles:
            raise DealFileInvalid(troubles[0])
        return queries

    def compared_marketplaces(self) -> tuple[Marketplace, ...]:
        """The stores that are compared with each other.

        Raises:
            WordsUnclear: one of them is none.
            StoresTooFew: there is nothing to compare.
        """
        stores = read_marketplaces(self.settings.arbitrage.marketplaces)
        if len(stores) < 2:
            raise StoresTooFew("KEEPER_ARBITRAGE_MARKETPLACES must name two stores at least, like DE,FR")
        return stores

    def compared_currencies(self) -> list[str]:
        """The currencies whose exchange rates are needed, beside the euro: of the compared stores and of the default seller."""
        named = [store.currency for store in self.compared_marketplaces()] + [self.default_seller().currency]
        return [currency for currency in dict.fromkeys(named) if currency != EURO]

    def default_seller(self) -> SellerProfile:
        """The operator's seller, whose profit is reckoned where nobody has a profile.

        Raises:
            SellerFileUnusable, SellerProfileInvalid: see there.
        """
        return read_seller_file(self.settings.arbitrage.seller)

    def scan_settings(self) -> ScanSettings:
        """What is looked at in the compared stores, and how much that may cost.

        Raises:
            WordsUnclear, StoresTooFew, DealFileInvalid: a setting or a file that cannot be used.
        """
        arbitrage = self.settings.arbitrage
        return ScanSettings(
            stores=self.compared_marketplaces(),
            price_type=PriceType(arbitrage.price_type),
            share_pct=arbitrage.share_pct,
            fresh_for=timedelta(hours=arbitrage.fresh_hours),
            price_ends_after=timedelta(hours=arbitrage.stale_price_hours),
            deal_age=timedelta(days=arbitrage.deal_days),
            most_asins=arbitrage.most_asins,
            most_per_list=arbitrage.most_per_list,
            max_wait_seconds=self.settings.tokens.longest_wait_seconds,
            lists=tuple(dict.fromkeys(read_list(word) for word in arbitrage.categories)),
            queries=tuple(self._read_discovery(arbitrage.finder)),
        )

    def comparison_terms(self) -> "Terms":
        """What prices are compared by; read anew each time, so that a changed table counts at once.

        Raises:
            SellerFileUnusable, SellerProfileInvalid, TableInvalid, WordsUnclear, StoresTooFew: a setting or a file that cannot be used.
        """
        # numpy comes with it, and few processes compare.
        from keeper.compare import Terms

        arbitrage = self.settings.arbitrage
        with self.engine.begin() as connection:
            rates = select_rates(connection, on=installation.select_now(connection).date())
        return Terms(
            seller=self.default_seller(),
            tables=read_tables(arbitrage.tables),
            rates=rates,
            fee_categories=read_fee_categories(arbitrage.tables),
            stores=self.compared_marketplaces(),
            price_type=PriceType(arbitrage.price_type),
            least_margin_pct=arbitrage.least_margin_pct,
            stale_rate_days=arbitrage.stale_rate_days,
            price_ends_after=timedelta(hours=arbitrage.stale_price_hours),
        )

    def tell_opportunities(self) -> "ToldOpportunities":
        """Tell people of new opportunities, after a comparison; how many a user is told within an hour is that of deals.

        Raises:
            TableInvalid: see `reckoning`.
        """
        from keeper.opportunity_alerts import tell_opportunities

        now = self.now()
        return tell_opportunities(
            self.engine,
            now=now,
            least_roi_pct=self.settings.arbitrage.least_roi_pct,
            most_per_hour=self.settings.reports.instant_per_hour,
            reckon=lambda connection, profile: self.reckoning(connection, on=now.date(), profile=profile),
        )

    def rates_url(self) -> str:
        """Where the reference rates are.

        Raises:
            NotConfigured: nowhere.
        """
        url = self.settings.arbitrage.rates_url
        if url == NO_RATES:
            raise NotConfigured("KEEPER_ARBITRAGE_RATES_URL is none, so nobody is asked; exchange_rates.csv says what counts")
        return url

    def know_exchange_rates(self) -> list[str]:
        """Know the file's rates, and the ECB's where it was not read for some hours. Returns what there is to say; fails for no network.

        In a simulator's time nobody knows the rates of the day: there the ECB is asked by hand only.

        Raises:
            TableInvalid: the file cannot be used.
        """
        arbitrage = self.settings.arbitrage
        load_seeds(self.engine, read_seed_rates(arbitrage.tables))
        said = ""
        if arbitrage.rates_url != NO_RATES and not self.settings.is_simulated:
            said = keep_fresh(self.engine, url=arbitrage.rates_url, timeout_seconds=arbitrage.rates_timeout_seconds)
        with self.engine.begin() as connection:
            on = installation.select_now(connection).date()
            rates = select_rates(connection, on=on)
        troubles = tell_age(rates, self.compared_currencies(), on=on, stale_after_days=arbitrage.stale_rate_days)
        return ([said] if said else []) + troubles

    def reckoning(self, connection: Connection, *, on: date, profile: Mapping[str, Any] | None = None) -> Reckoning:
        """What profits are reckoned with; read anew each time, so that a changed table counts at once.

        Args:
            on: the day whose rows count.
            profile: of a seller; None for the operator's default one.

        Raises:
            SellerFileUnusable, SellerProfileInvalid, TableInvalid: see there.
        """
        arbitrage = self.settings.arbitrage
        seller = self.default_seller() if profile is None else read_seller(profile)
        return Reckoning(seller, read_tables(arbitrage.tables), select_rates(connection, on=on), on, arbitrage.stale_rate_days)

    def revise_products(self, connection: Connection, asins: Collection[str]) -> None:
        """The opportunities of these products are others: so are their documents. For `compare`, in the transaction that changes them."""
        raise_revisions(connection, asins, now=installation.select_now(connection), routes=lock_routes(connection))

    def _read_groups(self) -> tuple[list[ProductGroup], list[str]]:
        if self._groups is None:
            self._groups = read_files(self.settings.deals.groups, ".toml", lambda path: parse_group(path.stem, read_text(path)))
            for trouble in self._groups[1]:
                logger.error("%s", trouble)
        return self._groups

    def deal_marketplaces(self) -> tuple[Marketplace, ...]:
        """The stores that are collected in.

        Raises:
            WordsUnclear: one of them is none.
        """
        return read_marketplaces(self.settings.deals.marketplaces)

    @property
    def report_settings(self) -> ReportSettings:
        """What a daily report holds."""
        reports = self.settings.reports
        return ReportSettings(reports.deals_per_filter, reports.chart_days, reports.users_at_once)

    def cipher(self) -> ChannelCipher:
        """The cipher of channel URLs, checked against the fingerprint the database keeps.

        Raises:
            ChannelKeyMissing, ChannelKeyMismatch: see there.
        """
        cipher = channel_cipher(self.settings)
        with self.engine.begin() as connection:
            installation.check_channel_key(connection, list(cipher.fingerprints))
        return cipher

    def sender(self) -> ChannelSender:
        """What sends to channels."""
        return channel_sender(self.settings)

    def alert_sink(self) -> AlertSink:
        """The sink of alerts."""
        return AlertSink(self.engine, self.sender(), self.cipher())

    def sinks(self) -> list[DeliverySink]:
        """Everything events go to by these settings, made once. Nothing is asked of the network.

        One whose settings cannot work is down and says why; the others work. Enrichment is there with Kafka too: it takes nothing new
        then, and what was queued before Kafka came is worked off.
        """
        names = [Sink.NOTIFY, *configured_sinks(self.settings)]
        if Sink.SEARCH in names and Sink.ENRICH not in names:
            names.append(Sink.ENRICH)
        with self._opening:
            return [self._known_sink(name) for name in names]

    def _known_sink(self, name: Sink) -> DeliverySink:
        if name not in self._sinks:
            try:
                self._sinks[name] = self._sink(name)
            except KeeperError as error:
                return UnusableSink(name, str(error))
        return self._sinks[name]

    def _sink(self, name: Sink) -> DeliverySink:
        match name:
            case Sink.NOTIFY:
                return self.alert_sink()
            case Sink.KAFKA:
                from keeper.kafka.producer import KafkaSink

                return self._kept(KafkaSink(self.kafka_connection(), self.topic_settings()))
            case Sink.SEARCH:
                from keeper.search.sink import SearchSink

                return self._kept(SearchSink(self.search_connection()))
            case Sink.ENRICH:
                return EnrichSink(self.engine, self.product_index())

    def product_index(self) -> "ProductWriter":
        """The index `products`."""
        from keeper.search.products import ProductWriter

        return self._kept(ProductWriter(self.search_connection()))

    def kafka_connection(self) -> "KafkaConnection":
        """See `kafka_connection`."""
        return kafka_connection(self.settings)

    def topic_settings(self) -> "TopicSettings":
        """See `topic_settings`."""
        return topic_settings(self.settings)

    def search_connection(self) -> "SearchConnection":
        """See `search_connection`."""
        return search_connection(self.settings)

    def consumer(self, topic: "Topic", group: "Group") -> "TopicConsumer":
        """A member of a consumer group. Nothing is asked of the network.

        Raises:
            NotConfigured: there is no Kafka.
        """
        from keeper.kafka.consumer import TopicConsumer

        batch_size = self.settings.consume.batch_size
        return self._kept(TopicConsumer(self.kafka_connection(), topic, group, self.topic_settings(), batch_size=batch_size))

    def publisher(self) -> "Publisher":
        """What sends to Kafka beside the sink.

        Raises:
            NotConfigured: there is no Kafka.
        """
        from keeper.kafka.producer import Publisher

        return self._kept(Publisher(self.kafka_connection(), self.topic_settings()))

    def search_client(self) -> "Elasticsearch":
        """Elasticsearch's own client, made once.

        Raises:
            NotConfigured: there is no Elasticsearch.
        """
        from keeper.search.connection import open_client as open_search_client

        with self._opening:
            if self._search_client is None:
                self._search_client = self._kept(open_search_client(self.search_connection()))
            return self._search_client

    @contextlib.contextmanager
    def searcher(self) -> "Iterator[Searcher]":
        """What answers searches: Elasticsearch where there is one, else PostgreSQL in a transaction of its own."""
        if self.settings.elasticsearch.url:
            from keeper.search.query import ElasticsearchSearcher

            yield ElasticsearchSearcher(self.search_client(), self.search_connection())
            return
        from keeper.postgres.search import PostgresSearcher

        with self.engine.begin() as connection:
            yield PostgresSearcher(connection)

    def _kept(self, opened: C) -> C:
        """To be closed with the rest."""
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        """End every connection."""
        for opened in self._opened:
            opened.close()
        if self.client is not None:
            self.client.close()
        self.engine.dispose()


def _check_group(name: str, group: str | None, groups: Collection[str]) -> None:
    if group is not None and group not in groups:
        raise DealFileInvalid(
            f"{name}: there is no product group {group!r}; there is {', '.join(sorted(groups)) or 'none'} (KEEPER_DEALS_GROUPS)"
        )


def read_files(words: Sequence[str], ending: str, read: Callable[[Path], T]) -> tuple[list[T], list[str]]:
    """What these files hold, and those of the folders among them, in their order; relative ones from where `.env` is.

    Of several files of the same name none is read: their passes and deals would be taken for each other's.

    Returns:
        What could be read, and in words what could not.
    """
    troubles: list[str] = []
    files: dict[Path, None] = {}
    for word in () if words == ("none",) else words:
        path = Path(os.path.normpath(HOME / word))
        if path.exists():
            files |= dict.fromkeys(sorted(path.glob(f"*{ending}")) if path.is_dir() else [path])
        else:
            troubles.append(f"there is no file or folder {word}; the settings KEEPER_DEALS_* name it")
    found: list[T] = []
    for path in files:
        same = [str(other) for other in files if other.name == path.name]
        if len(same) > 1:
            if same[0] == str(path):
                troubles.append(f"{' and '.join(same)} have the same name, by which their deals are known; rename all but one")
            continue
        try:
            found.append(read(path))
        except (DealFileInvalid, ProductGroupInvalid) as error:
            troubles.append(str(error))
    return found, troubles


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DealFileInvalid: it cannot be read, or is no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DealFileInvalid(f"{path.name} cannot be read: {error}") from error


def channel_sender(settings: Settings) -> ChannelSender:
    """What sends to channels; needs no database."""
    channels = settings.channels
    return ChannelSender(
        connect_timeout_seconds=channels.connect_timeout_seconds,
        read_timeout_seconds=channels.read_timeout_seconds,
        allowed_schemes=channels.schemes,
    )


def machine_now() -> datetime:
    """The machine's clock, for plumbing; business time is `Resources.now`."""
    return datetime.now(UTC)  # noqa: TID251  one of the few places that ask for it


def kafka_connection(settings: Settings) -> "KafkaConnection":
    """Where Kafka is.

    Raises:
        NotConfigured: nowhere.
    """
    from keeper.kafka.connection import KafkaConnection

    kafka = settings.kafka
    if kafka.bootstrap_servers is None:
        raise NotConfigured("there is no Kafka: set KEEPER_KAFKA_BOOTSTRAP_SERVERS (`make services` starts one)")
    return KafkaConnection(
        bootstrap_servers=kafka.bootstrap_servers,
        topic_prefix=kafka.topic_prefix,
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_username=kafka.sasl_username,
        sasl_password=_revealed(kafka.sasl_password),
        ca_file=kafka.ca_file,
        cert_file=kafka.cert_file,
        key_file=kafka.key_file,
        compression=kafka.compression,
        connect_timeout_seconds=kafka.connect_timeout_seconds,
        delivery_timeout_seconds=kafka.delivery_timeout_seconds,
    )


def topic_settings(settings: Settings) -> "TopicSettings":
    """How topics are made."""
    from keeper.kafka.topics import TopicSettings

    kafka = settings.kafka
    return TopicSettings(kafka.partitions, kafka.replication, kafka.min_insync, kafka.retention_days)


def search_connection(settings: Settings) -> "SearchConnection":
    """Where Elasticsearch is.

    Raises:
        NotConfigured: nowhere.
    """
    from keeper.search.connection import SearchConnection

    search = settings.elasticsearch
    if not search.url:
        raise NotConfigured("there is no Elasticsearch: set KEEPER_ELASTICSEARCH_URL (`make services` starts one)")
    return SearchConnection(
        urls=search.url,
        api_key=_revealed(search.api_key),
        username=search.username,
        password=_revealed(search.password),
        ca_file=search.ca_file,
        index_prefix=search.index_prefix,
        timeout_seconds=search.timeout_seconds,
        shards=search.shards,
        replicas=search.replicas,
    )


def configured_sinks(settings: Settings) -> list[Sink]:
    """Where events go by these settings, beside people's channels."""
    sinks = []
    if settings.kafka.bootstrap_servers is not None:
        sinks.append(Sink.KAFKA)
    if settings.elasticsearch.url:
        sinks.append(Sink.SEARCH)
        if Sink.KAFKA not in sinks:
            sinks.append(Sink.ENRICH)
    return sinks


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def channel_cipher(settings: Settings) -> ChannelCipher:
    """The cipher of channel URLs by these settings alone; `Resources.cipher` asks the database, too.

    Raises:
        ChannelKeyMissing, ChannelKeyWrong: see there.
    """
    keys = settings.channels.keys
    if keys is not None:
        return ChannelCipher([key.strip() for key in keys.get_secret_value().split(",") if key.strip()])
    if settings.database_url is None:
        return ChannelCipher([load_or_create_key(settings.data / "channel.key")])
    raise ChannelKeyMissing(
        "set KEEPER_CHANNELS_KEYS: with a database of your own Keeper makes no key, because other machines need the same one. "
        "`keeper channel key` prints a new one"
    )


def postgres_programs(settings: Settings, engine: Engine) -> Programs:
    """PostgreSQL's programs for this database: those of KEEPER_POSTGRES_BIN, else those installed with Keeper.

    Raises:
        BinariesMissingError: there are none.
    """
    return Programs(embedded_server(settings).program(DUMP).parent, engine)


def embedded_server(settings: Settings) -> EmbeddedServer:
    """The embedded server of these settings; nothing is started."""
    return EmbeddedServer(settings.data.resolve() / "postgres", bin_folder=settings.postgres.bin, tcp_port=settings.postgres.port)


def database_name(settings: Settings) -> str:
    """The embedded server keeps the two Keepas in two databases."""
    return "keeper_simulator" if settings.is_simulated else "keeper"


def open_database(settings: Settings, *, application_name: str = "keeper") -> Engine:
    """An engine on the configured database; the embedded server is started where none is configured.

    Raises:
        KeeperError: the embedded server cannot be started.
    """
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
    else:
        server = embedded_server(settings)
        server.start()
        server.create_database(database_name(settings), exist_ok=True)
        url = server.dsn(database_name(settings))
    return open_engine(
        url,
        pool_size=settings.postgres.pool_size,
        connect_timeout_seconds=settings.postgres.connect_timeout_seconds,
        statement_timeout_seconds=settings.postgres.statement_timeout_seconds,
        application_name=application_name,
    )


def simulator_note(settings: Settings) -> Path:
    """Where a running simulator leaves its address."""
    return settings.data / "simulator.json"


def keepa_url(settings: Settings) -> str:
    """Where Keepa is.

    Raises:
        NoKeepa: no key, and no simulator known.
    """
    if not settings.is_simulated:
        return settings.keepa.url
    if settings.keepa.simulator_url:
        return settings.keepa.simulator_url
    note = simulator_note(settings)
    if note.exists():
        with contextlib.suppress(ValueError, KeyError):
            return str(json.loads(note.read_text())["url"])
    raise NoKeepa(
        "there is no Keepa: set KEEPER_KEEPA_API_KEY, or start the simulator with `keeper simulator` (or everything with `make up`)"
    )


def open_client(settings: Settings) -> KeepaClient:
    """The one client of this process."""
    key = settings.keepa.api_key.get_secret_value() if settings.keepa.api_key else SIMULATOR_KEY
    return KeepaClient(
        key,
        base_url=keepa_url(settings),
        has_secret_key=not settings.is_simulated,
        connect_timeout_seconds=settings.keepa.connect_timeout_seconds,
        read_timeout_seconds=settings.keepa.read_timeout_seconds,
        offers_read_timeout_seconds=settings.keepa.offers_read_timeout_seconds,
        max_connections=settings.keepa.requests_at_once,
    )


@contextlib.contextmanager
def open_resources(settings: Settings | None = None, *, keepa: bool = True, application_name: str = "keeper") -> Iterator[Resources]:
    """Everything a command needs, closed at the end.

    Args:
        keepa: whether Keepa is needed for sure; without, nothing is asked of it before the first use of `Resources.keepa`.

    Raises:
        KeeperError: says what is missing and what to do.
    """
    resources = make_resources(settings or read_settings(), keepa=keepa, application_name=application_name)
    try:
        yield resources
    finally:
        resources.close()


def make_resources(settings: Settings, *, keepa: bool = True, application_name: str = "keeper") -> Resources:
    """`open_resources` without the end; the caller closes."""
    engine = open_database(settings, application_name=application_name)
    source = SIMULATOR if settings.is_simulated else KEEPA
    try:
        with engine.begin() as connection:
            is_ready = installation.check_schema(connection)
        if not is_ready:
            if settings.database_url is not None:
                raise NotMigrated("the database is not migrated to this version of Keeper; run `keeper migrate`")
            migrate_database(engine)
        with engine.begin() as connection:
            installation.claim_source(connection, source)
        wanted = {sink: KINDS[sink] for sink in configured_sinks(settings)}
        for name in switch_configured(engine, wanted, from_oldest=settings.relay.start == "oldest"):
            logger.info("%s receives events from now on", name)
        resources = Resources(settings, engine, None, source)
        if keepa:
            _ = resources.keepa
        return resources
    except OperationalError as error:
        engine.dispose()
        raise DatabaseUnreachable(f"PostgreSQL does not answer: {str(error.orig).strip().splitlines()[0]}") from None
    except BaseException:
        engine.dispose()
        raise


def migrate_database(engine: Engine, target: str = "head") -> str | None:
    """Bring the database to this code's schema. Alembic is imported here only: a run that needs no migration saves its import."""
    from keeper.postgres.migrate import migrate

    return migrate(engine, now=datetime.now(UTC), target=target)  # noqa: TID251  before the schema there is no keeper_now()


def agree_on_clock(engine: Engine, simulator_url: str) -> ClockNumbers:
    """One business time for the database and the simulator: the database's, where it has one, else the simulator's.

    Raises:
        NoKeepa: the simulator does not answer.
    """
    with engine.begin() as connection:
        known = installation.lock_clock(connection)
        state = _control(simulator_url, "state")
        theirs = ClockNumbers(float(state["anchor_machine"]), float(state["anchor_simulated"]), float(state["speed"]))
        if known is None:
            installation.update_clock(connection, theirs)
            return theirs
        if known != theirs:
            _set_simulator_clock(simulator_url, known)
        return known


def jump_clock(engine: Engine, simulator_url: str, *, seconds: float = 0.0, speed: float | None = None) -> ClockNumbers:
    """Move business time forward, or change its speed, in the database and the simulator under one lock."""
    with engine.begin() as connection:
        known = installation.lock_clock(connection)
        state = _control(simulator_url, "state")
        numbers = known or ClockNumbers(float(state["anchor_machine"]), float(state["anchor_simulated"]), float(state["speed"]))
        machine = datetime.now(UTC).timestamp()  # noqa: TID251  the clock itself is moved here
        business = numbers.anchor_business + numbers.speed * (machine - numbers.anchor_machine) + seconds
        moved = ClockNumbers(machine, business, speed if speed is not None else numbers.speed)
        installation.update_clock(connection, moved)
        _set_simulator_clock(simulator_url, moved)
        return moved


def fetch_simulator_state(simulator_url: str) -> dict[str, Any]:
    """What the simulator says of itself: clock, catalog, balances by key.

    Raises:
        NoKeepa: it does not answer.
    """
    return _control(simulator_url, "state")


def now_of(connection: Connection) -> datetime:
    """Business time on an open connection."""
    return installation.select_now(connection)


def _set_simulator_clock(simulator_url: str, numbers: ClockNumbers) -> None:
    _control(
        simulator_url,
        "clock",
        {"anchor_machine": numbers.anchor_machine, "anchor_simulated": numbers.anchor_business, "speed": numbers.speed},
    )


def _control(simulator_url: str, name: str, body: dict[str, float] | None = None) -> dict[str, Any]:
    url = f"{simulator_url.rstrip('/')}/_simulator/{name}"
    try:
        answer = httpx.get(url, timeout=_CONTROL_TIMEOUT) if body is None else httpx.post(url, json=body, timeout=_CONTROL_TIMEOUT)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
    except (httpx.HTTPError, ValueError) as error:
        raise NoKeepa(
            f"the simulator at {simulator_url} does not answer ({type(error).__name__}); start it with `keeper simulator`"
        ) from None


_process_lock = threading.Lock()
_process: Resources | None = None


def process_resources() -> Resources:
    """The resources of this process, made once: what tasks use. A flow that asks nothing of Keepa runs without it."""
    global _process
    with _process_lock:
        if _process is None:
            _process = make_resources(read_settings(), keepa=False, application_name="keeper run")
            atexit.register(_process.close)
        return _process
