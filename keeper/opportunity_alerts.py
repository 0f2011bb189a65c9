"""The verb that tells opportunities: each once to the topic, and once to every user with a rule that wants it."""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Engine

from keeper.domain.events import Event, EventKind, arbitrage_event_id
from keeper.domain.opportunity import FoundOpportunity, Opportunity
from keeper.domain.opportunity_alert import alert_of, encode_opportunity_alert, severity_of
from keeper.domain.opportunity_query import LARGEST_PAGE, OpportunityQuery, OpportunitySort
from keeper.domain.opportunity_rule import OpportunityRule
from keeper.domain.seller import SellerProfileInvalid
from keeper.opportunities import MOST_CANDIDATES, Reckoning, recompute
from keeper.postgres import opportunities, opportunity_alerts
from keeper.postgres.opportunity_alerts import NewOpportunityAlert
from keeper.postgres.opportunity_rules import RuleRow, select_rules
from keeper.postgres.outbox import insert_events
from keeper.postgres.sinks import Routes, lock_routes

logger = logging.getLogger(__name__)

# Of one call; the rest, the less good ones, at the next.
MOST_ANNOUNCED: Final = 1_000
_HOUR = timedelta(hours=1)
# A gap that became good longer ago is no news, however many better ones were told before it.
_NEWS = timedelta(days=1)
# Prices flicker, and each gap that comes back is another one.
_REMEMBERED = timedelta(days=7)
_BETTER_BY_PCT = 10


@dataclass(frozen=True, slots=True)
class ToldOpportunities:
    """What one call told.

    Attributes:
        announced: to the topic.
        told: to users; `deliveries` to their channels.
        left: what is known to be left, of users who were told as many as they may be within an hour; at the next call, if still news.
        troubles: who could not be told, and why.
    """

    announced: int = 0
    told: int = 0
    deliveries: int = 0
    left: int = 0
    troubles: tuple[str, ...] = ()


def tell_opportunities(
    engine: Engine,
    *,
    now: datetime,
    least_roi_pct: Decimal,
    most_per_hour: int,
    reckon: Callable[[Connection, Mapping[str, Any]], Reckoning],
) -> ToldOpportunities:
    """Announce what is new and worth it, and tell the users whose rules want it. Idempotent: each opportunity once, to a user too.

    Doubtful, stale and unknown ones are told to nobody; they are, once they are none of it. The best come first. Who has no channel is
    told nothing and forgets nothing. The topic and each user have a transaction of their own: who cannot be told keeps nobody else from it.

    Args:
        least_roi_pct: of what goes to the topic; users' rules have their own.
        most_per_hour: opportunities a user is told within an hour.
        reckon: what a user's own profile is reckoned with; SellerProfileInvalid where it cannot be read.
    """
    with engine.begin() as connection:
        routes = lock_routes(connection)
        announced = _announce(connection, now=now, least_roi_pct=least_roi_pct, routes=routes)
    by_user: dict[int, list[RuleRow]] = defaultdict(list)
    with engine.begin() as connection:
        for row in select_rules(connection):
            by_user[row.user_id].append(row)
        listeners = opportunity_alerts.select_listeners(connection, by_user)
    look = _Look(now, most_per_hour)
    told = deliveries = left = 0
    troubles: list[str] = []
    for user_id, profile in listeners.items():
        with engine.begin() as connection:
            try:
                reckoning = None if profile is None else reckon(connection, profile)
            except SellerProfileInvalid as error:
                trouble = f"user {user_id} is told of no opportunities, their seller profile cannot be read: {error}"
                logger.error("%s", trouble)
                troubles.append(trouble)
                continue
            new = _tell_user(connection, user_id, by_user[user_id], look, reckoning, now=now, most_per_hour=most_per_hour)
        told, deliveries, left = told + new.told, deliveries + new.deliveries, left + new.left
    return ToldOpportunities(announced, told, deliveries, left, tuple(troubles))


def _announce(connection: Connection, *, now: datetime, least_roi_pct: Decimal, routes: Routes) -> int:
    ids: list[int] = []
    while len(ids) < MOST_ANNOUNCED:
        some = opportunity_alerts.lock_unannounced(
            connection, least_roi_pct=least_roi_pct, remembered=_REMEMBERED, better_by_pct=_BETTER_BY_PCT, limit=MOST_ANNOUNCED - len(ids)
        )
        new = [one.opportunity_id for one in some if one.told_minor is None or _is_better(one.profit_minor, one.told_minor)]
        opportunity_alerts.mark_announced(connection, new, now=now)
        known = {one.opportunity_id: one.told_minor for one in some if one.told_minor is not None}
        # They are not looked at again until they are better; so the next ones have their turn.
        opportunity_alerts.mark_known(connection, {number: told for number, told in known.items() if number not in set(new)})
        ids += new
        if len(new) == len(some):
            break
    found = opportunities.select_by_ids(connection, ids)
    best_first = sorted(found, key=lambda one: -(one.opportunity.roi_pct or 0))
    insert_events(connection, [_announcement(one, now) for one in best_first], routes)
    return len(found)


def _announcement(found: FoundOpportunity, now: datetime) -> Event:
    one = found.opportunity
    assert one.roi_pct is not None and one.first_seen_at is not None  # noqa: S101  it was chosen by it, and it is stored
    event_id = _event_id(one)
    payload = {
        "asin": one.asin,
        "product_title": found.title,
        "brand": found.brand,
        "image": found.image_url,
        "category": one.category,
        "source_market": one.source_market.value,
        "target_market": one.target_market.value,
        "source_price": one.source_minor,
        "target_price": one.target_minor,
        "source_currency": one.source_market.currency,
        "target_currency": one.target_market.currency,
        "currency": "EUR",
        "price_type": one.price_type.value,
        "source_checked_at": _written(one.source_checked_at),
        "target_checked_at": _written(one.target_checked_at),
        "margin": one.margin_minor,
        "margin_percentage": float(one.margin_pct),
        "is_active": True,
        "profit_minor": one.profit_minor,
        "invested_minor": one.invested_minor,
        "roi_pct": float(one.roi_pct),
        "profit_margin_pct": None if one.profit_margin_pct is None else float(one.profit_margin_pct),
        "score": one.score,
        "flags": list(one.flags),
        "severity": severity_of(one.roi_pct).value,
        "opportunity_id": one.id,
        "first_seen": _written(one.first_seen_at),
        "source_link": found.source_link,
        "target_link": found.target_link,
        "timestamp": _written(now),
        "event_type": "arbitrage_alert",
        "event_id": str(event_id),
        "schema_version": 1,
    }
    return Event.of(event_id, EventKind.ARBITRAGE_ALERT, one.asin, payload)


def _event_id(one: Opportunity) -> UUID:
    assert one.first_seen_at is not None  # noqa: S101  it is stored
    return arbitrage_event_id(one.asin, one.source_market.value, one.target_market.value, int(one.first_seen_at.timestamp()))


def _written(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _tell_user(
    connection: Connection,
    user_id: int,
    rules: Sequence[RuleRow],
    look: "_Look",
    reckoning: Reckoning | None,
    *,
    now: datetime,
    most_per_hour: int,
) -> ToldOpportunities:
    wanted = _wanted(connection, rules, look, reckoning)
    if not wanted:
        return ToldOpportunities()
    # Looked for and reckoned before anything is locked: what follows is short.
    routes = lock_routes(connection)
    listener = opportunity_alerts.lock_listener(connection, user_id, since=now - _HOUR)
    room = most_per_hour - listener.told
    if room <= 0:
        return ToldOpportunities()
    known = opportunity_alerts.select_told(connection, user_id, {one.opportunity.asin for one, _ in wanted}, since=now - _REMEMBERED)
    news = [(one, rule) for one, rule in wanted if rule.rule_id in listener.rule_ids and _is_news(one.opportunity, known)]
    new: list[NewOpportunityAlert] = []
    for one, rule in news[:room]:
        assert one.opportunity.id is not None  # noqa: S101  it is stored
        alert = alert_of(one, rule.name, is_own=reckoning is not None)
        content = json.dumps(encode_opportunity_alert(alert), ensure_ascii=False)
        new.append(NewOpportunityAlert(user_id, rule.rule_id, one.opportunity.id, _event_id(one.opportunity), content))
    told, deliveries = opportunity_alerts.insert_alerts(connection, new, now=now, routes=routes)
    return ToldOpportunities(told=told, deliveries=deliveries, left=max(0, len(news) - room))


class _Look:
    """What is news, asked for once for all users whose rules are alike."""

    def __init__(self, now: datetime, most_per_hour: int) -> None:
        self._since = now - _NEWS
        # So many were told at most since then, and so many more may be now.
        self._most = most_per_hour * (_NEWS // _HOUR + 1)
        self._seen: dict[tuple[OpportunityRule, datetime, bool], tuple[FoundOpportunity, ...]] = {}

    def find(self, connection: Connection, row: RuleRow, *, is_own: bool) -> tuple[FoundOpportunity, ...]:
        """What became good since, as far as the table knows: for a seller of one's own without the profit, and the widest gaps only."""
        rule = row.rule
        since = max(self._since, row.changed_at)
        # Nothing within a day is older than it: the rules of most users are older, so that they are asked for together.
        key = (rule, since, is_own)
        if key not in self._seen:
            query = OpportunityQuery(
                least_margin_pct=rule.least_margin_pct,
                least_roi_pct=None if is_own else rule.least_roi_pct,
                least_profit_minor=None if is_own else rule.least_profit_minor,
                sources=rule.sources,
                targets=rule.targets,
                categories=rule.categories,
                news_since=since,
                sort=OpportunitySort.MARGIN if is_own else OpportunitySort.PROFIT,
                limit=LARGEST_PAGE if is_own else min(LARGEST_PAGE, self._most),
            )
            self._seen[key] = tuple(_walk(connection, query, MOST_CANDIDATES if is_own else self._most))
        return self._seen[key]


def _walk(connection: Connection, query: OpportunityQuery, most: int) -> Sequence[FoundOpportunity]:
    found: list[FoundOpportunity] = []
    while len(found) < most:
        page = opportunities.select_opportunities(connection, query)
        found += page.found
        if page.next is None:
            break
        query = replace(query, after=page.next)
    return found


def _wanted(
    connection: Connection, rules: Sequence[RuleRow], look: _Look, reckoning: Reckoning | None
) -> list[tuple[FoundOpportunity, RuleRow]]:
    """Each opportunity with the first rule that wants it, the largest profit first."""
    reckoned: dict[int | None, FoundOpportunity] = {}
    wanted: dict[int | None, tuple[FoundOpportunity, RuleRow]] = {}
    for row in rules:
        for found in look.find(connection, row, is_own=reckoning is not None):
            number = found.opportunity.id
            if number not in reckoned:
                reckoned[number] = found if reckoning is None else recompute(found, reckoning)
            if row.rule.is_met(reckoned[number].opportunity):
                wanted.setdefault(number, (reckoned[number], row))
    return sorted(wanted.values(), key=lambda one: -(one[0].opportunity.profit_minor or 0))


def _is_news(one: Opportunity, told: Mapping[tuple[str, str, str], tuple[frozenset[int], int]]) -> bool:
    """Not told yet, and not the gap of some days ago that came back no better."""
    known = told.get((one.asin, one.source_market.value, one.target_market.value))
    if known is None:
        return True
    ids, profit_minor = known
    return one.id not in ids and _is_better(one.profit_minor or 0, profit_minor)


def _is_better(profit_minor: int, told_minor: int) -> bool:
    """By so much that it is worth telling again; of a loss, that it is less by so much."""
    return profit_minor > told_minor and (profit_minor - told_minor) * 100 >= abs(told_minor) * _BETTER_BY_PCT
