"""What it takes to bring goods over a customs border, by lane, category and day."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from keeper.domain.dated_rows import TableInvalid, TableRow, find_own_or_general, read_rows
from keeper.domain.vat import DEFAULT

_COLUMNS = (
    "from_area",
    "to_area",
    "category",
    "customs_pct",
    "clearance",
    "clearance_currency",
    "export_vat_refunded",
    "valid_from",
    "source",
)


@dataclass(frozen=True, slots=True)
class BorderTerms:
    """One row; a figure that is None is unknown, and so is what needs it.

    Attributes:
        from_area: `EU`, or a country outside it.
        to_area: like it.
        customs_pct: duty on what was paid for the goods.
        clearance_minor: what the carrier or broker takes for one piece.
        export_vat_refunded: whether the shop gives the purchase VAT back to a seller who is not registered where it was bought.
    """

    from_area: str
    to_area: str
    category: str
    customs_pct: Decimal | None
    clearance_minor: int | None
    clearance_currency: str
    export_vat_refunded: bool | None
    valid_from: date
    source: str

    @property
    def row(self) -> TableRow:
        """What it stands on."""
        return TableRow("border", f"{self.from_area} to {self.to_area} {self.category}", self.valid_from, self.source)


@dataclass(frozen=True, slots=True)
class BorderTable:
    """All rows, in the file's order."""

    terms: tuple[BorderTerms, ...] = ()

    def find_terms(self, from_area: str, to_area: str, category: str | None, on: date) -> BorderTerms | None:
        """The category's own row, or the lane's `default` where it has none; None where that does not hold on the day."""
        lane = (from_area, to_area)
        own = [terms for terms in self.terms if (terms.from_area, terms.to_area) == lane and terms.category == category]
        general = [terms for terms in self.terms if (terms.from_area, terms.to_area) == lane and terms.category == DEFAULT]
        return find_own_or_general(own, general, on)


def parse_borders(name: str, text: str) -> BorderTable:
    """The table of a CSV file.

    Raises:
        TableInvalid: names line and column.
    """
    rows: dict[tuple[str, str, str, date], BorderTerms] = {}
    for line in read_rows(name, text, _COLUMNS):
        terms = BorderTerms(
            line.country("from_area"),
            line.country("to_area"),
            line.category("category"),
            line.pct("customs_pct"),
            line.amount_minor("clearance", line.text("clearance_currency")),
            line.text("clearance_currency"),
            line.yes("export_vat_refunded"),
            line.day("valid_from"),
            line.text("source"),
        )
        if terms.from_area == terms.to_area:
            line.refuse("to_area", f"there is no border between {terms.from_area} and itself")
        if rows.setdefault((terms.from_area, terms.to_area, terms.category, terms.valid_from), terms) is not terms:
            raise TableInvalid(name, line.line, f"{terms.row.key} from {terms.valid_from} is in the table already")
    return BorderTable(tuple(rows.values()))
