"""The tables of `seeds/`, read once for the tests of the profit engine."""

from pathlib import Path

from keeper.domain.borders import parse_borders
from keeper.domain.exchange import ExchangeRates, parse_exchange_rates
from keeper.domain.fees import FeeTables, parse_closing_fees, parse_digital_services_fees, parse_referral_fees
from keeper.domain.vat import parse_vat

SEEDS = Path(__file__).parents[3] / "seeds"


def read(name: str) -> tuple[str, str]:
    return name, (SEEDS / name).read_text(encoding="utf-8")


FEES = FeeTables(
    parse_referral_fees(*read("referral_fees.csv")),
    parse_closing_fees(*read("closing_fees.csv")),
    parse_digital_services_fees(*read("digital_services_fees.csv")),
)
VAT = parse_vat(*read("vat.csv"))
BORDERS = parse_borders(*read("borders.csv"))
RATES = ExchangeRates(parse_exchange_rates(*read("exchange_rates.csv")))
