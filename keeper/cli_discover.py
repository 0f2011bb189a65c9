"""The command that lets the catalog grow by hand."""

from dataclasses import asdict, replace
from typing import Annotated

import typer

from keeper.cli_common import MARKET, CommandFailed, Json, open_resources, show_json


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.command(rich_help_panel=MARKET)(discover)


def discover(
    names: Annotated[list[str] | None, typer.Option("--file", "-f", help="Only this file of lists, by its name without .toml")] = None,
    is_with_lists: Annotated[
        bool, typer.Option("--lists/--no-lists", help="Ask for lists: 50 tokens for bestsellers, 10 and 1 a hundred for the finder")
    ] = True,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Fetch at most so many products now; a token each")] = None,
    is_json: Json = False,
) -> None:
    """Let the catalog grow: find products, fetch each once with a year of prices, and keep those that belong.

    Candidates are products seen in deals (free), lists of bestsellers (50 tokens, paid once a day) and what Keepa's finder knows (10 tokens
    and 1 a hundred). Each costs a token more to fetch. A run ends when the share of the hour is spent (KEEPER_DISCOVERY_SHARE_PCT) or the
    catalog is full (KEEPER_DISCOVERY_MOST_PRODUCTS); what is left waits for the next.

    Lists are files in [bold]seeds/discovery[/]: copy one, change it, and name your own folder in KEEPER_DISCOVERY_FILES. By itself it
    runs on Sundays, once you switch on the schedule of the deployment [bold]discovery/weekly[/] in Prefect.

    Examples:

      [bold]keeper discover[/]                             as far as this hour's share goes

      [bold]keeper discover --no-lists --most 20[/]        20 of those that wait, or were seen in deals

      [bold]keeper discover --file keyboards-de --json[/]
    """
    from keeper.audit import Action, noting, operator
    from keeper.discover import JOB, discover_all
    from keeper.postgres.jobs import hold_job
    from keeper.terminal import progress, say

    with open_resources(keepa=True) as resources, noting(resources.engine, operator(), Action.RUN_START, "discover"):
        queries = resources.discovery_queries()
        if names:
            if unknown := sorted(set(names) - {query.name for query in queries}):
                known = ", ".join(query.name for query in queries) or "none"
                raise CommandFailed(f"there is no file {', '.join(unknown)}; there is {known}")
            queries = [query for query in queries if query.name in names]
        settings = resources.discover_settings
        if most is not None:
            settings = replace(settings, most_per_run=min(most, settings.most_per_run))
        with hold_job(resources.engine, JOB) as is_mine:
            if not is_mine:
                raise CommandFailed("another discovery is under way on this database; it goes on alone, try again when it is done")
            with progress("discovering", is_shown=not is_json) as bar:
                discovered = discover_all(
                    resources.engine,
                    resources.keepa,
                    queries=queries if is_with_lists else [],
                    marketplaces=resources.deal_marketplaces(),
                    groups=resources.product_groups(),
                    settings=settings,
                    token_settings=resources.token_settings,
                    on_planned=bar.grow,
                    on_done=bar.advance,
                )
    if is_json:
        show_json(asdict(discovered) | {"troubles": list(discovered.troubles), "notes": list(discovered.notes)})
    else:
        say(f"{discovered.sentence}.")
        for note in discovered.notes:
            say(note)
    if discovered.troubles:
        raise CommandFailed("; ".join(discovered.troubles))
