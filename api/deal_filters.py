"""Your filters of deals, and what one would have found before it is kept."""

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, status
from fastapi.responses import Response
from pydantic import Field, StrictBool, StringConstraints
from sqlalchemy import Connection

from api.access import Reader, Writer
from api.deals import Choices, Count, DealShown, DealType, Percent, Stars, Words, deal_fields, in_minor_units
from api.live import House
from api.once import OnceOnly
from api.problems import problems
from api.schemas import Amount, Answer, Body, RowId, in_whole_units
from keeper.domain.deal_filter import LONGEST_NAME, DealFilter, DealFilterInvalid, check_name, read_rules, write_rules
from keeper.domain.marketplace import Marketplace
from keeper.filters import preview
from keeper.postgres import deal_filters, installation
from keeper.postgres.deal_filters import FilterRow

router = APIRouter(tags=["deals"])

# A number, so that no other word is taken for one.
_ONE = "/deals/filters/{filter_id:row}"


class FilterRules(Body):
    """What a deal must be. All conditions hold at once, within a list any one does; what is left out is no condition."""

    words: Words = Field("", description='Words that must all be in title or brand; a phrase in "quotes"', examples=["cherry tastatur"])
    exclude_words: Words = Field("", description="Words or phrases of which none may be there", examples=["hülle aufkleber"])
    brands: Choices = Field([], description="Exact but for case", examples=[["Cherry", "Logitech"]])
    categories: Choices = Field([], description="The name of any category on the product's path, or its number")
    marketplaces: Annotated[list[Marketplace], Field(max_length=len(Marketplace), json_schema_extra={"uniqueItems": True})] = Field(
        [], description="Amazon stores; none: all"
    )
    price_from: Amount | None = Field(None, description="In the currency of the stores, which must then be named and have the same")
    price_to: Amount | None = Field(None, description="In the currency of the stores, which must then be named and have the same")
    discount_from: Percent | None = Field(None, description="Percent of the list price")
    discount_to: Percent | None = Field(None, description="Percent of the list price")
    below_median_from: Percent | None = Field(None, description="Percent below the median price of 90 days")
    rating_from: Stars | None = Field(None, description="Stars")
    reviews_from: Count | None = Field(None, description="How many rated it at least")
    rank_to: Count | None = Field(None, description="The sales rank it may have at most")
    score_from: Percent | None = Field(None, description="The least quality score, 0 to 100")
    price_types: Annotated[list[DealType], Field(max_length=40, json_schema_extra={"uniqueItems": True})] = Field(
        [], description="Which price fell; none: any"
    )
    layouts: Choices = Field([], description="As the product group names them", examples=[["qwertz"]])
    group: Words | None = Field(None, description="A product group", examples=["keyboards"])

    def wanted(self) -> DealFilter:
        """The same as a filter.

        Raises:
            DealFilterInvalid, AmountInvalid: see there.
        """
        # Without a currency of its own the filter refuses any price; it says so itself.
        currency = DealFilter(marketplaces=tuple(self.marketplaces)).currency or "EUR"
        return DealFilter(
            words=self.words,
            exclude_words=self.exclude_words,
            brands=tuple(self.brands),
            categories=tuple(self.categories),
            marketplaces=tuple(self.marketplaces),
            price_from_minor=in_minor_units(self.price_from, currency),
            price_to_minor=in_minor_units(self.price_to, currency),
            discount_from_pct=self.discount_from,
            discount_to_pct=self.discount_to,
            below_median_from_pct=self.below_median_from,
            rating_from=self.rating_from,
            reviews_from=self.reviews_from,
            rank_to=self.rank_to,
            score_from=self.score_from,
            price_types=tuple(self.price_types),
            layouts=tuple(self.layouts),
            group=self.group,
        )


class NewFilter(Body):
    """A filter to be kept."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME, pattern=r"^\S[^\x00-\x1f\x7f]*$")] = Field(
        examples=["Cherry below 50"]
    )
    rules: FilterRules
    is_active: StrictBool = Field(True, description="False: kept, and not reported")
    is_instant: StrictBool = Field(False, description="Its deals are told as they are found, not only in the daily report")


class FilterAnswer(Answer):
    """A filter as it is kept."""

    id: int
    name: str
    rules: dict[str, Any] | None = Field(description="As they were sent, without what is no condition; null where `problem` says why")
    problem: str | None = Field(description="Why it cannot be used; PUT it anew")
    is_active: bool
    is_instant: bool
    created_at: datetime


class FilterList(Answer):
    """All of yours; there are at most 200."""

    filters: list[FilterAnswer]


class DayCount(Answer):
    """Deals of one day."""

    day: date
    deals: int


class PreviewAnswer(Answer):
    """What a filter would have found in the last 30 days."""

    since: datetime
    total: int
    by_day: list[DayCount] = Field(description="Of your own calendar; days without any are left out")
    best: list[DealShown] = Field(description="The best 20 by score")


def shown(row: FilterRow) -> FilterAnswer:
    """As the API shows it."""
    rules, problem = None, None
    try:
        rules = _rules_of(read_rules(row.rules))
    except DealFilterInvalid as error:
        problem = str(error)
    return FilterAnswer(
        id=row.filter_id,
        name=row.name,
        rules=rules,
        problem=problem,
        is_active=row.is_active,
        is_instant=row.is_instant,
        created_at=row.created_at,
    )


def _rules_of(wanted: DealFilter) -> dict[str, Any]:
    """By the names of FilterRules, which have no units."""
    rules: dict[str, Any] = {}
    for name, value in write_rules(wanted).items():
        is_price = name.endswith("_minor")
        rules[name.removesuffix("_minor").removesuffix("_pct")] = in_whole_units(value, wanted.currency or "EUR") if is_price else value
    return rules


@router.get("/deals/filters", responses=problems())
def list_filters(caller: Reader, live: House) -> FilterList:
    """Your filters."""
    with live.begin() as connection:
        return FilterList(filters=[shown(row) for row in deal_filters.select_filters(connection, caller.user_id)])


@router.post("/deals/filters", status_code=status.HTTP_201_CREATED, responses=problems(409, body=True), response_model=FilterAnswer)
def add_filter(body: NewFilter, caller: Writer, once: OnceOnly) -> FilterAnswer | Response:
    """Keep a filter; `deals/preview` shows beforehand what it would have found."""
    name, wanted = check_name(body.name), body.rules.wanted()

    def effect(connection: Connection) -> FilterAnswer:
        return shown(
            deal_filters.insert_filter(
                connection,
                caller.user_id,
                name,
                wanted,
                is_active=body.is_active,
                is_instant=body.is_instant,
                now=installation.select_now(connection),
            )
        )

    return once.change(effect, status=status.HTTP_201_CREATED)


@router.get(_ONE, responses=problems(404))
def get_filter(filter_id: RowId, caller: Reader, live: House) -> FilterAnswer:
    """One of your filters."""
    with live.begin() as connection:
        return shown(deal_filters.find_filter(connection, caller.user_id, filter_id))


@router.put(_ONE, responses=problems(404, 409, body=True))
def replace_filter(filter_id: RowId, body: NewFilter, caller: Writer, live: House) -> FilterAnswer:
    """Put another in the place of one of your filters; it keeps its id, and so its feeds."""
    name, wanted = check_name(body.name), body.rules.wanted()
    with live.begin() as connection:
        return shown(
            deal_filters.update_filter(
                connection, caller.user_id, filter_id, name, wanted, is_active=body.is_active, is_instant=body.is_instant
            )
        )


@router.delete(_ONE, status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def remove_filter(filter_id: RowId, caller: Writer, live: House) -> None:
    """Remove one of your filters. Reports stay."""
    with live.begin() as connection:
        deal_filters.delete_filter(connection, caller.user_id, filter_id)


@router.post("/deals/preview", responses=problems(body=True))
def preview_filter(body: FilterRules, caller: Reader, live: House) -> PreviewAnswer:
    """What a filter would have found in the last 30 days, deals that are over too. Nothing is kept."""
    wanted = body.wanted()
    with live.begin() as connection:
        found = preview(connection, wanted, user_id=caller.user_id, now=installation.select_now(connection))
    return PreviewAnswer(
        since=found.since,
        total=found.total,
        by_day=[DayCount(day=day, deals=deals) for day, deals in found.by_day],
        best=[DealShown(**deal_fields(deal)) for deal in found.best],
    )
