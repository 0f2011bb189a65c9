"""Log lines: the standard fields, whose work it is, and no secret in any form."""

import json
import logging
import sys

import pytest
from pydantic import SecretStr

from keeper.logs import JsonFormatter, Redaction, TextFormatter, make_formatter
from keeper.settings import Settings, WatchdogSettings, list_secrets
from keeper.trace import Trace, current, is_request_id, note, read_tag, tag_of, tracing

SECRET = 'p"ss/wörd ä'


def record(message: str, *args: object, exc_info: object = None) -> logging.LogRecord:
    return logging.LogRecord("keeper.relay", logging.WARNING, __file__, 1, message, args, exc_info)  # type: ignore[arg-type]


def failed_with(text: str) -> object:
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


def test_json_has_the_standard_fields_always() -> None:
    told = json.loads(JsonFormatter(Redaction()).format(record("%s waits", "kafka")))
    assert {name: value for name, value in told.items() if name != "time"} == {
        "level": "WARNING", "logger": "keeper.relay", "message": "kafka waits",
        "run_id": None, "user_id": None, "asin": None, "request_id": None,
    }  # fmt: skip
    assert told["time"].endswith("Z")


def test_whose_work_it_is_stands_in_every_line() -> None:
    with tracing(Trace(request_id="r-1", run_id="run", user_id=7)):
        note(asin="B07W6JG6Z7")
        told = json.loads(make_formatter("json", Redaction()).format(record("x")))
        line = TextFormatter(Redaction(), "%(message)s").format(record("x"))
    assert (told["request_id"], told["run_id"], told["user_id"], told["asin"]) == ("r-1", "run", 7, "B07W6JG6Z7")
    assert line == "x [run_id=run user_id=7 asin=B07W6JG6Z7 request_id=r-1]"
    assert current().request_id is None


def test_a_message_over_several_lines_is_one_line_of_json() -> None:
    assert "\n" not in JsonFormatter(Redaction()).format(record("a\nb", exc_info=failed_with("c\nd")))


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "text", [SECRET, "https://host/p%22ss%2Fw%C3%B6rd%20%C3%A4?x", "p%22ss/w%C3%B6rd%20%C3%A4"], ids=["plain", "quoted", "path"]
)
def test_a_secret_is_masked_in_messages_arguments_and_tracebacks(form: str, text: str) -> None:
    formatter = make_formatter(form, Redaction([SECRET]))
    for shown in (
        formatter.format(record(f"it is {text}")),
        formatter.format(record("it is %s", text)),
        formatter.format(record("it failed", exc_info=failed_with(text))),
    ):
        assert "********" in shown
        assert "w\\u00f6rd" not in shown
        assert not any(part in shown for part in ("wörd", "w%C3%B6rd"))


def test_every_secret_setting_is_known_with_its_secret_parts() -> None:
    settings = Settings.model_validate(
        {
            "database_url": "postgresql://keeper:hunter2-db@db/keeper",
            "keepa": {"api_key": "k" * 64},
            "channels": {"keys": "first-key, second-key"},
            "kafka": {"sasl_password": "kafka-password"},
            "elasticsearch": {"password": "search-password", "api_key": "search-key"},
            "prefect": {"api_auth": "ops:prefect-password"},
            "watchdog": {
                "apprise_urls": "mailto://ops:mail-password@example.org,tgram://bot-token/chat",
                "heartbeat_url": "https://beats.example.org/ping/beat-token",
            },
        }
    )
    redact = Redaction(list_secrets(settings))
    for secret in (
        "hunter2-db", "k" * 64, "first-key", "second-key", "kafka-password", "search-password", "search-key", "prefect-password",
        "mail-password", "tgram://bot-token/chat", "ping/beat-token",
    ):  # fmt: skip
        assert secret not in redact(f"before {secret} after"), secret


def test_a_new_secret_of_the_settings_is_masked_without_a_word_more() -> None:
    fields = [name for name, field in WatchdogSettings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert fields == ["apprise_urls", "heartbeat_url"]
    for name in fields:
        settings = Settings(watchdog=WatchdogSettings(**{name: SecretStr("https://a-secret-of-mine")}))
        assert "https://a-secret-of-mine" in list_secrets(settings)


@pytest.mark.parametrize("text", ["", "a b", "ä", "x" * 65, "a\nb", "<script>"])
def test_ids_that_could_do_harm_are_not_taken_over(text: str) -> None:
    assert not is_request_id(text)
    assert read_tag(f"request:{text}") is None


def test_a_run_bears_the_requests_id_as_a_tag() -> None:
    assert read_tag(tag_of("my.request-1_a")) == "my.request-1_a"
    assert read_tag("keeper") is None
