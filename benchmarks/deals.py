"""Deals, from Keepa's page to the report: `python -m benchmarks.deals`.

Decoding: a page of 150 rows all the way to sightings, against `json.loads` of the same bytes, which stops at dicts and lists in Keepa's
own terms; in turns in one process. The page is the recorded one from the folder in KEEPER_RECORDINGS, without the blanks its author gave
it, else one of the simulator's, its rows repeated under other ASINs until the page is full.
"""

import json
import os
import statistics
import sys
from pathlib import Path

from benchmarks.decode import GOAL, seconds
from benchmarks.figures import say
from keeper.domain.deal import PAGE_SIZE, DateRange, DealQuery
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.keepa.client import KeepaClient
from keeper.keepa.deal_wire import decode_deals
from keeper.simulator.server import Simulator

Figure = tuple[str, float, str, str]

RECORDED = "deal_de_amazon_week_page0_150deals.json"
KEY = "k" * 64
ROUNDS = 15
REPEATS = 5


def main() -> None:
    say("deals", [*decode_figures()])


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
