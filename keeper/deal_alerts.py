"""The verb that tells deals at once: to whom, how many an hour, and what waits for the report."""

import json
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection

from keeper.domain.report import DealAlert, encode_deal_alert
from keeper.postgres import deal_filters, reports
from keeper.postgres.deal_filters import DealKey
from keeper.postgres.deals import Key
from keeper.postgres.reports import NewDealAlert, Told
from keeper.postgres.sinks import Routes
from keeper.report import report_deal

_HOUR = timedelta(hours=1)
# Of one user and call; what is more is in their report anyway, as the best of its filter.
_MOST_MATCHES = 100
# Stores move a price by a percent or two within a day, and each move is another deal.
_CHEAPER_BY_PCT = 3
_REMEMBERED = timedelta(days=7)


def tell_deals(connection: Connection, deal_keys: Collection[Key], *, now: datetime, routes: Routes, most_per_hour: int) -> Told:
    """Tell the users whose instant filters match. Idempotent: each deal once to a user, whatever filters of theirs match it.

    The best come first; who was told `most_per_hour` within the last hour is told the rest by their next report, if they get any. Called
    last in the transaction that announces the deals: it locks users, in their order, so that several collections keep the bound together.

    A product is told again within a week only where it is cheaper by 3 % than it was told last; of its prices that fall together one is.

    Who has no channel can be told by a report only.

    Args:
        deal_keys: deals that may be told from now on.
        routes: of `sinks.lock_routes` in this transaction.
    """
    if not deal_keys:
        return Told()
    asked, _ = deal_filters.select_asked(connection, only_instant=True)
    if not asked:
        return Told()
    found = deal_filters.select_matches(connection, asked, deal_keys=[DealKey(*key) for key in deal_keys], limit_per_filter=_MOST_MATCHES)
    names = {one.filter_id: one.name for one in asked}
    wanted: dict[tuple[int, Key], NewDealAlert] = {}
    for match in sorted(found, key=lambda match: -(match.deal.deal_score if match.deal.deal_score is not None else float("-inf"))):
        deal = match.deal
        key = (deal.asin, deal.marketplace, deal.price_type, deal.changed_at)
        if (match.user_id, key) not in wanted:
            content = json.dumps(encode_deal_alert(DealAlert(names[match.filter_id], report_deal(deal))), ensure_ascii=False)
            wanted[match.user_id, key] = NewDealAlert(match.user_id, match.filter_id, deal.deal_id, key, deal.amount_minor, content)
    if not wanted:
        return Told()
    user_ids = {user_id for user_id, _ in wanted}
    readers = reports.lock_readers(connection, user_ids, since=now - _HOUR)
    spent = {user_id: reader.told for user_id, reader in readers.items()}
    told_before = reports.select_told(connection, user_ids, {key for _, key in wanted})
    known = {(one.user_id, one.key) for one in told_before}
    last = {(one.user_id, one.key[:2]): one.amount_minor for one in told_before if one.told_at > now - _REMEMBERED}
    done = set()
    told, held = [], []
    for place, alert in wanted.items():
        product = alert.user_id, alert.key[:2]
        if place in known or product in done or alert.user_id not in readers or not _is_cheaper(alert.amount_minor, last.get(product)):
            continue
        done.add(product)
        if readers[alert.user_id].has_channels and spent[alert.user_id] < most_per_hour:
            spent[alert.user_id] += 1
            told.append(alert)
        elif readers[alert.user_id].has_reports:
            held.append(alert)
    return reports.insert_deal_alerts(connection, told, held, now=now, routes=routes) if told or held else Told()


def _is_cheaper(amount_minor: int, told_minor: int | None) -> bool:
    return told_minor is None or amount_minor * 100 <= told_minor * (100 - _CHEAPER_BY_PCT)
