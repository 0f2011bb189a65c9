"""The verb `collect`: deals a source told of, judged, kept and published; a watched product's price is recorded by the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from keeper.deal_alerts import tell_deals
from keeper.domain.deal import DealQuery, DealSighting, DealSource
from keeper.domain.deal_quality import DealFacts, DealJudgement, judge_deal
from keeper.domain.events import Event, EventKind, deal_event_id, deal_id_of, raw_deal_event_id
from keeper.domain.price_series import PriceSeries, minute_of, time_of
from keeper.domain.price_type import PRICES
from keeper.domain.product import Product, ProductKind
from keeper.domain.product_group import ProductGroup
from keeper.postgres import deals
from keeper.postgres.deals import DealRow, Key, KnownDeal, KnownProduct, PastPrices, Place
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import lock_routes
from keeper.record import LARGEST_BATCH, record

# A score that moves by less, as it does with every rank, is no news.
_SCORE_NEWS = 3
_ENDED_AT_ONCE = 1000
# Keepa's clock may be that much ahead of ours; what began later did not begin.
_CLOCK_MINUTES = 5
# Of a history so long one may say what its year was.
_YEAR_DAYS = 300
# Who is believed where two know as much: the feed tells what Keepa knows, the seeds what we recorded.
_TRUST = {DealSource.POSTED: 0, DealSource.SEEDS: 1, DealSource.FEED: 2}


@dataclass(frozen=True, slots=True)
class Collected:
    """What one call did.

    Attributes:
        seen: what the source told of.
        kept: what belonged to a group and is a deal.
        added: deals that were not known; `again` those that were.
        changed: known deals that are not what they were; of them `reopened` were over.
        ended: deals that gave way to a newer price.
        glitches: suspected ones among the added.
        told: times a deal was told to a user at once, by filter; `held` those that wait for a report.
        members: how many of the products seen are of a group; None where there is no group to be of.
        announced: keys of the deals that may be told to people from now on: new ones, and glitches seen twice.
    """

    seen: int = 0
    kept: int = 0
    added: int = 0
    again: int = 0
    changed: int = 0
    reopened: int = 0
    ended: int = 0
    glitches: int = 0
    told: int = 0
    held: int = 0
    members: int | None = None
    announced: tuple[Key, ...] = ()

    @property
    def is_news(self) -> bool:
        """Whether anything was not known before."""
        return bool(self.added or self.reopened)


def collect(
    connection: Connection,
    sightings: Sequence[DealSighting],
    *,
    now: datetime,
    source: DealSource,
    query: str | None = None,
    groups: Sequence[ProductGroup] = (),
    only_groups: bool = True,
    least_fall_pct: float | None = None,
    instant_per_hour: int = 5,
    raw: Callable[[str], bytes] | None = None,
) -> Collected:
    """Keep the deals. Idempotent: the same sightings again change nothing but when they were last seen.

    Locks each product's row first, as `record` does, which records the prices of those that are watched.

    Args:
        connection: in a transaction the caller commits.
        sightings: at most LARGEST_BATCH; of the same deal the one with the latest look counts.
        now: business time.
        query: name of the feed's query or of the file of seeds.
        groups: those a deal may belong to; the first that takes it gives it its name.
        only_groups: what belongs to none of them is left out; without any group nothing is.
        least_fall_pct: a price that is no so much below its list price or its 90-day median is no deal; None where the source has chosen.
        instant_per_hour: deals a user is told at once, within an hour; the rest waits for the report.
        raw: Keepa's own JSON of each row by its ASIN, for those who decode it again.
    """
    if len(sightings) > LARGEST_BATCH:
        raise ValueError(f"at most {LARGEST_BATCH} deals in one transaction, got {len(sightings)}")
    latest = minute_of(now) + _CLOCK_MINUTES
    believable = [one for one in sightings if one.changed_minute <= latest]
    whole = _newest(believable, groups)
    members = sum(one.group is not None for one in whole) if groups else None
    mine = [one for one in whole if one.group is not None or not (groups and only_groups)]
    if not mine:
        return _noted(connection, Collected(seen=len(sightings), members=members), source, query, now)
    keys = [one.key for one in mine]
    known = deals.select_known_products(connection, sorted({key[:2] for key in keys}))
    routes = lock_routes(connection)
    doubtful = _doubtful(connection, [one for one in mine if (product := known.get(one.key[:2])) and product.is_watched], now)
    told_of = [_seen_product(one, known.get(one.key[:2]), now, without_minor=doubtful.get(one.key[:2])) for one in _one_a_product(mine)]
    recorded = record(connection, told_of, now=now, falls_kept=0, routes=routes)
    # A product that was not known has neither deals nor a history.
    older = [key for key in keys if key[:2] not in recorded.added]
    before = deals.select_deals(connection, older)
    past = deals.select_past(connection, older, now=now)
    same = {(deal.asin, deal.marketplace, deal.price_type, deal.changed_at): deal for deal in before}
    running = [deal for deal in before if deal.ended_at is None]
    newest = _newest_change(running)
    writer = _Writer(now, source, query, least_fall_pct)
    for one in mine:
        # A page may be older than what is known.
        if newest.get(one.key[:3], one.key[3]) <= one.key[3]:
            writer.take(one, same.get(one.key), past.get(one.key[:3]), known.get(one.key[:2]))
    moved = {key[:3]: key[3] for key in keys}
    ending = writer.ending + [
        (deal, at)
        for deal in running
        if (at := moved.get((deal.asin, deal.marketplace, deal.price_type))) is not None and at > deal.changed_at
    ]
    over = [(deal, at, deal_event_id(_deal_id(deal), deal.revision + 1)) for deal, at in ending]
    deals.write_deals(connection, writer.rows)
    deals.touch_deals(connection, [one.key for one in writer.again], [one.looked_at for one in writer.again], now=now)
    deals.end_deals(connection, over)
    deals.insert_sightings(connection, [(one.key, one.deal.sales_rank) for one in writer.seen], query=query, now=now)
    deals.insert_deal_events(connection, [*(row.event_id for row in writer.rows), *(event_id for *_, event_id in over)], routes)
    if raw is not None and EventKind.RAW_DEAL in routes:
        written = {row.asin for row in writer.rows}
        insert_events(connection, _raw_events([one.deal for one in mine if one.deal.asin in written], raw), routes)
    # Those that are not what they were, too: what is better by now may be what somebody waits for.
    tellable = [_key_of(row) for row in writer.rows if row.announced_at is not None]
    alerted = tell_deals(connection, tellable, now=now, routes=routes, most_per_hour=instant_per_hour)
    done = Collected(
        seen=len(sightings),
        kept=len(writer.seen),
        added=writer.added,
        again=len(writer.seen) - writer.added,
        changed=len(writer.rows) - writer.added,
        reopened=writer.reopened,
        ended=len(over),
        glitches=writer.glitches,
        told=alerted.told,
        held=alerted.held,
        members=members,
        announced=tuple(writer.announced),
    )
    return _noted(connection, done, source, query, now)


def _noted(connection: Connection, done: Collected, source: DealSource, query: str | None, now: datetime) -> Collected:
    """For the operations report, which tells how much of what is paid for is kept."""
    deals.insert_collection(
        connection,
        source=source,
        query=query,
        seen=done.seen,
        kept=done.kept,
        added=done.added,
        glitches=done.glitches,
        members=done.members,
        now=now,
    )
    return done


def end_unseen(connection: Connection, query: DealQuery, *, since: datetime, now: datetime) -> int:
    """End what a query found before and tells of no more, now that all its pages were read since then. Returns how many."""
    return _end(connection, [(deal, now) for deal in deals.select_unseen(connection, query, since=since)])


def end_deals(connection: Connection, *, now: datetime, ends_after: timedelta) -> int:
    """End the deals whose price moved on, and those that nobody has seen for so long. Returns how many; call until it is 0.

    Idempotent. What is being collected at the moment is left to the next call.
    """
    lock_routes(connection)
    return _end(connection, deals.select_overdue(connection, unseen_since=now - ends_after, limit=_ENDED_AT_ONCE))


def _end(connection: Connection, ending: Sequence[tuple[KnownDeal, datetime]]) -> int:
    routes = lock_routes(connection)
    over = [(deal, at, deal_event_id(_deal_id(deal), deal.revision + 1)) for deal, at in ending]
    deals.end_deals(connection, over)
    deals.insert_deal_events(connection, [event_id for *_, event_id in over], routes)
    return len(over)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A sighting, the group that takes it, and its key."""

    deal: DealSighting
    group: ProductGroup | None
    key: Key

    @property
    def looked_at(self) -> datetime:
        return time_of(self.deal.updated_minute)


class _Writer:
    """Decides what is to be written of each sighting."""

    def __init__(self, now: datetime, source: DealSource, query: str | None, least_fall_pct: float | None) -> None:
        self._now = now
        self._source = source
        self._query = query
        self._least_fall_pct = least_fall_pct
        self.rows: list[DealRow] = []
        self.seen: list[_Seen] = []
        self.again: list[_Seen] = []
        self.ending: list[tuple[KnownDeal, datetime]] = []
        self.announced: list[Key] = []
        self.added = self.reopened = self.glitches = 0

    def take(self, one: _Seen, known: KnownDeal | None, past: PastPrices | None, product: KnownProduct | None) -> None:
        """Whether it is new, another than it was, over, or just seen again."""
        is_over = known is not None and known.ended_at is not None
        if known is not None and known.ended_at is not None and one.looked_at <= known.ended_at:
            return  # an old look at what ended since
        sightings = _sightings_of(one, known)
        facts = _facts(one.deal, past, product, sightings, known)
        judged = judge_deal(facts)
        if self._least_fall_pct is not None and _fall_pct(judged) < self._least_fall_pct:
            if known is not None and not is_over and known.source == self._source:
                self.ending.append((known, self._now))
            if known is None or is_over or known.source == self._source:
                return
        self.seen.append(one)
        may_be_told = not judged.is_glitch or sightings > 1
        announced_at = known.announced_at if known is not None and may_be_told else None
        is_announced_now = announced_at is None and may_be_told
        if known is not None and not is_over and not is_announced_now and not self._is_other(one.deal, known, judged):
            self.again.append(one)
            return
        self.reopened += is_over
        if known is None:
            self.added += 1
            self.glitches += judged.is_glitch
        if is_announced_now:
            announced_at = self._now
            self.announced.append(one.key)
        self.rows.append(self._row(one, known, facts, judged, product, announced_at))

    def _is_other(self, one: DealSighting, known: KnownDeal, judged: DealJudgement) -> bool:
        """Whether people would want to know that its worth is another.

        Two sources know different facts of one deal, and each would take the other's word back: the one that knows more has it.
        """
        if known.confidence is not None and (judged.confidence, _TRUST[self._source]) < (known.confidence, _TRUST[known.judged_by]):
            return False
        return (
            one.list_price_minor not in (None, known.list_price_minor)
            or known.is_glitch != judged.is_glitch
            or known.deal_score is None
            or abs(known.deal_score - judged.score) >= _SCORE_NEWS
        )

    def _row(
        self,
        one: _Seen,
        known: KnownDeal | None,
        facts: DealFacts,
        judged: DealJudgement,
        product: KnownProduct | None,
        announced_at: datetime | None,
    ) -> DealRow:
        deal, group = one.deal, one.group
        revision = 1 if known is None else known.revision + 1
        return DealRow(
            asin=deal.asin,
            marketplace=deal.marketplace,
            price_type=deal.price_type,
            changed_at=deal.changed_at,
            amount_minor=deal.amount_minor,
            list_price_minor=facts.list_price_minor,
            currency=deal.marketplace.currency,
            discount_pct=judged.discount_pct,
            first_seen_at=self._now if known is None else known.first_seen_at,
            last_seen_at=self._now,
            ended_at=None,
            revision=revision,
            event_id=deal_event_id(_deal_id(deal), revision),
            previous_minor=deal.previous_minor,
            rating_tenths=facts.rating_tenths,
            review_count=facts.review_count,
            sales_rank=facts.sales_rank,
            category=(product.category if product else None) or deal.category,
            url=f"https://{deal.marketplace.host}/dp/{deal.asin}",
            deal_score=judged.score,
            source=self._source,
            query=self._query if known is None or known.ended_at is not None else known.query,
            product_group=group.name if group else None,
            layout=group.layout_of(deal.title) if group and deal.title else None,
            median_90_minor=facts.median_90_minor,
            average_90_minor=deal.averages_minor.get(90),
            below_median_pct=_within(judged.below_median_pct),
            lowest_year_minor=facts.lowest_year_minor,
            lowest_ever_minor=facts.lowest_ever_minor,
            highest_year_minor=facts.highest_year_minor,
            is_year_low=judged.is_year_low,
            is_all_time_low=judged.is_all_time_low,
            is_list_price_fiction=judged.is_list_price_fiction,
            is_glitch=judged.is_glitch,
            glitch_reason=judged.glitch_reason,
            sightings=facts.sightings,
            looked_at=one.looked_at if known is None or known.looked_at is None else max(one.looked_at, known.looked_at),
            announced_at=announced_at,
            score_parts=dict(judged.parts),
            confidence=judged.confidence,
            judged_by=self._source,
        )


def _sightings_of(one: _Seen, known: KnownDeal | None) -> int:
    """How often the deal was seen, this time included: another sighting is one with a later look of Keepa's."""
    if known is None:
        return 1
    return known.sightings + (known.looked_at is None or one.looked_at > known.looked_at)


def _doubtful(connection: Connection, watched: Sequence[_Seen], now: datetime) -> dict[Place, int]:
    """Amounts that may be glitches and were not seen twice, by product: nobody's alert, and no price of the history, comes of them.

    Read without a lock, before the products are locked: who sees the same at the same time doubts it as well.
    """
    if not watched:
        return {}
    keys = [one.key for one in watched]
    past = deals.select_past(connection, keys, now=now)
    found = deals.select_deals(connection, keys, lock=False)
    before = {(deal.asin, deal.marketplace, deal.price_type, deal.changed_at): deal for deal in found}
    doubtful: dict[Place, int] = {}
    for one in watched:
        known = before.get(one.key)
        sightings = _sightings_of(one, known)
        if sightings < 2 and judge_deal(_facts(one.deal, past.get(one.key[:3]), None, sightings, known)).is_glitch:
            doubtful[one.key[:2]] = one.deal.amount_minor
    return doubtful


def _newest(sightings: Sequence[DealSighting], groups: Sequence[ProductGroup]) -> list[_Seen]:
    """One of each price, in order of the products: the latest change, of which the latest look."""
    newest: dict[tuple[str, str, str], DealSighting] = {}
    for one in sightings:
        place = one.asin, one.marketplace.value, one.price_type.value
        other = newest.get(place)
        if other is None or (one.changed_minute, one.updated_minute) > (other.changed_minute, other.updated_minute):
            newest[place] = one
    return [_Seen(one, _group_of(one, groups), (*place, one.changed_at)) for place, one in sorted(newest.items())]


def _group_of(one: DealSighting, groups: Sequence[ProductGroup]) -> ProductGroup | None:
    for group in groups:
        if group.judge(one.title or "", one.category_ids, one.root_category_id, brand=one.brand).is_member:
            return group
    return None


def _one_a_product(seen: Sequence[_Seen]) -> list[_Seen]:
    """Of each product the one that was looked at last."""
    latest: dict[Place, _Seen] = {}
    for one in seen:
        place = one.key[:2]
        if place not in latest or one.deal.updated_minute > latest[place].deal.updated_minute:
            latest[place] = one
    return list(latest.values())


def _seen_product(one: _Seen, known: KnownProduct | None, now: datetime, *, without_minor: int | None) -> Product:
    """The product as the deal tells of it: what is known better stays, and only what is watched has its prices recorded.

    Args:
        without_minor: an amount that is not believed yet; None where all are.
    """
    deal, latest = one.deal, minute_of(now)
    said_brand = deal.brand or (one.group.brand_of(deal.title) if one.group and deal.title else None)
    return Product(
        asin=deal.asin,
        marketplace=deal.marketplace,
        kind=ProductKind.STANDARD,
        answered_at=now,
        updated_at=min(time_of(deal.updated_minute), now),
        title=None if known and known.title else deal.title,
        brand=None if known and known.brand else said_brand,
        image_urls=(deal.image_url,) if deal.image_url and not (known and known.image_url) else (),
        root_category_id=None if known and known.root_category_id else deal.root_category_id,
        category_path=(deal.category,) if deal.category and not (known and known.category) else (),
        parent_asin=deal.parent_asin,
        sales_rank=deal.sales_rank,
        rating_tenths=deal.rating_tenths,
        review_count=deal.review_count,
        series={
            price_type: PriceSeries((minute,), (deal.current[price_type],))
            for price_type in PRICES
            if price_type in deal.current
            and (minute := deal.current_since.get(price_type)) is not None
            and minute <= latest
            and (without_minor is None or deal.current[price_type] != without_minor)
        }
        if known and known.is_watched
        else {},
        is_partial=True,
    )


def _facts(one: DealSighting, past: PastPrices | None, product: KnownProduct | None, sightings: int, known: KnownDeal | None) -> DealFacts:
    """What the source said where it said it, else what is recorded of the product and its history."""
    return DealFacts(
        amount_minor=one.amount_minor,
        price_type=one.price_type,
        list_price_minor=one.list_price_minor or (known.list_price_minor if known else None),
        median_90_minor=one.median_90_minor or (past.median_90 if past else None),
        average_by_days=one.averages_minor,
        previous_minor=one.previous_minor,
        lowest_ever_minor=one.lowest_ever_minor,
        lowest_year_minor=one.lowest_year_minor or (past.lowest_year if past and past.whole_days >= _YEAR_DAYS else None),
        highest_year_minor=one.highest_year_minor or (past.highest_year if past else None),
        rating_tenths=one.rating_tenths or (product.rating_tenths if product else None),
        review_count=one.review_count if one.review_count is not None or product is None else product.review_count,
        sales_rank=one.sales_rank or (product.sales_rank if product else None),
        sales_rank_drops_90=one.sales_rank_drops_90,
        offer_count=one.offer_count,
        sightings=sightings,
        is_lightning=one.is_lightning,
    )


def _newest_change(running: Sequence[KnownDeal]) -> dict[tuple[str, str, str], datetime]:
    newest: dict[tuple[str, str, str], datetime] = {}
    for deal in running:
        place = deal.asin, deal.marketplace, deal.price_type
        newest[place] = max(deal.changed_at, newest.get(place, deal.changed_at))
    return newest


def _raw_events(sightings: Sequence[DealSighting], raw: Callable[[str], bytes]) -> list[Event]:
    events = {}
    for one in sightings:
        body = raw(one.asin)
        event_id = raw_deal_event_id(one.asin, one.marketplace.value, one.price_type.value, one.updated_minute * 60)
        timestamp = f"{time_of(one.updated_minute).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        events[event_id] = Event(
            event_id,
            EventKind.RAW_DEAL,
            one.asin,
            f'{{"asin":"{one.asin}","domain":"{one.marketplace.value.lower()}","event_id":"{event_id}","schema_version":1,'
            f'"timestamp":"{timestamp}","event_type":"raw_deal","deal":{body.decode(errors="replace")}}}',
        )
    return list(events.values())


def _key_of(row: DealRow) -> Key:
    return row.asin, row.marketplace.value, row.price_type.value, row.changed_at


def _deal_id(deal: DealSighting | KnownDeal) -> str:
    return deal_id_of(deal.asin, str(deal.marketplace), str(deal.price_type), int(deal.changed_at.timestamp()))


def _fall_pct(judged: DealJudgement) -> float:
    """Below the median where that is known; else below the list price, where that was ever asked."""
    if judged.below_median_pct is not None:
        return judged.below_median_pct
    return 0.0 if judged.is_list_price_fiction else judged.discount_pct or 0.0


def _within(percent: float | None) -> float | None:
    """As the column holds it: below a price of a hundredth the percentage has no meaning left."""
    return None if percent is None else max(-999.99, min(999.99, percent))
