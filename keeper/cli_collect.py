"""The command that collects deals by hand."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from keeper.cli_common import MARKET, TITLE_LENGTH, CommandFailed, Json, open_resources, show_json, show_money
from keeper.domain.deal import MOST_PAGES
from keeper.domain.marketplace import Marketplace

if TYPE_CHECKING:
    from keeper.collection import Gathered
    from keeper.postgres.deals import BestDeal
    from keeper.resources import Resources

_BEST = 10


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.command(rich_help_panel=MARKET)(collect)


def collect(
    is_with_seeds: Annotated[bool, typer.Option("--seeds/--no-seeds", help="Look at the products of the seed files; a token each")] = True,
    is_with_feed: Annotated[bool, typer.Option("--feed/--no-feed", help="Ask Keepa's feed of deals; 5 tokens a page of 150")] = True,
    names: Annotated[list[str] | None, typer.Option("--query", "-q", help="Only this query of the feed, by the name of its file")] = None,
    markets: Annotated[
        list[Marketplace] | None, typer.Option("--marketplace", "-m", case_sensitive=False, help="Only this store; may be repeated")
    ] = None,
    most_pages: Annotated[int, typer.Option("--pages", min=1, max=MOST_PAGES, help="Of each query at most so many pages")] = MOST_PAGES,
    is_json: Json = False,
) -> None:
    """Collect deals now: from the seeds and from Keepa's feed, until what is there is known or the share of the tokens is spent.

    Queries of the feed are files in [bold]seeds/deals[/], seeds are CSV files with a column [bold]asin[/]: copy one, change it, and name
    your own folder in KEEPER_DEALS_QUERIES or KEEPER_DEALS_SEEDS. What is a keyboard says [bold]seeds/groups/keyboards.toml[/].
    """
    from keeper.audit import Action, noting, operator
    from keeper.collection import collect_all
    from keeper.terminal import progress

    with open_resources(keepa=True) as resources, noting(resources.engine, operator(), Action.RUN_START, "collect"):
        stores = tuple(markets) if markets else resources.deal_marketplaces()
        files = resources.deal_files()
        queries = [query for query in files.queries if query.marketplace in stores] if is_with_feed else []
        if names:
            if unknown := sorted(set(names) - {query.name for query in queries}):
                known = ", ".join(sorted({query.name for query in queries})) or "none in these stores"
                raise CommandFailed("; ".join((f"there is no query {', '.join(unknown)}; there is {known}", *files.troubles)))
            queries = [query for query in queries if query.name in names]
        seeds = files.seeds if is_with_seeds else ()
        with progress("collecting", is_shown=not is_json) as bar:
            gathered = collect_all(
                resources.engine,
                resources.keepa,
                seeds=[(one, store) for one in seeds for store in stores],
                queries=queries,
                groups=resources.product_groups(),
                settings=replace(resources.collect_settings, most_pages=most_pages),
                token_settings=resources.token_settings,
                on_planned=bar.grow,
                on_done=bar.advance,
            )
        gathered.troubles |= dict.fromkeys(files.troubles)
        best = _best(resources, gathered)
    if is_json:
        show_json(_counts(gathered) | {"best": best})
    else:
        _show(gathered, best)
    if gathered.troubles:
        raise CommandFailed("; ".join(gathered.troubles))


def _best(resources: "Resources", gathered: "Gathered") -> "list[BestDeal]":
    from keeper.postgres.deals import select_best

    if not gathered.announced:
        return []
    with resources.engine.begin() as connection:
        return select_best(connection, gathered.announced, limit=_BEST)


def _counts(gathered: "Gathered") -> dict[str, object]:
    names = ("pages", "seen", "kept", "added", "changed", "ended", "glitches", "told", "tokens")
    return {name: getattr(gathered, name) for name in names} | {"troubles": list(gathered.troubles), "notes": list(gathered.notes)}


def _show(gathered: "Gathered", best: "list[BestDeal]") -> None:
    from keeper.terminal import say, shorten, show_table

    if best:
        show_table(
            ("Score", "Deal", "Store", "Price", "List", "Below median"),
            [
                (
                    f"{deal.deal_score:.0f}",
                    shorten(deal.title or deal.asin, TITLE_LENGTH),
                    deal.marketplace,
                    show_money(deal.amount_minor, deal.currency),
                    show_money(deal.list_price_minor, deal.currency),
                    None if deal.below_median_pct is None else f"{deal.below_median_pct:.0f} %",
                )
                for deal in best
            ],
            right=("Score", "Price", "List", "Below median"),
            title="The best of the new deals",
        )
    say(f"{gathered.sentence}.")
    for note in gathered.notes:
        say(note)
