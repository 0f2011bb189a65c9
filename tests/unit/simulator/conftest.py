"""A simulated Keepa on a machine clock that only moves when told to."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from keeper.simulator.api import DEFAULT_KEY, SimulatedKeepa
from keeper.simulator.catalog import Catalog
from keeper.simulator.clock import SimulatedClock

START = 1_795_000_000.0  # 2026-11-18


@dataclass
class World:
    """A Keepa, the machine's time, and a shorter way to ask."""

    keepa: SimulatedKeepa
    machine: list[float] = field(default_factory=list)

    def get(self, path: str = "/product", **parameters: Any) -> dict[str, Any]:
        query = {"key": DEFAULT_KEY, **{name.replace("_", "-"): str(value) for name, value in parameters.items()}}
        answer = self.keepa.answer(path, query)
        return {"status": answer.status, **answer.body}

    def deals(self, *, method: str = "GET", **selection: Any) -> dict[str, Any]:
        text = json.dumps({"domainId": 3, "priceTypes": [1], "page": 0, "dateRange": 1} | selection)
        if method == "POST":
            answer = self.keepa.answer("/deal", {"key": DEFAULT_KEY}, method="POST", content=text.encode())
        else:
            answer = self.keepa.answer("/deal", {"key": DEFAULT_KEY, "selection": text})
        return {"status": answer.status, **answer.body}

    def rows(self, **selection: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.deals(**selection)["deals"]["dr"]
        return rows

    def product(self, number: int = 0, *, domain: int = 3, **parameters: Any) -> dict[str, Any]:
        asin = self.keepa.catalog.product(number).asin
        product: dict[str, Any] = self.get(asin=asin, domain=domain, **parameters)["products"][0]
        return product


WorldMaker = Callable[..., World]


def make_world(*, seed: int = 1, start_at: float = START, products: int = 300, rate: int = 1000, **options: Any) -> World:
    machine = [start_at]
    clock = SimulatedClock(start_at, machine_now=lambda: machine[0])
    return World(
        SimulatedKeepa(Catalog(products=products, seed=seed, start_at=start_at), clock, refill_per_minute=rate, **options), machine
    )


@pytest.fixture(scope="session")
def shared_world() -> World:
    """A world that tests only look at."""
    return make_world()


@pytest.fixture
def new_world() -> WorldMaker:
    return make_world
