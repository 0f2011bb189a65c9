import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer

from keeper.kafka.connection import (
    BrokerVoice,
    KafkaConnection,
    KafkaRefused,
    check_connection,
    client_config,
    open_client,
    producer_config,
)
from keeper.kafka.consumer import TopicConsumer
from keeper.kafka.producer import KafkaSink
from keeper.kafka.topics import Group, Topic, TopicSettings

NOWHERE = "127.0.0.1:1"
SECRET = "hunter2-secret"
PLAIN = KafkaConnection(NOWHERE)
SASL = KafkaConnection(
    NOWHERE,
    security_protocol="SASL_SSL",
    sasl_mechanism="SCRAM-SHA-512",
    sasl_username="keeper",
    sasl_password=SECRET,
    ca_file=Path(__file__),
)


def test_password_is_not_in_the_repr() -> None:
    assert SECRET not in repr(SASL)


def test_security_settings_reach_librdkafka() -> None:
    config = client_config(SASL)
    assert config["security.protocol"] == "SASL_SSL"
    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl.username"], config["sasl.password"]) == ("keeper", SECRET)
    assert config["ssl.ca.location"] == __file__


def test_plain_connection_sends_no_security_settings() -> None:
    assert not [name for name in client_config(PLAIN) if name.startswith(("sasl.", "ssl."))]


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        pytest.param({"sasl_mechanism": None}, "KEEPER_KAFKA_SASL_MECHANISM", id="no mechanism"),
        pytest.param({"sasl_username": None}, "KEEPER_KAFKA_SASL_USERNAME", id="no user"),
        pytest.param({"sasl_password": None}, "KEEPER_KAFKA_SASL_PASSWORD", id="no password"),
        pytest.param({"security_protocol": "SSL"}, "KEEPER_KAFKA_SECURITY_PROTOCOL", id="password that is not sent"),
        pytest.param({"ca_file": Path("/nowhere.pem")}, "KEEPER_KAFKA_CA_FILE", id="CA file that is not there"),
        pytest.param({"security_protocol": "SASL_PLAINTEXT"}, "KEEPER_KAFKA_CA_FILE", id="CA file without TLS"),
        pytest.param({"cert_file": Path(__file__)}, "KEEPER_KAFKA_KEY_FILE", id="certificate without key"),
    ],
)
def test_settings_that_cannot_work_are_named_without_the_secret(changes: dict[str, Any], setting: str) -> None:
    with pytest.raises(KafkaRefused, match=setting) as refused:
        check_connection(replace(SASL, **changes))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "opened",
    [
        pytest.param(lambda connection: KafkaSink(connection, TopicSettings()), id="sink"),
        pytest.param(lambda connection: TopicConsumer(connection, Topic.PRICE_UPDATES, Group.PRICES, TopicSettings()), id="consumer"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_opening(opened: Any) -> None:
    with pytest.raises(KafkaRefused, match="KEEPER_KAFKA_SASL_PASSWORD"):
        opened(replace(SASL, sasl_password=None))


def test_ca_file_without_a_certificate_is_refused_in_plain_words() -> None:
    with pytest.raises(KafkaRefused, match=r"ssl\.ca\.location") as refused:
        open_client(SASL, Producer, client_config(SASL), BrokerVoice(SASL))
    assert SECRET not in str(refused.value)


def test_brokers_that_are_away_are_told_once_and_librdkafka_is_quiet(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    consumer = TopicConsumer(replace(PLAIN, connect_timeout_seconds=0.2), Topic.PRICE_UPDATES, Group.PRICES, TopicSettings())
    with caplog.at_level(logging.INFO):
        assert consumer.read_batch(0.2) == consumer.read_batch(0.2) == []
    consumer.close()
    assert [record.getMessage() for record in caplog.records if "does not answer" in record.getMessage()] == [
        record.getMessage() for record in caplog.records
    ]
    assert len(caplog.records) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        pytest.param(KafkaError._AUTHENTICATION, "KEEPER_KAFKA_SASL_PASSWORD", id="wrong password"),
        pytest.param(KafkaError._SSL, "KEEPER_KAFKA_CA_FILE", id="unknown CA"),
    ],
)
def test_what_brokers_say_is_passed_on_with_a_hint_and_without_the_password(code: int, hint: str) -> None:
    voice = BrokerVoice(SASL)
    voice.hear(KafkaError(code, f"they said {SECRET}"))
    voice.hear(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    text = str(voice.down())
    assert hint in text
    assert "they said ***" in text


def test_producer_repeats_nothing_and_waits_for_all_replicas() -> None:
    config = producer_config(PLAIN, batch_bytes=1000)
    assert config["enable.idempotence"] is True
    assert config["acks"] == "all"
