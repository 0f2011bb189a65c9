"""Decoding of product answers, against `json.loads` of the same bytes: `python -m benchmarks.decode`.

Ours goes all the way to Keeper's values: envelope, products by ASIN, current values by price type, every series as two columns; of the
statistics, averages, extremes and shares are checked now and sorted by price type on first use, which a price watch never makes.
`json.loads` stops at dicts and lists in Keepa's own terms. Both run in turns in one process, a batch of twenty products each.
The answers are the recorded ones of `tests/recordings`, under twenty ASINs; without history they lose what Keepa leaves out
with `history=0`, and both lose what Keeper never asks for (`videos`, `aPlus`).
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import say
from keeper.domain.marketplace import Marketplace
from keeper.keepa.wire import decode_products

RECORDINGS = Path(__file__).parent.parent / "tests" / "recordings"
RECORDED = ("product_us_B0D8W1YVBX_1token.json", "product_us_B0D8W1YVBX_stats_rating_buybox_4tokens.json")
# What `history=0` drops, by Keepa's documentation.
HISTORY = (
    "csv",
    "salesRanks",
    "monthlySoldHistory",
    "parentAsinHistory",
    "couponHistory",
    "buyBoxSellerIdHistory",
    "buyBoxUsedHistory",
    "salesRankReferenceHistory",
)
NEVER_ASKED = ("videos", "aPlus")
PRODUCTS = 20
ROUNDS = 15
GOAL = 0.8


def main() -> None:
    say(
        "decode",
        [
            *measure("ratio_to_json_loads", batch(without=(*HISTORY, *NEVER_ASKED)), repeats=8),
            *measure("ratio_to_json_loads_with_history", batch(without=NEVER_ASKED), repeats=1),
        ],
    )


def batch(*, without: Sequence[str]) -> tuple[bytes, list[str]]:
    """One answer with twenty products, and their ASINs."""
    answers = [json.loads((RECORDINGS / name).read_bytes()) for name in RECORDED]
    products: list[dict[str, Any]] = []
    for number in range(PRODUCTS):
        product = dict(answers[number % len(answers)]["products"][0])
        for name in without:
            product[name] = None
        product["asin"] = f"B0BENCH{number:03d}"
        products.append(product)
    body = json.dumps({**answers[0], "products": products}, ensure_ascii=False, separators=(",", ":")).encode()
    return body, [product["asin"] for product in products]


def measure(figure: str, answer: tuple[bytes, list[str]], *, repeats: int) -> list[tuple[str, float, str, str]]:
    body, asins = answer
    assert len(decode_products(body, asins, Marketplace.US).products) == PRODUCTS
    baseline: list[float] = []
    ours: list[float] = []
    for _ in range(ROUNDS):
        baseline.append(seconds(lambda: json.loads(body), repeats))
        ours.append(seconds(lambda: decode_products(body, asins, Marketplace.US), repeats))
    ratio = statistics.median(theirs / own for theirs, own in zip(baseline, ours, strict=True))
    history = figure.removeprefix("ratio_to_json_loads")
    return [
        (figure, ratio, "ratio", f">= {GOAL}"),
        (f"products_per_second{history}", PRODUCTS / statistics.median(ours), "1/s", ""),
        (f"kilobytes_per_product{history}", len(body) / PRODUCTS / 1000, "kB", ""),
    ]


def seconds(work: Callable[[], object], repeats: int) -> float:
    gc.collect()
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - begun) / repeats


if __name__ == "__main__":
    main()
