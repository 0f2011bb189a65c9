"""Prefect's server starts and schedules only with certain neighbours, and pip would choose others."""

from importlib.metadata import requires, version

import prefect
import pytest
from packaging.requirements import Requirement


def test_prefect_is_the_measured_one() -> None:
    assert prefect.__version__ == version("prefect") == "3.8.8"


@pytest.mark.parametrize(
    ("name", "broken_from"),
    [
        pytest.param("fastapi", "0.151", id="server does not start"),
        pytest.param("sqlalchemy", "2.1", id="scheduler inserts no run"),
        pytest.param("prefect", "3.9", id="asks for a certifi not everywhere to be had"),
    ],
)
def test_pin_keeps_out_what_breaks_prefect(name: str, broken_from: str) -> None:
    (pin,) = [one for one in map(Requirement, requires("keeper") or []) if one.name == name]

    assert not pin.specifier.contains(broken_from)
    assert pin.specifier.contains(version(name))
