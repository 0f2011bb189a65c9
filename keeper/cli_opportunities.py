"""The commands about opportunities: what there is, why, and which ones you want to be told of."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keeper.cli_common import MARKET, TITLE_LENGTH, CommandFailed, Json, make_group, open_resources, show_json, show_money
from keeper.cli_outcome import opportunities_outcome
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity_query import LARGEST_PAGE, LARGEST_TOTAL, OpportunityQuery, OpportunitySort

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keeper.domain.opportunity import FoundOpportunity
    from keeper.opportunities import Reckoning
    from keeper.postgres.opportunity_rules import RuleRow
    from keeper.resources import Resources

opportunities_app = make_group("Opportunities: buy in one store, sell in another, and what is left of it.")
rules_app = make_group("Rules: which new opportunities are told to your channels.")
opportunities_app.add_typer(rules_app, name="rules")
opportunities_app.command("outcome")(opportunities_outcome)

UserName = Annotated[str | None, typer.Option("--user", "-u", help="Whose; needed where there are several users", show_default=False)]
SellerOf = Annotated[
    str | None,
    typer.Option("--user", "-u", help="With the profit of this user's own seller's profile; else the default seller's", show_default=False),
]
Sources = Annotated[list[Marketplace] | None, typer.Option("--source", "-s", case_sensitive=False, help="Bought there; may be repeated")]
Targets = Annotated[list[Marketplace] | None, typer.Option("--target", "-t", case_sensitive=False, help="Sold there; may be repeated")]
Categories = Annotated[list[str] | None, typer.Option("--category", help="Of Keeper's own fee categories; may be repeated")]
LeastMargin = Annotated[str | None, typer.Option("--margin", help="A gross gap of at least so many percent", show_default=False)]
LeastRoi = Annotated[str | None, typer.Option("--roi", help="A true profit of at least so many percent of the outlay", show_default=False)]
LeastProfit = Annotated[str | None, typer.Option("--profit", help="A true profit of at least so many euros", show_default=False)]
RuleId = Annotated[int, typer.Argument(metavar="ID", help="As `keeper opportunities rules list` shows it")]


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.add_typer(opportunities_app, name="opportunities", rich_help_panel=MARKET)


@opportunities_app.command("list")
def opportunities_list(
    margin: LeastMargin = None,
    roi: LeastRoi = None,
    profit: LeastProfit = None,
    sources: Sources = None,
    targets: Targets = None,
    categories: Categories = None,
    sort: Annotated[OpportunitySort, typer.Option("--sort", help="The order, the best first")] = OpportunitySort.PROFIT,
    is_doubtful: Annotated[bool, typer.Option("--doubtful", help="Those too that may not be the same article")] = False,
    is_over: Annotated[bool, typer.Option("--over", help="Those that are over, in the order they ended")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=LARGEST_PAGE, help="How many")] = 20,
    user: SellerOf = None,
    is_json: Json = False,
) -> None:
    """What can be bought in one store and sold in another, the most profitable first.

    Example: [bold]keeper opportunities list --source DE --roi 20[/bold]
    """
    from keeper.opportunities import Own, list_opportunities
    from keeper.terminal import say, shorten, show_table

    query = OpportunityQuery(
        least_margin_pct=_percent("--margin", margin),
        least_roi_pct=_percent("--roi", roi),
        least_profit_minor=_cents("--profit", profit),
        sources=tuple(sources or ()),
        targets=tuple(targets or ()),
        categories=tuple(categories or ()),
        includes_doubtful=is_doubtful,
        is_active=not is_over,
        sort=OpportunitySort.NEWEST if is_over else sort,
        limit=limit,
    )
    with open_resources() as resources, resources.engine.begin() as connection:
        reckoning = _own_reckoning(resources, connection, user)
        listed = list_opportunities(connection, query, own=None if reckoning is None else Own(reckoning, ()))
    if is_json:
        show_json(
            {
                "opportunities": [_fields(one) for one in listed.found],
                "total": listed.total,
                "seller": "default" if reckoning is None else "own",
                "considered": listed.considered,
            }
        )
        return
    if not listed.found:
        say("No opportunity is like that; `keeper compare` looks for new ones.")
        return
    show_table(
        ("ID", "Product", "Lane", "Buy", "Sell", "Gap", "Profit", "ROI", "Score", "Before you buy"),
        [
            (
                one.opportunity.id,
                shorten(one.title or one.opportunity.asin, TITLE_LENGTH),
                f"{one.opportunity.source_market} → {one.opportunity.target_market}",
                show_money(one.opportunity.source_minor, one.opportunity.source_market.currency),
                show_money(one.opportunity.target_minor, one.opportunity.target_market.currency),
                f"{one.opportunity.margin_pct} %",
                _profit_of(one),
                None if one.opportunity.roi_pct is None else f"{one.opportunity.roi_pct} %",
                one.opportunity.score,
                ", ".join(_warnings(one)) or None,
            )
            for one in listed.found
        ],
        right=("ID", "Buy", "Sell", "Gap", "Profit", "ROI", "Score"),
    )
    if listed.total is not None and listed.total > len(listed.found):
        many = f"{LARGEST_TOTAL:,} or more" if listed.total >= LARGEST_TOTAL else str(listed.total)
        say(f"The first {len(listed.found)} of {many}.")
    if listed.considered is not None:
        say(f"Reckoned for the seller of {user}, over the {listed.considered:,} widest gaps.")


@opportunities_app.command("explain")
def opportunities_explain(
    opportunity_id: Annotated[int, typer.Argument(metavar="ID", help="As `keeper opportunities list` shows it")],
    on: Annotated[
        datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="With the tables of this day; today's without", show_default=False)
    ] = None,
    user: SellerOf = None,
    is_json: Json = False,
) -> None:
    """What is left of one opportunity, part by part, with the rows of the tables each part stands on.

    Example: [bold]keeper opportunities explain 7 --on 2024-09-30[/bold]
    """
    from keeper.opportunities import explain
    from keeper.postgres.installation import select_now
    from keeper.terminal import say, show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        day = (on or select_now(connection)).date()
        reckoning = _own_reckoning(resources, connection, user, on=day) or resources.reckoning(connection, on=day)
        told = explain(connection, opportunity_id, reckoning)
    profit, one = told.profit, told.found.opportunity
    break_even = told.break_even.purchase_minor
    wanted_roi = None if told.wanted_roi is None else told.wanted_roi.purchase_minor
    wanted_pct = reckoning.seller.wanted_roi_pct
    if is_json:
        parts = [
            {"name": part.name, "amount_minor": part.amount_minor, "why_unknown": part.why_unknown or None, "rows": part.rows}
            for part in profit.explain
        ]
        show_json(
            {
                "opportunity": _fields(told.found),
                "on": str(day),
                "parts": parts,
                "profit_minor": profit.profit_minor,
                "naive_profit_minor": profit.naive_profit_minor,
                "naive_roi_pct": profit.naive_roi_pct,
                "highest_purchase": {"break_even": break_even, "wanted_roi": wanted_roi, "wanted_roi_pct": wanted_pct},
            }
        )
        return
    say(f"{told.found.title or one.asin}: {one.source_market} → {one.target_market}, by the tables of {day}")
    show_table(
        ("Part", "Euro", "Stands on"),
        [
            (
                part.name,
                "unknown" if part.amount_minor is None else show_money(part.amount_minor, profit.currency),
                part.why_unknown or "; ".join(f"{row.table} {row.key} ({row.valid_from or 'own'})" for row in part.rows),
            )
            for part in profit.explain
        ],
        right=("Euro",),
    )
    known = "is not known" if profit.profit_minor is None else f"{show_money(profit.profit_minor, profit.currency)}"
    say(f"Profit: {known}" + ("" if profit.roi_pct is None else f", ROI {profit.roi_pct} %"))
    if profit.naive_profit_minor is not None:
        say(f"A simple calculator would say {show_money(profit.naive_profit_minor, profit.currency)}, {profit.naive_roi_pct} %.")
    say(f"Without a loss it may cost {show_money(break_even, one.source_market.currency)}.")
    if told.wanted_roi is not None:
        say(f"For an ROI of {wanted_pct} % it may cost {show_money(wanted_roi, one.source_market.currency)}.")
    say(f"Buy:  {told.found.source_link}")
    say(f"Sell: {told.found.target_link}")


@rules_app.command("add")
def rules_add(
    name: Annotated[str, typer.Argument(help="How you call it")],
    roi: LeastRoi = None,
    profit: LeastProfit = None,
    margin: LeastMargin = None,
    sources: Sources = None,
    targets: Targets = None,
    categories: Categories = None,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Be told of new opportunities that fulfil all of this, each once, on all your channels.

    Example: [bold]keeper opportunities rules add "Good ones to Italy" --roi 30 --profit 5 --target IT[/bold]
    """
    from keeper.domain.opportunity_rule import OpportunityRule, check_rule_name
    from keeper.postgres.installation import select_now
    from keeper.postgres.opportunity_rules import insert_rule
    from keeper.postgres.users import find_user
    from keeper.terminal import say

    rule = OpportunityRule(
        _percent("--roi", roi),
        _cents("--profit", profit),
        _percent("--margin", margin),
        tuple(sources or ()),
        tuple(targets or ()),
        tuple(categories or ()),
    )
    kept_name = check_rule_name(name)
    with open_resources() as resources, resources.engine.begin() as connection:
        now = select_now(connection)
        row = insert_rule(connection, find_user(connection, user), kept_name, rule, is_active=True, now=now)
    if is_json:
        show_json(_rule_fields(row))
        return
    say(f"Rule {row.rule_id}, {row.name}: {_wants(row)}.")


@rules_app.command("list")
def rules_list(user: UserName = None, is_json: Json = False) -> None:
    """Your rules."""
    from keeper.postgres.opportunity_rules import select_rules
    from keeper.postgres.users import find_user
    from keeper.terminal import say, show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        found = select_rules(connection, find_user(connection, user))
    if is_json:
        show_json({"rules": [_rule_fields(row) for row in found]})
        return
    if not found:
        say('No rules yet; `keeper opportunities rules add "Good ones" --roi 30` makes one.')
        return
    show_table(
        ("ID", "Name", "State", "Wants"),
        [(row.rule_id, row.name, "active" if row.is_active else "off", _wants(row)) for row in found],
        right=("ID",),
    )


@rules_app.command("remove")
def rules_remove(rule_id: RuleId, user: UserName = None, is_json: Json = False) -> None:
    """Remove a rule. What it has told stays told."""
    from keeper.postgres.opportunity_rules import delete_rule
    from keeper.postgres.users import find_user
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        delete_rule(connection, find_user(connection, user), rule_id)
    if is_json:
        show_json({"removed": rule_id})
        return
    say(f"Removed rule {rule_id}.")


def _own_reckoning(resources: "Resources", connection: "Connection", user: str | None, *, on: Any = None) -> "Reckoning | None":
    """Of the user's own seller; None where no user is named."""
    from keeper.postgres.installation import select_now
    from keeper.postgres.opportunities import select_generation
    from keeper.postgres.users import find_user

    if user is None:
        return None
    profile = select_generation(connection, find_user(connection, user)).profile
    if profile is None:
        raise CommandFailed(f"{user} has no seller's profile; `keeper seller set` makes one, and without --user it is the default seller's")
    return resources.reckoning(connection, on=on or select_now(connection).date(), profile=profile)


def _percent(option: str, text: str | None) -> Decimal | None:
    try:
        number = None if text is None else Decimal(text.replace(",", "."))
    except InvalidOperation:
        number = Decimal("nan")
    if number is not None and not (number.is_finite() and abs(number) <= 1_000_000 and number == round(number, 2)):
        raise CommandFailed(f"{option}: {text!r} is no percentage; write it like 12.5")
    return number


def _cents(option: str, text: str | None) -> int | None:
    try:
        number = None if text is None else Decimal(text.replace(",", "."))
    except InvalidOperation:
        number = Decimal("nan")
    if number is None:
        return None
    if not number.is_finite() or abs(number) > 10_000_000 or number != round(number, 2):
        raise CommandFailed(f"{option}: {text!r} is no amount in euros; write it like 5 or 4.50")
    return int(number * 100)


def _profit_of(found: "FoundOpportunity") -> str:
    profit_minor = found.opportunity.profit_minor
    return "unknown" if profit_minor is None else show_money(profit_minor, "EUR")


def _warnings(found: "FoundOpportunity") -> list[str]:
    one = found.opportunity
    told = [*one.doubts, *one.flags]
    if one.is_stale:
        told.append("stale")
    if one.unknown_parts:
        told.append(f"unknown: {', '.join(one.unknown_parts)}")
    return [*told, *([one.closed_why] if one.closed_why else [])]


def _fields(found: "FoundOpportunity") -> dict[str, object]:
    one = found.opportunity
    names = (
        "id", "asin", "source_market", "target_market", "price_type", "source_checked_at", "target_checked_at", "margin_minor",
        "margin_pct", "profit_minor", "invested_minor", "roi_pct", "profit_margin_pct", "unknown_parts", "is_stale", "category",
        "doubts", "flags", "score", "score_parts", "is_active", "first_seen_at", "last_seen_at", "best_margin_minor",
        "best_profit_minor", "best_at", "closed_at", "closed_why",
    )  # fmt: skip
    return (
        {"title": found.title, "brand": found.brand}
        | {name: getattr(one, name) for name in names}
        | {"source_price": one.source_minor, "target_price": one.target_minor}
        | {"source_link": found.source_link, "target_link": found.target_link}
    )


def _rule_fields(row: "RuleRow") -> dict[str, object]:
    names = ("least_roi_pct", "least_profit_minor", "least_margin_pct", "sources", "targets", "categories")
    return {"id": row.rule_id, "name": row.name, "is_active": row.is_active} | {name: getattr(row.rule, name) for name in names}


def _wants(row: "RuleRow") -> str:
    rule = row.rule
    said = []
    if rule.least_roi_pct is not None:
        said.append(f"ROI from {rule.least_roi_pct} %")
    if rule.least_profit_minor is not None:
        said.append(f"profit from {show_money(rule.least_profit_minor, 'EUR')}")
    if rule.least_margin_pct is not None:
        said.append(f"gap from {rule.least_margin_pct} %")
    for word, values in (("from", rule.sources), ("to", rule.targets), ("in", rule.categories)):
        if values:
            said.append(f"{word} {', '.join(values)}")
    return ", ".join(said) or "every new one"
