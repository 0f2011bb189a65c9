"""The commands that look ahead and that rank: where a price may go, and which products sell best."""

from typing import Annotated, Any

import typer

from keeper.cli_common import MARKET, TITLE_LENGTH, Json, Market, open_resources, reading, show_json, show_money
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import PriceType
from keeper.domain.wording import read_asin, read_price_type

OneAsin = Annotated[
    str, typer.Argument(parser=reading(read_asin), metavar="ASIN", help="Ten letters or digits, or a link to the product's page")
]
TypeOfPrice = Annotated[
    PriceType, typer.Option("--price-type", "-t", parser=reading(read_price_type), metavar="TYPE", help="NEW, AMAZON, USED, buybox, …")
]


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.command(rich_help_panel=MARKET)(forecast)
    app.command(rich_help_panel=MARKET)(ranking)


def forecast(
    asin: OneAsin,
    marketplace: Market = Marketplace.DE,
    price_type: TypeOfPrice = PriceType.NEW,
    target: Annotated[
        str | None, typer.Option("--target", help="Tell the chance of this price or less, too, like 49.90", show_default=False)
    ] = None,
    is_json: Json = False,
) -> None:
    """Where a price may be in 7 and 30 days, by its own past moves.

    Told only where that was better, on this product's own past, than to say that the price stays.

    Example: [bold]keeper forecast B00OCMRV40 --target 45[/bold]
    """
    from dataclasses import asdict

    from keeper.forecast import forecast as forecast_price
    from keeper.terminal import say, show_table

    currency = marketplace.currency
    wanted = None if target is None else Money.parse(target, currency)
    with open_resources() as resources, resources.engine.begin() as connection:
        found = forecast_price(connection, asin, marketplace, price_type, target_minor=wanted.amount_minor if wanted else None)
    known = found.known
    if is_json:
        show_json(
            {
                "asin": asin,
                "marketplace": marketplace,
                "price_type": price_type,
                "title": known.title,
                "currency": currency,
                "price_minor": known.amount_minor,
                "target_minor": wanted.amount_minor if wanted else None,
                "since": known.end_at,
                "horizons": [asdict(one) for one in found.horizons],
            }
        )
        return
    say(f"{asin} {marketplace} {price_type.value}: {known.title or 'no title known'}, {show_money(known.amount_minor, currency)} now")
    rows: list[tuple[Any, ...]] = []
    for one in found.horizons:
        price = show_money(one.price_minor, currency)
        if one.low_minor is not None:
            price += f" ({show_money(one.low_minor, currency)} to {show_money(one.high_minor, currency)})"
        chance = None if one.chance is None else f"{100 * one.chance:.0f} %"
        rows.append((f"in {one.days} days", price, chance, one.why_no_price or None, one.why_no_chance or None))
    headings = ("When", "Price", f"Chance of {wanted}" if wanted else "", "Why no price", "Why no chance" if wanted else "")
    shown = [place for place, heading in enumerate(headings) if heading]
    show_table([headings[place] for place in shown], [[row[place] for place in shown] for row in rows])


def ranking(
    marketplace: Market = Marketplace.DE,
    category: Annotated[int | None, typer.Option("--category", min=1, help="Keepa's number of a top category", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many")] = 20,
    is_refreshed: Annotated[bool, typer.Option("--refresh", help="Rank all products anew first; a flow does it once a day")] = False,
    is_json: Json = False,
) -> None:
    """Which products sell best in a store: by sales rank, its falls in 30 days, what is sold in a month, and reviews.

    Example: [bold]keeper ranking --refresh -m IT[/bold]
    """
    from dataclasses import asdict

    from keeper.postgres.rankings import select_ranking
    from keeper.ranking import rank_products
    from keeper.terminal import say, shorten, show_table

    with open_resources() as resources:
        if is_refreshed:
            rank_products(resources.engine, now=resources.now())
        with resources.engine.begin() as connection:
            found = select_ranking(connection, marketplace.value, root_category_id=category, limit=limit)
    if is_json:
        show_json({"marketplace": marketplace, "products": [asdict(one) for one in found]})
        return
    if not found:
        say("No product is ranked there yet; `keeper ranking --refresh` ranks what is known.")
        return
    show_table(
        ("Score", "Rank", "Falls in 30 days", "Sold in a month", "Reviews", "ASIN", "Product"),
        [
            (
                one.score,
                *(
                    None if value is None else f"{value:,} ({points})"
                    for value, points in zip(
                        (one.facts.sales_rank, one.facts.sales_rank_drops_30, one.facts.monthly_sold, one.facts.review_count),
                        one.parts.values(),
                        strict=True,
                    )
                ),
                one.asin,
                shorten(one.title, TITLE_LENGTH),
            )
            for one in found
        ],
        right=("Score", "Rank", "Falls in 30 days", "Sold in a month", "Reviews"),
    )
    say("In brackets: what each adds to the score.")
