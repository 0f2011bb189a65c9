"""The commands around buying in one store and selling in another: exchange rates, sellers, and looking at the stores now."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeper.cli_common import MARKET, CommandFailed, Json, make_group, open_resources, show_json, show_money
from keeper.domain.exchange import EURO
from keeper.domain.seller import SellerProfile, name_lane, write_seller

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keeper.compare import Compared
    from keeper.domain.opportunity import FoundOpportunity
    from keeper.resources import Resources
    from keeper.scan import Scanned

_BEST = 15
_TITLE_LENGTH = 30

fx_app = make_group("Exchange rates: what a pound is worth, by whose word and how old that is.")
seller_app = make_group(
    """Who sells: the situation a profit is reckoned for; without one of your own the operator's default (KEEPER_ARBITRAGE_SELLER).

    Example:

      [bold]cp seeds/seller.toml mine.toml[/]       every figure there is an assumption; write yours

      [bold]keeper seller set mine.toml[/]
    """
)

UserName = Annotated[str | None, typer.Option("--user", "-u", help="Whose; needed where there are several users", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.command(rich_help_panel=MARKET)(compare)
    app.add_typer(fx_app, name="fx", rich_help_panel=MARKET)
    app.add_typer(seller_app, name="seller", rich_help_panel=MARKET)


def compare(
    is_plan: Annotated[bool, typer.Option("--plan", help="Only say how many products fit the tokens at which age; costs nothing")] = False,
    is_with_scan: Annotated[
        bool, typer.Option("--scan/--no-scan", help="Ask Keepa for what is due, a token a product and store; or compare what is recorded")
    ] = True,
    is_full: Annotated[bool, typer.Option("--full", help="Compare every product, whatever has changed")] = False,
    is_json: Json = False,
) -> None:
    """Look at the same products in all stores and say where to buy and where to sell.

    Products are those you watch, of open opportunities, of deals, and of the lists in KEEPER_ARBITRAGE_CATEGORIES and
    KEEPER_ARBITRAGE_FINDER. A run ends when its share of the tokens is spent (KEEPER_ARBITRAGE_SHARE_PCT); what is left waits for the next.
    By itself it runs every two hours.

    Examples:

      [bold]keeper compare --plan[/]               how old prices get, and how many products would fit

      [bold]keeper compare[/]                      as far as the share goes

      [bold]keeper compare --no-scan --full[/]     after you changed a table of fees
    """
    from keeper.audit import Action, noting, operator
    from keeper.compare import compare as compare_stores
    from keeper.postgres.jobs import hold_job
    from keeper.scan import JOB, Scanned, scan_all
    from keeper.terminal import progress, say

    with open_resources(keepa=is_with_scan) as resources:
        if is_plan:
            _show_plan(resources, is_json=is_json)
            return
        with hold_job(resources.engine, JOB) as is_mine, noting(resources.engine, operator(), Action.RUN_START, "compare"):
            if not is_mine:
                raise CommandFailed("the stores are being looked at already; it goes on alone, try again when it is done")
            scanned = Scanned()
            if is_with_scan:
                with progress("looking at the stores", is_shown=not is_json) as bar:
                    scanned = scan_all(
                        resources.engine,
                        resources.keepa,
                        settings=resources.scan_settings(),
                        token_settings=resources.token_settings,
                        on_planned=bar.grow,
                        on_done=bar.advance,
                    )
            scanned.notes |= dict.fromkeys(resources.know_exchange_rates())
            compared = compare_stores(
                resources.engine,
                now=resources.now(),
                terms=resources.comparison_terms(),
                is_full=is_full,
                on_changed=resources.revise_products,
            )
            told = resources.tell_opportunities()
            scanned.notes |= dict.fromkeys(told.troubles)
            if told.announced or told.told:
                scanned.notes[f"{told.announced} opportunities announced, {told.told} told to users"] = None
        best = _best(resources)
    if is_json:
        show_json(_done(scanned, compared) | {"best": [_opportunity(one) for one in best]})
    else:
        _show_best(best)
        for line in [*([scanned.sentence] if is_with_scan else []), compared.sentence]:
            say(f"{line}.")
        for note in scanned.notes:
            say(note)
    if scanned.troubles:
        raise CommandFailed("; ".join(scanned.troubles))


def _show_plan(resources: "Resources", *, is_json: bool) -> None:
    from keeper.scan import plan_scan
    from keeper.terminal import say, show_table

    plan = plan_scan(resources.engine, resources.scan_settings())
    if is_json:
        oldest = None if plan.oldest is None else round(plan.oldest.total_seconds() / 3600, 2)
        names = ("products", "stores", "tokens_each", "tokens_per_hour", "round_tokens", "due", "due_tokens", "tokens_left", "warning")
        show_json({name: getattr(plan, name) for name in names} | {"oldest_hours": oldest, "held": plan.held, "by_source": plan.by_source})
        return
    if plan.by_source:
        show_table(("Products", "Wanted by"), [(count, source) for source, count in plan.by_source.items()], right=("Products",))
    show_table(
        ("At most so old", "Products that can be held"),
        [(f"{hours} h", products) for hours, products in plan.held.items()],
        right=("Products that can be held",),
        title=f"With {plan.tokens_per_hour} tokens an hour, {plan.tokens_each} a product and store",
    )
    say(f"{plan.sentence}.")
    say(f"{plan.due} are due now and take {plan.due_tokens} tokens at most; {plan.tokens_left} are left of the share.")
    if plan.warning:
        say(plan.warning)


def _best(resources: "Resources") -> "list[FoundOpportunity]":
    from keeper.domain.opportunity_query import OpportunityQuery, OpportunitySort
    from keeper.postgres.opportunities import select_opportunities

    with resources.engine.begin() as connection:
        return list(select_opportunities(connection, OpportunityQuery(sort=OpportunitySort.PROFIT, limit=_BEST)).found)


def _done(scanned: "Scanned", compared: "Compared") -> dict[str, object]:
    return {
        "scanned": {
            "products": scanned.products,
            "listings": scanned.checked,
            "lists": scanned.lists,
            "tokens": scanned.tokens,
            "stores": {store.value: asdict(one) for store, one in scanned.stores.items()},
        },
        "compared": asdict(compared),
        "troubles": list(scanned.troubles),
        "notes": list(scanned.notes),
    }


def _opportunity(found: "FoundOpportunity") -> dict[str, object]:
    one = found.opportunity
    prices = ("source_market", "target_market", "source_minor", "target_minor")
    figures = ("margin_minor", "margin_pct", "profit_minor", "roi_pct", "unknown_parts", "doubts", "score")
    return {"asin": one.asin, "title": found.title} | {name: getattr(one, name) for name in (*prices, *figures)}


def _show_best(best: "Sequence[FoundOpportunity]") -> None:
    from keeper.terminal import shorten, show_table

    if not best:
        return
    show_table(
        ("Product", "Buy", "", "Sell", " ", "Gap", "Profit", "ROI", "Score"),
        [
            (
                shorten(found.title or found.opportunity.asin, _TITLE_LENGTH),
                one.source_market,
                show_money(one.source_minor, one.source_market.currency),
                one.target_market,
                show_money(one.target_minor, one.target_market.currency),
                f"{one.margin_pct} %",
                "unknown" if one.profit_minor is None else show_money(one.profit_minor, EURO),
                None if one.roi_pct is None else f"{one.roi_pct} %",
                one.score,
            )
            for found in best
            for one in (found.opportunity,)
        ],
        right=("", " ", "Gap", "Profit", "ROI", "Score"),
        title="The best by profit",
    )


@fx_app.command("refresh")
def fx_refresh(is_json: Json = False) -> None:
    """Read the European Central Bank's reference rates now (KEEPER_ARBITRAGE_RATES_URL).

    Where it does not answer, the rates known before count on.
    """
    from dataclasses import asdict

    from keeper.exchange import refresh
    from keeper.terminal import say

    with open_resources() as resources:
        refreshed = refresh(resources.engine, url=resources.rates_url(), timeout_seconds=resources.settings.arbitrage.rates_timeout_seconds)
    if is_json:
        show_json(asdict(refreshed))
    else:
        say(f"{refreshed.sentence}.")


@fx_app.command("show")
def fx_show(
    is_all: Annotated[bool, typer.Option("--all", help="Every currency that is known, not only those of the compared stores")] = False,
    is_json: Json = False,
) -> None:
    """The exchange rates that count today, and how old they are."""
    from keeper.exchange import load_seeds, tell_age
    from keeper.postgres.exchange_rates import select_rates
    from keeper.postgres.installation import select_now
    from keeper.terminal import say, show_table
    from keeper.trade_files import read_seed_rates

    with open_resources() as resources:
        arbitrage = resources.settings.arbitrage
        load_seeds(resources.engine, read_seed_rates(arbitrage.tables))
        with resources.engine.begin() as connection:
            on = select_now(connection).date()
            rates = select_rates(connection, on=on)
        wanted = resources.compared_currencies()
        troubles = tell_age(rates, wanted, on=on, stale_after_days=arbitrage.stale_rate_days)
    shown = [rate for rate in rates.rates if is_all or rate.currency in wanted]
    if is_json:
        rows = [
            {
                "currency": rate.currency,
                "per_euro": str(rate.per_euro),
                "quoted_on": rate.on.isoformat(),
                "age_days": rate.age_days(on),
                "is_stale": rate.is_stale(on, arbitrage.stale_rate_days),
                "source": rate.source,
            }
            for rate in shown
        ]
        show_json({"rates": rows, "troubles": troubles})
        return
    if shown:
        show_table(
            ("Currency", "For a euro", "Of", "Age", "Source"),
            [(rate.currency, str(rate.per_euro), str(rate.on), f"{rate.age_days(on)} days", rate.source) for rate in shown],
            right=("For a euro", "Age"),
        )
    for trouble in troubles:
        say(f"{trouble[0].upper()}{trouble[1:]}.")


@seller_app.command("show")
def seller_show(user: UserName = None, is_json: Json = False) -> None:
    """Whose situation your profits are reckoned for: your own profile, or the operator's default."""
    with open_resources() as resources, resources.engine.begin() as connection:
        profile, is_own = _profile_of(resources, connection, user)
    _show_profile(profile, is_own=is_own, is_json=is_json)


@seller_app.command("set")
def seller_set(
    file: Annotated[Path, typer.Argument(help="TOML, or JSON where it ends in .json; seeds/seller.toml explains each field")],
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Keep a profile of your own: your profits are reckoned with it from now on."""
    from keeper.audit import Action, note, operator
    from keeper.postgres.sellers import upsert_profile
    from keeper.postgres.users import find_name, find_user
    from keeper.trade_files import read_seller_file

    profile = read_seller_file(file)
    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user)
        upsert_profile(connection, user_id, profile)
        note(connection, operator(), Action.SELLER_SET, find_name(connection, user_id))
    _show_profile(profile, is_own=True, is_json=is_json)


@seller_app.command("reset")
def seller_reset(user: UserName = None, is_json: Json = False) -> None:
    """Forget your own profile: the operator's default counts again."""
    from keeper.audit import Action, note, operator
    from keeper.postgres.sellers import delete_profile
    from keeper.postgres.users import find_name, find_user

    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user)
        delete_profile(connection, user_id)
        note(connection, operator(), Action.SELLER_SET, f"{find_name(connection, user_id)} to the default")
        profile = resources.default_seller()
    _show_profile(profile, is_own=False, is_json=is_json)


def _profile_of(resources: "Resources", connection: "Connection", user: str | None) -> tuple[SellerProfile, bool]:
    """The profile that counts, and whether it is the user's own. Without a user there is the default."""
    from keeper.postgres.sellers import select_profile
    from keeper.postgres.users import find_user, select_users

    if user is None and not select_users(connection):
        return resources.default_seller(), False
    own = select_profile(connection, find_user(connection, user))
    return (resources.default_seller(), False) if own is None else (own, True)


def _show_profile(profile: SellerProfile, *, is_own: bool, is_json: bool) -> None:
    from keeper.terminal import say, show_table

    if is_json:
        show_json({"seller": "own" if is_own else "default", "profile": write_seller(profile)})
        return
    rows: list[tuple[Any, ...]] = [
        ("Home", profile.home),
        ("Registered for VAT in", ", ".join(sorted(profile.registered)) or "no country"),
        ("VAT of purchases comes back", "yes" if profile.reclaims_purchase_vat else "no"),
        ("Preparation of a piece", _cost(profile.preparation_minor, profile.currency)),
        ("Storage of a piece", _cost(profile.storage_minor, profile.currency)),
        ("Set aside for returns", _pct(profile.return_allowance_pct)),
        ("Wanted return on what is invested", _pct(profile.wanted_roi_pct, "no wish")),
    ]
    rows += [
        (
            f"Shipping {name_lane(band.source, band.target)}, {'any weight' if band.up_to_g is None else f'up to {band.up_to_g} g'}",
            _cost(band.cost_minor, profile.currency),
        )
        for band in profile.inbound
    ]
    show_table(("What", "Says"), rows, title="Your own profile" if is_own else "The operator's default profile")
    if not profile.inbound:
        say("It names no cost of shipping, so every profit is unknown.")


def _cost(cost_minor: int | None, currency: str) -> str:
    return "unknown" if cost_minor is None else show_money(cost_minor, currency)


def _pct(pct: object | None, without: str = "unknown") -> str:
    return without if pct is None else f"{pct} %"
