"""Rules of opportunities, and what is told by them."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from keeper.domain.alert import AlertUnreadable
from keeper.domain.marketplace import Marketplace
from keeper.domain.opportunity import FoundOpportunity, Opportunity
from keeper.domain.opportunity_alert import alert_of, decode_opportunity_alert, encode_opportunity_alert
from keeper.domain.opportunity_rule import OpportunityRule, RuleInvalid, check_rule_name
from keeper.domain.price_type import PriceType
from keeper.notify.opportunity import compose_opportunity_alert

DE, IT, UK = Marketplace.DE, Marketplace.IT, Marketplace.UK
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
GOLDEN = Opportunity(
    "B07W6JG6Z7", DE, IT, PriceType.NEW, 6000, 9999, NOW, NOW, 3999, Decimal("66.65"), 1054, 5192, Decimal("20.30"), Decimal("10.54"), (),
    False, date(2026, 11, 20), "default",
)  # fmt: skip


@pytest.mark.parametrize(
    "rule",
    [
        OpportunityRule(),
        OpportunityRule(least_roi_pct=Decimal("20.30")),
        OpportunityRule(least_profit_minor=1054, least_margin_pct=Decimal("66.65")),
        OpportunityRule(sources=(DE, UK), targets=(IT,), categories=("default", "books")),
    ],
    ids=["everything", "roi", "profit and margin", "lane and category"],
)
def test_a_rule_is_met_by_what_is_at_least_so(rule: OpportunityRule) -> None:
    assert rule.is_met(GOLDEN)


@pytest.mark.parametrize(
    "rule",
    [
        OpportunityRule(least_roi_pct=Decimal("20.31")),
        OpportunityRule(least_profit_minor=1055),
        OpportunityRule(least_margin_pct=Decimal("66.66")),
        OpportunityRule(sources=(UK,)),
        OpportunityRule(targets=(UK,)),
        OpportunityRule(categories=("books",)),
    ],
    ids=["roi", "profit", "margin", "source", "target", "category"],
)
def test_a_rule_is_not_met_where_one_condition_is_not(rule: OpportunityRule) -> None:
    assert not rule.is_met(GOLDEN)


@pytest.mark.parametrize(
    "changes",
    [
        {"doubts": ("another brand",)},
        {"is_stale": True},
        {"profit_minor": None, "roi_pct": None},
        {"closed_at": NOW, "closed_why": "gap closed"},
    ],
    ids=["doubtful", "stale", "unknown", "over"],
)
def test_what_is_not_sure_meets_no_rule(changes: dict[str, Any]) -> None:
    assert not OpportunityRule().is_met(replace(GOLDEN, **changes))


@pytest.mark.parametrize(
    ("conditions", "field"),
    [
        ({"least_roi_pct": Decimal("1.234")}, "least_roi_pct"),
        ({"least_margin_pct": Decimal("NaN")}, "least_margin_pct"),
        ({"least_profit_minor": 10**10}, "least_profit_minor"),
        ({"categories": ("Books",)}, "categories"),
        ({"categories": ("books",) * 41}, "categories"),
        ({"sources": (DE,), "targets": (DE,)}, "targets"),
    ],
    ids=["finer than hundredths", "no number", "too much", "no category", "too many", "one store"],
)
def test_a_rule_that_cannot_be_names_its_field(conditions: dict[str, Any], field: str) -> None:
    with pytest.raises(RuleInvalid) as told:
        OpportunityRule(**conditions)

    assert told.value.field == field and str(told.value).startswith(f"{field}: ")


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\x00b"], ids=["empty", "blank", "long", "unseen"])
def test_a_name_that_cannot_be_seen_is_none(name: str) -> None:
    with pytest.raises(RuleInvalid, match=r"^name: "):
        check_rule_name(name)


def test_spaces_around_a_name_are_not_kept() -> None:
    assert check_rule_name("  good\tones ") == "good ones"


FOUND = FoundOpportunity(replace(GOLDEN, flags=("hazardous",)), "Tastiera", "Cherry", "https://m.media-amazon.com/images/I/a.jpg")


def test_a_kept_alert_is_read_as_it_was_written() -> None:
    alert = alert_of(FOUND, "good", is_own=True)

    assert decode_opportunity_alert(encode_opportunity_alert(alert)) == alert


@pytest.mark.parametrize("content", [{}, {"rule": "x"}], ids=["nothing", "too little"])
def test_an_alert_of_another_version_is_told(content: dict[str, Any]) -> None:
    with pytest.raises(AlertUnreadable, match="another version"):
        decode_opportunity_alert(content)


def test_a_title_can_neither_forge_a_header_nor_html() -> None:
    message = compose_opportunity_alert(alert_of(replace(FOUND, title="a\r\nBcc: x <b>"), "r <i>", is_own=False))

    assert "\n" not in message.title and "\r" not in message.title
    assert "<b>" not in message.html and "r <i>" not in message.html


def test_a_message_is_short_enough_for_any_chat() -> None:
    flags = tuple(f"{'flag ' * 20}{number}" for number in range(12))
    alert = alert_of(replace(FOUND, title="x" * 5000, opportunity=replace(GOLDEN, flags=flags)), "r" * 100, is_own=False)
    message = compose_opportunity_alert(alert)

    assert len(message.title) + len(message.text) < 2000
