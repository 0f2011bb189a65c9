"""Exchange rates: from a file, from the ECB's own form over HTTP, and what counts where both or neither say something."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import Engine, text

from keeper.domain.exchange import ECB, LARGEST_CHARACTERS, ExchangeRate, ExchangeRates
from keeper.exchange import RatesUnavailable, keep_fresh, load_seeds, refresh, tell_age
from keeper.postgres.exchange_rates import select_rates
from tests.integration.notify.http_edge import HttpServer
from tests.unit.domain.test_exchange import DAILY

DAY = date(2026, 5, 8)


def rate(per_euro: str, on: date = DAY, source: str = "a file", currency: str = "GBP") -> ExchangeRate:
    return ExchangeRate(currency, Decimal(per_euro), on, source)


def known(engine: Engine, on: date = date(2026, 12, 31)) -> ExchangeRates:
    with engine.begin() as connection:
        return select_rates(connection, on=on)


@pytest.fixture
def ecb() -> Iterator[HttpServer]:
    with HttpServer(body=DAILY.encode(), headers={"Content-Type": "application/xml"}) as server:
        yield server


def ask(engine: Engine, server: HttpServer, timeout_seconds: float = 10) -> str:
    return refresh(engine, url=f"{server.url}/eurofxref-daily.xml", timeout_seconds=timeout_seconds).sentence


def test_the_ecbs_rates_are_kept_as_they_were_published(engine: Engine, ecb: HttpServer) -> None:
    assert ask(engine, ecb) == "3 reference rates of 2026-05-08, 3 of them new"
    assert known(engine).find_rate("GBP", DAY) == rate("0.8641", source=ECB)


def test_the_same_rates_again_are_nothing_new(engine: Engine, ecb: HttpServer) -> None:
    ask(engine, ecb)
    assert ask(engine, ecb) == "3 reference rates of 2026-05-08, 0 of them new"


def test_a_files_rate_is_known_until_somebody_publishes_one(engine: Engine, ecb: HttpServer) -> None:
    load_seeds(engine, [rate("0.9")])
    ask(engine, ecb)
    assert (load_seeds(engine, [rate("0.9")]), known(engine).find_rate("GBP", DAY)) == (0, rate("0.8641", source=ECB))


def test_a_file_that_was_corrected_counts(engine: Engine) -> None:
    load_seeds(engine, [rate("0.9")])
    assert (load_seeds(engine, [rate("0.91")]), known(engine).find_rate("GBP", DAY)) == (1, rate("0.91"))


def test_a_newer_rate_of_a_file_goes_before_an_older_one_of_the_ecb(engine: Engine, ecb: HttpServer) -> None:
    ask(engine, ecb)
    load_seeds(engine, [rate("0.88", date(2026, 6, 1))])
    assert known(engine).find_rate("GBP", date(2026, 6, 2)) == rate("0.88", date(2026, 6, 1))


def test_of_each_currency_the_last_rate_by_a_day_is_given(engine: Engine) -> None:
    load_seeds(engine, [rate("0.9"), rate("0.88", date(2026, 6, 1)), rate("1.1", currency="USD")])
    assert known(engine, DAY).rates == (rate("0.9"), rate("1.1", currency="USD"))


@pytest.mark.parametrize(
    ("server", "said"),
    [
        pytest.param(HttpServer(status=500), "127.0.0.1 answers with HTTP 500", id="error"),
        pytest.param(HttpServer(body=b"<html>"), "no reference rates", id="another page"),
        pytest.param(HttpServer(body=b"\xff\xfe"), "no UTF-8", id="no text"),
        pytest.param(HttpServer(body=b" " * (LARGEST_CHARACTERS + 1)), "sends more than", id="too large"),
        pytest.param(HttpServer(hang=True), r"does not answer \(ReadTimeout\)", id="silence"),
    ],
)
def test_what_is_no_answer_leaves_the_known_rates(engine: Engine, server: HttpServer, said: str) -> None:
    load_seeds(engine, [rate("0.9")])
    with server, pytest.raises(RatesUnavailable, match=said):
        ask(engine, server, 0.2)
    assert known(engine).rates == (rate("0.9"),)


def test_nobody_there_names_the_host_and_nothing_else(engine: Engine) -> None:
    with pytest.raises(RatesUnavailable, match=r"^127\.0\.0\.1 does not answer \(ConnectError\)$"):
        refresh(engine, url="http://127.0.0.1:1/a.xml", timeout_seconds=1)


def test_an_answer_that_drips_is_given_up(engine: Engine) -> None:
    def drip() -> Iterator[bytes]:
        while True:
            yield b" "

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=drip()))
    with pytest.raises(RatesUnavailable, match=r"too slow|sends more than"):
        refresh(engine, url="http://ecb.example/a.xml", timeout_seconds=0.001, transport=transport)


def test_fresh_rates_are_not_asked_for_again(engine: Engine, ecb: HttpServer) -> None:
    said = [keep_fresh(engine, url=ecb.url, timeout_seconds=5) for _ in range(2)]
    assert (said, len(ecb.asked)) == (["3 reference rates of 2026-05-08, 3 of them new", ""], 1)


def test_rates_read_yesterday_are_asked_for_again_though_they_are_the_same(engine: Engine, ecb: HttpServer) -> None:
    keep_fresh(engine, url=ecb.url, timeout_seconds=5)
    with engine.begin() as connection:
        connection.execute(text("UPDATE exchange_rates SET read_at = read_at - interval '1 day'"))
    said = [keep_fresh(engine, url=ecb.url, timeout_seconds=5) for _ in range(2)]
    assert (said, len(ecb.asked)) == (["3 reference rates of 2026-05-08, 0 of them new", ""], 2)


def test_keeping_rates_fresh_never_fails(engine: Engine) -> None:
    assert keep_fresh(engine, url="http://127.0.0.1:1/a.xml", timeout_seconds=1) == (
        "the exchange rates stay those known before: 127.0.0.1 does not answer (ConnectError)"
    )


@pytest.mark.parametrize(
    ("on", "said"),
    [
        pytest.param(DAY, [], id="today's"),
        pytest.param(date(2026, 5, 15), [], id="old enough"),
        pytest.param(date(2026, 5, 16), ["the exchange rate of GBP is 8 days old, so results with it are marked stale"], id="too old"),
        pytest.param(date(2026, 5, 7), ["there is no exchange rate of GBP; `keeper fx refresh` asks the European Central Bank"], id="none"),
    ],
)
def test_how_old_a_rate_is_is_told(on: date, said: list[str]) -> None:
    assert tell_age(ExchangeRates((rate("0.9"),)), ["GBP"], on=on, stale_after_days=7) == said
