"""What the dashboard asks, at the edge of the network: the real API, and in front of it fixed answers of the arbitrage."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse
from starlette.convertors import StringConvertor, register_url_convertor

PICTURE = "https://m.media-amazon.com/images/I/keyboard.jpg"
COMPARED_AT = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
_HOSTS = {"DE": "de", "IT": "it", "ES": "es", "FR": "fr", "UK": "co.uk"}
_TITLES = (
    "CHERRY KC 1000, kabelgebundene Tastatur, deutsches Layout (QWERTZ), flüsterleise Tasten, weiß-grau",
    "Logitech MX Keys S kabellose Tastatur, beleuchtet, Graphit",
    '=HYPERLINK("https://example.org") *Trust* Taro [Tastatur] $5',
    "Dell KM5221W Pro Tastatur und Maus",
    "Perixx PERIBOARD-512 ergonomische Tastatur",
)


class _Asin(StringConvertor):
    """No other word of a path."""

    regex = "[A-Z0-9]{10}"


register_url_convertor("asin", _Asin())


def make_opportunity(number: int, asin: str, source: str, target: str, buy: int, sell: int, **facts: Any) -> dict[str, Any]:
    """The body of one, with the gross margin of two stores in euros at 0.85 pounds."""
    in_euros = [round(price / 0.85) if store == "UK" else price for store, price in ((source, buy), (target, sell))]
    margin = in_euros[1] - in_euros[0]
    return {
        "id": number,
        "asin": asin,
        "title": _TITLES[number % len(_TITLES)],
        "brand": "CHERRY",
        "image_url": PICTURE,
        "category": "computers",
        "source_market": source,
        "target_market": target,
        "source_price": buy,
        "target_price": sell,
        "source_currency": "GBP" if source == "UK" else "EUR",
        "target_currency": "GBP" if target == "UK" else "EUR",
        "currency": "EUR",
        "price_type": "NEW",
        "source_checked_at": (COMPARED_AT - timedelta(hours=number)).isoformat(),
        "target_checked_at": (COMPARED_AT - timedelta(minutes=20)).isoformat(),
        "margin": margin,
        "margin_percentage": round(100 * margin / in_euros[0], 2),
        "profit_minor": margin // 2 - 400,
        "invested_minor": in_euros[0],
        "roi_pct": round(100 * (margin // 2 - 400) / in_euros[0], 2),
        "profit_margin_pct": 8.1,
        "unknown": [],
        "is_stale": False,
        "doubts": [],
        "flags": [],
        "score": 80 - number,
        "score_parts": {"profit": 40 - number, "velocity": 40},
        "is_active": True,
        "first_seen_at": (COMPARED_AT - timedelta(days=2)).isoformat(),
        "last_seen_at": COMPARED_AT.isoformat(),
        "best_margin": margin,
        "best_profit_minor": margin // 2 - 400,
        "best_at": COMPARED_AT.isoformat(),
        "closed_at": None,
        "closed_why": None,
        "source_link": f"https://www.amazon.{_HOSTS[source]}/dp/{asin}",
        "target_link": f"https://www.amazon.{_HOSTS[target]}/dp/{asin}",
    } | facts


class Arbitrage:
    """The fixed answers; `opportunities` may be changed, and what was asked is in `asked`."""

    def __init__(self, asins: list[str]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.asins = asins
        self.opportunities = [
            # The golden case of the profit engine.
            make_opportunity(
                0, asins[0], "DE", "IT", 6000, 9999, profit_minor=1054, roi_pct=20.30, profit_margin_pct=10.54, flags=["hazardous"],
            ),
            make_opportunity(1, asins[1], "FR", "ES", 8190, 12999, flags=["Amazon sells"]),
            make_opportunity(
                2, asins[2], "UK", "DE", 2437, 4490, profit_minor=None, roi_pct=None, profit_margin_pct=None,
                unknown=["FBA fee", "customs duty"], is_stale=True,
            ),
            make_opportunity(3, asins[3], "DE", "UK", 3999, 4150, profit_minor=-212, roi_pct=-5.07),
            make_opportunity(4, asins[4 % len(asins)], "ES", "DE", 1999, 2390, doubts=["pack size 1 against 2"]),
        ]  # fmt: skip

    def routes(self, app: FastAPI) -> None:
        """Serve them in front of whatever comes after."""

        @app.get("/api/v1/stats")
        def stats() -> dict[str, Any]:
            return {
                "products": 12345,
                "markets": 5,
                "opportunities": {"open": len(self.opportunities), "profitable": 3, "doubtful": 1, "unknown": 1},
                "best_margin_percentage": max((one["margin_percentage"] for one in self.opportunities), default=None),
                "best_profit_minor": max((one["profit_minor"] or 0 for one in self.opportunities), default=None),
                "by_pair": [{"source_market": "DE", "target_market": "IT", "count": 1, "median_margin_percentage": 66.65}],
                "compared_at": COMPARED_AT.isoformat(),
                "rates": [{"currency": "GBP", "per_euro": 0.85, "quoted_on": "2026-11-20", "age_days": 1, "is_stale": False}],
            }

        @app.get("/api/v1/opportunities")
        def opportunities(
            min_margin: float = 0, limit: int = 100, sort: str = "profit", source: Annotated[list[str], Query()] = [],  # noqa: B006
            target: Annotated[list[str], Query()] = [],  # noqa: B006
            include_doubtful: bool = False,
        ) -> dict[str, Any]:  # fmt: skip
            self.asked.append({"min_margin": min_margin, "limit": limit, "sort": sort, "source": source, "target": target})
            found = [
                one
                for one in self.opportunities
                if one["margin_percentage"] >= min_margin
                and one["source_market"] in (source or [one["source_market"]])
                and one["target_market"] in (target or [one["target_market"]])
                and (include_doubtful or not one["doubts"])
            ]
            return {
                "opportunities": found[:limit],
                "total": len(found),
                "next": None,
                "seller": "default",
                "comparison": 7,
                "compared_at": COMPARED_AT.isoformat(),
            }

        @app.get("/api/v1/opportunities/{number}/explain")
        def explain(number: int) -> dict[str, Any]:
            one = self.opportunities[number]
            parts = _golden_parts()
            if one["profit_minor"] is None:
                parts[4] |= {"amount_minor": None, "why_unknown": "the FBA fee of DE is not known", "rows": []}
            return {
                "opportunity": one,
                "parts": parts,
                "profit_minor": one["profit_minor"],
                "highest_purchase": {"break_even": 7254, "wanted_roi": 6021} if one["profit_minor"] is not None else {},
            }

        @app.get("/api/v1/products/{asin:asin}", response_model=None)
        def product(asin: str) -> dict[str, Any] | JSONResponse:
            if asin not in self.asins:
                problem = {"title": "No such product yet", "status": 404, "detail": f"there is no product {asin}", "hint": "watch it"}
                return JSONResponse(problem, 404, media_type="application/problem+json")
            number = self.asins.index(asin)
            own = [one for one in self.opportunities if one["asin"] == asin]
            return {
                "asin": asin,
                "title": _TITLES[number % len(_TITLES)],
                "brand": "CHERRY",
                "category": "computers",
                "image_url": PICTURE,
                "markets": {store: _in_store(store, asin, 4000 + 300 * place) for place, store in enumerate(_HOSTS)},
                "best_opportunity": own[0] if own else None,
                "opportunities": own,
            }


def _in_store(store: str, asin: str, price: int) -> dict[str, Any]:
    return {
        "price": price,
        "currency": "GBP" if store == "UK" else "EUR",
        "price_type": "NEW",
        "checked_at": (COMPARED_AT - timedelta(hours=3)).isoformat(),
        "sales_rank": 1234,
        "rating": 4.5,
        "review_count": 3120,
        "monthly_sold": 200 if store == "DE" else None,
        "offer_count": 7,
        "buy_box_is_amazon": store == "DE",
        "is_hazardous": False,
        "return_rate": None,
        "lowest_year_minor": price - 500,
        "link": f"https://www.amazon.{_HOSTS[store]}/dp/{asin}",
    }


def _golden_parts() -> list[dict[str, Any]]:
    amounts = {
        "sale": 9999,
        "output VAT": -1803,
        "referral fee": -1500,
        "digital services fee on selling": -30,
        "FBA fee": -420,
        "storage": 0,
        "preparation": -50,
        "inbound shipping": -100,
        "purchase": -6000,
        "purchase VAT reclaimed": 958,
    }
    rows = {"referral fee": [{"table": "referral_fees", "key": "IT everything", "valid_from": "2026-02-01", "source": "Amazon"}]}
    return [{"name": name, "amount_minor": amount, "why_unknown": None, "rows": rows.get(name, [])} for name, amount in amounts.items()]


def in_front_of(real: FastAPI, arbitrage: Arbitrage) -> FastAPI:
    """Both in one."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with real.router.lifespan_context(real):
            yield

    app = FastAPI(lifespan=lifespan)
    arbitrage.routes(app)
    app.mount("/", real)
    return app
