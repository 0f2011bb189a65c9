"""The verbs around filters of deals: what one would have found, and what somebody who subscribed to one reads."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from keeper.domain.deal_filter import DealFilter, read_rules
from keeper.postgres import deal_filters
from keeper.postgres.deal_filters import AskedFilter, FilterRow, FoundDeal

PREVIEW: Final = timedelta(days=30)
PREVIEW_BEST: Final = 20
FEED: Final = timedelta(days=30)
LONGEST_FEED: Final = 100


@dataclass(frozen=True, slots=True)
class Preview:
    """What a filter would have found.

    Attributes:
        by_day: of the user's own calendar, oldest first; days without any are left out.
        best: of them, the best score first; deals that are over, too.
    """

    since: datetime
    total: int
    by_day: tuple[tuple[date, int], ...]
    best: tuple[FoundDeal, ...]


def preview(connection: Connection, wanted: DealFilter, *, user_id: int, now: datetime) -> Preview:
    """What a filter, kept or not, would have told this user in the last 30 days."""
    since = now - PREVIEW
    timezone = deal_filters.select_timezone(connection, user_id)
    by_day = deal_filters.count_matches_by_day(connection, wanted, since=since, until=now + timedelta(seconds=1), timezone=timezone)
    best = deal_filters.select_matches(
        connection, [AskedFilter(0, user_id, "", wanted)], since=since, with_ended=True, limit_per_filter=PREVIEW_BEST
    )
    return Preview(since, sum(hits for _, hits in by_day), tuple(by_day), tuple(match.deal for match in best))


def read_feed(connection: Connection, user_id: int, filter_id: int, *, now: datetime) -> tuple[FilterRow, list[FoundDeal]]:
    """One of a user's filters and what it found within 30 days, the newest first; deals that are over, too.

    A filter that is switched off tells nothing.

    Raises:
        FilterUnknown, DealFilterInvalid: see there.
    """
    row = deal_filters.find_filter(connection, user_id, filter_id)
    wanted = read_rules(row.rules)
    if not row.is_active:
        return row, []
    asked = [AskedFilter(row.filter_id, user_id, row.name, wanted)]
    matches = deal_filters.select_matches(
        connection, asked, since=now - FEED, with_ended=True, newest_first=True, limit_per_filter=LONGEST_FEED
    )
    return row, [match.deal for match in matches]
