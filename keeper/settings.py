"""Every setting, read in one place: environment variables KEEPER_<NAME> and KEEPER_<GROUP>_<NAME>, or the same in a file `.env`."""

import re
from decimal import Decimal
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import COMPARED
from keeper.notify.channels import DEFAULT_SCHEMES

# A run of a Prefect worker starts in a folder of its own; `.env` and `.keeper` are those of the checkout all the same.
_CHECKOUT = Path(__file__).parents[1]
HOME = _CHECKOUT if (_CHECKOUT / "prefect.yaml").exists() else Path.cwd()

Words = Annotated[tuple[str, ...], NoDecode]


class SettingsInvalid(KeeperError):
    """A setting that cannot be used; names the variable."""


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _without_unset(values: Any) -> Any:
    """What is set and empty has its default, whatever its type."""
    return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values


def _plain_address(url: str, advice: str) -> str:
    """Of what is logged and shown, so it may hold no secret."""
    if not re.fullmatch(r"https?://[^@\s/?#]+(/[^@\s?#]*)?", url):
        raise ValueError(f"must be http(s)://host:port without user and password; {advice}")
    return url


class _Group(BaseModel):
    model_config = {"extra": "forbid", "frozen": True}

    _unset = model_validator(mode="before")(_without_unset)


class KeepaSettings(_Group):
    """How Keepa is asked."""

    api_key: SecretStr | None = Field(None, description="The key of your Keepa subscription. Without it Keeper uses the simulator")
    url: str = Field("https://api.keepa.com", description="Keepa's address")
    simulator_url: str | None = Field(
        None, description="Address of a running simulator (`keeper simulator` prints it); used when there is no key"
    )
    connect_timeout_seconds: float = Field(10, gt=0, le=120, description="Longest wait for a connection, seconds")
    read_timeout_seconds: float = Field(30, gt=0, le=600, description="Longest silence of the server, seconds")
    offers_read_timeout_seconds: float = Field(120, gt=0, le=600, description="The same for requests with live offers, seconds")
    requests_at_once: int = Field(5, ge=1, le=50, description="Requests in flight")
    batch_size: int = Field(100, ge=1, le=100, description="Products in one request")


class TokensSettings(_Group):
    """How the token budget is shared."""

    user_share_pct: float = Field(
        5, ge=0, le=90, description="Share of the bucket that background jobs leave for people's own checks, percent"
    )
    lease_seconds: float = Field(
        600, ge=30, le=86400, description="After so long the reservation of a dead process is written off, seconds of the machine"
    )
    longest_wait_seconds: float = Field(
        120, ge=0, le=3600, description="How long a retry or a person's own check waits for tokens, seconds of the machine"
    )


class PostgresSettings(_Group):
    """The database."""

    bin: Path | None = Field(None, description="Folder with the programs of another PostgreSQL for the embedded server")
    port: int | None = Field(
        None, ge=0, le=65535, description="TCP port of the embedded server on 127.0.0.1; unset: a Unix socket only; 0: any free port"
    )
    pool_size: int = Field(8, ge=1, le=100, description="Connections of one process")
    connect_timeout_seconds: int = Field(10, ge=1, le=120, description="Longest wait for a connection, seconds")
    statement_timeout_seconds: float = Field(60, gt=0, le=3600, description="A statement is cancelled after so many seconds")


class ChannelsSettings(_Group):
    """Where alerts may go."""

    keys: SecretStr | None = Field(
        None,
        description="Keys of channel URLs, comma separated: the first encrypts, all decrypt. Made by itself with the embedded server",
    )
    schemes: Words = Field(DEFAULT_SCHEMES, description="Apprise schemes a channel may have, comma separated")
    connect_timeout_seconds: float = Field(10, gt=0, le=120, description="Longest wait for a channel's connection, seconds")
    read_timeout_seconds: float = Field(20, gt=0, le=300, description="Longest silence of a channel, seconds")
    most_tries: int = Field(12, ge=1, le=1000, description="After so many refusals a message goes to the dead letters")
    first_wait_seconds: float = Field(
        15, gt=0, le=3600, description="Wait after the first refusal; doubled each time, with jitter, seconds"
    )
    longest_wait_seconds: float = Field(3600, gt=0, le=86400, description="Ceiling of that wait, seconds")

    _split = field_validator("schemes", mode="before")(_words)


class KafkaSettings(_Group):
    """The broker that carries the events; off without an address."""

    bootstrap_servers: str | None = Field(None, description="Brokers as host:port, comma separated. Set, it switches Kafka on")
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,50}$", description="Put before the name of each topic and consumer group")
    partitions: int = Field(3, ge=1, le=1000, description="Partitions of a topic Keeper makes")
    replication: int = Field(1, ge=1, le=9, description="Copies of each partition of a topic Keeper makes")
    min_insync: int = Field(1, ge=1, le=9, description="Copies that must have a message before it counts as delivered")
    retention_days: int = Field(7, ge=1, le=3650, description="How long a topic Keeper makes keeps its messages, days")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field("lz4", description="Compression of what Keeper produces")
    connect_timeout_seconds: float = Field(5, gt=0, le=120, description="Longest wait for a broker's answer, seconds")
    delivery_timeout_seconds: float = Field(30, gt=0, le=600, description="Longest wait for a message's acknowledgement, seconds")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(None, description="SASL mechanism")
    sasl_username: str | None = Field(None, description="SASL user")
    sasl_password: SecretStr | None = Field(None, description="SASL password")
    ca_file: Path | None = Field(None, description="Certificates (PEM) that may sign a broker's; unset: those of the system")
    cert_file: Path | None = Field(None, description="Keeper's own certificate (PEM), for brokers that ask for one")
    key_file: Path | None = Field(None, description="Its private key (PEM)")

    @model_validator(mode="after")
    def _copies_are_enough(self) -> Self:
        if self.min_insync > self.replication:
            raise ValueError("KEEPER_KAFKA_MIN_INSYNC must not exceed KEEPER_KAFKA_REPLICATION, or nothing could be produced")
        return self


class ElasticsearchSettings(_Group):
    """The search engine; off without an address, then PostgreSQL searches."""

    url: Words = Field(
        (), description="Addresses of its nodes, comma separated, without user and password. Set, it switches Elasticsearch on"
    )
    api_key: SecretStr | None = Field(None, description="API key, as Elasticsearch encodes it")
    username: str | None = Field(None, description="User, where there is no API key")
    password: SecretStr | None = Field(None, description="Password of that user")
    ca_file: Path | None = Field(None, description="Certificates (PEM) that may sign a node's; unset: those of the system")
    index_prefix: str = Field("", pattern=r"^[a-z0-9._-]{0,50}$", description="Put before the name of each index and alias")
    shards: int = Field(1, ge=1, le=100, description="Shards of an index Keeper makes")
    replicas: int = Field(0, ge=0, le=8, description="Copies of each shard beside the first")
    timeout_seconds: float = Field(30, gt=0, le=600, description="Longest wait for an answer, seconds")
    metrics_days: int = Field(90, ge=1, le=3650, description="Documents of keeper-metrics are kept so long, days")
    prices_days: int | None = Field(None, ge=1, le=36500, description="Documents of keeper-prices are kept so long, days; unset: for good")

    _split = field_validator("url", mode="before")(_words)

    @field_validator("url")
    @classmethod
    def _no_secret_in_it(cls, url: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_plain_address(one, "those have settings of their own") for one in url)


class RelaySettings(_Group):
    """How events reach Kafka and Elasticsearch."""

    start: Literal["oldest", "now"] = Field(
        "oldest", description="A system that is switched on gets the events still kept (oldest), or only those to come (now)"
    )
    largest_backlog: int = Field(100_000, ge=1, description="More messages waiting for one system are a warning in `keeper status`")


class ConsumeSettings(_Group):
    """The consumers of Kafka's topics."""

    batch_size: int = Field(500, ge=1, le=10_000, description="Most messages worked on at once")
    watch_user: str | None = Field(None, description="User for whom a foreign deal's product is watched, without a target; unset: nobody")


class ApiSettings(_Group):
    """The REST API."""

    host: str = Field("127.0.0.1", description="Address it listens on")
    port: int = Field(8000, ge=0, le=65535, description="Port it listens on; 0: any free one")
    auth: Literal["on", "off"] = Field("on", description="Whether callers need an API key; off only where it listens on this machine alone")
    user: str | None = Field(None, description="Whose watches callers see where no key is needed; unset: the only user there is")
    cors_origins: Words = Field((), description="Origins whose pages may call it from a browser, comma separated; * for any")
    tls_cert: Path | None = Field(
        None, description="Its certificate and those that signed it (PEM). Set with KEEPER_API_TLS_KEY, it speaks HTTPS and nothing else"
    )
    tls_key: Path | None = Field(None, description="The certificate's private key (PEM), without a password")
    trusted_proxies: Words = Field(
        (), description="Addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, comma separated"
    )
    failed_tries_per_minute: int = Field(
        60, ge=1, le=1_000_000, description="Keys that are none from one address within a minute, before it answers 429"
    )
    requests_per_minute: int = Field(600, ge=1, le=1_000_000, description="Requests of one API key within a minute, before it answers 429")
    largest_body_bytes: int = Field(8 * 1024 * 1024, ge=1024, le=1 << 30, description="Largest request body, bytes")
    threads: int = Field(8, ge=1, le=100, description="Requests worked on at a time; each has a connection to the database")
    statement_timeout_seconds: float = Field(10, gt=0, le=600, description="A slower query is cancelled and answered with 503, seconds")
    longest_check_wait_seconds: float = Field(
        10, ge=0, le=300, description="How long a price check waits for tokens before it answers 503, seconds"
    )

    _split = field_validator("cors_origins", "trusted_proxies", mode="before")(_words)

    @field_validator("trusted_proxies")
    @classmethod
    def _not_everybody(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for one in addresses:
            try:
                network = ip_network(one)
            except ValueError:
                raise ValueError("must be addresses and networks, like 10.0.0.7 or 10.1.0.0/16; * would believe everybody") from None
            if network.prefixlen == 0:
                raise ValueError("must not be everybody, or anyone could say to come from anywhere")
        return addresses

    @model_validator(mode="after")
    def _has_both_or_none(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("KEEPER_API_TLS_CERT and KEEPER_API_TLS_KEY need each other")
        return self


class DashboardSettings(_Group):
    """The dashboard."""

    host: str = Field("127.0.0.1", description="Address it listens on; elsewhere than on this machine it needs an API that asks for keys")
    port: int = Field(8501, ge=0, le=65535, description="Port it listens on; 0: any free one")
    api_url: str | None = Field(
        None, description="Address of the REST API it asks, like http://127.0.0.1:8000; unset: that of this machine"
    )
    ca_file: Path | None = Field(None, description="Certificates (PEM) that may sign the API's; unset: those of the system")


class DealsSettings(_Group):
    """What is collected."""

    queries: Words = Field(
        ("seeds/deals",), description="Queries of Keepa's feed of deals: TOML files or folders of them, separated by commas; none for none"
    )
    seeds: Words = Field(
        ("seeds/keyboards.csv",),
        description="Products looked at in every collection: CSV files or folders of them, separated by commas; none for none",
    )
    groups: Words = Field(("seeds/groups",), description="Product groups: TOML files or folders of them, separated by commas")
    marketplaces: Words = Field(("DE",), description="Stores whose queries are asked and in which the seeds are looked at")
    share_pct: float = Field(25, gt=0, le=100, description="Share of the refill that collecting deals may spend, percent of an hour's")
    least_fall_pct: float = Field(10, ge=0, le=99, description="A seed below its list price or 90-day median by so much is a deal, percent")
    seeds_minutes: float = Field(50, ge=1, le=10080, description="A seed checked within so long is not asked again, minutes")
    ends_after_hours: float = Field(
        24,
        ge=1,
        le=2160,
        description="A deal nobody has seen for so long is over, one of the feed where its query was read on past it, hours",
    )
    sightings_days: int = Field(90, ge=1, le=3650, description="When and where a deal was seen is kept so long, days")

    _split = field_validator("queries", "seeds", "groups", "marketplaces", mode="before")(_words)


class ReportsSettings(_Group):
    """What people are told of deals."""

    deals_per_filter: int = Field(10, ge=1, le=100, description="Deals of each filter in a daily report")
    chart_days: int = Field(90, ge=7, le=365, description="How far back the price charts of a report reach, days")
    users_at_once: int = Field(1000, ge=1, le=10_000, description="Users whose reports are composed together, with the same few queries")
    instant_per_hour: int = Field(
        5, ge=0, le=1000, description="Deals told at once to one user within an hour; the rest waits for their report"
    )
    api_url: str | None = Field(
        None,
        description="Address of the REST API whose answer time the operations report tells, like http://127.0.0.1:8000; unset: not asked",
    )
    api_asks: int = Field(5, ge=1, le=100, description="How often it is asked for that")


class DiscoverySettings(_Group):
    """How the catalog grows by itself."""

    files: Words = Field(
        ("seeds/discovery",),
        description="Lists of bestsellers and finder queries to discover products by: TOML files or folders of them, separated by commas; "
        "none for none",
    )
    most_products: int = Field(10000, ge=1, le=10_000_000, description="The catalog grows to so many products with prices, in all stores")
    share_pct: float = Field(10, gt=0, le=100, description="Share of the refill that discovering may spend, percent of an hour's")
    most_per_run: int = Field(5000, ge=1, le=1_000_000, description="Products that one run fetches at most")
    deal_days: int = Field(30, ge=1, le=3650, description="Products of deals seen within so long are candidates, days")

    _split = field_validator("files", mode="before")(_words)


class ArbitrageSettings(_Group):
    """How stores are compared, and for which seller."""

    marketplaces: Words = Field(COMPARED, description="Stores that are compared with each other, in every direction; two at least")
    price_type: Literal["NEW", "BUY_BOX_SHIPPING", "NEW_FBA"] = Field(
        "NEW",
        description="Prices that are compared: NEW (a token a product and store), BUY_BOX_SHIPPING (3 tokens) or NEW_FBA (up to 12 tokens, "
        "because Keepa asks the sellers)",
    )
    least_margin_pct: Decimal = Field(
        Decimal(10),
        ge=0,
        le=1000,
        decimal_places=2,
        description="A gross gap of more than so much of the purchase price is an opportunity, percent",
    )
    least_roi_pct: Decimal = Field(
        Decimal(20),
        ge=0,
        le=10_000,
        decimal_places=2,
        description="New opportunities with a true return of so much of what is invested are announced, percent",
    )
    seller: Path = Field(
        Path("seeds/seller.toml"),
        validate_default=True,
        description="TOML or JSON file of the seller whose true profit is reckoned where nobody has a profile",
    )
    tables: Path = Field(
        Path("seeds"),
        validate_default=True,
        description="Folder of vat.csv, the tables of fees, borders.csv, fee_categories.csv and exchange_rates.csv",
    )
    stale_rate_days: int = Field(7, ge=0, le=3650, description="An older exchange rate makes a result stale, days")
    stale_price_hours: float = Field(
        72, gt=0, le=8760, description="A price nobody has checked for so long counts no more, and its opportunities end, hours"
    )
    share_pct: float = Field(30, gt=0, le=100, description="Share of the refill that comparing stores may spend, percent of an hour's")
    fresh_hours: float = Field(2, gt=0, le=720, description="A product checked within so long is not asked for again, hours")
    categories: Words = Field(
        (), description="Bestseller lists whose products are compared, as DE:340843031 (store and Keepa's id), separated by commas"
    )
    most_per_list: int = Field(500, ge=1, le=500_000, description="Products taken from the top of each of these lists and finder queries")
    finder: Words = Field(
        ("none",),
        description="Finder queries whose products are compared: files as in KEEPER_DISCOVERY_FILES, separated by commas; none for none",
    )
    deal_days: int = Field(7, ge=1, le=3650, description="Products of deals seen within so long are compared, days")
    most_asins: int = Field(10_000, ge=1, le=10_000_000, description="Products that are compared at most; watched ones go first")
    rates_url: str = Field(
        "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-daily.xml",
        pattern=r"^(none|https?://[^@\s]+)$",
        description="Address of the ECB's daily reference rates as XML; none: only exchange_rates.csv counts",
    )
    rates_timeout_seconds: float = Field(10, gt=0, le=120, description="Longest wait for them, seconds")

    _split = field_validator("marketplaces", "categories", "finder", mode="before")(_words)

    @field_validator("seller", "tables")
    @classmethod
    def _below_home(cls, path: Path) -> Path:
        return HOME / path


class KeepSettings(_Group):
    """What is kept how long."""

    events_days: int = Field(7, ge=1, le=3650, description="Events are kept so long, and longer while a sink waits for them, days")
    calls_days: int = Field(90, ge=1, le=3650, description="Rows of keepa_calls are kept so long, days")
    dead_letters_days: int = Field(90, ge=1, le=3650, description="Dead letters are kept in PostgreSQL so long, days")
    deals_days: int = Field(400, ge=1, le=3650, description="Deals are kept so long after their end, days")
    opportunities_days: int = Field(400, ge=1, le=3650, description="Opportunities are kept so long after their end, days")
    reports_days: int = Field(400, ge=1, le=3650, description="Reports and alerts of deals are kept so long, days")
    audit_days: int = Field(400, ge=1, le=3650, description="The audit log is kept so long, days")


class WatchdogSettings(_Group):
    """When something is a trouble, and who is told."""

    apprise_urls: SecretStr | None = Field(
        None,
        description="Channels of the operators, as Apprise URLs with commas between; told beside the administrators' own channels, and "
        "alone where the database is down",
    )
    heartbeat_url: SecretStr | None = Field(
        None, description="Address that is asked for after each whole round, like that of a dead man's switch; unset: none"
    )
    timeout_seconds: float = Field(5, gt=0, le=60, description="Longest wait for each system that is asked, seconds")
    calm_minutes: float = Field(10, ge=0, le=1440, description="A trouble is over when it was not seen for so long, minutes")
    price_late_minutes: float = Field(20, gt=0, le=10080, description="A check of a price may be overdue for so long, minutes")
    price_late_pct: float = Field(50, ge=0, le=1000, description="And for such a share of its interval, percent")
    failing_pct: float = Field(50, ge=0, le=100, description="Of the products due next so many may have failed last time, percent")
    canary: str | None = Field(
        None, pattern=r"^[A-Z0-9]{10}:[A-Z]{2}$", description="A watch whose price must be fresh, as ASIN:store, like B00OCMRV40:DE"
    )
    canary_late_minutes: float = Field(15, gt=0, le=10080, description="Its price may be older than its interval by so much, minutes")
    runs_late_minutes: float = Field(15, gt=0, le=1440, description="A scheduled run may wait for a worker for so long, minutes")
    outbox_minutes: float = Field(15, gt=0, le=10080, description="A message may wait for its system for so long, minutes")
    lag_minutes: float = Field(15, gt=0, le=10080, description="A message of Kafka's may wait for its consumers for so long, minutes")
    dead_letters: int = Field(0, ge=0, description="Messages given up for a system, or by a consumer, that are no trouble")
    tokens_pct: float = Field(1, ge=0, le=100, description="The balance of tokens may fall to such a share of the bucket, percent")
    tokens_hours: float = Field(24, gt=0, le=720, description="The tokens must last so long for the watches alone, hours")
    foreign_hours: float = Field(24, gt=0, le=720, description="Others who spend Keeper's tokens are told until so long after, hours")
    documents_pct: float = Field(1, ge=0, le=100, description="An index may differ from PostgreSQL by such a share, percent")
    documents_asins: int = Field(100, ge=10, le=10_000, description="It is compared over so many products, each day others")
    disk_free_pct: float = Field(10, ge=0, le=100, description="A disk must have such a share free, percent")
    disks: Words = Field((), description="Folders whose disks are looked at beside that of KEEPER_DATA, comma separated")
    clock_seconds: float = Field(30, gt=0, le=86400, description="The clocks of database and machine may differ by so much, seconds")
    certificates: Words = Field(
        (),
        description="Certificates that must not expire, beside Kafka's and Elasticsearch's: PEM files or https addresses, comma separated",
    )
    certificate_days: float = Field(14, ge=0, le=365, description="A certificate must hold for so long, days")
    partition_days: int = Field(2, ge=0, le=7, description="Partitions must be there so far ahead, days")

    _split = field_validator("disks", "certificates", mode="before")(_words)

    @field_validator("heartbeat_url")
    @classmethod
    def _is_an_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not re.fullmatch(r"https?://\S+", url.get_secret_value()):
            raise ValueError("must be http(s)://…")
        return url


class PrefectSettings(_Group):
    """The runs."""

    limits: bool = Field(True, description="Whether fetches take their slots from Prefect's global limits keepa-requests and keepa-tokens")
    limit_wait_seconds: float = Field(
        300, gt=0, le=3600, description="Longest wait for such a slot; shorter than the lease of a reservation, seconds"
    )
    docker_image: str | None = Field(
        None, description="Image in which the runs of the work pool keeper-heavy have a container each; unset: they are processes, too"
    )
    docker_network: str = Field("keeper", min_length=1, description="Docker network of these containers")
    docker_pull: Literal["Never", "IfNotPresent", "Always"] = Field("IfNotPresent", description="Whether that image is pulled")
    docker_memory: str = Field("1g", pattern=r"^[0-9]+[bkmg]?$", description="Most memory of one of these containers, as Docker writes it")
    webhook_url: SecretStr | None = Field(
        None, description="Prefect's automations tell this address (a POST of JSON) what they noticed; unset: Prefect's UI shows it"
    )
    api_url: str | None = Field(
        None, description="Address of Prefect's API for runs that are asked for, like http://127.0.0.1:4200/api; `make up` knows its own"
    )
    api_auth: SecretStr | None = Field(
        None, description="user:password, where Prefect's server asks for them; the server that `make up` starts asks for these"
    )

    @field_validator("api_url")
    @classmethod
    def _no_secret_in_it(cls, url: str | None) -> str | None:
        return url if url is None else _plain_address(url, "KEEPER_PREFECT_API_AUTH has those")


class MetricsSettings(_Group):
    """What Prometheus reads."""

    host: str = Field("127.0.0.1", description="Address on which /metrics is served")
    port: int = Field(9464, ge=0, le=65535, description="Port of `keeper metrics`; 0: any free one")
    api_port: int | None = Field(
        None, ge=0, le=65535, description="Port on which the REST API tells how long its answers take; unset: nowhere; 0: any free one"
    )
    kept_seconds: float = Field(10, ge=0, le=300, description="Who asks again within so long is told the same, seconds of the machine")


class KibanaSettings(_Group):
    """Kibana, which draws what is in Elasticsearch."""

    url: str | None = Field(
        None,
        pattern=r"^https?://[^@\s/?#]+(/[^@\s?#]*)?$",
        description="Address of Kibana, into which bootstrap brings the dashboards as Elasticsearch's user; unset: into none",
    )
    timeout_seconds: float = Field(60, gt=0, le=600, description="Longest wait for Kibana's answer, seconds")


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix="KEEPER_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_file=HOME / ".env",
        env_parse_none_str="",  # set and empty is not set, whatever `.env` says
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    data: Path = Field(
        Path(".keeper"),
        validate_default=True,
        description="Folder of the embedded server and of what Keeper makes for itself, below the checkout",
    )
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15 or newer, postgresql://user:password@host:port/database. Unset: the embedded server"
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Lowest level that is logged")
    log_format: Literal["text", "json"] = Field("text", description="How services write their logs: lines for people, or JSON objects")
    keepa: KeepaSettings = Field(default_factory=KeepaSettings, description="")
    tokens: TokensSettings = Field(default_factory=TokensSettings, description="")
    postgres: PostgresSettings = Field(default_factory=PostgresSettings, description="")
    channels: ChannelsSettings = Field(default_factory=ChannelsSettings, description="")
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="")
    elasticsearch: ElasticsearchSettings = Field(default_factory=ElasticsearchSettings, description="")
    relay: RelaySettings = Field(default_factory=RelaySettings, description="")
    consume: ConsumeSettings = Field(default_factory=ConsumeSettings, description="")
    api: ApiSettings = Field(default_factory=ApiSettings, description="")
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings, description="")
    deals: DealsSettings = Field(default_factory=DealsSettings, description="")
    reports: ReportsSettings = Field(default_factory=ReportsSettings, description="")
    discovery: DiscoverySettings = Field(default_factory=DiscoverySettings, description="")
    arbitrage: ArbitrageSettings = Field(default_factory=ArbitrageSettings, description="")
    keep: KeepSettings = Field(default_factory=KeepSettings, description="")
    watchdog: WatchdogSettings = Field(default_factory=WatchdogSettings, description="")
    prefect: PrefectSettings = Field(default_factory=PrefectSettings, description="")
    metrics: MetricsSettings = Field(default_factory=MetricsSettings, description="")
    kibana: KibanaSettings = Field(default_factory=KibanaSettings, description="")

    _unset = model_validator(mode="before")(_without_unset)

    @field_validator("data")
    @classmethod
    def _below_home(cls, data: Path) -> Path:
        return HOME / data

    @model_validator(mode="after")
    def _leases_outlast_waits(self) -> Self:
        """A request that waits for its turn must not lose its tokens by waiting alone."""
        waits = self.prefect.limit_wait_seconds + self.tokens.longest_wait_seconds
        if waits >= self.tokens.lease_seconds:
            raise ValueError(
                f"KEEPER_PREFECT_LIMIT_WAIT_SECONDS and KEEPER_TOKENS_LONGEST_WAIT_SECONDS together ({waits:g} s) "
                f"must be shorter than KEEPER_TOKENS_LEASE_SECONDS ({self.tokens.lease_seconds:g} s)"
            )
        return self

    @property
    def api_address(self) -> str:
        """Of the REST API, for who asks it on this machine."""
        return f"{'https' if self.api.tls_cert else 'http'}://127.0.0.1:{self.api.port or 8000}"

    @property
    def is_simulated(self) -> bool:
        """Whether the simulator stands in for Keepa."""
        return self.keepa.api_key is None


def read_settings() -> Settings:
    """The effective settings.

    Raises:
        SettingsInvalid: names each variable that cannot be used, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{variable_of(tuple(map(str, one['loc'])))}: {one['msg']}" if one["loc"] else one["msg"].removeprefix("Value error, ")
            for one in error.errors(include_input=False, include_url=False)
        )
        raise SettingsInvalid(f"{problems}. `keeper settings` lists what each may be") from None


def list_secrets(settings: Settings) -> list[str]:
    """Every secret that is set, whole and in the parts that are secret by themselves: keys of a list, passwords and paths of URLs."""
    found: list[str] = []
    groups = [getattr(settings, name) for name in type(settings).model_fields]
    for group in [settings, *(one for one in groups if isinstance(one, BaseModel))]:
        values = (getattr(group, name) for name in type(group).model_fields)
        for secret in (value.get_secret_value() for value in values if isinstance(value, SecretStr)):
            found += [secret, *(part.strip() for part in secret.split(","))]
    if settings.prefect.api_auth is not None:
        found.append(settings.prefect.api_auth.get_secret_value().partition(":")[2])
    urls = [secret for secret in found if "://" in secret]
    for url in urls:
        user_info, _, _ = url.partition("://")[2].rpartition("@")
        found.append(user_info.partition(":")[2])
    if settings.watchdog.heartbeat_url is not None:
        # The path names who beats; the host is no secret.
        found.append(settings.watchdog.heartbeat_url.get_secret_value().partition("://")[2].partition("/")[2])
    return list(dict.fromkeys(one for one in found if one))


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return read_settings()


def variable_of(path: tuple[str, ...]) -> str:
    """`("keepa", "api_key")` as KEEPER_KEEPA_API_KEY."""
    return "KEEPER_" + "_".join(path).upper()


def list_fields() -> list[tuple[str, str, Any]]:
    """(variable, description, default) of every setting."""
    found: list[tuple[str, str, Any]] = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Group):
            found += [(variable_of((name, inner)), one.description or "", one.default) for inner, one in kind.model_fields.items()]
        else:
            found.append((variable_of((name,)), field.description or "", field.default))
    return found
