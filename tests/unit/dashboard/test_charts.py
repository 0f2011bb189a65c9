"""What the charts draw, without drawing it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from dashboard.bodies import ProfitPart, SpentHour
from dashboard.charts import LINES, Line, convert, draw_history, draw_hours, draw_waterfall
from dashboard.shown import STORES
from dashboard.words import Words

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DE, EN = Words("de"), Words("en")


def line(store: str, *prices: float | None) -> Line:
    return Line(store, [NOW - timedelta(days=len(prices) - place) for place in range(len(prices))], prices, NOW)


def test_waterfall_sums_to_the_profit_and_leaves_nothing_out_but_zeros() -> None:
    parts = [ProfitPart("sale", 9999), ProfitPart("storage", 0), ProfitPart("purchase", -6000)]

    [drawn] = draw_waterfall(parts, 3999, DE).data

    assert list(drawn.y) == ["Verkauf", "Einkauf", "Gewinn"]
    assert list(drawn.x) == [99.99, -60, 39.99]
    assert list(drawn.measure) == ["relative", "relative", "total"]
    assert drawn.text[1] == "−60,00 €"


def test_waterfall_with_an_unknown_part_has_no_sum() -> None:
    [drawn] = draw_waterfall([ProfitPart("sale", 9999), ProfitPart("FBA fee", None)], None, EN).data

    assert list(drawn.text) == ["€99.99", "unknown"]
    assert "total" not in drawn.measure


def test_label_of_a_cost_that_ends_at_zero_has_room() -> None:
    figure = draw_waterfall([ProfitPart("sale", 10000), ProfitPart("purchase", -10000)], 0, EN)

    assert figure.layout.xaxis.range[0] < 0


def test_history_holds_each_price_until_the_next_and_to_the_end() -> None:
    figure = draw_history([line("DE", 50.0, 40.0, None, 45.0)], EN, UTC)

    drawn, low = figure.data
    assert drawn.line.shape == "hv"
    assert list(drawn.y) == [50, 40, None, 45, 45]
    assert drawn.x[-1] == NOW
    assert list(low.y) == [40]


def test_labels_at_the_ends_of_lines_do_not_lie_on_each_other() -> None:
    figure = draw_history([line("DE", 10.0, 20.0), line("IT", 10.0, 20.0), line("ES", 10.0, 20.1)], EN, UTC)

    heights = sorted(one.y for one in figure.layout.annotations if one.xref == "paper")
    assert all(upper - lower > 0.7 for lower, upper in pairwise(heights))


def test_line_without_any_offer_is_drawn_without_a_label() -> None:
    assert len(draw_history([line("DE", None, None)], EN, UTC).layout.annotations) == 0


def test_stores_differ_by_colour_and_by_line() -> None:
    assert len({LINES[store][0] for store in STORES}) == len({LINES[store][1] for store in STORES}) == len(STORES)


def test_axes_have_units() -> None:
    assert draw_history([line("DE", 1.0)], DE, UTC).layout.yaxis.title.text == "Preis, EUR"
    assert draw_waterfall([ProfitPart("sale", 1)], 1, EN).layout.xaxis.title.text == "Amount, EUR"
    assert draw_hours([SpentHour(NOW, 1, 0, 5)], EN, UTC).layout.yaxis.title.text == "Tokens"


def test_numbers_have_the_separators_of_the_language() -> None:
    assert draw_history([line("DE", 1.0)], DE, UTC).layout.separators == ",."


def test_prices_without_a_rate_are_not_taken_for_euros() -> None:
    assert convert([10.0, None], "GBP", {"GBP": 0.8}) == [12.5, None]
    assert convert([10.0], "GBP", {}) is None
    assert convert([10.0], "EUR", {}) == [10.0]
