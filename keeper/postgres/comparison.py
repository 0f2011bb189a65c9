"""The comparison of stores: prices and facts read as columns, gaps written back as a set, and what is to be looked at again.

Columns are read as arrays that the server puts together, one row for many products: taken apart they are numpy arrays without a Python
object for any of them. Measured, that takes a third of what COPY of the same rows does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import PRICE_TOO_OLD
from keeper.domain.opportunity_query import LEAST_PROFIT_MINOR, LEAST_ROI_PCT
from keeper.domain.opportunity_score import ScorePart
from keeper.domain.price_type import PriceType
from keeper.domain.same_article import Listing
from keeper.postgres.engine import copy_rows, copy_text, driver_of

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Words = NDArray[np.bytes_]

NONE: Final = -1
# Passes are remembered so long.
_KEPT: Final = timedelta(days=90)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ASIN: Final = "S10"
_STORE: Final = "S2"
_INT4: Final = 2**31 - 1
_COPY_BYTES: Final = 1 << 20


class ColumnUnreadable(KeeperError):
    """A column that is not of one width, as each of these is."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of products in order.

    Attributes:
        asins: each once.
        minor: stores x products; `NONE` where there is no price.
        last: the last ASIN of a walk that goes on after it; None where it is at the end.
    """

    asins: Words
    minor: Ints
    last: str | None


@dataclass(frozen=True, slots=True)
class Listings:
    """What is known of listings, as columns; `NONE` where nothing is, and of a yes or no 1 or 0.

    Attributes:
        products, stores: which listing: its places in the products and stores asked for.
        checked_at: microseconds since 2000, as PostgreSQL counts.
        path: a hash of the names of its categories; 0 where there are none.
        stated: the referral share Keepa states, hundredths of a percent.
    """

    products: Ints
    stores: Ints
    checked_at: Ints
    root: Ints
    path: Ints
    stated: Ints
    fba: Ints
    weight: Ints
    sales_rank_drops_30: Ints
    monthly_sold: Ints
    offer_count: Ints
    buy_box_is_amazon: Ints
    amazon_matches: Ints
    is_hazardous: Ints
    is_heat_sensitive: Ints
    is_often_returned: Ints
    is_lightning: Ints
    has_coupon: Ints
    is_in_stock: Ints


@dataclass(frozen=True, slots=True)
class Scope:
    """Which opportunities a write speaks of: those of these pairs that are open and of products in a range, or of these products.

    Attributes:
        after, last: a range of ASINs in order; `last` None for all after.
        asins: these instead of a range.
        pairs: source and target; None for all, those that are no longer compared, too.
    """

    after: str = ""
    last: str | None = None
    asins: Sequence[str] | None = None
    pairs: Collection[tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What one write did.

    Attributes:
        asins: products with an opportunity that opened, changed or closed.
    """

    opened: int
    changed: int
    closed: int
    asins: tuple[str, ...]


def select_terms(connection: Connection) -> list[Mapping[str, Any]]:
    """What the newest pass that came to its end reckoned with, and then those after it that did not, each once; nothing before the first.

    A pass that was killed has written a part: what it reckoned with is in the opportunities until a pass comes to its end.
    """
    rows = connection.execute(
        text(
            """
            SELECT terms FROM comparisons
            WHERE id >= (SELECT id FROM comparisons WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 1) ORDER BY id
            """
        )
    )
    found: list[Mapping[str, Any]] = []
    for terms in rows.scalars():
        if terms not in found:
            found.append(terms)
    return found


def insert_comparison(connection: Connection, *, is_full: bool, why: str, terms: str, now: datetime) -> int:
    """A pass that begins. Returns its number.

    Args:
        terms: JSON.
    """
    query = text(
        "INSERT INTO comparisons (is_full, why, terms, began_at) VALUES (:is_full, :why, CAST(:terms AS jsonb), :now) RETURNING id"
    )
    number: int = connection.execute(query, {"is_full": is_full, "why": why, "terms": terms, "now": now}).scalar_one()
    return number


def finish_comparison(
    connection: Connection,
    number: int,
    *,
    products: int,
    pairs: int,
    opened: int,
    changed: int,
    closed: int,
    ages_at: datetime | None,
    now: datetime,
) -> None:
    """It is through: from now on its number names the state. Passes of long ago are forgotten."""
    connection.execute(
        text(
            """
            UPDATE comparisons SET ended_at = :now, products = :products, pairs = :pairs, opened = :opened, changed = :changed,
                closed = :closed, ages_at = :ages_at
            WHERE id = :number
            """
        ),
        {
            "now": now,
            "products": products,
            "pairs": pairs,
            "opened": opened,
            "changed": changed,
            "closed": closed,
            "ages_at": ages_at,
            "number": number,
        },
    )
    connection.execute(text("DELETE FROM comparisons WHERE id < :number AND began_at < :before"), {"number": number, "before": now - _KEPT})


def lock_comparing(connection: Connection) -> None:
    """One writer at a time until the end of the transaction, even where two passes should ever run beside each other."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('keeper.comparison'))"))


def select_ages_at(connection: Connection) -> datetime | None:
    """When the first open opportunity ages, as the last pass found; None where it did not come to its end."""
    found: datetime | None = connection.execute(text("SELECT ages_at FROM comparisons ORDER BY id DESC LIMIT 1")).scalar()
    return found


def select_aged(
    connection: Connection, *, now: datetime, old_after: timedelta, over_after: timedelta, flag: str
) -> tuple[list[str], datetime | None]:
    """Products with an open opportunity whose prices have become old, or too old, by nothing but time; and when the first other one ages.

    All open ones are gone through: an index for it would cost each write more than that takes, which is not done before the time has come.
    """
    row = connection.execute(
        text(
            """
            SELECT array_agg(DISTINCT asin ORDER BY asin) FILTER (WHERE ages_at <= :now) AS aged,
                min(ages_at) FILTER (WHERE ages_at > :now) AS next
            FROM (
                SELECT asin, least(source_checked_at, target_checked_at)
                    + CASE WHEN :flag = ANY(flags) THEN CAST(:over_after AS interval) ELSE CAST(:old_after AS interval) END AS ages_at
                FROM opportunities WHERE closed_at IS NULL
            ) open
            """
        ),
        {"now": now, "old_after": old_after, "over_after": over_after, "flag": flag},
    ).one()
    return row.aged or [], row.next


def select_open(connection: Connection, lanes: Collection[tuple[str | None, str, str]]) -> list[str]:
    """Products with an open opportunity of one of these categories (None: not known), sources and targets."""
    rows = connection.execute(
        text(
            """
            SELECT DISTINCT o.asin FROM opportunities o
            JOIN unnest(CAST(:categories AS text[]), CAST(:sources AS text[]), CAST(:targets AS text[])) AS lane (category, source, target)
                ON lane.category = coalesce(o.category, '') AND lane.source = o.source_market AND lane.target = o.target_market
            WHERE o.closed_at IS NULL ORDER BY asin
            """
        ),
        {
            "categories": [category or "" for category, _, _ in lanes],
            "sources": [source for _, source, _ in lanes],
            "targets": [target for _, _, target in lanes],
        },
    )
    return list(rows.scalars())


def read_prices_after(
    connection: Connection,
    after: str,
    *,
    rows: int,
    price_type: PriceType,
    stores: Sequence[Marketplace],
    checked_since: datetime,
    until: str | None = None,
) -> Prices:
    """The next products of a walk over all, each whole, with what is known of its price in these stores.

    Args:
        after: an ASIN.
        rows: how many prices are read at most; a product has at most one for each store.
        checked_since: what was checked earlier is no price.
        until: no ASIN after this one, which is then the last; None for no end.
    """
    found = _read(
        connection,
        (_ASIN, _STORE, ">i4"),
        f"""
        SELECT array_agg(asin), array_agg(marketplace), array_agg(amount_minor) FROM (
            {_PRICES} AND asin > %(after)s {"" if until is None else "AND asin <= %(until)s"}
            ORDER BY asin {"LIMIT %(rows)s" if until is None else ""}
        ) price
        """,
        {"after": after, "until": until, "rows": rows, **_of_prices(price_type, stores, checked_since)},
    )
    if found is None:
        return Prices(np.empty(0, _ASIN), np.empty((len(stores), 0), np.int64), until)
    asins = found[0]
    if until is not None or len(asins) < rows:
        return _pivot(found, stores, until)
    # The last product may have more prices than were read.
    whole = int(np.searchsorted(asins == asins[-1], True))
    if whole == 0:
        raise ColumnUnreadable(f"a product with more than {rows} prices in {len(stores)} stores")
    return _pivot([column[:whole] for column in found], stores, asins[whole - 1].decode())


def read_prices_of(
    connection: Connection, asins: Sequence[str], *, price_type: PriceType, stores: Sequence[Marketplace], checked_since: datetime
) -> Prices:
    """The same of these products; those without a price are left out."""
    found = _read(
        connection,
        (_ASIN, _STORE, ">i4"),
        f"""
        SELECT array_agg(asin), array_agg(marketplace), array_agg(amount_minor) FROM (
            {_PRICES} AND asin = ANY(%(asins)s) ORDER BY asin
        ) price
        """,
        {"asins": list(asins), **_of_prices(price_type, stores, checked_since)},
    )
    if found is None:
        return Prices(np.empty(0, _ASIN), np.empty((len(stores), 0), np.int64), None)
    return _pivot(found, stores, None)


_PRICES: Final = """
    SELECT asin, marketplace, amount_minor FROM current_prices
    WHERE price_type = %(price_type)s AND marketplace = ANY(%(stores)s) AND amount_minor IS NOT NULL AND checked_at > %(since)s
"""


def _of_prices(price_type: PriceType, stores: Sequence[Marketplace], checked_since: datetime) -> dict[str, object]:
    return {"price_type": price_type.value, "stores": [store.value for store in stores], "since": checked_since}


def _pivot(found: Sequence[NDArray[Any]], stores: Sequence[Marketplace], last: str | None) -> Prices:
    """From a row for each price to a row for each store; rows of a product follow one another."""
    asins, markets, minor = found
    begins = np.flatnonzero(np.concatenate(([True], asins[1:] != asins[:-1])))
    product = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(asins))))
    prices = np.full((len(stores), len(begins)), NONE, np.int64)
    for place, store in enumerate(stores):
        is_here = markets == store.value.encode()
        prices[place, product[is_here]] = minor[is_here]
    return Prices(asins[begins], prices, last)


# A yes or no as 1, 0 or -1.
_YES = "coalesce(p.{0}::int, -1)"
_LISTING_COLUMNS: Final = (
    ("checked_at", ">i8", "c.checked_at"),
    ("root", ">i8", "coalesce(p.root_category_id, -1)"),
    ("path", ">i8", "CASE WHEN cardinality(p.category_path) > 0 THEN hash_array_extended(p.category_path, 0) ELSE 0 END"),
    ("stated", ">i4", "coalesce(round(p.referral_fee_pct * 100)::int, -1)"),
    ("fba", ">i4", "coalesce(p.fba_pick_pack_minor, -1)"),
    ("weight", ">i4", "coalesce(p.package_weight_g, -1)"),
    ("sales_rank_drops_30", ">i4", "coalesce(p.sales_rank_drops_30, -1)"),
    ("monthly_sold", ">i4", "coalesce(p.monthly_sold, -1)"),
    ("offer_count", ">i4", "coalesce(p.offer_count, -1)"),
    ("buy_box_is_amazon", ">i4", _YES.format("buy_box_is_amazon")),
    # By Amazon's own price, which each answer has: whose the buy box is, Keepa says only where it is asked, for tokens.
    (
        "amazon_matches",
        ">i4",
        "CASE WHEN a.amount_minor <= c.amount_minor THEN 1 WHEN a.asin IS NOT NULL AND a.amount_minor IS NULL THEN 0 ELSE -1 END",
    ),
    ("is_hazardous", ">i4", _YES.format("is_hazardous")),
    ("is_heat_sensitive", ">i4", _YES.format("is_heat_sensitive")),
    ("is_often_returned", ">i4", "CASE p.return_rate WHEN 'high' THEN 1 WHEN 'low' THEN 0 ELSE -1 END"),
    ("is_lightning", ">i4", "coalesce(p.lightning_ends_at > %(now)s, false)::int"),
    ("has_coupon", ">i4", "(p.coupon_minor IS NOT NULL OR p.coupon_pct IS NOT NULL)::int"),
    # The availability is that of Amazon's own offer, and says nothing of another seller's price.
    (
        "is_in_stock",
        ">i4",
        f"""
        CASE WHEN a.amount_minor = c.amount_minor OR (c.price_type = '{PriceType.BUY_BOX_SHIPPING}' AND p.buy_box_is_amazon)
            THEN CASE p.availability WHEN 'in_stock' THEN 1 WHEN 'no_offer' THEN 0 ELSE -1 END ELSE -1 END
        """,
    ),
)


def read_listings(
    connection: Connection, asins: Words, *, price_type: PriceType, stores: Sequence[Marketplace], now: datetime, checked_since: datetime
) -> Listings:
    """What is known of these products in the stores that have a price of them.

    Args:
        asins: each once, in order.
        checked_since: what Amazon itself asked earlier is not known.
    """
    names = ", ".join(f"array_agg({name})" for name, _, _ in _LISTING_COLUMNS)
    columns = ", ".join(f"{expression} AS {name}" for name, _, expression in _LISTING_COLUMNS)
    found = _read(
        connection,
        (_ASIN, _STORE, *(kind for _, kind, _ in _LISTING_COLUMNS)),
        f"""
        SELECT array_agg(asin), array_agg(marketplace), {names} FROM (
            SELECT c.asin, c.marketplace, {columns}
            FROM current_prices c LEFT JOIN products p ON p.asin = c.asin AND p.marketplace = c.marketplace
            LEFT JOIN current_prices a ON a.asin = c.asin AND a.marketplace = c.marketplace AND a.price_type = '{PriceType.AMAZON}'
                AND a.checked_at > %(since)s
            WHERE c.price_type = %(price_type)s AND c.marketplace = ANY(%(stores)s) AND c.asin = ANY(%(asins)s)
            ORDER BY c.asin
        ) listing
        """,
        {
            "price_type": price_type.value,
            "stores": [store.value for store in stores],
            "asins": [asin.decode() for asin in asins.tolist()],
            "now": now,
            "since": checked_since,
        },
    )
    if found is None:
        empty = np.empty(0, np.int64)
        return Listings(*(empty for _ in range(2 + len(_LISTING_COLUMNS))))
    place_of = {store.value.encode(): place for place, store in enumerate(stores)}
    places = np.zeros(len(found[1]), np.int64)
    for code, place in place_of.items():
        places[found[1] == code] = place
    order = np.argsort(asins)
    products = order[np.searchsorted(asins, found[0], sorter=order)]
    return Listings(products, places, *(column.astype(np.int64) for column in found[2:]))


def select_paths(connection: Connection, listings: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Sequence[str]]:
    """Names of the categories of these listings, from the root down; those that have none are left out."""
    rows = connection.execute(
        text(
            """
            SELECT p.asin, p.marketplace, p.category_path FROM products p
            JOIN unnest(CAST(:asins AS text[]), CAST(:marketplaces AS text[])) AS s (asin, marketplace) USING (asin, marketplace)
            WHERE cardinality(p.category_path) > 0
            """
        ),
        {"asins": [asin for asin, _ in listings], "marketplaces": [marketplace for _, marketplace in listings]},
    )
    return {(asin, marketplace): path for asin, marketplace, path in rows}


def select_texts(connection: Connection, asins: Sequence[str], stores: Sequence[Marketplace]) -> dict[tuple[str, str], Listing]:
    """What these products' listings say of the article."""
    with driver_of(connection).cursor(binary=True) as cursor:
        cursor.execute(
            """
            SELECT asin, marketplace, eans || upcs, brand, title, package_quantity, unit_count, size, color, model FROM products
            WHERE asin = ANY(%(asins)s) AND marketplace = ANY(%(stores)s)
            """,
            {"asins": list(asins), "stores": [store.value for store in stores]},
        )
        return {(asin, marketplace): Listing(codes or (), *said) for asin, marketplace, codes, *said in cursor.fetchall()}


# The columns of a gap as they are staged: name, type in the array, type in the table. What is not known is a number beside it in `known`.
GAP: Final = (
    ("asin", _ASIN, "text"),
    ("pair", ">i2", "smallint"),
    ("source_minor", ">i4", "integer"),
    ("target_minor", ">i4", "integer"),
    ("source_checked_at", ">i8", "timestamptz"),
    ("target_checked_at", ">i8", "timestamptz"),
    ("margin_minor", ">i4", "integer"),
    ("margin_pct", ">i4", "integer"),
    ("profit_minor", ">i4", "integer"),
    ("invested_minor", ">i4", "integer"),
    ("roi_pct", ">i4", "integer"),
    ("profit_margin_pct", ">i4", "integer"),
    ("known", ">i2", "smallint"),
    ("unknown", ">i4", "integer"),
    ("is_stale", "u1", "boolean"),
    ("category", ">i2", "smallint"),
    ("flags", ">i4", "integer"),
    *((f"part_{part.value}", ">i2", "smallint") for part in ScorePart),
    ("is_looked", "u1", "boolean"),
    ("is_new", "u1", "boolean"),
)
HAS_PROFIT, HAS_INVESTED, HAS_ROI, HAS_PROFIT_MARGIN = 1, 2, 4, 8
# numeric(9, 2) in hundredths.
MOST_PCT: Final = 999_999_999


def make_stages(connection: Connection) -> None:
    """The temporary tables of this session, empty in every transaction."""
    columns = ", ".join(f"{name} {kind}" for name, _, kind in GAP)
    connection.execute(text(f"CREATE TEMPORARY TABLE IF NOT EXISTS stage_gap ({columns}) ON COMMIT DELETE ROWS"))
    connection.execute(
        text("CREATE TEMPORARY TABLE IF NOT EXISTS stage_doubt (asin text, pair smallint, doubts text[]) ON COMMIT DELETE ROWS")
    )
    # Gaps are looked up by key; and a plan that was made while there were no opportunities is none for a million of them.
    connection.execute(text("SELECT set_config('random_page_cost', '1.1', true), set_config('plan_cache_mode', 'force_custom_plan', true)"))


def stage_gaps(connection: Connection, columns: Mapping[str, NDArray[Any]]) -> None:
    """COPY the gaps in, by the names of `GAP`; figures beyond their column are its most or least."""
    number = len(columns["asin"])
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind, _ in GAP:
        fields += [(f"{name}_bytes", ">i4"), (name, kind)]
    rows = np.zeros(number, np.dtype(fields))
    rows["fields"] = len(GAP)
    for name, kind, _ in GAP:
        rows[f"{name}_bytes"] = np.dtype(kind).itemsize
        rows[name] = np.clip(columns[name], -_INT4, _INT4) if kind == ">i4" else columns[name]
    body = memoryview(rows.tobytes())
    with driver_of(connection).cursor() as cursor, cursor.copy("COPY stage_gap FROM STDIN (FORMAT binary)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        for start in range(0, len(body), _COPY_BYTES):
            copy.write(body[start : start + _COPY_BYTES])
        copy.write(b"\xff\xff")
    # Of the columns it is joined by; those of few values are told by a small sample, and the defaults would take half a second.
    connection.execute(text("SET LOCAL default_statistics_target = 10"))
    connection.execute(text("ANALYZE stage_gap (asin, pair, unknown, flags)"))


def select_unlooked(connection: Connection, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """Mark the staged gaps that are new. Returns ASIN and pair of those whose listings are to be compared: these and those staged so."""
    connection.execute(
        text(
            f"""
            UPDATE stage_gap s SET is_looked = true, is_new = true FROM {_PAIRS} WHERE lane.pair = s.pair AND NOT EXISTS (
                SELECT 1 FROM opportunities o
                WHERE o.asin = s.asin AND o.source_market = lane.source AND o.target_market = lane.target AND o.closed_at IS NULL
            )
            """
        ),
        _of_pairs(pairs),
    )
    return [(asin, pair) for asin, pair in connection.execute(text("SELECT asin, pair FROM stage_gap WHERE is_looked"))]


def stage_doubts(connection: Connection, doubts: Mapping[tuple[str, int], Sequence[str]]) -> None:
    """Why some of them may not be the same article; of the others that were looked at, nothing speaks against it."""
    lines = []
    for (asin, pair), some in doubts.items():
        quoted = ",".join('"' + doubt.replace("\\", "\\\\").replace('"', '\\"') + '"' for doubt in some)
        lines.append(f"{asin}\t{pair}\t{copy_text('{' + quoted + '}')}\n")
    copy_rows(connection, "stage_doubt", lines)
    # Without it the table is taken for a small one, and gone through for each gap.
    connection.execute(text("ANALYZE stage_doubt"))


_PAIRS = """
    unnest(CAST(:pair_numbers AS smallint[]), CAST(:sources AS text[]), CAST(:targets AS text[])) AS lane (pair, source, target)
"""


def _of_pairs(pairs: Sequence[tuple[str, str]]) -> dict[str, object]:
    return {
        "pair_numbers": list(range(len(pairs))),
        "sources": [source for source, _ in pairs],
        "targets": [target for _, target in pairs],
    }


def _known(bit: int, column: str) -> str:
    return f"CASE WHEN s.known & {bit} > 0 THEN {column} END"


_PARTS = ", ".join(f"'{part.value}', s.part_{part.value}" for part in ScorePart)
# A staged gap in the columns of `opportunities`, in the order of `_COLUMNS`.
_VALUES = (
    ("price_type", "CAST(:price_type AS text)"),
    ("source_minor", "s.source_minor"),
    ("target_minor", "s.target_minor"),
    ("source_currency", "lane.source_currency"),
    ("target_currency", "lane.target_currency"),
    ("source_checked_at", "s.source_checked_at"),
    ("target_checked_at", "s.target_checked_at"),
    ("margin_minor", "s.margin_minor"),
    ("margin_pct", "(s.margin_pct * 0.01)::numeric(9, 2)"),
    ("profit_minor", _known(HAS_PROFIT, "s.profit_minor")),
    ("invested_minor", _known(HAS_INVESTED, "s.invested_minor")),
    ("roi_pct", _known(HAS_ROI, "(s.roi_pct * 0.01)::numeric(9, 2)")),
    ("profit_margin_pct", _known(HAS_PROFIT_MARGIN, "(s.profit_margin_pct * 0.01)::numeric(9, 2)")),
    ("unknown_parts", "unknown.words"),
    ("is_stale", "s.is_stale"),
    ("category", "(CAST(:categories AS text[]))[s.category + 1]"),
    ("flags", "flag.words"),
    ("score", f"({' + '.join(f's.part_{part.value}' for part in ScorePart)})::smallint"),
    ("score_parts", f"jsonb_build_object({_PARTS})"),
)
_GAPS = f"""
    SELECT s.asin, lane.source, lane.target, s.is_looked, s.is_new, d.doubts AS doubts_found,
        {", ".join(f"{value} AS {name}" for name, value in _VALUES)}
    FROM stage_gap s
    JOIN unnest(
        CAST(:pair_numbers AS smallint[]), CAST(:sources AS text[]), CAST(:targets AS text[]),
        CAST(:source_currencies AS text[]), CAST(:target_currencies AS text[])
    ) AS lane (pair, source, target, source_currency, target_currency) ON lane.pair = s.pair
    JOIN (
        SELECT mask, words\\:\\:text[] FROM unnest(CAST(:unknown_masks AS integer[]), CAST(:unknown_words AS text[])) AS u (mask, words)
    ) unknown ON unknown.mask = s.unknown
    JOIN (
        SELECT mask, words\\:\\:text[] FROM unnest(CAST(:flag_masks AS integer[]), CAST(:flag_words AS text[])) AS f (mask, words)
    ) flag ON flag.mask = s.flags
    LEFT JOIN stage_doubt d ON d.asin = s.asin AND d.pair = s.pair
"""
_NAMES = [name for name, _ in _VALUES]
_DOUBTS = "CASE WHEN s.is_looked THEN coalesce(s.doubts_found, '{}') ELSE o.doubts END"
# Against the row as it was before, not against the best of its life: what has fallen and rises again is news.
_IS_NEWS = f"""(
    coalesce(s.profit_minor, {LEAST_PROFIT_MINOR}) > coalesce(o.profit_minor, {LEAST_PROFIT_MINOR})
    OR coalesce(s.roi_pct, {LEAST_ROI_PCT}) > coalesce(o.roi_pct, {LEAST_ROI_PCT})
    OR (s.profit_minor IS NULL AND o.profit_minor IS NULL AND s.margin_minor > o.margin_minor)
    OR (o.is_stale AND NOT s.is_stale)
    OR (cardinality(o.doubts) > 0 AND cardinality({_DOUBTS}) = 0)
)"""


def write_gaps(
    connection: Connection,
    *,
    scope: Scope,
    pairs: Sequence[tuple[Marketplace, Marketplace]],
    price_type: PriceType,
    categories: Sequence[str | None],
    unknown: Mapping[int, Sequence[str]],
    flags: Mapping[int, Sequence[str]],
    now: datetime,
    over: datetime,
    seen_again: timedelta,
) -> Written:
    """Open, change and close opportunities so that those of the scope are what is staged. Again with the same gaps it changes nothing.

    Args:
        scope: an open opportunity of it that is not staged is closed; each one staged is within it, and marked where it is new.
        pairs, categories: what the numbers of the stage mean.
        unknown, flags: what the masks of the stage mean; each mask that is staged is there.
        over: a price checked by then is too old.
        seen_again: one that stays as it is is marked as seen where that was longer ago.
    """
    parameters: dict[str, object] = {
        **_of_pairs([(source.value, target.value) for source, target in pairs]),
        "source_currencies": [source.currency for source, _ in pairs],
        "target_currencies": [target.currency for _, target in pairs],
        "price_type": price_type.value,
        "categories": list(categories),
        "unknown_masks": list(unknown),
        "unknown_words": [_array(words) for words in unknown.values()],
        "flag_masks": list(flags),
        "flag_words": [_array(words) for words in flags.values()],
        "now": now,
        "on": now.date(),
        "seen_before": now - seen_again,
    }
    is_other = (
        f"(({', '.join(f'o.{name}' for name in _NAMES)}) IS DISTINCT FROM ({', '.join(f's.{name}' for name in _NAMES)}) "
        f"OR o.doubts IS DISTINCT FROM {_DOUBTS})"
    )
    is_better = (
        "(s.profit_minor > coalesce(o.best_profit_minor, -2147483648) "
        "OR (s.profit_minor IS NULL AND o.best_profit_minor IS NULL AND s.margin_minor > o.best_margin_minor))"
    )
    changed = connection.execute(
        text(
            f"""
            WITH s AS ({_GAPS})
            UPDATE opportunities o SET {", ".join(f"{name} = s.{name}" for name in _NAMES)}, doubts = {_DOUBTS},
                reckoned_on = :on, last_seen_at = greatest(o.last_seen_at, :now),
                best_margin_minor = greatest(o.best_margin_minor, s.margin_minor),
                best_profit_minor = greatest(o.best_profit_minor, s.profit_minor),
                best_at = CASE WHEN {is_better} THEN :now ELSE o.best_at END,
                became_at = CASE WHEN {_IS_NEWS} THEN :now ELSE o.became_at END,
                revision = o.revision + 1
            FROM s
            WHERE o.asin = s.asin AND o.source_market = s.source AND o.target_market = s.target AND o.closed_at IS NULL AND NOT s.is_new
                AND {is_other}
            RETURNING o.asin
            """
        ),
        parameters,
    )
    changed_asins = list(changed.scalars())
    connection.execute(
        text(
            f"""
            UPDATE opportunities o SET last_seen_at = :now FROM stage_gap s JOIN {_PAIRS} ON lane.pair = s.pair
            WHERE o.asin = s.asin AND o.source_market = lane.source AND o.target_market = lane.target AND o.closed_at IS NULL
                AND NOT s.is_new AND o.last_seen_at < :seen_before
            """
        ),
        parameters,
    )
    opened = connection.execute(
        text(
            f"""
            WITH s AS ({_GAPS} WHERE s.is_new)
            INSERT INTO opportunities (asin, source_market, target_market, {", ".join(_NAMES)}, doubts, reckoned_on, first_seen_at,
                last_seen_at, best_margin_minor, best_profit_minor, best_at, became_at)
            SELECT s.asin, s.source, s.target, {", ".join(f"s.{name}" for name in _NAMES)}, coalesce(s.doubts_found, '{{}}'), :on, :now,
                :now, s.margin_minor, s.profit_minor, :now, :now
            FROM s
            RETURNING asin
            """
        ),
        parameters,
    )
    opened_asins = list(opened.scalars())
    closed_asins = _close(connection, scope, parameters, over)
    return Written(len(opened_asins), len(changed_asins), len(closed_asins), tuple(sorted({*opened_asins, *changed_asins, *closed_asins})))


def _close(connection: Connection, scope: Scope, parameters: dict[str, object], over: datetime) -> list[str]:
    """Close the open ones of the scope that are not staged, and say why."""
    where = ["o.closed_at IS NULL"]
    if scope.asins is not None:
        where.append("o.asin = ANY(:scope_asins)")
    else:
        where.append("o.asin > :after" + ("" if scope.last is None else " AND o.asin <= :last"))
    if scope.pairs is not None:
        where.append(
            "EXISTS (SELECT 1 FROM unnest(CAST(:scope_sources AS text[]), CAST(:scope_targets AS text[])) AS chosen (source, target) "
            "WHERE chosen.source = o.source_market AND chosen.target = o.target_market)"
        )
    rows = connection.execute(
        text(
            f"""
            UPDATE opportunities o SET closed_at = :now, revision = o.revision + 1, closed_why = (
                SELECT CASE
                    WHEN NOT EXISTS (SELECT 1 FROM {_PAIRS} WHERE lane.source = o.source_market AND lane.target = o.target_market)
                        THEN 'no longer compared'
                    WHEN count(c.amount_minor) < 2 THEN 'price gone'
                    WHEN min(c.checked_at) <= :over THEN CAST(:price_too_old AS text)
                    ELSE 'gap closed'
                END
                FROM current_prices c
                WHERE c.asin = o.asin AND c.marketplace IN (o.source_market, o.target_market) AND c.price_type = :price_type
            )
            WHERE {" AND ".join(where)} AND NOT EXISTS (
                SELECT 1 FROM stage_gap s JOIN {_PAIRS} ON lane.pair = s.pair
                WHERE s.asin = o.asin AND lane.source = o.source_market AND lane.target = o.target_market
            )
            RETURNING o.asin
            """
        ),
        {
            **parameters,
            "over": over,
            "price_too_old": PRICE_TOO_OLD,
            "scope_asins": list(scope.asins or ()),
            "after": scope.after,
            "last": scope.last,
            "scope_sources": [source for source, _ in scope.pairs or ()],
            "scope_targets": [target for _, target in scope.pairs or ()],
        },
    )
    return list(rows.scalars())


def microseconds_of(moment: datetime) -> int:
    """A time as PostgreSQL counts."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(microseconds: int) -> datetime:
    """The other way round."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _array(words: Sequence[str]) -> str:
    return "{" + ",".join(f'"{word}"' for word in words) + "}"


def _read(connection: Connection, kinds: Sequence[str], query: str, parameters: Mapping[str, object]) -> list[NDArray[Any]] | None:
    """The one row of a query whose columns are arrays without nulls, each element of one width; None where there is nothing.

    Raises:
        ColumnUnreadable: a text of another length.
    """
    with driver_of(connection).cursor(binary=True) as cursor:
        cursor.execute(query, parameters)
        result = cursor.pgresult
        if result is None:
            raise ColumnUnreadable("the server gave no columns")
        found = []
        for place, kind in enumerate(kinds):
            value = result.get_value(0, place)
            if value is None:
                return None
            found.append(_take_apart(value, kind))
        return found


# Of an array of one dimension: how many dimensions, whether nulls, the type, and how many elements from which number on.
_ARRAY_HEAD: Final = 20


def _take_apart(value: bytes, kind: str) -> NDArray[Any]:
    width = np.dtype(kind).itemsize
    number = int.from_bytes(value[12:16])
    if len(value) != _ARRAY_HEAD + number * (4 + width):
        raise ColumnUnreadable(f"a column has values that are not {width} bytes long; every ASIN has ten letters, every store two")
    elements = np.frombuffer(value, np.dtype([("bytes", ">i4"), ("value", kind)]), number, _ARRAY_HEAD)
    if not (elements["bytes"] == width).all():
        raise ColumnUnreadable(f"a column has values that are not {width} bytes long; every ASIN has ten letters, every store two")
    taken: NDArray[Any] = np.ascontiguousarray(elements["value"])
    return taken
