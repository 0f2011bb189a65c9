"""What the REST API answers, as far as the pages show it. A field the API does not tell (yet) is None or empty."""

from datetime import datetime

from msgspec import Struct, field


class Body(Struct):
    """Part of an answer; fields nobody here reads are passed over."""


class Me(Body):
    """Whose key it is."""

    name: str
    role: str = "user"
    scope: str = "read"


class Rate(Body):
    """An exchange rate, as many units of the currency as a euro costs; None where none is known."""

    currency: str
    per_euro: float | None = None
    quoted_on: str | None = None
    age_days: int | None = None
    is_stale: bool = False


class OpportunityCounts(Body):
    """Open opportunities by what is known of their profit."""

    open: int = 0
    profitable: int = 0
    doubtful: int = 0
    unknown: int = 0


class PairCount(Body):
    """Open opportunities from one store to another."""

    source_market: str
    target_market: str
    count: int
    median_margin_percentage: float | None = None


class Stats(Body):
    """Everything in a few figures."""

    products: int = 0
    markets: list[str] | int = 0
    opportunities: OpportunityCounts = field(default_factory=OpportunityCounts)
    best_margin_percentage: float | None = None
    best_profit_minor: int | None = None
    by_pair: list[PairCount] = []
    compared_at: datetime | None = None
    rates: list[Rate] = []


class Opportunity(Body):
    """Buy in one store, sell in another: prices in minor units of each store's currency, what is left in euro cents."""

    id: int
    asin: str
    source_market: str
    target_market: str
    source_price: int
    target_price: int
    source_currency: str
    target_currency: str
    margin: int
    margin_percentage: float
    title: str | None = None
    brand: str | None = None
    image_url: str | None = None
    category: str | None = None
    price_type: str = "NEW"
    source_checked_at: datetime | None = None
    target_checked_at: datetime | None = None
    profit_minor: int | None = None
    invested_minor: int | None = None
    roi_pct: float | None = None
    profit_margin_pct: float | None = None
    unknown: list[str] = []
    is_stale: bool = False
    doubts: list[str] = []
    flags: list[str] = []
    score: int | None = None
    score_parts: dict[str, float | None] = {}
    is_active: bool = True
    first_seen_at: datetime | None = None
    last_seen_at: datetime | None = None
    best_profit_minor: int | None = None
    best_margin: int | None = None
    closed_at: datetime | None = None
    closed_why: str | None = None
    source_link: str | None = None
    target_link: str | None = None


class OpportunityPage(Body):
    """Opportunities that were asked for."""

    opportunities: list[Opportunity]
    total: int | None = None
    next: str | None = None
    seller: str = "default"
    compared_at: datetime | None = None


class PartRow(Body):
    """A row of a table that a part of a profit stands on."""

    table: str
    key: str
    valid_from: str | None = None
    source: str | None = None


class ProfitPart(Body):
    """What one part adds to the profit, below 0 for what it costs, in euro cents; None where it is not known."""

    name: str
    amount_minor: int | None = None
    why_unknown: str | None = None
    rows: list[PartRow] = []


class HighestPurchase(Body):
    """What may be paid at most, in minor units of the source store's currency."""

    break_even: int | None = None
    wanted_roi: int | None = None


class Explanation(Body):
    """A profit part by part."""

    opportunity: Opportunity
    parts: list[ProfitPart]
    profit_minor: int | None = None
    naive_profit_minor: int | None = None
    highest_purchase: HighestPurchase = field(default_factory=HighestPurchase)


class ProductInStore(Body):
    """A product in one store."""

    price: int | None = None
    currency: str = "EUR"
    price_type: str | None = None
    checked_at: datetime | None = None
    sales_rank: int | None = None
    rating: float | None = None
    review_count: int | None = None
    monthly_sold: int | None = None
    offer_count: int | None = None
    buy_box_is_amazon: bool | None = None
    buy_box_is_fba: bool | None = None
    is_hazardous: bool | None = None
    is_heat_sensitive: bool | None = None
    return_rate: str | float | None = None
    lowest_year_minor: int | None = None
    link: str | None = None


class ProductPage(Body):
    """A product over all stores."""

    asin: str
    markets: dict[str, ProductInStore]
    title: str | None = None
    brand: str | None = None
    category: str | None = None
    image_url: str | None = None
    best_opportunity: Opportunity | None = None
    opportunities: list[Opportunity] = []


class FoundProduct(Body):
    """A product that a search found."""

    asin: str
    title: str | None = None
    brand: str | None = None


class FoundProducts(Body):
    """One page of them."""

    products: list[FoundProduct]


class PricePoint(Body):
    """A price, valid until the next point; None: no offer."""

    observed_at: datetime
    price: float | None = None


class PriceHistory(Body):
    """A step function."""

    asin: str
    marketplace: str
    currency: str
    points: list[PricePoint]
    end_at: datetime | None = None


class Horizon(Body):
    """What is to be expected in so many days."""

    days: int
    price_minor: int | None = None
    low_minor: int | None = None
    high_minor: int | None = None
    why_no_price: str | None = None
    chance_pct: float | None = None
    why_no_chance: str | None = None


class PriceForecast(Body):
    """A price in some days, the nearest first; given only where its own past bears it out."""

    marketplace: str
    currency: str
    horizons: list[Horizon]
    target_minor: int | None = None


class Watch(Body):
    """A watch as it stands."""

    id: int
    asin: str
    marketplace: str
    price_type: str
    currency: str
    interval_seconds: int
    hysteresis_pct: float
    is_paused: bool
    link: str
    title: str | None = None
    image_url: str | None = None
    target: float | None = None
    price: float | None = None
    observed_at: datetime | None = None
    last_checked_at: datetime | None = None
    next_check_at: datetime | None = None
    last_failure: str | None = None


class WatchPage(Body):
    """One page of them."""

    watches: list[Watch]
    next: str | None = None


class Deal(Body):
    """A deal as a search shows it."""

    deal_id: str
    asin: str
    marketplace: str
    currency: str
    link: str
    since: datetime
    title: str | None = None
    brand: str | None = None
    category: str | None = None
    price: float | None = None
    list_price: float | None = None
    discount_pct: float | None = None
    median_90: float | None = None
    below_median_pct: float | None = None
    lowest_year: float | None = None
    is_year_low: bool | None = None
    is_all_time_low: bool | None = None
    is_list_price_fiction: bool | None = None
    is_glitch: bool | None = None
    score: float | None = None
    rating: float | None = None
    review_count: int | None = None
    image_url: str | None = None
    ended_at: datetime | None = None


class DealPage(Body):
    """One page of hits."""

    deals: list[Deal]
    total: int | None = None
    next_cursor: str | None = None


class SpentTokens(Body):
    """What the calls of one operation came to."""

    operation: str
    calls: int
    failed: int
    tokens: int


class SpentHour(Body):
    """What the calls of one hour came to."""

    hour_at: datetime
    calls: int
    failed: int
    tokens: int


class Forecast(Body):
    """What becomes of the balance. None: it never comes to that."""

    planned_per_minute: float
    spent_per_minute: float
    watches_fit: bool
    minutes_until_full: float | None = None
    minutes_until_empty_as_planned: float | None = None
    minutes_until_empty_as_spent: float | None = None
    needed_pct: float | None = None


class Tokens(Body):
    """The budget."""

    source: str
    tokens: int
    capacity: int
    refill_per_minute: int
    last_hour: list[SpentTokens]
    last_day: list[SpentTokens]
    hours: list[SpentHour]
    watched_products: int
    forecast: Forecast


class System(Body):
    """A system Keeper works with."""

    name: str
    condition: str
    text: str
    since: datetime
    last_error: str | None = None
    last_error_at: datetime | None = None


class WaitingFor(Body):
    """What waits for one system."""

    name: str
    is_on: bool
    messages: int
    postponed: int
    dead_letters: int
    oldest_seconds: float | None = None


class ConsumerGroup(Body):
    """How far one group is."""

    group: str
    topic: str
    problem: str
    lag: int | None = None


class SearchIndex(Body):
    """What one index holds."""

    alias: str
    documents: int
    problem: str
    rows: int | None = None


class HouseStatus(Body):
    """How everything is."""

    source: str
    looked_at: datetime
    systems: list[System]
    waiting: list[WaitingFor]
    consumers: list[ConsumerGroup]
    indices: list[SearchIndex]
    warnings: list[str]


class Problem(Body):
    """An error, by RFC 9457."""

    title: str = ""
    detail: str = ""
    hint: str | None = None
    type: str = ""
