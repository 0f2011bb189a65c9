"""The commands around buying in one store and selling in another: exchange rates, sellers, and looking at the stores now."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeper.cli_common import MARKET, Json, make_group, open_resources, show_json, show_money
from keeper.domain.seller import SellerProfile, name_lane, write_seller

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keeper.resources import Resources

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
    app.add_typer(fx_app, name="fx", rich_help_panel=MARKET)
    app.add_typer(seller_app, name="seller", rich_help_panel=MARKET)


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
    from keeper.postgres.sellers import upsert_profile
    from keeper.postgres.users import find_user
    from keeper.trade_files import read_seller_file

    profile = read_seller_file(file)
    with open_resources() as resources, resources.engine.begin() as connection:
        upsert_profile(connection, find_user(connection, user), profile)
    _show_profile(profile, is_own=True, is_json=is_json)


@seller_app.command("reset")
def seller_reset(user: UserName = None, is_json: Json = False) -> None:
    """Forget your own profile: the operator's default counts again."""
    from keeper.postgres.sellers import delete_profile
    from keeper.postgres.users import find_user

    with open_resources() as resources, resources.engine.begin() as connection:
        delete_profile(connection, find_user(connection, user))
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
