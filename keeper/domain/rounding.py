"""How Keeper rounds money and percents: half up (away from zero), in integers, so that every engine can do the same."""

from decimal import Decimal

PERCENT_PARTS = 10_000


def divide_half_up(numerator: int, denominator: int) -> int:
    """The nearest integer; a half goes away from zero. The denominator is positive."""
    quotient = (2 * abs(numerator) + denominator) // (2 * denominator)
    return quotient if numerator >= 0 else -quotient


def take_share(amount_minor: int, rate_hundredths: int) -> int:
    """A rate's share of an amount, in its unit; the rate in hundredths of a percent."""
    return divide_half_up(amount_minor * rate_hundredths, PERCENT_PARTS)


def take_net(gross_minor: int, rate_hundredths: int) -> int:
    """What is left of a gross amount without the tax that is in it."""
    return divide_half_up(gross_minor * PERCENT_PARTS, PERCENT_PARTS + rate_hundredths)


def compute_pct(part: int, whole: int) -> Decimal | None:
    """One amount in percent of another, two decimals; None of nothing."""
    return Decimal(divide_half_up(part * PERCENT_PARTS, whole)).scaleb(-2) if whole > 0 else None
