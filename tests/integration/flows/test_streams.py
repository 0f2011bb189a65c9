"""The triple write from a flow: what a check records is in PostgreSQL, Kafka and Elasticsearch when the run ends."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from keeper.consume import consume, enrich_batch
from keeper.domain.events import price_event_id
from keeper.kafka.connection import KafkaConnection
from keeper.kafka.consumer import ReceivedMessage, TopicConsumer
from keeper.kafka.producer import Publisher
from keeper.kafka.products import EnrichedTopic
from keeper.kafka.schema import load_schema
from keeper.kafka.topics import Group, Topic, TopicSettings
from keeper.postgres.deals import DEAL_ID
from keeper.search import indices
from keeper.search.connection import SearchConnection, open_client
from keeper.search.mapping import Alias, alias_name
from keeper.search.products import ProductWriter
from tests.services.installation import Installation
from tests.services.session import ElasticsearchService, KafkaService
from tests.services.waiting import wait_until

WATCH = "price_watch.price_watch"
COLLECTION = "deal_collection.deal_collection"


@dataclass
class Streams:
    """An installation with both systems switched on."""

    installation: Installation
    kafka: KafkaConnection
    search: SearchConnection

    def documents(self, alias: Alias) -> dict[str, dict[str, Any]]:
        client = open_client(self.search)
        name = alias_name(self.search, alias)
        indices.refresh(client, self.search, name)
        found = client.search(index=name, size=10_000)["hits"]["hits"]
        client.close()
        return {one["_id"]: one["_source"] for one in found}

    def messages(self, topic: Topic, at_least: int) -> list[ReceivedMessage]:
        """Everything in a topic, read by a group of its own."""
        found: list[ReceivedMessage] = []
        consumer = TopicConsumer(self.kafka, topic, Group.PRICES, batch_size=1000, settings=TopicSettings())
        try:

            def is_enough() -> bool:
                found.extend(consumer.read_batch(0.5))
                return len(found) >= at_least

            wait_until(is_enough, f"{topic} holds too little")
        finally:
            consumer.close()
        return found


@pytest.fixture
def streams(installation: Installation, kafka: KafkaService, elasticsearch: ElasticsearchService) -> Iterator[Streams]:
    installation.environment |= {
        "KEEPER_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KEEPER_KAFKA_TOPIC_PREFIX": kafka.prefix,
        "KEEPER_ELASTICSEARCH_URL": elasticsearch.url,
        "KEEPER_ELASTICSEARCH_INDEX_PREFIX": elasticsearch.prefix,
    }
    yield Streams(
        installation,
        KafkaConnection(kafka.bootstrap_servers, topic_prefix=kafka.prefix),
        SearchConnection(urls=(elasticsearch.url,), index_prefix=elasticsearch.prefix),
    )


def test_what_a_check_recorded_is_in_all_three_when_the_run_ends(streams: Streams) -> None:
    asins = streams.installation.watch(3)
    end = streams.installation.run(WATCH)
    assert (end.state, end.message) == ("Completed", "checked 3, failed 0, 3 tokens")
    events = {str(row.event_id): row for row in streams.installation.rows("SELECT * FROM price_history WHERE event_id IS NOT NULL")}
    assert {row.asin for row in events.values()} == set(asins)
    assert set(streams.documents(Alias.PRICES)) == set(events)
    messages = streams.messages(Topic.PRICE_UPDATES, len(events))
    assert sorted(json.loads(message.value or b"")["event_id"] for message in messages) == sorted(events)
    assert {message.key for message in messages} == {asin.encode() for asin in asins}
    assert streams.installation.count("outbox") == streams.installation.rows("SELECT count(*) FROM outbox WHERE sink = 'search'")[0][0]


def test_what_was_collected_is_in_all_three_when_the_run_ends(streams: Streams) -> None:
    end = streams.installation.run(COLLECTION)
    assert end.state == "Completed", end.message
    deals = {row.deal_id: row for row in streams.installation.rows(f"SELECT *, {DEAL_ID} AS deal_id FROM collected_deals d")}
    documents = streams.documents(Alias.DEALS)
    assert {name: body["revision"] for name, body in documents.items()} == {name: row.revision for name, row in deals.items()}
    announced = {str(row.event_id) for row in deals.values() if row.announced_at is not None}
    # A deal that was seen twice has a message of each: as many as were told, not as deals, or the newest may be among those not read yet.
    told = int(streams.installation.rows("SELECT count(*) FROM events WHERE kind = 'deal_update'")[0][0])
    messages = [json.loads(message.value or b"") for message in streams.messages(Topic.DEAL_UPDATES, told)]
    assert told >= len(announced) > 0
    assert announced <= {message["event_id"] for message in messages}
    assert all(row.announced_at is not None for name, row in deals.items() if name in {message["deal_id"] for message in messages})
    assert streams.installation.rows("SELECT 1 FROM outbox WHERE sink IN ('kafka', 'search')") == []


def test_a_deals_message_and_its_raw_row_are_as_their_schemas_say(streams: Streams) -> None:
    streams.installation.run(COLLECTION, is_with_seeds=False)
    for topic in (Topic.DEAL_UPDATES, Topic.RAW_DEALS):
        validator = Draft202012Validator(load_schema(topic), format_checker=Draft202012Validator.FORMAT_CHECKER)
        for message in streams.messages(topic, 1):
            validator.validate(json.loads(message.value or b""))


def test_every_message_of_a_check_is_as_its_schema_says(streams: Streams) -> None:
    streams.installation.watch(3)
    streams.installation.run(WATCH)
    for topic in (Topic.PRICE_UPDATES, Topic.RAW_PRODUCTS):
        validator = Draft202012Validator(load_schema(topic))
        for message in streams.messages(topic, 3):
            validator.validate(json.loads(message.value or b""))


def test_the_document_of_a_price_is_the_value_of_its_message(streams: Streams) -> None:
    streams.installation.watch(1)
    streams.installation.run(WATCH)
    [message] = streams.messages(Topic.PRICE_UPDATES, 1)
    value = json.loads(message.value or b"")
    assert streams.documents(Alias.PRICES) == {value["event_id"]: value}
    row = streams.installation.rows("SELECT * FROM price_history WHERE event_id IS NOT NULL")[0]
    wanted = price_event_id(row.asin, row.marketplace, row.price_type, int(row.observed_at.timestamp()), row.amount_minor)
    assert value["event_id"] == str(wanted)


def test_the_sweep_brings_the_metrics_of_calls_to_the_index(streams: Streams) -> None:
    streams.installation.watch(1)
    streams.installation.run(WATCH)
    assert streams.installation.run("delivery.delivery").state == "Completed"
    found = {one["operation"] for one in streams.documents(Alias.METRICS).values()}
    assert "product" in found
    assert len(streams.documents(Alias.METRICS)) == streams.installation.rows("SELECT count(*) FROM events WHERE kind = 'keepa_call'")[0][0]


def test_a_check_is_green_while_elasticsearch_is_away_and_the_sweep_brings_what_waited(streams: Streams) -> None:
    """The run says that events wait; nothing is lost for it and Kafka has its own already."""
    url = streams.installation.environment["KEEPER_ELASTICSEARCH_URL"]
    streams.installation.environment["KEEPER_ELASTICSEARCH_URL"] = "http://127.0.0.1:9"
    streams.installation.watch(2)
    end = streams.installation.run(WATCH)
    assert end.state == "Completed"
    assert "events for search wait in the outbox" in end.message
    assert len(streams.messages(Topic.PRICE_UPDATES, 2)) == 2
    streams.installation.environment["KEEPER_ELASTICSEARCH_URL"] = url
    streams.installation.run("delivery.delivery")
    assert len(streams.documents(Alias.PRICES)) == 2
    assert streams.installation.count("outbox") == 0


def test_the_enriching_consumer_makes_one_document_per_product(streams: Streams) -> None:
    """With Kafka: from Keepa's own answers on the topic, to the index and to `products.enriched`."""
    asins = streams.installation.watch(3)
    streams.installation.run(WATCH)
    publisher, writer = Publisher(streams.kafka, TopicSettings()), ProductWriter(streams.search)
    consumer = TopicConsumer(streams.kafka, Topic.RAW_PRODUCTS, Group.ENRICHMENT, batch_size=100, settings=TopicSettings())
    stop, worked = threading.Event(), list[int]()

    def on_batch(messages: int, rejected: int) -> None:
        worked.append(messages)
        assert rejected == 0
        if sum(worked) >= len(asins):
            stop.set()

    work = partial(
        enrich_batch,
        streams.installation.engine,
        now=streams.installation.resources.now,
        index=writer,
        topic=EnrichedTopic(publisher, streams.kafka.topic_prefix),
    )
    thread = threading.Thread(target=consume, args=(consumer, work, lambda _: None), kwargs={"stop": stop, "on_batch": on_batch})
    thread.start()
    try:
        assert stop.wait(60)
    finally:
        stop.set()
        thread.join(30)
        consumer.close()
        publisher.close()
        writer.close()
    found = streams.documents(Alias.PRODUCTS)
    assert set(found) == set(asins)
    enriched = [json.loads(message.value or b"") for message in streams.messages(Topic.ENRICHED_PRODUCTS, 3)]
    validator = Draft202012Validator(load_schema(Topic.ENRICHED_PRODUCTS))
    for one in enriched:
        validator.validate(one)
    assert {one["asin"]: one["current_prices"] for one in enriched} == {asin: one["current_prices"] for asin, one in found.items()}


def test_without_kafka_the_outbox_brings_products_to_the_index(streams: Streams) -> None:
    streams.installation.environment["KEEPER_KAFKA_BOOTSTRAP_SERVERS"] = ""
    asins = streams.installation.watch(3)
    streams.installation.run(WATCH)
    assert set(streams.documents(Alias.PRODUCTS)) == set(asins)
    assert streams.installation.rows("SELECT 1 FROM events WHERE kind = 'raw_product'") == []


def test_another_process_without_the_settings_loses_nothing_for_kafka(streams: Streams) -> None:
    """What is on in the database stays on, whoever records."""
    streams.installation.watch(1)
    streams.installation.run(WATCH)
    kept = streams.installation.environment.pop("KEEPER_KAFKA_BOOTSTRAP_SERVERS")
    streams.installation.watch(1, start=5)
    streams.installation.run(WATCH)
    streams.installation.environment["KEEPER_KAFKA_BOOTSTRAP_SERVERS"] = kept
    streams.installation.run("delivery.delivery")
    assert len(streams.messages(Topic.PRICE_UPDATES, 2)) == 2


def test_an_index_is_built_anew_by_a_run(streams: Streams) -> None:
    streams.installation.watch(2)
    streams.installation.run(WATCH)
    known = streams.documents(Alias.PRICES)
    end = streams.installation.run("reindex.reindex", alias="keeper-prices")
    assert end.state == "Completed"
    assert end.message.startswith(f"keeper-prices: {len(known)} documents in ") and end.message.endswith(" is kept")
    assert streams.documents(Alias.PRICES) == known
    shown = streams.installation.prefect.artifacts(end.run_id)["reindex-keeper-prices"]
    assert f"| documents | {len(known)} |" in shown


def test_a_run_that_cannot_build_an_index_says_why(installation: Installation) -> None:
    end = installation.run("reindex.reindex", alias="keeper-deals")
    assert end.state == "Failed"
    assert "KEEPER_ELASTICSEARCH_URL" in end.message
