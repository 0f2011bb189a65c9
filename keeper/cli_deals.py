"""The commands about deals that are there: search, and filters of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeper.cli_common import MARKET, TITLE_LENGTH, Json, Market, make_group, open_resources, show_json, show_money
from keeper.domain.deal_filter import DealFilter, check_name, read_rules, write_rules
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.search import LARGEST_PAGE, LARGEST_TOTAL, SearchHit, SearchQuery, SearchSort, SearchSubject
from keeper.domain.wording import read_price_type

if TYPE_CHECKING:
    from keeper.filters import Preview
    from keeper.postgres.deal_filters import FilterRow, FoundDeal

filter_app = make_group("Filters: which deals you want to hear of.")
deals_app = make_group("The deals Keeper knows.")

UserName = Annotated[str | None, typer.Option("--user", "-u", help="Whose; needed where there are several users", show_default=False)]
FilterId = Annotated[int, typer.Argument(metavar="ID", help="As `keeper filter list` shows it")]
Words = Annotated[str, typer.Option("--words", "-w", help='All must be in title or brand; in "quotes" a phrase', show_default=False)]
Excluded = Annotated[str, typer.Option("--without", help="Words or phrases of which none may be there", show_default=False)]
Stores = Annotated[
    list[Marketplace] | None, typer.Option("--marketplace", "-m", case_sensitive=False, help="Only this store; may be repeated")
]
PriceMin = Annotated[str | None, typer.Option("--price-min", help="In the store's currency, inclusive", show_default=False)]
PriceMax = Annotated[str | None, typer.Option("--price-max", help="Likewise", show_default=False)]
Discount = Annotated[float | None, typer.Option("--discount", help="At least so many percent below the list price", show_default=False)]
DiscountMax = Annotated[float | None, typer.Option("--discount-max", help="At most so many", show_default=False)]
BelowMedian = Annotated[
    float | None, typer.Option("--below-median", help="At least so many percent below the median of 90 days", show_default=False)
]
Rating = Annotated[float | None, typer.Option("--rating", help="At least so many stars, 0 to 5", show_default=False)]
Reviews = Annotated[int | None, typer.Option("--reviews", help="Rated by at least so many", show_default=False)]
Rank = Annotated[int | None, typer.Option("--rank", help="The sales rank is at most this", show_default=False)]
Score = Annotated[float | None, typer.Option("--score", help="The quality score is at least this, 0 to 100", show_default=False)]
Brands = Annotated[list[str] | None, typer.Option("--brand", help="Exact but for case; may be repeated")]
Categories = Annotated[list[str] | None, typer.Option("--category", help="A name on the path, or an id; may be repeated")]
Types = Annotated[list[str] | None, typer.Option("--price-type", "-t", help="Which price fell: new, amazon, used …; may be repeated")]
Layouts = Annotated[list[str] | None, typer.Option("--layout", help="Of a keyboard, such as qwertz; may be repeated")]
Group = Annotated[str | None, typer.Option("--group", help="Of this product group, such as keyboards", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.add_typer(filter_app, name="filter", rich_help_panel=MARKET)
    app.add_typer(deals_app, name="deals", rich_help_panel=MARKET)


def _wanted(
    words: str,
    without: str,
    stores: list[Marketplace] | None,
    prices: tuple[str | None, str | None],
    percents: tuple[float | None, float | None, float | None],
    people: tuple[float | None, int | None, int | None, float | None],
    lists: tuple[list[str] | None, list[str] | None, list[str] | None, list[str] | None],
    group: str | None,
) -> DealFilter:
    currency = DealFilter(marketplaces=tuple(stores or ())).currency or "EUR"
    brands, categories, price_types, layouts = (tuple(one or ()) for one in lists)
    return DealFilter(
        words=words,
        exclude_words=without,
        marketplaces=tuple(stores or ()),
        price_from_minor=_minor(prices[0], currency),
        price_to_minor=_minor(prices[1], currency),
        discount_from_pct=percents[0],
        discount_to_pct=percents[1],
        below_median_from_pct=percents[2],
        rating_from=people[0],
        reviews_from=people[1],
        rank_to=people[2],
        score_from=people[3],
        brands=brands,
        categories=categories,
        price_types=tuple(_price_type(one) for one in price_types),
        layouts=layouts,
        group=group,
    )


@filter_app.command("add")
def filter_add(
    name: Annotated[str, typer.Argument(help="How you call it")],
    words: Words = "",
    without: Excluded = "",
    stores: Stores = None,
    price_from: PriceMin = None,
    price_to: PriceMax = None,
    discount: Discount = None,
    discount_to: DiscountMax = None,
    below_median: BelowMedian = None,
    rating: Rating = None,
    reviews: Reviews = None,
    rank: Rank = None,
    score: Score = None,
    brands: Brands = None,
    categories: Categories = None,
    price_types: Types = None,
    layouts: Layouts = None,
    group: Group = None,
    is_instant: Annotated[bool, typer.Option("--instant", help="Tell its deals as they are found, not only in the report")] = False,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Keep a filter: its deals are in your daily report from now on. `keeper filter preview` tries one first.

    Example: [bold]keeper filter add "Cherry unter 50" --words cherry -m DE --price-max 50 --score 40[/bold]
    """
    from keeper.postgres.deal_filters import insert_filter
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user
    from keeper.terminal import say

    wanted = _wanted(
        words, without, stores, (price_from, price_to), (discount, discount_to, below_median), (rating, reviews, rank, score),
        (brands, categories, price_types, layouts), group,
    )  # fmt: skip
    with open_resources() as resources, resources.engine.begin() as connection:
        user_id, now = find_user(connection, user), select_now(connection)
        row = insert_filter(connection, user_id, check_name(name), wanted, is_active=True, is_instant=is_instant, now=now)
    if is_json:
        show_json(_fields(row))
        return
    say(f"Added filter {row.filter_id}, {row.name}: {_told(wanted)}.")


@filter_app.command("preview")
def filter_preview(
    words: Words = "",
    without: Excluded = "",
    stores: Stores = None,
    price_from: PriceMin = None,
    price_to: PriceMax = None,
    discount: Discount = None,
    discount_to: DiscountMax = None,
    below_median: BelowMedian = None,
    rating: Rating = None,
    reviews: Reviews = None,
    rank: Rank = None,
    score: Score = None,
    brands: Brands = None,
    categories: Categories = None,
    price_types: Types = None,
    layouts: Layouts = None,
    group: Group = None,
    filter_id: Annotated[int | None, typer.Option("--id", help="One that is kept, instead of conditions", show_default=False)] = None,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """What a filter would have found in the last 30 days. Nothing is kept.

    Examples: [bold]keeper filter preview --words cherry --discount 30[/bold] · [bold]keeper filter preview --id 3[/bold]
    """
    from keeper.filters import preview
    from keeper.postgres.deal_filters import find_filter
    from keeper.postgres.installation import select_now
    from keeper.postgres.users import find_user

    wanted = _wanted(
        words, without, stores, (price_from, price_to), (discount, discount_to, below_median), (rating, reviews, rank, score),
        (brands, categories, price_types, layouts), group,
    )  # fmt: skip
    if filter_id is not None and wanted != DealFilter():
        raise typer.BadParameter("either --id or conditions")
    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user)
        if filter_id is not None:
            wanted = read_rules(find_filter(connection, user_id, filter_id).rules)
        found = preview(connection, wanted, user_id=user_id, now=select_now(connection))
    if is_json:
        by_day = [{"day": day.isoformat(), "deals": deals} for day, deals in found.by_day]
        show_json({"since": found.since, "total": found.total, "by_day": by_day, "best": found.best})
        return
    _show_preview(found)


@filter_app.command("list")
def filter_list(user: UserName = None, is_json: Json = False) -> None:
    """A user's filters."""
    from keeper.postgres.deal_filters import select_filters
    from keeper.postgres.users import find_user
    from keeper.terminal import show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        found = select_filters(connection, find_user(connection, user))
    if is_json:
        show_json([_fields(row) for row in found])
        return
    show_table(
        ("ID", "Name", "State", "Told", "Wants"),
        [
            (
                row.filter_id,
                row.name,
                "active" if row.is_active else "off",
                "at once" if row.is_instant else "daily",
                _wants(row),
            )
            for row in found
        ],
        right=("ID",),
    )


@filter_app.command("show")
def filter_show(filter_id: FilterId, user: UserName = None, is_json: Json = False) -> None:
    """One filter, condition by condition."""
    from keeper.postgres.deal_filters import find_filter
    from keeper.postgres.users import find_user
    from keeper.terminal import say, show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        row = find_filter(connection, find_user(connection, user), filter_id)
    if is_json:
        show_json(_fields(row))
        return
    say(f"Filter {row.filter_id}, {row.name}")
    rules = row.rules if isinstance(row.rules, dict) else {"rules": row.rules}
    show_table(("Condition", "Value"), [(name, value if isinstance(value, str) else repr(value)) for name, value in rules.items()])
    say(_wants(row))


@filter_app.command("remove")
def filter_remove(filter_id: FilterId, user: UserName = None, is_json: Json = False) -> None:
    """Remove a filter. Reports stay."""
    from keeper.postgres.deal_filters import delete_filter
    from keeper.postgres.users import find_user
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        delete_filter(connection, find_user(connection, user), filter_id)
    if is_json:
        show_json({"removed": filter_id})
        return
    say(f"Removed filter {filter_id}.")


@deals_app.command("search")
def deals_search(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD...]", help="All of them must be there; in quotes a phrase. None: everything", show_default=False),
    ] = None,
    marketplace: Market = Marketplace.DE,
    price_from: PriceMin = None,
    price_to: PriceMax = None,
    discount: Discount = None,
    discount_to: DiscountMax = None,
    below_median: BelowMedian = None,
    rating: Rating = None,
    reviews: Reviews = None,
    rank: Rank = None,
    score: Score = None,
    brands: Brands = None,
    categories: Categories = None,
    price_type: Annotated[
        str | None, typer.Option("--price-type", "-t", help="Which price fell: new, amazon …", show_default=False)
    ] = None,
    layouts: Layouts = None,
    group: Group = None,
    sort: Annotated[SearchSort, typer.Option("--sort", help="The order of the hits")] = SearchSort.SCORE,
    includes_ended: Annotated[bool, typer.Option("--ended", help="Deals that are over, too")] = False,
    includes_glitches: Annotated[bool, typer.Option("--glitches", help="Deals whose price may be a mistake, too")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=LARGEST_PAGE, help="Hits on a page")] = 20,
    cursor: Annotated[str | None, typer.Option("--after", help="Where the page before ended", show_default=False)] = None,
    is_json: Json = False,
) -> None:
    """Search the deals Keeper knows, the best first: in Elasticsearch where it is configured, else in PostgreSQL.

    Example: [bold]keeper deals search cherry --price-max 80 --below-median 20[/bold]
    """
    from keeper.find import find
    from keeper.terminal import say

    query = SearchQuery(
        SearchSubject.DEALS,
        " ".join(words or ()),
        marketplace,
        _minor(price_from, marketplace.currency),
        _minor(price_to, marketplace.currency),
        discount,
        rating,
        tuple(brands or ()),
        tuple(categories or ()),
        None if price_type is None else _price_type(price_type),
        includes_ended,
        sort,
        limit=limit,
        cursor=cursor,
        discount_to_pct=discount_to,
        below_median_from_pct=below_median,
        reviews_from=reviews,
        rank_to=rank,
        score_from=score,
        layouts=tuple(layouts or ()),
        group=group,
        includes_glitches=includes_glitches,
    )
    with open_resources() as resources, resources.searcher() as searcher:
        page = find(searcher, query)
    if is_json:
        show_json(page)
        return
    if page.alike:
        say(f"Nothing has {', '.join(page.alike)}; taken for what is alike.")
    if not page.hits:
        say("Nothing found.")
        return
    _show_hits(page.hits)
    if page.total is not None:
        say(f"{page.total} deals{' or more' if page.total >= LARGEST_TOTAL else ''}")
    if page.next_cursor is not None:
        say(f"More: the same with --after {page.next_cursor}")


def _show_hits(hits: tuple[SearchHit, ...]) -> None:
    from keeper.terminal import shorten, show_table

    show_table(
        ("Score", "ASIN", "Store", "Title", "Price", "List", "Below median", "Stars"),
        [
            (
                None if one.score is None else f"{one.score:.0f}",
                one.asin,
                one.marketplace,
                shorten(one.title, TITLE_LENGTH),
                one.price,
                one.list_price,
                _percent(one.below_median_pct),
                None if one.rating is None else f"{one.rating:.1f}",
            )
            for one in hits
        ],
        right=("Score", "Price", "List", "Below median", "Stars"),
    )


def _show_preview(found: "Preview") -> None:
    from keeper.terminal import say, shorten, show_table

    if found.best:

        def row(deal: "FoundDeal") -> tuple[Any, ...]:
            return (
                None if deal.deal_score is None else f"{deal.deal_score:.0f}",
                deal.asin,
                deal.marketplace,
                shorten(deal.title, TITLE_LENGTH),
                show_money(deal.amount_minor, deal.currency),
                _percent(deal.below_median_pct),
                "over" if deal.ended_at else "running",
            )

        columns = ("Score", "ASIN", "Store", "Title", "Price", "Below median", "State")
        show_table(columns, [row(deal) for deal in found.best], right=("Score", "Price", "Below median"))
    days = len(found.by_day)
    say(f"{found.total} deals on {days} of the last 30 days." if found.total else "No deal in the last 30 days.")


def _fields(row: "FilterRow") -> dict[str, Any]:
    return {
        "id": row.filter_id,
        "name": row.name,
        "rules": row.rules,
        "is_active": row.is_active,
        "is_instant": row.is_instant,
        "created_at": row.created_at,
    }


def _wants(row: "FilterRow") -> str:
    from keeper.domain.deal_filter import DealFilterInvalid

    try:
        return _told(read_rules(row.rules))
    except DealFilterInvalid as error:
        return f"cannot be read: {error}"


def _told(wanted: DealFilter) -> str:
    """In one line."""
    said = []
    for name, value in write_rules(wanted).items():
        if name.endswith("_minor"):
            value = Money(value, wanted.currency or "EUR")
        text = ", ".join(value) if isinstance(value, list) else str(value)
        said.append(f"{name.removesuffix('_minor').removesuffix('_pct').replace('_', ' ')} {text}")
    return "; ".join(said) or "every deal"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} %"


def _minor(text: str | None, currency: str) -> int | None:
    return None if text is None else Money.parse(text, currency).amount_minor


def _price_type(text: str) -> PriceType:
    """One that has deals, by the words people use; the domain refuses the others."""
    known = {one.value: one for one in PriceType}
    return known.get(text.upper()) or read_price_type(text)
