"""The verb `collect`: deals a source told of, judged, kept and published; a watched product's price is recorded by the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from keeper.domain.deal import DealSighting, DealSource
from keeper.domain.deal_quality import DealFacts, DealJudgement, judge_deal
from keeper.domain.events import Event, EventKind, deal_event_id, deal_id_of, raw_deal_event_id
from keeper.domain.price_series import PriceSeries, minute_of, time_of
from keeper.domain.price_type import PRICES
from keeper.domain.product import Product, ProductKind
from keeper.domain.product_group import ProductGroup
from keeper.postgres import deals
from keeper.postgres.deals import DealRow, KnownDeal, KnownProduct, PastPrices, Place
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import lock_routes
from keeper.record import LARGEST_BATCH, record

# A score that moves by less, as it does with every rank, is no news.
_SCORE_NEWS = 3
_LONGEST_RAW = 1024 * 1024
_ENDED_AT_ONCE = 1000

Key = tuple[str, str, str, datetime]


@dataclass(frozen=True, slots=True)
class Collected:
    """What one call did.

    Attributes:
        seen: what the source told of.
        kept: what belonged to the group.
        added: deals that were not known; `again` those that were.
        changed: known deals that are not what they were.
        ended: deals that gave way to a newer price.
        glitches: suspected ones among the added.
        announced: keys of the deals that may be told to people from now on: new ones, and glitches seen twice.
        best: the best scores among the announced, with their deal ids, best first.
    """

    seen: int = 0
    kept: int = 0
    added: int = 0
    again: int = 0
    changed: int = 0
    ended: int = 0
    glitches: int = 0
    announced: tuple[Key, ...] = ()

    @property
    def is_news(self) -> bool:
        """Whether anything was not known before."""
        return bool(self.added or self.changed)


def collect(
    connection: Connection,
    sightings: Sequence[DealSighting],
    *,
    now: datetime,
    source: DealSource,
    query: str | None = None,
    group: ProductGroup | None = None,
    raw: Mapping[str, bytes] | None = None,
) -> Collected:
    """Keep what belongs to the group. Idempotent: the same sightings again change nothing but when they were last seen.

    Locks each product's row first, as `record` does, which records the prices of those that are watched.

    Args:
        connection: in a transaction the caller commits.
        sightings: at most LARGEST_BATCH; of the same deal the one with the latest look counts.
        now: business time.
        query: name of the feed's query or of the file of seeds.
        group: None keeps everything.
        raw: Keepa's own JSON of each row by ASIN, for those who decode it again.
    """
    if len(sightings) > LARGEST_BATCH:
        raise ValueError(f"at most {LARGEST_BATCH} deals in one transaction, got {len(sightings)}")
    mine = _newest([one for one in sightings if _belongs(one, group)])
    if not mine:
        return Collected(seen=len(sightings))
    places = sorted({(one.asin, one.marketplace.value) for one in mine})
    known = deals.select_known_products(connection, places)
    record(connection, [_seen_product(one, known, group, now) for one in _one_a_product(mine)], now=now, falls_kept=0)
    routes = lock_routes(connection)
    keys = [_key(one) for one in mine]
    before = deals.select_deals(connection, keys)
    past = deals.select_past(connection, keys, now=now)
    written = _Written(now, source, query, group)
    same = {(deal.asin, deal.marketplace, deal.price_type, deal.changed_at): deal for deal in before}
    running = [deal for deal in before if deal.ended_at is None]
    newest = _newest_change(running)
    for one, key in zip(mine, keys, strict=True):
        if newest.get(key[:3], key[3]) > key[3] and key not in same:
            continue  # the page is older than what is known
        written.judge(one, key, same.get(key), past.get(key[:3]), known.get(key[:2]))
    moved = {key[:3]: key[3] for key in keys}
    over = [
        (deal, at, deal_event_id(_deal_id(deal), deal.revision + 1))
        for deal in running
        if (at := moved.get((deal.asin, deal.marketplace, deal.price_type))) is not None and at > deal.changed_at
    ]
    deals.write_deals(connection, written.rows)
    deals.touch_deals(connection, written.again, written.looks, now=now)
    deals.end_deals(connection, over)
    deals.insert_sightings(connection, keys, [one.sales_rank for one in mine], query=query, now=now)
    deals.insert_deal_events(connection, [*(row.event_id for row in written.rows), *(event_id for *_, event_id in over)], routes)
    if raw is not None and EventKind.RAW_DEAL in routes:
        news = {row.asin for row in written.rows}
        insert_events(connection, _raw_events([one for one in mine if one.asin in news], raw), routes)
    return Collected(
        seen=len(sightings),
        kept=len(mine),
        added=written.added,
        again=len(written.again) + len(written.rows) - written.added,
        changed=len(written.rows) - written.added,
        ended=len(over),
        glitches=sum(row.is_glitch and row.revision == 1 for row in written.rows),
        announced=tuple(written.announced),
    )


def end_deals(connection: Connection, *, now: datetime, ends_after: timedelta) -> int:
    """End the deals whose price moved on, and those that nobody has seen for so long. Returns how many; call until it is 0.

    Idempotent. What is being collected at the moment is left to the next call.
    """
    routes = lock_routes(connection)
    overdue = deals.select_overdue(connection, unseen_since=now - ends_after, limit=_ENDED_AT_ONCE)
    over = [(deal, at, deal_event_id(_deal_id(deal), deal.revision + 1)) for deal, at in overdue]
    deals.end_deals(connection, over)
    deals.insert_deal_events(connection, [event_id for *_, event_id in over], routes)
    return len(over)


class _Written:
    """What is to be written of each sighting."""

    def __init__(self, now: datetime, source: DealSource, query: str | None, group: ProductGroup | None) -> None:
        self._now = now
        self._source = source
        self._query = query
        self._group = group
        self.rows: list[DealRow] = []
        self.again: list[Key] = []
        self.looks: list[datetime] = []
        self.announced: list[Key] = []
        self.added = 0

    def judge(self, one: DealSighting, key: Key, known: KnownDeal | None, past: PastPrices | None, product: KnownProduct | None) -> None:
        """Decide whether it is new, another than it was, or just seen again."""
        looked_at = time_of(one.updated_minute)
        is_later_look = known is None or known.looked_at is None or looked_at > known.looked_at
        sightings = 1 if known is None else known.sightings + is_later_look
        judged = judge_deal(_facts(one, past, sightings))
        announced_at = known.announced_at if known is not None else None
        may_announce = announced_at is None and (not judged.is_glitch or sightings > 1)
        if known is not None and not may_announce and not _is_other(one, known, judged):
            self.again.append(key)
            self.looks.append(looked_at)
            return
        self.added += known is None
        if may_announce:
            announced_at = self._now
            self.announced.append(key)
        self.rows.append(self._row(one, known, judged, past, product, sightings=sightings, announced_at=announced_at))

    def _row(
        self,
        one: DealSighting,
        known: KnownDeal | None,
        judged: DealJudgement,
        past: PastPrices | None,
        product: KnownProduct | None,
        *,
        sightings: int,
        announced_at: datetime | None,
    ) -> DealRow:
        revision = 1 if known is None else known.revision + 1
        looked_at = time_of(one.updated_minute)
        facts = _facts(one, past, sightings)
        return DealRow(
            asin=one.asin,
            marketplace=one.marketplace,
            price_type=one.price_type,
            changed_at=one.changed_at,
            amount_minor=one.amount_minor,
            list_price_minor=one.list_price_minor,
            currency=one.marketplace.currency,
            discount_pct=judged.discount_pct,
            first_seen_at=self._now if known is None else known.first_seen_at,
            last_seen_at=self._now,
            ended_at=None,
            revision=revision,
            event_id=deal_event_id(_deal_id(one), revision),
            previous_minor=one.previous_minor,
            rating_tenths=one.rating_tenths,
            review_count=one.review_count,
            sales_rank=one.sales_rank,
            category=one.category or (product.category if product else None),
            url=f"https://{one.marketplace.host}/dp/{one.asin}",
            deal_score=judged.score,
            source=self._source,
            query=self._query,
            product_group=self._group.name if self._group else None,
            layout=self._group.layout_of(one.title) if self._group and one.title else None,
            median_90_minor=facts.median_90_minor,
            average_90_minor=one.averages_minor.get(90),
            below_median_pct=_within(judged.below_median_pct),
            lowest_year_minor=facts.lowest_year_minor,
            lowest_ever_minor=facts.lowest_ever_minor,
            highest_year_minor=facts.highest_year_minor,
            is_year_low=judged.is_year_low,
            is_all_time_low=judged.is_all_time_low,
            is_list_price_fiction=judged.is_list_price_fiction,
            is_glitch=judged.is_glitch,
            glitch_reason=judged.glitch_reason,
            sightings=sightings,
            looked_at=looked_at if known is None or known.looked_at is None else max(looked_at, known.looked_at),
            announced_at=announced_at,
            score_parts=dict(judged.parts),
        )


def _belongs(one: DealSighting, group: ProductGroup | None) -> bool:
    if group is None:
        return True
    return group.judge(one.title, one.category_ids, one.root_category_id, brand=one.brand).is_member


def _newest(sightings: Sequence[DealSighting]) -> list[DealSighting]:
    """One of each price, in order of the products: the latest change, of which the latest look."""
    newest: dict[tuple[str, str, str], DealSighting] = {}
    for one in sightings:
        place = one.asin, one.marketplace.value, one.price_type.value
        other = newest.get(place)
        if other is None or (one.changed_minute, one.updated_minute) > (other.changed_minute, other.updated_minute):
            newest[place] = one
    return [newest[place] for place in sorted(newest)]


def _one_a_product(sightings: Sequence[DealSighting]) -> list[DealSighting]:
    """Of each product the one that was looked at last."""
    latest: dict[Place, DealSighting] = {}
    for one in sightings:
        place = one.asin, one.marketplace.value
        if place not in latest or one.updated_minute > latest[place].updated_minute:
            latest[place] = one
    return list(latest.values())


def _seen_product(one: DealSighting, known: Mapping[Place, KnownProduct], group: ProductGroup | None, now: datetime) -> Product:
    """The product as the deal tells of it: what is known better stays, and only what is watched has its prices recorded."""
    product = known.get((one.asin, one.marketplace.value))
    latest = minute_of(now)
    return Product(
        asin=one.asin,
        marketplace=one.marketplace,
        kind=ProductKind.STANDARD,
        answered_at=now,
        title=None if product and product.title else one.title,
        brand=None if product and product.brand else one.brand or (group.brand_of(one.title) if group and one.title else None),
        image_urls=() if product and product.image_url else (one.image_url,) if one.image_url else (),
        root_category_id=None if product and product.root_category_id else one.root_category_id,
        category_path=() if (product and product.category) or not one.category else (one.category,),
        parent_asin=one.parent_asin,
        sales_rank=one.sales_rank,
        rating_tenths=one.rating_tenths,
        review_count=one.review_count,
        series={
            price_type: PriceSeries((minute,), (one.current[price_type],))
            for price_type in PRICES
            if price_type in one.current and (minute := one.current_since.get(price_type)) is not None and minute <= latest
        }
        if product and product.is_watched
        else {},
        is_partial=True,
    )


def _facts(one: DealSighting, past: PastPrices | None, sightings: int) -> DealFacts:
    """What Keepa said where it said it, else what the recorded history says."""
    return DealFacts(
        amount_minor=one.amount_minor,
        price_type=one.price_type,
        list_price_minor=one.list_price_minor,
        median_90_minor=one.median_90_minor or (past.median_90 if past else None),
        average_by_days=one.averages_minor,
        previous_minor=one.previous_minor,
        lowest_ever_minor=one.lowest_ever_minor or (past.lowest_ever if past else None),
        lowest_year_minor=one.lowest_year_minor or (past.lowest_year if past else None),
        highest_year_minor=one.highest_year_minor or (past.highest_year if past else None),
        rating_tenths=one.rating_tenths,
        review_count=one.review_count,
        sales_rank=one.sales_rank,
        sales_rank_drops_90=one.sales_rank_drops_90,
        offer_count=one.offer_count,
        sightings=sightings,
        is_lightning=one.is_lightning,
        history_days=None if one.lowest_ever_minor or past is None else int(past.known_days),
    )


def _is_other(one: DealSighting, known: KnownDeal, judged: DealJudgement) -> bool:
    """Whether people would want to know: it is on again, or its worth is another."""
    return (
        known.ended_at is not None
        or known.list_price_minor != one.list_price_minor
        or known.is_glitch != judged.is_glitch
        or known.deal_score is None
        or abs(known.deal_score - judged.score) >= _SCORE_NEWS
    )


def _newest_change(running: Sequence[KnownDeal]) -> dict[tuple[str, str, str], datetime]:
    newest: dict[tuple[str, str, str], datetime] = {}
    for deal in running:
        place = deal.asin, deal.marketplace, deal.price_type
        newest[place] = max(deal.changed_at, newest.get(place, deal.changed_at))
    return newest


def _raw_events(sightings: Sequence[DealSighting], raw: Mapping[str, bytes]) -> list[Event]:
    events = {}
    for one in sightings:
        body = raw.get(one.asin)
        if body is None or len(body) > _LONGEST_RAW:
            continue
        event_id = raw_deal_event_id(one.asin, one.marketplace.value, one.price_type.value, one.updated_minute * 60)
        timestamp = f"{time_of(one.updated_minute).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        events[event_id] = Event(
            event_id,
            EventKind.RAW_DEAL,
            one.asin,
            f'{{"asin":"{one.asin}","domain":"{one.marketplace.value.lower()}","event_id":"{event_id}","schema_version":1,'
            f'"timestamp":"{timestamp}","event_type":"raw_deal","deal":{bytes(body).decode(errors="replace")}}}',
        )
    return list(events.values())


def _key(one: DealSighting) -> Key:
    return one.asin, one.marketplace.value, one.price_type.value, one.changed_at


def _deal_id(deal: DealSighting | KnownDeal) -> str:
    return deal_id_of(deal.asin, str(deal.marketplace), str(deal.price_type), int(deal.changed_at.timestamp()))


def _within(percent: float | None) -> float | None:
    """As the column holds it: below a price of a hundredth the percentage has no meaning left."""
    return None if percent is None else max(-999.99, min(999.99, percent))
