"""Watches: what users want checked, what is due, who is checking it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import IntegrityError

from keeper.domain.errors import KeeperError
from keeper.domain.product import ProductKind
from keeper.domain.watch import Watch, WatchChange, WatchInvalid, WatchState

_FAILURES = " ".join(f"WHEN '{kind.value}' THEN '{kind.failure}'" for kind in ProductKind if kind.failure)
_LARGEST_ID = 2**63 - 1
_MOST_NAMED = 20
_STATES = {WatchState.ACTIVE: "AND w.is_active", WatchState.PAUSED: "AND NOT w.is_active", WatchState.ALL: ""}


class WatchExists(KeeperError):
    """The user has a watch of this price already.

    Attributes:
        watch_id: the one there is; None where it was made at this very moment, or there are several.
        is_paused: whether it is paused.
    """

    def __init__(self, text: str, *, watch_id: int | None = None, is_paused: bool = False) -> None:
        super().__init__(text)
        self.watch_id = watch_id
        self.is_paused = is_paused


class WatchUnknown(KeeperError):
    """No such watches of this user, active or paused. Whether another user has them is not told.

    Attributes:
        watch_ids: which.
    """

    def __init__(self, watch_ids: Sequence[int]) -> None:
        named = ", ".join(map(str, watch_ids[:_MOST_NAMED])) + (" and more" if len(watch_ids) > _MOST_NAMED else "")
        is_one = len(watch_ids) == 1
        super().__init__(f"there {'is no watch' if is_one else 'are no watches'} {named} of yours; `keeper watch list --all` shows them")
        self.watch_ids = tuple(watch_ids)


class WatchRow(NamedTuple):
    """A watch as it stands, with the current price. A tuple, because a page has a thousand of them.

    Attributes:
        currency: of its target and its price.
        observed_at: since when the price is that.
        last_checked_at: the product, for whomever.
        next_check_at: None while it is paused.
        last_failure: why the last check of the product brought nothing; None while it is paused, too.
    """

    watch_id: int
    user: str
    asin: str
    marketplace: str
    price_type: str
    title: str | None
    target_minor: int | None
    currency: str
    interval_seconds: int
    hysteresis_pct: float
    is_armed: bool
    amount_minor: int | None
    observed_at: datetime | None
    last_checked_at: datetime | None
    next_check_at: datetime | None
    last_failure: str | None
    is_paused: bool
    created_at: datetime
    image_url: str | None


@dataclass(frozen=True, slots=True)
class StandingWatch:
    """What a user asked for on a price.

    Attributes:
        has_twin: there are two of it, one active and one paused; this is the active one.
    """

    watch_id: int
    target_minor: int | None
    interval_seconds: int
    hysteresis_pct: float
    is_paused: bool
    has_twin: bool


@dataclass(frozen=True, slots=True)
class DueBatch:
    """Products of one marketplace that one request can check.

    Attributes:
        history_days: how much history the request must bring so that no change since the last check is missed.
        joined_asins: with commas between them; a hundred strings in one, because a million would cost 60 MB more.
        tokens: upper bound of the request's cost.
    """

    marketplace: str
    buybox: bool
    history_days: int
    joined_asins: str
    tokens: int

    @property
    def asins(self) -> tuple[str, ...]:
        """The products."""
        return tuple(self.joined_asins.split(","))


_IS_BUYBOX = "price_type = 'BUY_BOX_SHIPPING'"
# The watches that a plan is for.
_PLANNED_FOR = """
    w.asin = p.asin AND w.marketplace = p.marketplace AND w.is_active AND w.interval_seconds = p.interval_seconds
    AND (w.price_type = 'BUY_BOX_SHIPPING') = p.is_buybox
"""
# Whoever takes several plans takes them in this order, so that one waits for the other and neither deadlocks. Measured over 400,000 plans,
# the lock adds some 7 microseconds to the 17 that a plan's update takes.
_LOCK_PLANS = "ORDER BY p.asin, p.marketplace, p.is_buybox, p.interval_seconds FOR UPDATE OF p"
_IS_LOCKED = "(p.asin, p.marketplace, p.is_buybox, p.interval_seconds) = (l.asin, l.marketplace, l.is_buybox, l.interval_seconds)"
# Due at the time given at the latest; a plan that is new knows when the product was checked by those of its other intervals.
_PLAN = """
    INSERT INTO planned_checks AS p (asin, marketplace, is_buybox, interval_seconds, next_check_at, last_checked_at)
    SELECT asin, marketplace, is_buybox, interval_seconds, min(due_at), (
        SELECT max(known.last_checked_at) FROM planned_checks known
        WHERE known.asin = wanted.asin AND known.marketplace = wanted.marketplace AND known.is_buybox = wanted.is_buybox
    )
    FROM wanted GROUP BY asin, marketplace, is_buybox, interval_seconds ORDER BY asin, marketplace, is_buybox, interval_seconds
    ON CONFLICT (asin, marketplace, is_buybox, interval_seconds)
        DO UPDATE SET next_check_at = least(p.next_check_at, excluded.next_check_at)
    RETURNING *
"""
_INSERT = f"""
    WITH added AS (
        INSERT INTO watched_products (user_id, asin, marketplace, price_type, target_minor, currency, interval_seconds, hysteresis_pct,
            is_active, created_at)
        SELECT :user_id, asin, marketplace, price_type, target_minor, currency, interval_seconds, hysteresis_pct, NOT is_paused, :now
        FROM unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[]), CAST(:price_types AS text[]), CAST(:targets AS integer[]),
            CAST(:currencies AS text[]), CAST(:intervals AS integer[]), CAST(:hystereses AS numeric[]), CAST(:paused AS boolean[]))
            WITH ORDINALITY
            AS new (asin, marketplace, price_type, target_minor, currency, interval_seconds, hysteresis_pct, is_paused, position)
        WHERE NOT EXISTS (
            SELECT 1 FROM watched_products p
            WHERE p.asin = new.asin AND p.marketplace = new.marketplace AND p.price_type = new.price_type AND p.user_id = :user_id
                AND NOT p.is_active AND p.removed_at IS NULL
        )
        ORDER BY position
        ON CONFLICT DO NOTHING RETURNING *
    ), wanted AS (
        SELECT asin, marketplace, {_IS_BUYBOX} AS is_buybox, interval_seconds, CAST(:now AS timestamptz) AS due_at
        FROM added WHERE is_active
    ), planned AS ({_PLAN})
"""


_ROW = """
    SELECT w.id, u.name, w.asin, w.marketplace, w.price_type, p.title, w.target_minor, w.currency, w.interval_seconds,
        w.hysteresis_pct::float8, w.is_armed, c.amount_minor, c.observed_at, coalesce(s.last_checked_at, c.checked_at), s.next_check_at,
        s.last_failure, NOT w.is_active, w.created_at, p.image_url
    FROM {watches} w JOIN users u ON u.id = w.user_id
    LEFT JOIN products p USING (asin, marketplace)
    LEFT JOIN current_prices c USING (asin, marketplace, price_type)
    LEFT JOIN {plans} s ON w.is_active AND s.asin = w.asin AND s.marketplace = w.marketplace
        AND s.interval_seconds = w.interval_seconds AND s.is_buybox = (w.price_type = 'BUY_BOX_SHIPPING')
"""
_INSERT_MANY = text(_INSERT + "SELECT id FROM added ORDER BY id")
_INSERT_ONE = text(_INSERT + _ROW.format(watches="added", plans="planned"))


def insert_watches(
    connection: Connection, user_id: int, watches: Sequence[Watch], *, now: datetime, are_paused: Sequence[bool] | None = None
) -> list[int]:
    """Add watches in one statement; the first check is due at once.

    Args:
        are_paused: of each watch, whether it waits to be resumed; without, none does.

    Returns:
        The ids of those that are new, in order; one that the user already has, active or paused, is left as it is.
    """
    if not watches:
        return []
    if len(watches) > 1:
        places = "unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[])) AS new (asin, marketplace)"
        _lock_products(connection, places, _places(watches))
    rows = connection.execute(_INSERT_MANY, _inserted(user_id, watches, now, are_paused or [False] * len(watches)))
    return list(rows.scalars())


def insert_watch(connection: Connection, user_id: int, watch: Watch, *, now: datetime) -> WatchRow:
    """Add one. Returns it as it stands now.

    Raises:
        WatchExists: the user has it already, active or paused.
    """
    added = connection.execute(_INSERT_ONE, _inserted(user_id, [watch], now, [False])).one_or_none()
    if added is not None:
        return WatchRow(*added)
    [standing] = select_standing(connection, user_id, [watch])
    if standing is None:
        # It went away between the two statements.
        return insert_watch(connection, user_id, watch, now=now)
    what = f"{watch.asin} in {watch.marketplace} ({watch.price_type})"
    if standing.is_paused:
        said = f"you have a watch of {what} already, it is paused; `keeper watch resume {standing.watch_id}` goes on with it"
    else:
        said = f"{what} is watched already, by watch {standing.watch_id}; remove that watch first, or change its target"
    raise WatchExists(said, watch_id=standing.watch_id, is_paused=standing.is_paused)


def _inserted(user_id: int, watches: Sequence[Watch], now: datetime, are_paused: Sequence[bool]) -> dict[str, object]:
    return _places(watches) | {
        "user_id": user_id,
        "now": now,
        "targets": [watch.target.amount_minor if watch.target else None for watch in watches],
        "currencies": [watch.marketplace.currency for watch in watches],
        "intervals": [round(watch.interval.total_seconds()) for watch in watches],
        "hystereses": [watch.hysteresis_pct for watch in watches],
        "paused": list(are_paused),
    }


def select_standing(connection: Connection, user_id: int, watches: Sequence[Watch]) -> list[StandingWatch | None]:
    """What the user has on the price of each of these, in their order; None: nothing."""
    rows = connection.execute(
        text(
            """
            SELECT coalesce(a.id, p.id), CASE WHEN a.id IS NULL THEN p.target_minor ELSE a.target_minor END,
                coalesce(a.interval_seconds, p.interval_seconds), coalesce(a.hysteresis_pct, p.hysteresis_pct)::float8,
                a.id IS NULL, a.id IS NOT NULL AND p.id IS NOT NULL
            FROM unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[]), CAST(:price_types AS text[]))
                WITH ORDINALITY AS new (asin, marketplace, price_type, position)
            LEFT JOIN watched_products a ON a.asin = new.asin AND a.marketplace = new.marketplace AND a.price_type = new.price_type
                AND a.user_id = :user_id AND a.is_active
            LEFT JOIN watched_products p ON p.asin = new.asin AND p.marketplace = new.marketplace AND p.price_type = new.price_type
                AND p.user_id = :user_id AND NOT p.is_active AND p.removed_at IS NULL
            ORDER BY position
            """
        ),
        _places(watches) | {"user_id": user_id},
    )
    return [StandingWatch(*row) if row[0] is not None else None for row in rows]


def _places(watches: Sequence[Watch]) -> dict[str, object]:
    return {
        "asins": [watch.asin for watch in watches],
        "marketplaces": [watch.marketplace.value for watch in watches],
        "price_types": [watch.price_type.value for watch in watches],
    }


def lock_watch_list(connection: Connection, user_id: int) -> None:
    """Whoever works through a user's whole list does it alone."""
    connection.execute(text("SELECT 1 FROM users WHERE id = :user_id FOR NO KEY UPDATE"), {"user_id": user_id})


def update_watches(connection: Connection, user_id: int, watch_ids: Collection[int], change: WatchChange, *, now: datetime) -> None:
    """The same change for all of these watches, in one statement: all of them, or none.

    Raises:
        WatchUnknown, WatchExists, WatchInvalid: see `update_each_watch`.
    """
    update_each_watch(connection, user_id, dict.fromkeys(watch_ids, change), now=now)


def update_each_watch(connection: Connection, user_id: int, changes: Mapping[int, WatchChange], *, now: datetime) -> None:
    """Each watch its own change, in one statement: all of them, or none.

    Another target arms a watch again. A shorter interval brings its next check forward; a resumed watch is due now.

    Raises:
        WatchUnknown: some are not this user's, or removed.
        WatchExists: one that shall be resumed is there a second time, active; or one that shall be paused, paused.
        WatchInvalid: a target in another currency than its marketplace's.
    """
    if not changes:
        return
    _check_ids(changes)
    if len(changes) > 1:
        _lock_products_of(connection, user_id, changes)
    asked = list(changes.values())
    try:
        rows = connection.execute(
            text(_UPDATE),
            {
                "user_id": user_id,
                "now": now,
                "count": len(changes),
                "ids": list(changes),
                "sets_target": [change.target is not None or change.clears_target for change in asked],
                "targets": [change.target.amount_minor if change.target else None for change in asked],
                "currencies": [change.target.currency if change.target else None for change in asked],
                "intervals": [round(change.interval.total_seconds()) if change.interval else None for change in asked],
                "hystereses": [change.hysteresis_pct for change in asked],
                "paused": [change.is_paused for change in asked],
            },
        ).all()
    except IntegrityError as error:
        raise WatchExists("another watch of the same price was made at this very moment; look at the list again") from error
    _check_found(changes, [row.id for row in rows])
    for row in rows:
        target = changes[row.id].target
        if target is not None and target.currency != row.currency:
            raise WatchInvalid(f"the target of watch {row.id} must be in {row.currency}, the currency of {row.marketplace}")
        if row.twin_id is not None:
            is_paused = changes[row.id].is_paused or False
            raise WatchExists(
                f"watch {row.twin_id} has the same price as watch {row.id}, and is {'paused' if is_paused else 'active'}; remove one",
                watch_id=row.twin_id,
                is_paused=is_paused,
            )
    if any(change.is_paused or change.interval is not None for change in asked):
        _forget_plans(connection, changes)


# One list of rows is joined by index alone: a plan that was made for one change serves ten thousand.
_UPDATE = f"""
    WITH mine AS (
        SELECT w.id, w.marketplace, w.currency, w.is_active AS was_active, w.interval_seconds AS old_interval_seconds,
            coalesce(active.id, paused.id) AS twin_id, c.sets_target, c.target_minor,
            c.currency <> w.currency AS is_foreign, c.interval_seconds, c.hysteresis_pct, c.is_paused
        FROM unnest(CAST(:ids AS bigint[]), CAST(:sets_target AS boolean[]), CAST(:targets AS integer[]),
            CAST(:currencies AS text[]), CAST(:intervals AS integer[]), CAST(:hystereses AS numeric[]), CAST(:paused AS boolean[]))
            AS c (id, sets_target, target_minor, currency, interval_seconds, hysteresis_pct, is_paused)
        JOIN watched_products w ON w.id = c.id AND w.user_id = :user_id AND w.removed_at IS NULL
        LEFT JOIN watched_products active ON NOT c.is_paused AND NOT w.is_active AND active.asin = w.asin
            AND active.marketplace = w.marketplace AND active.price_type = w.price_type AND active.user_id = :user_id AND active.is_active
        LEFT JOIN watched_products paused ON c.is_paused AND w.is_active AND paused.asin = w.asin
            AND paused.marketplace = w.marketplace AND paused.price_type = w.price_type AND paused.user_id = :user_id
            AND NOT paused.is_active AND paused.removed_at IS NULL
        ORDER BY w.id FOR UPDATE OF w
    ), updated AS (
        UPDATE watched_products w SET
            is_armed = w.is_armed OR (c.sets_target AND w.target_minor IS DISTINCT FROM c.target_minor),
            target_minor = CASE WHEN c.sets_target THEN c.target_minor ELSE w.target_minor END,
            interval_seconds = coalesce(c.interval_seconds, w.interval_seconds),
            hysteresis_pct = coalesce(c.hysteresis_pct, w.hysteresis_pct),
            is_active = coalesce(NOT c.is_paused, w.is_active)
        FROM mine c
        WHERE w.id = c.id AND (SELECT count(*) FROM mine) = :count
            AND NOT EXISTS (SELECT 1 FROM mine WHERE twin_id IS NOT NULL OR is_foreign)
        RETURNING w.asin, w.marketplace, w.price_type, w.interval_seconds, w.is_active, c.was_active, c.old_interval_seconds
    ), wanted AS (
        SELECT u.asin, u.marketplace, u.price_type = 'BUY_BOX_SHIPPING' AS is_buybox, u.interval_seconds,
            CASE WHEN NOT u.was_active OR p.asin IS NULL THEN CAST(:now AS timestamptz)
                ELSE least(
                    p.next_check_at, coalesce(p.last_checked_at + make_interval(secs => u.interval_seconds), CAST(:now AS timestamptz))
                )
            END AS due_at
        FROM updated u LEFT JOIN planned_checks p ON p.asin = u.asin AND p.marketplace = u.marketplace
            AND p.is_buybox = (u.price_type = 'BUY_BOX_SHIPPING') AND p.interval_seconds = u.old_interval_seconds
        WHERE u.is_active AND (NOT u.was_active OR u.interval_seconds <> u.old_interval_seconds)
    ), planned AS ({_PLAN})
    SELECT id, marketplace, currency, twin_id FROM mine ORDER BY id
"""


def remove_watches(connection: Connection, user_id: int, watch_ids: Collection[int], *, now: datetime) -> None:
    """Stop watching, in one statement: all of them, or none. Alerts and history stay.

    Raises:
        WatchUnknown: some are not this user's, or removed already.
    """
    if not watch_ids:
        return
    wanted = dict.fromkeys(watch_ids)
    _check_ids(wanted)
    if len(wanted) > 1:
        _lock_products_of(connection, user_id, wanted)
    found = connection.execute(
        text(
            """
            WITH mine AS (
                SELECT id FROM watched_products
                WHERE id = ANY(CAST(:ids AS bigint[])) AND user_id = :user_id AND removed_at IS NULL ORDER BY id FOR UPDATE
            ), removed AS (
                UPDATE watched_products w SET is_active = false, removed_at = :now FROM mine
                WHERE w.id = mine.id AND (SELECT count(*) FROM mine) = :count
            )
            SELECT id FROM mine
            """
        ),
        {"user_id": user_id, "ids": list(wanted), "count": len(wanted), "now": now},
    ).scalars()
    _check_found(wanted, list(found))
    _forget_plans(connection, wanted)


def _forget_plans(connection: Connection, watch_ids: Collection[int]) -> None:
    """The plans of these watches' products that no active watch needs any more.

    First the lock, then the look: who adds a watch holds the plan until the watch can be seen.
    """
    of_these = "(p.asin, p.marketplace) IN (SELECT asin, marketplace FROM watched_products WHERE id = ANY(CAST(:ids AS bigint[])))"
    connection.execute(
        text(f"SELECT 1 FROM planned_checks p WHERE {of_these} {_LOCK_PLANS}"),
        {"ids": list(watch_ids)},
    )
    connection.execute(
        text(
            f"""
            DELETE FROM planned_checks p WHERE {of_these} AND NOT EXISTS (SELECT 1 FROM watched_products w WHERE {_PLANNED_FOR})
            """
        ),
        {"ids": list(watch_ids)},
    )


def _check_ids(watch_ids: Collection[int]) -> None:
    if impossible := [watch_id for watch_id in watch_ids if not 0 < watch_id <= _LARGEST_ID]:
        raise WatchUnknown(impossible)


def _check_found(wanted: Collection[int], found: Collection[int]) -> None:
    if len(found) < len(wanted):
        known = set(found)
        raise WatchUnknown([watch_id for watch_id in wanted if watch_id not in known])


def _lock_products_of(connection: Connection, user_id: int, watch_ids: Collection[int]) -> None:
    _lock_products(
        connection,
        "watched_products WHERE id = ANY(CAST(:ids AS bigint[])) AND user_id = :user_id",
        {"ids": list(watch_ids), "user_id": user_id},
    )


def _lock_products(connection: Connection, places: str, parameters: Mapping[str, object]) -> None:
    """In the order in which `record` locks them before it touches their plans: who changes many waits for it, and neither deadlocks."""
    connection.execute(
        text(
            f"SELECT 1 FROM products WHERE (asin, marketplace) IN (SELECT asin, marketplace FROM {places}) "
            "ORDER BY asin, marketplace FOR SHARE"
        ),
        parameters,
    )


def select_watches(
    connection: Connection,
    *,
    user_id: int | None = None,
    marketplace: str | None = None,
    asin: str | None = None,
    price_type: str | None = None,
    state: WatchState = WatchState.ACTIVE,
    after_id: int = 0,
    limit: int = 1000,
) -> list[WatchRow]:
    """Watches by id, of one user or of all; the next page comes after the last id of this one."""
    wanted = {"user_id": user_id, "marketplace": marketplace, "asin": asin, "price_type": price_type}
    given = {name: value for name, value in wanted.items() if value is not None}
    conditions = " ".join([_STATES[state], *(f"AND w.{name} = :{name}" for name in given)])
    rows = connection.execute(_select(conditions), given | {"after_id": after_id, "limit": limit})
    return [WatchRow._make(row) for row in rows.all()]


_SELECT = (
    _ROW.format(watches="watched_products", plans="planned_checks")
    + """
    WHERE w.removed_at IS NULL AND w.id > :after_id {conditions}
    ORDER BY w.id LIMIT :limit
"""
)


@cache
def _select(conditions: str) -> TextClause:
    """Made once for each question: SQLAlchemy reads the text whenever it is made."""
    return text(_SELECT.format(conditions=conditions))


def find_watch(connection: Connection, user_id: int, watch_id: int) -> WatchRow:
    """A user's watch, active or paused.

    Raises:
        WatchUnknown: see there.
    """
    _check_ids([watch_id])
    for watch in select_watches(connection, user_id=user_id, state=WatchState.ALL, after_id=watch_id - 1, limit=1):
        if watch.watch_id == watch_id:
            return watch
    raise WatchUnknown([watch_id])


def select_currencies(connection: Connection, user_id: int, watch_ids: Collection[int]) -> dict[int, str]:
    """The currency of each watch of this user's, by id; those that are not the user's are left out."""
    rows = connection.execute(
        text("SELECT id, currency FROM watched_products WHERE user_id = :user_id AND removed_at IS NULL AND id = ANY(:ids)"),
        {"user_id": user_id, "ids": list(watch_ids)},
    )
    return {row.id: row.currency for row in rows}


def make_due(connection: Connection, user_id: int, *, now: datetime) -> int:
    """All active watches of a user are due now. Returns how many were not."""
    count: int = connection.execute(
        text(
            f"""
            WITH mine AS (
                SELECT p.asin, p.marketplace, p.is_buybox, p.interval_seconds
                FROM watched_products w JOIN planned_checks p ON {_PLANNED_FOR}
                WHERE w.user_id = :user_id AND w.removed_at IS NULL AND p.next_check_at > :now
            ), locked AS (
                SELECT p.* FROM planned_checks p JOIN (SELECT DISTINCT * FROM mine) m USING (asin, marketplace, is_buybox, interval_seconds)
                ORDER BY p.asin, p.marketplace, p.is_buybox, p.interval_seconds FOR UPDATE OF p
            ), moved AS (
                UPDATE planned_checks p SET next_check_at = :now FROM locked l
                WHERE p.asin = l.asin AND p.marketplace = l.marketplace AND p.is_buybox = l.is_buybox
                    AND p.interval_seconds = l.interval_seconds
            )
            SELECT count(*) FROM mine
            """
        ),
        {"user_id": user_id, "now": now},
    ).scalar_one()
    return count


def select_target(connection: Connection, asin: str, marketplace: str, price_type: str, *, user_id: int | None = None) -> int | None:
    """The highest target of the active watches on a price, of one user or of all; None without any."""
    target: int | None = connection.execute(
        text(
            """
            SELECT max(target_minor) FROM watched_products
            WHERE is_active AND asin = :asin AND marketplace = :marketplace AND price_type = :price_type
                AND (CAST(:user_id AS bigint) IS NULL OR user_id = :user_id)
            """
        ),
        {"asin": asin, "marketplace": marketplace, "price_type": price_type, "user_id": user_id},
    ).scalar_one()
    return target


def select_buybox_asins(connection: Connection, asins: Collection[str], marketplace: str) -> set[str]:
    """Those of the ASINs whose buy box somebody watches."""
    found = connection.execute(
        text(
            """
            SELECT DISTINCT asin FROM watched_products
            WHERE is_active AND asin = ANY(:asins) AND marketplace = :marketplace AND price_type = 'BUY_BOX_SHIPPING'
            """
        ),
        {"asins": list(asins), "marketplace": marketplace},
    )
    return set(found.scalars())


_DUE = """
    WITH due AS (
        SELECT asin, marketplace, is_buybox, next_check_at, last_checked_at FROM planned_checks
        WHERE next_check_at <= :until {conditions} AND (asin, marketplace) NOT IN (SELECT asin, marketplace FROM check_claims)
        ORDER BY next_check_at LIMIT :most_plans
    ), product AS (
        SELECT asin, marketplace, min(next_check_at) AS due_at, bool_or(is_buybox) AS buybox,
            max(CASE WHEN last_checked_at > :day_ago THEN 2 WHEN last_checked_at > :month_ago THEN 31 ELSE 365 END) AS history_days
        FROM due GROUP BY asin, marketplace
    )
"""
# Sorted once, by due time: an array keeps that order for each kind of request, and a place in it is the number of a batch.
_BATCHED = """
    , paid AS (
        SELECT *, sum(CASE WHEN buybox THEN :buybox_tokens ELSE :plain_tokens END) OVER (ORDER BY due_at ROWS UNBOUNDED PRECEDING) AS spent
        FROM product
    ), kind AS (
        SELECT marketplace, buybox, history_days, array_agg(asin) AS asins, array_agg(spent) AS spent_until
        FROM paid WHERE spent <= :tokens GROUP BY marketplace, buybox, history_days
    )
    SELECT marketplace, buybox, history_days, string_agg(asin, ',') AS asins,
        count(*) * CASE WHEN buybox THEN :buybox_tokens ELSE :plain_tokens END AS tokens
    FROM kind, unnest(asins, spent_until) WITH ORDINALITY AS one (asin, spent, place)
    GROUP BY marketplace, buybox, history_days, (place - 1) / CASE WHEN buybox THEN :buybox_size ELSE :plain_size END
    ORDER BY min(spent)
"""


def select_due_batches(
    connection: Connection,
    *,
    now: datetime,
    until: datetime,
    tokens: int,
    plain_tokens: int,
    buybox_tokens: int,
    plain_size: int,
    buybox_size: int,
    interval_seconds: int | None = None,
    most_plans: int | None = None,
) -> list[DueBatch]:
    """Due products of all users, each once, oldest due first as far as `tokens` go, cut into requests in SQL.

    Args:
        until: watches due up to here are taken.
        plain_tokens, buybox_tokens: cost of one product without and with the buy box.
        plain_size, buybox_size: products in one request, likewise; a buybox_size of 0 leaves the watches of the buy box waiting.
        interval_seconds: only watches of this interval.
        most_plans: how many due plans are looked at, the oldest first; enough for `tokens` unless very many are of one product.
    """
    conditions = []
    if interval_seconds:
        conditions.append("AND interval_seconds = :interval_seconds")
    if not buybox_size:
        conditions.append("AND NOT is_buybox")
    # For a million due watches the server's own 4 MB mean a dozen passes over files; the setting ends with the transaction.
    connection.execute(text("SELECT set_config('work_mem', '64MB', true)"))
    query = _DUE.format(conditions=" ".join(conditions)) + _BATCHED
    rows = connection.execute(
        text(query),
        {
            "until": until,
            "day_ago": now - timedelta(days=1),
            "month_ago": now - timedelta(days=30),
            "tokens": tokens,
            "plain_tokens": plain_tokens,
            "buybox_tokens": buybox_tokens,
            "plain_size": plain_size,
            "buybox_size": max(1, buybox_size),
            "most_plans": most_plans if most_plans is not None else 4 * tokens + 1000,
            **({"interval_seconds": interval_seconds} if interval_seconds else {}),
        },
    )
    return [DueBatch(*row) for row in rows]


def next_due_at(connection: Connection, *, shorter_than: timedelta) -> datetime | None:
    """When the next watch with a shorter interval is due; None without such watches."""
    at: datetime | None = connection.execute(
        text("SELECT min(next_check_at) FROM planned_checks WHERE interval_seconds < :seconds"),
        {"seconds": round(shorter_than.total_seconds())},
    ).scalar_one()
    return at


def claim_products(connection: Connection, batch_id: UUID, asins: Collection[str], marketplace: str, *, lease_seconds: float) -> set[str]:
    """Claim products for one request; the caller holds the ledger's lock.

    Returns:
        The claimed ASINs; others are being checked by somebody else right now.
    """
    claimed = connection.execute(
        text(
            """
            INSERT INTO check_claims (asin, marketplace, batch_id, expires_at)
            SELECT asin, :marketplace, :batch_id, clock_timestamp() + make_interval(secs => :lease_seconds)
            FROM unnest(CAST(:asins AS text[])) AS asin ORDER BY asin
            ON CONFLICT (asin, marketplace) DO UPDATE SET batch_id = excluded.batch_id, expires_at = excluded.expires_at
                WHERE check_claims.expires_at < clock_timestamp()
            RETURNING asin
            """
        ),
        {"asins": list(asins), "marketplace": marketplace, "batch_id": batch_id, "lease_seconds": lease_seconds},
    )
    return set(claimed.scalars())


def renew_claims(connection: Connection, batch_id: UUID, *, lease_seconds: float) -> int:
    """Start the leases of a request's claims anew. Returns how many are still its own."""
    return connection.execute(
        text("UPDATE check_claims SET expires_at = clock_timestamp() + make_interval(secs => :lease_seconds) WHERE batch_id = :batch_id"),
        {"batch_id": batch_id, "lease_seconds": lease_seconds},
    ).rowcount


def delete_dead_claims(connection: Connection) -> None:
    """Claims whose owner did not come back in time."""
    connection.execute(text("DELETE FROM check_claims WHERE expires_at < clock_timestamp()"))


def release_claims(connection: Connection, batch_id: UUID) -> None:
    """Nobody checks these any more; they stay due."""
    connection.execute(text("DELETE FROM check_claims WHERE batch_id = :batch_id"), {"batch_id": batch_id})


def reschedule_checked(connection: Connection, *, now: datetime, buybox: bool) -> None:
    """The staged products, but for those seen by the way, have been checked: they are due an interval later, their claims end.

    The buy box counts as checked only where the request asked for it.
    """
    connection.execute(
        text(
            f"""
            WITH locked AS (
                SELECT p.asin, p.marketplace, p.is_buybox, p.interval_seconds, s.kind
                FROM stage_product s JOIN planned_checks p ON p.asin = s.asin AND p.marketplace = s.marketplace
                WHERE NOT s.is_partial AND (:buybox OR NOT p.is_buybox)
                {_LOCK_PLANS}
            )
            UPDATE planned_checks p SET last_checked_at = :now, next_check_at = :now + make_interval(secs => p.interval_seconds),
                last_failure = CASE l.kind {_FAILURES} END
            FROM locked l WHERE {_IS_LOCKED}
            """
        ),
        {"now": now, "buybox": buybox},
    )
    connection.execute(
        text(
            "DELETE FROM check_claims c USING stage_product s WHERE c.asin = s.asin AND c.marketplace = s.marketplace AND NOT s.is_partial"
        )
    )


def postpone_failed(
    connection: Connection, asins: Collection[str], marketplace: str, *, failure: str, now: datetime, wait: timedelta
) -> None:
    """A check brought nothing: say why, and try again after `wait` or the interval, whichever is shorter."""
    connection.execute(
        # As `record` does, so that a late answer on the same products waits and does not deadlock.
        text("SELECT 1 FROM products WHERE marketplace = :marketplace AND asin = ANY(:asins) ORDER BY asin, marketplace FOR UPDATE"),
        {"asins": list(asins), "marketplace": marketplace},
    )
    connection.execute(
        text(
            f"""
            WITH locked AS (
                SELECT p.asin, p.marketplace, p.is_buybox, p.interval_seconds FROM planned_checks p
                WHERE p.marketplace = :marketplace AND p.asin = ANY(:asins)
                {_LOCK_PLANS}
            )
            UPDATE planned_checks p SET last_failure = :failure,
                next_check_at = :now + least(make_interval(secs => p.interval_seconds), make_interval(secs => :wait_seconds))
            FROM locked l WHERE {_IS_LOCKED}
            """
        ),
        {"asins": list(asins), "marketplace": marketplace, "failure": failure, "now": now, "wait_seconds": wait.total_seconds()},
    )
    connection.execute(
        text("DELETE FROM check_claims WHERE marketplace = :marketplace AND asin = ANY(:asins)"),
        {"asins": list(asins), "marketplace": marketplace},
    )


def count_overdue(connection: Connection, *, now: datetime, interval_seconds: int | None = None, most_plans: int = 10_000) -> int:
    """Products that are overdue and which nobody checks just now, among the `most_plans` due first."""
    count: int = connection.execute(
        text(
            """
            SELECT count(DISTINCT (asin, marketplace)) FROM (
                SELECT asin, marketplace FROM planned_checks
                WHERE next_check_at <= :now
                    AND interval_seconds = coalesce(CAST(:interval_seconds AS integer), interval_seconds)
                    AND (asin, marketplace) NOT IN (SELECT asin, marketplace FROM check_claims)
                ORDER BY next_check_at LIMIT :most_plans
            ) AS overdue
            """
        ),
        {"now": now, "interval_seconds": interval_seconds, "most_plans": most_plans},
    ).scalar_one()
    return count
