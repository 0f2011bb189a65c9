"""Reads the parameters of requests and refuses what Keepa refuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from keeper.simulator.answers import View
from keeper.simulator.catalog import MARKETPLACES, OTHER_DOMAINS
from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from keeper.simulator.prices import DAY

MAX_ASINS = 100
MIN_OFFERS, MAX_OFFERS = 20, 100
BRAZIL = 12
MAX_CATEGORIES = 10
BEST_SELLER_RANGES = (0, 30, 90, 180)
BEST_SELLER_MONTHS = 36
MIN_WORD_LETTERS = 3


class ParameterError(Exception):
    """A parameter that Keepa would not accept.

    Attributes:
        status: 400 for a malformed one, 405 for one out of range.
    """

    def __init__(self, status: int, name: str) -> None:
        super().__init__(f"parameter {name}")
        self.status = status
        self.name = name


@dataclass(frozen=True, slots=True)
class ProductRequest:
    """A `/product` request that makes sense.

    Attributes:
        domain: Keepa's marketplace id.
        asins: As asked for, in that order, without repetitions; malformed ones included.
        codes: EANs or UPCs; empty where ASINs were given.
        code_limit: Products per code; None means all.
        update_hours: Refresh data older than this; negative means never.
        offers: Offers to fetch; None without.
        view: What the answer shows.
    """

    domain: int
    asins: tuple[str, ...]
    codes: tuple[str, ...]
    code_limit: int | None
    update_hours: float
    offers: int | None
    view: View


def parse_product_request(parameters: Mapping[str, str], now: float) -> ProductRequest:
    """Returns the request that the query parameters describe.

    Args:
        parameters: Names and values of the query.
        now: Simulated Keepa minutes with their fraction.

    Raises:
        ParameterError: A parameter is malformed (400) or out of range (405).
    """
    domain = parse_domain(parameters)
    asins, codes = _split(parameters.get("asin")), _split(parameters.get("code"))
    if bool(asins) == bool(codes):
        raise ParameterError(400, "asin")
    if len(asins) > MAX_ASINS or len(codes) > MAX_ASINS:
        raise ParameterError(400, "asin")
    days = _whole(parameters, "days")
    if days is not None and days < 1:
        raise ParameterError(405, "days")
    offers = _whole(parameters, "offers")
    if offers is not None and not MIN_OFFERS <= offers <= MAX_OFFERS:
        raise ParameterError(405, "offers")
    code_limit = _whole(parameters, "code-limit")
    if code_limit is not None and code_limit < 1:
        raise ParameterError(405, "code-limit")
    update = _whole(parameters, "update")
    stock = parse_flag(parameters, "stock")
    if stock and offers is None:
        raise ParameterError(400, "stock")
    view = View(
        stats=_interval(parameters.get("stats"), now),
        history=parse_flag(parameters, "history", default=True),
        since=None if days is None else int(now) - days * DAY,
        offers=offers is not None,
        only_live_offers=parse_flag(parameters, "only-live-offers"),
        # Ignored with `offers`, which opens the same and more.
        buybox=parse_flag(parameters, "buybox") and offers is None,
        rating=parse_flag(parameters, "rating"),
        stock=stock,
        historical_variations=parse_flag(parameters, "historical-variations"),
        videos=parse_flag(parameters, "videos"),
        aplus=parse_flag(parameters, "aplus"),
    )
    return ProductRequest(domain, asins, codes, code_limit, 1 if update is None else update, offers, view)


@dataclass(frozen=True, slots=True)
class CategoryRequest:
    """A `/category` request that makes sense.

    Attributes:
        domain: Keepa's marketplace id.
        categories: Their ids; 0 means every root.
        parents: Whether the categories above are wanted, too.
    """

    domain: int
    categories: tuple[int, ...]
    parents: bool


def parse_category_request(parameters: Mapping[str, str]) -> CategoryRequest:
    """Returns the request that the query parameters describe.

    Raises:
        ParameterError: A parameter is malformed (400) or out of range (405).
    """
    domain = parse_domain(parameters, refused=(BRAZIL,))
    words = _split(parameters.get("category"))
    if not words or len(words) > MAX_CATEGORIES or not all(word.isascii() and word.isdigit() for word in words):
        raise ParameterError(400, "category")
    return CategoryRequest(domain, tuple(int(word) for word in words), parse_flag(parameters, "parents"))


@dataclass(frozen=True, slots=True)
class BestSellersRequest:
    """A `/bestsellers` request that makes sense.

    Attributes:
        domain: Keepa's marketplace id.
        category: Its id; None means a product group, of which the catalog has none.
        name: The category as it was asked for.
        days: Days the rank is averaged over; 0 means the current one. A month of the past has 30.
        variations: Whether every variation of a family is wanted.
    """

    domain: int
    category: int | None
    name: str
    days: int
    variations: bool


def parse_best_sellers_request(parameters: Mapping[str, str], now: float) -> BestSellersRequest:
    """Returns the request that the query parameters describe.

    Args:
        parameters: Names and values of the query.
        now: Simulated Unix seconds.

    Raises:
        ParameterError: A parameter is malformed (400) or out of range (405).
    """
    domain = parse_domain(parameters, refused=(BRAZIL,))
    name = parameters.get("category", "").strip()
    if not name:
        raise ParameterError(400, "category")
    days, month, year = (_whole(parameters, each) for each in ("range", "month", "year"))
    if days is not None and days not in BEST_SELLER_RANGES:
        raise ParameterError(405, "range")
    if (month is None) != (year is None) or (month is not None and days is not None):
        raise ParameterError(400, "month")
    if month is not None and year is not None:
        today = datetime.fromtimestamp(now, UTC)
        if not 1 <= month <= 12 or not 1 <= (today.year - year) * 12 + today.month - month <= BEST_SELLER_MONTHS:
            raise ParameterError(405, "month")
        days = 30
    if parse_flag(parameters, "sublist") and days is not None:
        raise ParameterError(400, "sublist")
    variations = parse_flag(parameters, "variations")
    return BestSellersRequest(domain, int(name) if name.isascii() and name.isdigit() else None, name, days or 0, variations)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A `/search` request that makes sense.

    Attributes:
        domain: Keepa's marketplace id.
        words: Lower case; all must be found.
        products: Whether products are looked for, not categories.
        asins_only: Whether their ASINs are enough.
        product: How products are shown; without ASINs.
    """

    domain: int
    words: tuple[str, ...]
    products: bool
    asins_only: bool
    product: ProductRequest


def parse_search_request(parameters: Mapping[str, str], now: float) -> SearchRequest:
    """Returns the request that the query parameters describe.

    Args:
        parameters: Names and values of the query.
        now: Simulated Keepa minutes with their fraction.

    Raises:
        ParameterError: A parameter is malformed (400) or out of range (405).
    """
    domain = parse_domain(parameters, refused=(BRAZIL,))
    kind = parameters.get("type")
    if kind not in ("product", "category"):
        raise ParameterError(400, "type")
    words = tuple(parameters.get("term", "").lower().split())
    if kind == "category":
        words = tuple(word for word in words if len(word) >= MIN_WORD_LETTERS)
    if not words:
        raise ParameterError(400, "term")
    update = _whole(parameters, "update")
    view = View(
        stats=_interval(parameters.get("stats"), now),
        history=parse_flag(parameters, "history", default=True),
        rating=parse_flag(parameters, "rating"),
    )
    product = ProductRequest(domain, (), (), None, 1 if update is None else update, None, view)
    return SearchRequest(domain, words, kind == "product", parse_flag(parameters, "asins-only"), product)


def parse_domain(parameters: Mapping[str, str], refused: tuple[int, ...] = ()) -> int:
    """Returns the marketplace asked for.

    Raises:
        ParameterError: There is none, or it is one this request does not take.
    """
    domain = _whole(parameters, "domain")
    if domain is None or domain in refused or (domain not in MARKETPLACES and domain not in OTHER_DOMAINS):
        raise ParameterError(400, "domain")
    return domain


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) if text else ()


def _whole(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise ParameterError(400, name) from None


def parse_flag(parameters: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Returns a truth value of the query.

    Raises:
        ParameterError: It is neither 0 nor 1.
    """
    text = parameters.get(name)
    if text is None or text == "":
        return default
    # `true` and `false` are what third-party clients send.
    if text.lower() in ("1", "true"):
        return True
    if text.lower() in ("0", "false"):
        return False
    raise ParameterError(400, name)


def _interval(text: str | None, now: float) -> tuple[float, float] | None:
    if text is None or text == "":
        return None
    start_text, comma, end_text = text.partition(",")
    if not comma:
        try:
            days = int(start_text)
        except ValueError:
            raise ParameterError(400, "stats") from None
        if days < 0:
            raise ParameterError(405, "stats")
        return now - days * DAY, now
    start, end = _moment(start_text), _moment(end_text)
    if end < start:
        raise ParameterError(405, "stats")
    return start, end


def _moment(text: str) -> float:
    """Returns Keepa minutes of Unix milliseconds or an ISO 8601 date in UTC."""
    text = text.strip()
    try:
        if text.isascii() and text.isdigit():
            return int(text) / 60_000 - KEEPA_EPOCH_MINUTES
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterError(400, "stats") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() / 60 - KEEPA_EPOCH_MINUTES
