"""Reads the parameters of a `/product` request and refuses what Keepa refuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from keeper.simulator.answers import View
from keeper.simulator.catalog import MARKETPLACES, OTHER_DOMAINS
from keeper.simulator.clock import KEEPA_EPOCH_MINUTES
from keeper.simulator.prices import DAY

MAX_ASINS = 100
MIN_OFFERS, MAX_OFFERS = 20, 100


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
    domain = _whole(parameters, "domain")
    if domain is None or (domain not in MARKETPLACES and domain not in OTHER_DOMAINS):
        raise ParameterError(400, "domain")
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
    stock = _flag(parameters, "stock", default=False)
    if stock and offers is None:
        raise ParameterError(400, "stock")
    view = View(
        stats=_interval(parameters.get("stats"), now),
        history=_flag(parameters, "history", default=True),
        since=None if days is None else int(now) - days * DAY,
        offers=offers is not None,
        only_live_offers=_flag(parameters, "only-live-offers", default=False),
        # Ignored with `offers`, which opens the same and more.
        buybox=_flag(parameters, "buybox", default=False) and offers is None,
        rating=_flag(parameters, "rating", default=False),
        stock=stock,
        historical_variations=_flag(parameters, "historical-variations", default=False),
        videos=_flag(parameters, "videos", default=False),
        aplus=_flag(parameters, "aplus", default=False),
    )
    return ProductRequest(domain, asins, codes, code_limit, 1 if update is None else update, offers, view)


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


def _flag(parameters: Mapping[str, str], name: str, *, default: bool) -> bool:
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
