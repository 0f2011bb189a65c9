import pytest

from keeper.simulator.faults import KINDS, Fault, FaultPlan, parse_fault


def test_order_breaks_as_many_requests_as_asked() -> None:
    plan = FaultPlan()
    plan.order(Fault("503"), count=2)
    assert [plan.draw("/product") for _ in range(3)] == [Fault("503"), Fault("503"), None]


def test_share_with_a_seed_breaks_the_same_requests_each_time() -> None:
    def draw() -> list[bool]:
        plan = FaultPlan()
        plan.order(Fault("500"), share=0.3, seed=7)
        return [plan.draw("/product") is not None for _ in range(200)]

    assert draw() == draw()
    assert 30 < sum(draw()) < 90


def test_order_for_a_path_spares_the_others() -> None:
    plan = FaultPlan()
    plan.order(Fault("500"), path="/product")
    assert plan.draw("/token") is None
    assert plan.draw("/product") == Fault("500")


def test_cleared_orders_break_nothing() -> None:
    plan = FaultPlan()
    plan.order(Fault("500"))
    plan.clear()
    assert plan.draw("/product") is None
    assert plan.list_orders() == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_header_asks_for_every_kind(kind: str) -> None:
    assert parse_fault(f" {kind} ; seconds=0.5; asin=B000000001") == Fault(kind, 0.5, "B000000001")


@pytest.mark.parametrize("text", ["418", "", "slow; seconds=-1", "slow; seconds=1e9", "slow; seconds=x"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_fault(text)


@pytest.mark.parametrize(("count", "share"), [(0, 1.0), (None, 1.5), (None, -0.1)])
def test_order_out_of_range_is_refused(count: int | None, share: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        FaultPlan().order(Fault("500"), count=count, share=share)
