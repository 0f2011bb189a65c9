"""The verb `exchange`: rates come from a dated file first, and from the European Central Bank where it answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import httpx
from sqlalchemy import Engine

from keeper.domain.errors import TransientError
from keeper.domain.exchange import LARGEST_CHARACTERS, ExchangeRate, ExchangeRates, ExchangeRatesUnreadable, parse_ecb_daily
from keeper.postgres import exchange_rates

# The ECB publishes once on a working day; who asks every hour asks it in vain.
READ_AGAIN_AFTER_SECONDS = 6 * 3600.0
_MOST_REDIRECTS = 3
# A server that sends a byte now and then never runs into the timeout of a single wait.
_MOST_WAITS = 3


class RatesUnavailable(TransientError):
    """The reference rates cannot be had now; the last known ones count on."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What the ECB said.

    Attributes:
        changed: rates that are new or another.
        quoted_on: the newest day.
    """

    rates: int
    changed: int
    quoted_on: date

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.rates} reference rates of {self.quoted_on}, {self.changed} of them new"


def load_seeds(engine: Engine, rates: Sequence[ExchangeRate]) -> int:
    """Know at least the rates of a file; what the ECB has published for the same day stays. Idempotent. Returns how many are new."""
    with engine.begin() as connection:
        return exchange_rates.insert_seeds(connection, rates)


def refresh(engine: Engine, *, url: str, timeout_seconds: float, transport: httpx.BaseTransport | None = None) -> Refreshed:
    """Read the ECB's daily reference rates and keep them.

    Args:
        url: of `eurofxref-daily.xml`, or of the file of 90 days in the same form.
        timeout_seconds: longest silence; all of it takes three times as long at most.
        transport: where requests go; None for the network.

    Raises:
        RatesUnavailable: nobody answers, or not with rates; nothing is changed.
    """
    text = _fetch(url, timeout_seconds, transport)
    try:
        rates = parse_ecb_daily(text)
    except ExchangeRatesUnreadable as error:
        raise RatesUnavailable(f"what {_host(url)} answers are no reference rates: {error}") from error
    with engine.begin() as connection:
        changed = exchange_rates.insert_published(connection, rates)
    return Refreshed(len(rates), changed, max(rate.on for rate in rates))


def keep_fresh(engine: Engine, *, url: str, timeout_seconds: float, transport: httpx.BaseTransport | None = None) -> str:
    """`refresh`, where the ECB has not been read for some hours. It never fails: what to say of it is returned, empty for nothing."""
    with engine.begin() as connection:
        if exchange_rates.is_read_within(connection, seconds=READ_AGAIN_AFTER_SECONDS):
            return ""
    try:
        return refresh(engine, url=url, timeout_seconds=timeout_seconds, transport=transport).sentence
    except RatesUnavailable as error:
        return f"the exchange rates stay those known before: {error}"


def tell_age(rates: ExchangeRates, currencies: Sequence[str], *, on: date, stale_after_days: int) -> list[str]:
    """What is wrong with the rates of these currencies, each in a line: none, or too old."""
    troubles = []
    for currency in currencies:
        rate = rates.find_rate(currency, on)
        if rate is None:
            troubles.append(f"there is no exchange rate of {currency}; `keeper fx refresh` asks the European Central Bank")
        elif rate.is_stale(on, stale_after_days):
            troubles.append(f"the exchange rate of {currency} is {rate.age_days(on)} days old, so results with it are marked stale")
    return troubles


def _fetch(url: str, timeout_seconds: float, transport: httpx.BaseTransport | None) -> str:
    """The text, as far as it is no larger than any file of rates."""
    deadline = time.monotonic() + _MOST_WAITS * timeout_seconds
    body = bytearray()
    try:
        with (
            httpx.Client(timeout=timeout_seconds, transport=transport, follow_redirects=True, max_redirects=_MOST_REDIRECTS) as client,
            client.stream("GET", url, headers={"Accept": "application/xml, text/xml"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise RatesUnavailable(f"{_host(url)} answers with HTTP {answer.status_code}")
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST_CHARACTERS:
                    raise RatesUnavailable(
                        f"{_host(url)} sends more than {LARGEST_CHARACTERS} bytes; the reference rates have some thousand"
                    )
                if time.monotonic() > deadline:
                    raise RatesUnavailable(f"{_host(url)} is too slow: not done within {_MOST_WAITS * timeout_seconds:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RatesUnavailable(f"{_host(url)} does not answer ({type(error).__name__})") from error
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RatesUnavailable(f"what {_host(url)} answers is no UTF-8") from error


def _host(url: str) -> str:
    return httpx.URL(url).host or url
