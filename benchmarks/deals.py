"""Deals, from Keepa's page to the report: `python -m benchmarks.deals`.

Decoding: a page of 150 rows all the way to sightings, against `json.loads` of the same bytes, which stops at dicts and lists in Keepa's
own terms; in turns in one process. The page is the recorded one from the folder in KEEPER_RECORDINGS, without the blanks its author gave
it, else one of the simulator's, its rows repeated under other ASINs until the page is full.

Recording: the same page from its bytes to the commit, by `collect`, against `json.loads` of it. Every page has ASINs of its own, so that
every row is new; then pages that were seen before. Without a group every row is kept. Once as the program runs without any setting, where
nothing receives events, and once with Kafka and the index switched on (nothing behind them: an event and its rows in the outbox each).
"""

import argparse
import gc
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from cProfile import Profile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from pstats import Stats
from typing import Any

from sqlalchemy import Engine, event, text

from benchmarks.deal_reports import report_figures
from benchmarks.deal_search import search_figures
from benchmarks.decode import GOAL, seconds
from benchmarks.figures import database, say
from keeper.collect import collect
from keeper.domain.deal import PAGE_SIZE, DateRange, DealQuery, DealSighting, DealSource
from keeper.domain.events import EventKind, Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.client import KeepaClient
from keeper.keepa.deal_wire import decode_deals
from keeper.simulator.server import Simulator
from keeper.sinks import switch_on

Figure = tuple[str, float, str, str]

RECORDED = "deal_de_amazon_week_page0_150deals.json"
KEY = "k" * 64
ROUNDS = 15
REPEATS = 5
RECORDED_GOAL = 0.15
RECORD_ROUNDS = 25
PAGES_TOGETHER = 5


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true", help="where the time of recording goes, by statement and by function; no figures")
    if parser.parse_args().profile:
        profile_recording()
        return
    say("deals", [*decode_figures(), *recorded_figures(), *report_figures(), *search_figures()])


def decode_figures() -> list[Figure]:
    """How fast a page becomes sightings."""
    page, price_type, is_recorded = deal_page()
    decoded = decode_deals(page, Marketplace.DE, price_type)
    assert (len(decoded.sightings), decoded.unreadable, decoded.dropped) == (PAGE_SIZE, {}, {})
    print(f"The decoded page is {'recorded' if is_recorded else 'of the simulator'}.", file=sys.stderr)
    baseline: list[float] = []
    ours: list[float] = []
    for _ in range(ROUNDS):
        baseline.append(seconds(lambda: json.loads(page), REPEATS))
        ours.append(seconds(lambda: decode_deals(page, Marketplace.DE, price_type), REPEATS))
    ratio = statistics.median(theirs / own for theirs, own in zip(baseline, ours, strict=True))
    return [
        ("ratio_to_json_loads", ratio, "ratio", f">= {GOAL}"),
        ("decoded_deals_per_second", PAGE_SIZE / statistics.median(ours), "1/s", ""),
        ("kilobytes_per_deal", len(page) / PAGE_SIZE / 1000, "kB", ""),
        ("decoded_page_is_recorded", float(is_recorded), "0 or 1", ""),
    ]


def recorded_figures() -> list[Figure]:
    """How fast a page becomes rows."""
    page, price_type, _ = deal_page()
    with database() as engine:
        figures = _record_rounds(engine, page, price_type, "", goal=f">= {RECORDED_GOAL}")
        for sink in (Sink.KAFKA, Sink.SEARCH):
            switch_on(engine, sink.value, [EventKind.DEAL_UPDATE, EventKind.RAW_DEAL], from_oldest=False)
        return [*figures, *_record_rounds(engine, page, price_type, "_with_sinks", goal="")]


def _record_rounds(engine: Engine, page: bytes, price_type: PriceType, kind: str, *, goal: str) -> list[Figure]:
    """New pages one by one, the same ones again an hour later, and several new ones in a transaction, in turns with `json.loads`."""
    now = datetime.now(UTC)
    alone: list[float] = []
    again: list[float] = []
    together: list[float] = []
    baseline: list[float] = []
    pages = fresh_pages(page, kind)
    record_page(engine, [next(pages)], price_type, now)  # the first makes the temporary tables
    for number in range(RECORD_ROUNDS):
        at = now + timedelta(hours=2 * number)
        new = next(pages)
        baseline.append(seconds(partial(json.loads, new), REPEATS))
        alone.append(timed(engine, [new], price_type, at))
        again.append(timed(engine, [new], price_type, at + timedelta(hours=1)))
        if number % 5 == 0:
            together.append(timed(engine, [next(pages) for _ in range(PAGES_TOGETHER)], price_type, at) / PAGES_TOGETHER)
    with engine.connect() as connection:
        kept = connection.execute(
            text("SELECT count(*) FROM collected_deals WHERE asin LIKE :own"), {"own": f"{_PREFIXES[kind]}%"}
        ).scalar_one()
    assert kept == (1 + RECORD_ROUNDS + len(together) * PAGES_TOGETHER) * PAGE_SIZE, kept

    def ratio(ours: list[float]) -> float:
        return statistics.median(baseline) / statistics.median(ours)

    return [
        (f"ratio_recorded{kind}", statistics.median(theirs / own for theirs, own in zip(baseline, alone, strict=True)), "ratio", goal),
        (f"ratio_recorded_again{kind}", ratio(again), "ratio", ""),
        (f"ratio_recorded_{PAGES_TOGETHER}_pages{kind}", ratio(together), "ratio", ""),
        (f"recorded_deals_per_second{kind}", PAGE_SIZE / statistics.median(alone), "1/s", ""),
        (f"recorded_page_ms{kind}", statistics.median(alone) * 1000, "ms", ""),
        (f"json_loads_page_ms{kind}", statistics.median(baseline) * 1000, "ms", ""),
    ]


_PREFIXES = {"": "BA", "_with_sinks": "BB", "_profiled": "BC"}


def fresh_pages(page: bytes, kind: str) -> Iterator[bytes]:
    """The page again and again, each time of other products."""
    asins = [row["asin"].encode() for row in json.loads(page)["deals"]["dr"]]
    number = 0
    while True:
        body = page
        for asin in asins:
            body = body.replace(asin, f"{_PREFIXES[kind]}{number:08d}".encode())
            number += 1
        yield body


def timed(engine: Engine, pages: list[bytes], price_type: PriceType, now: datetime) -> float:
    """Seconds from the bytes to the commit."""
    gc.collect()
    begun = time.perf_counter()
    record_page(engine, pages, price_type, now)
    return time.perf_counter() - begun


def record_page(engine: Engine, pages: list[bytes], price_type: PriceType, now: datetime) -> None:
    """Decode and collect, all pages in one transaction."""
    sightings: list[DealSighting] = []
    raw: dict[str, bytes] = {}
    for page in pages:
        answer = decode_deals(page, Marketplace.DE, price_type)
        sightings += answer.sightings
        raw |= {asin: bytes(row) for asin, row in answer.raw.items()}
    with engine.begin() as connection:
        done = collect(connection, sightings, now=now, source=DealSource.FEED, query="benchmark", raw=raw.__getitem__)
    assert done.kept == PAGE_SIZE * len(pages)


def profile_recording() -> None:
    """Where the time of new pages goes, as the program runs without any setting."""
    page, price_type, _ = deal_page()
    pages = fresh_pages(page, "_profiled")
    with database() as engine:
        for _ in range(3):
            record_page(engine, [next(pages)], price_type, datetime.now(UTC))
        with statement_times(engine) as spent:
            timed_pages = [timed(engine, [next(pages)], price_type, datetime.now(UTC)) for _ in range(RECORD_ROUNDS)]
        total = sum(timed_pages) / RECORD_ROUNDS * 1000
        for name, statement_seconds in sorted(spent.items(), key=lambda row: -row[1]):
            print(f"{statement_seconds / RECORD_ROUNDS * 1000:7.2f} ms  {name}", file=sys.stderr)
        in_statements = sum(spent.values()) / RECORD_ROUNDS * 1000
        print(f"{total - in_statements:7.2f} ms  decoding, Python, COPY, commit; {total:.1f} ms in all", file=sys.stderr)
        profiled = Profile()
        for _ in range(RECORD_ROUNDS):
            new = next(pages)
            profiled.enable()
            record_page(engine, [new], price_type, datetime.now(UTC))
            profiled.disable()
        Stats(profiled, stream=sys.stderr).sort_stats("tottime").print_stats(25)


@contextmanager
def statement_times(engine: Engine) -> Iterator[dict[str, float]]:
    """Seconds by statement, the driver's share included."""
    spent: dict[str, float] = {}

    @event.listens_for(engine, "before_cursor_execute")
    def before(*given: Any) -> None:
        given[4].started = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(*given: Any) -> None:
        name = re.sub(r"\s+", " ", given[2]).strip()[:110]
        spent[name] = spent.get(name, 0) + time.perf_counter() - given[4].started

    try:
        yield spent
    finally:
        event.remove(engine, "before_cursor_execute", before)
        event.remove(engine, "after_cursor_execute", after)


def deal_page() -> tuple[bytes, PriceType, bool]:
    """A full page of Amazon.de as Keepa sends it, the price type it is of, and whether Keepa sent it."""
    folder = os.environ.get("KEEPER_RECORDINGS")
    if folder and (Path(folder) / RECORDED).exists():
        return compact(json.loads((Path(folder) / RECORDED).read_bytes())), PriceType.AMAZON, True
    query = DealQuery("benchmark", Marketplace.DE, PriceType.NEW, DateRange.QUARTER)
    with Simulator(key=KEY) as simulator, KeepaClient(KEY, base_url=simulator.url) as client:
        page = json.loads(client.fetch_deals(query).body)
    rows = page["deals"]["dr"]
    page["deals"]["dr"] = [{**rows[number % len(rows)], "asin": f"B0BENCH{number:03d}"} for number in range(PAGE_SIZE)]
    return compact(page), PriceType.NEW, False


def compact(page: object) -> bytes:
    return json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()


if __name__ == "__main__":
    main()
