"""What a watch may be, and what a price means for it."""

from datetime import timedelta
from typing import Any

import pytest

from keeper.domain.marketplace import Marketplace
from keeper.domain.money import Money
from keeper.domain.price_type import WATCHABLE, PriceType
from keeper.domain.watch import Verdict, Watch, WatchInvalid, judge

GOOD: dict[str, Any] = {"asin": "B00OCMRV40", "marketplace": Marketplace.DE, "target": Money(4500, "EUR")}
ALERT, REARM, NOTHING = Verdict.ALERT, Verdict.REARM, Verdict.NOTHING


@pytest.mark.parametrize(
    ("amount", "target", "is_armed", "hysteresis", "expected"),
    [
        pytest.param(4499, 4500, True, 2.0, ALERT, id="armed, below the target"),
        pytest.param(4500, 4500, True, 2.0, ALERT, id="armed, at the target"),
        pytest.param(4501, 4500, True, 2.0, NOTHING, id="armed, above the target"),
        pytest.param(4499, 4500, False, 2.0, NOTHING, id="told before, still below"),
        pytest.param(4500, 4500, False, 2.0, NOTHING, id="told before, at the target"),
        pytest.param(4501, 4500, False, 2.0, NOTHING, id="told before, hardly above"),
        pytest.param(4589, 4500, False, 2.0, NOTHING, id="a cent short of the hysteresis"),
        pytest.param(4590, 4500, False, 2.0, REARM, id="above by the hysteresis"),
        pytest.param(385, 350, False, 10.0, REARM, id="exactly above by the hysteresis, where floats miss it"),
        pytest.param(4500, 4500, False, 0.0, NOTHING, id="without hysteresis, at the target"),
        pytest.param(4501, 4500, False, 0.0, REARM, id="without hysteresis, a cent above"),
        pytest.param(1, 1, False, 2.0, NOTHING, id="one cent, at the target"),
        pytest.param(2, 1, False, 2.0, REARM, id="one cent, above"),
        pytest.param(9000, 4500, False, 100.0, REARM, id="the largest hysteresis"),
        pytest.param(None, 4500, True, 2.0, NOTHING, id="armed, no offer"),
        pytest.param(None, 4500, False, 2.0, NOTHING, id="told before, no offer"),
        pytest.param(4499, None, True, 2.0, NOTHING, id="no target"),
        pytest.param(None, None, True, 2.0, NOTHING, id="neither offer nor target"),
    ],
)
def test_a_price_is_told_once_and_armed_again_by_the_hysteresis(
    amount: int | None, target: int | None, is_armed: bool, hysteresis: float, expected: Verdict
) -> None:
    assert judge(amount_minor=amount, target_minor=target, is_armed=is_armed, hysteresis_pct=hysteresis) is expected


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        pytest.param({"asin": "b00ocmrv40"}, "ASIN", id="small letters"),
        pytest.param({"asin": "B00OCMRV4"}, "ASIN", id="nine characters"),
        pytest.param({"asin": "B00OCMRV400"}, "ASIN", id="eleven characters"),
        pytest.param({"asin": "B00OCMRV4\n"}, "ASIN", id="a newline"),
        pytest.param({"asin": "B00OCMRV4٣"}, "ASIN", id="a digit of another script"),
        pytest.param({"price_type": PriceType.SALES}, "cannot be watched", id="a rank"),
        pytest.param({"price_type": PriceType.LISTPRICE}, "cannot be watched", id="a price nobody pays"),
        pytest.param({"target": Money(4500, "GBP")}, "EUR", id="the target in another currency"),
        pytest.param({"target": Money(0, "EUR")}, "target", id="a target of nothing"),
        pytest.param({"target": Money(-1, "EUR")}, "target", id="a negative target"),
        pytest.param({"target": Money(1_000_000_001, "EUR")}, "target", id="a target beyond ten million"),
        pytest.param({"interval": timedelta(seconds=59)}, "interval", id="below a minute"),
        pytest.param({"interval": timedelta(days=30, seconds=1)}, "interval", id="above thirty days"),
        pytest.param({"hysteresis_pct": -0.1}, "hysteresis", id="negative hysteresis"),
        pytest.param({"hysteresis_pct": 100.1}, "hysteresis", id="hysteresis above 100"),
        pytest.param({"hysteresis_pct": float("nan")}, "hysteresis", id="no number as hysteresis"),
    ],
)
def test_a_watch_that_cannot_be_is_refused_with_its_field(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(WatchInvalid, match=named):
        Watch(**(GOOD | wrong))


@pytest.mark.parametrize(
    "right", [*({"price_type": one} for one in WATCHABLE), {"interval": timedelta(minutes=1)}, {"target": None}], ids=str
)
def test_a_watch_that_can_be_is_taken(right: dict[str, Any]) -> None:
    Watch(**(GOOD | right))


def test_every_watchable_type_is_a_price() -> None:
    assert all(price_type.is_price for price_type in WATCHABLE)
