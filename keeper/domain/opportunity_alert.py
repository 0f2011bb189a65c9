"""An opportunity as a person is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from keeper.domain.alert import AlertUnreadable
from keeper.domain.exchange import EURO
from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.opportunity import FoundOpportunity

_HIGH_PCT: Final = Decimal(50)
_CRITICAL_PCT: Final = Decimal(100)


class Severity(StrEnum):
    """How good an opportunity is, for those who sort by it."""

    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def severity_of(roi_pct: Decimal) -> Severity:
    """By the true profit of what is invested."""
    if roi_pct >= _CRITICAL_PCT:
        return Severity.CRITICAL
    return Severity.HIGH if roi_pct >= _HIGH_PCT else Severity.MEDIUM


@dataclass(frozen=True, slots=True)
class OpportunityAlert:
    """One opportunity for one user, complete enough to be told without another look at the database.

    Attributes:
        rule: the name of the user's rule.
        is_own: the profit is that of the user's own seller's profile.
        margin: the gross gap, after exchange.
        flags: what to know before buying.
        checked_at: when the older of both prices was seen.
    """

    rule: str
    is_own: bool
    asin: str
    title: str | None
    image_url: str | None
    source_market: Marketplace
    target_market: Marketplace
    source_price: Money
    target_price: Money
    margin: Money
    margin_pct: Decimal
    profit: Money
    invested: Money | None
    roi_pct: Decimal
    profit_margin_pct: Decimal | None
    score: int
    flags: tuple[str, ...]
    checked_at: datetime

    @property
    def source_link(self) -> str:
        """The product's page where it is bought."""
        return f"https://{self.source_market.host}/dp/{self.asin}"

    @property
    def target_link(self) -> str:
        """The product's page where it is sold."""
        return f"https://{self.target_market.host}/dp/{self.asin}"


def alert_of(found: FoundOpportunity, rule: str, *, is_own: bool) -> OpportunityAlert:
    """What there is to tell of an opportunity whose profit is known."""
    one = found.opportunity
    assert one.profit_minor is not None and one.roi_pct is not None  # noqa: S101  a rule is met by no other
    return OpportunityAlert(
        rule=rule,
        is_own=is_own,
        asin=one.asin,
        title=found.title,
        image_url=found.image_url,
        source_market=one.source_market,
        target_market=one.target_market,
        source_price=Money(one.source_minor, one.source_market.currency),
        target_price=Money(one.target_minor, one.target_market.currency),
        margin=Money(one.margin_minor, EURO),
        margin_pct=one.margin_pct,
        profit=Money(one.profit_minor, EURO),
        invested=None if one.invested_minor is None else Money(one.invested_minor, EURO),
        roi_pct=one.roi_pct,
        profit_margin_pct=one.profit_margin_pct,
        score=one.score,
        flags=one.flags,
        checked_at=min(one.source_checked_at, one.target_checked_at),
    )


def encode_opportunity_alert(alert: OpportunityAlert) -> dict[str, Any]:
    """As JSON values: amounts in minor units, percents as text, the time in UTC."""
    return {
        "rule": alert.rule,
        "is_own": alert.is_own,
        "asin": alert.asin,
        "title": alert.title,
        "image_url": alert.image_url,
        "source_market": alert.source_market.value,
        "target_market": alert.target_market.value,
        "source_minor": alert.source_price.amount_minor,
        "target_minor": alert.target_price.amount_minor,
        "margin_minor": alert.margin.amount_minor,
        "margin_pct": str(alert.margin_pct),
        "profit_minor": alert.profit.amount_minor,
        "invested_minor": None if alert.invested is None else alert.invested.amount_minor,
        "roi_pct": str(alert.roi_pct),
        "profit_margin_pct": None if alert.profit_margin_pct is None else str(alert.profit_margin_pct),
        "score": alert.score,
        "flags": list(alert.flags),
        "checked_at": alert.checked_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }


def decode_opportunity_alert(content: Mapping[str, Any]) -> OpportunityAlert:
    """The inverse; unknown keys are ignored.

    Raises:
        AlertUnreadable: a key is missing or holds something else.
    """
    try:
        source, target = Marketplace(content["source_market"]), Marketplace(content["target_market"])
        margin_of_sale, invested = content["profit_margin_pct"], content["invested_minor"]
        return OpportunityAlert(
            rule=str(content["rule"]),
            is_own=bool(content["is_own"]),
            asin=str(content["asin"]),
            title=content["title"],
            image_url=content["image_url"],
            source_market=source,
            target_market=target,
            source_price=Money(int(content["source_minor"]), source.currency),
            target_price=Money(int(content["target_minor"]), target.currency),
            margin=Money(int(content["margin_minor"]), EURO),
            margin_pct=Decimal(content["margin_pct"]),
            profit=Money(int(content["profit_minor"]), EURO),
            invested=None if invested is None else Money(int(invested), EURO),
            roi_pct=Decimal(content["roi_pct"]),
            profit_margin_pct=None if margin_of_sale is None else Decimal(margin_of_sale),
            score=int(content["score"]),
            flags=tuple(str(flag) for flag in content["flags"]),
            checked_at=datetime.fromisoformat(content["checked_at"]).astimezone(UTC),
        )
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise AlertUnreadable(f"a stored alert cannot be read ({error!r}); it was written by another version of Keeper") from error
