"""What the profit of a trade is reckoned with, as files: the tables of taxes and fees, exchange rates, and the operator's seller."""

import json
import tomllib
from pathlib import Path
from typing import Any

from keeper.domain.borders import parse_borders
from keeper.domain.dated_rows import TableInvalid
from keeper.domain.errors import KeeperError
from keeper.domain.exchange import ExchangeRate, parse_exchange_rates
from keeper.domain.fee_category import FeeCategories, parse_fee_categories
from keeper.domain.fees import FeeTables, parse_closing_fees, parse_digital_services_fees, parse_referral_fees
from keeper.domain.seller import SellerProfile, SellerProfileInvalid, read_seller
from keeper.domain.trade_terms import Tables
from keeper.domain.vat import parse_vat

_LARGEST_BYTES = 1024 * 1024


class SellerFileUnusable(KeeperError):
    """A file that holds no seller's profile."""


def read_tables(folder: Path) -> Tables:
    """The tables of taxes, fees and borders.

    Raises:
        TableInvalid: names file, line and column.
    """
    return Tables(
        parse_vat(*_read(folder, "vat.csv")),
        FeeTables(
            parse_referral_fees(*_read(folder, "referral_fees.csv")),
            parse_closing_fees(*_read(folder, "closing_fees.csv")),
            parse_digital_services_fees(*_read(folder, "digital_services_fees.csv")),
        ),
        parse_borders(*_read(folder, "borders.csv")),
    )


def read_fee_categories(folder: Path) -> FeeCategories:
    """From Keepa's categories to ours.

    Raises:
        TableInvalid: names line and column.
    """
    return parse_fee_categories(*_read(folder, "fee_categories.csv"))


def read_seed_rates(folder: Path) -> tuple[ExchangeRate, ...]:
    """The exchange rates Keeper starts from.

    Raises:
        TableInvalid: names line and column.
    """
    return parse_exchange_rates(*_read(folder, "exchange_rates.csv"))


def read_seller_file(path: Path) -> SellerProfile:
    """A seller's profile, of a JSON file by its ending, else of a TOML file.

    Raises:
        SellerFileUnusable: it cannot be read, or is in no such form.
        SellerProfileInvalid: names the field.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise SellerFileUnusable(f"{path} is larger than {_LARGEST_BYTES} bytes; a seller's profile has some hundred")
        return parse_seller(path.name, path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise SellerFileUnusable(f"{path} cannot be read: {error}") from error


def parse_seller(name: str, text: str) -> SellerProfile:
    """A seller's profile from the text of such a file.

    Raises:
        SellerFileUnusable: no JSON or TOML.
        SellerProfileInvalid: names the field.
    """
    said: Any
    try:
        said = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SellerFileUnusable(f"{name} is no {'JSON' if name.endswith('.json') else 'TOML'}: {error}") from error
    if not isinstance(said, dict):
        raise SellerFileUnusable(f"{name} must hold the fields of a profile, like seeds/seller.toml")
    try:
        return read_seller(said)
    except SellerProfileInvalid as error:
        raise SellerProfileInvalid(error.field, f"{str(error).partition(': ')[2]} ({name})") from error


def _read(folder: Path, name: str) -> tuple[str, str]:
    try:
        return name, (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TableInvalid(name, None, f"cannot be read in {folder} (KEEPER_ARBITRAGE_TABLES): {error}") from error
