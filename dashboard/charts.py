"""The charts. Labels stand at what they name, axes have units, and no two lines differ by colour alone.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which people with any kind of colour vision tell apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import accumulate
from typing import Any, Final

import plotly.graph_objects as go

from dashboard.bodies import ProfitPart, SpentHour, SpentTokens
from dashboard.shown import minor, money, number
from dashboard.words import Language, Words

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREY: Final = "#6b7280"
# Of each store a colour and a way to draw its line.
LINES: Final[dict[str, tuple[str, str]]] = {
    "DE": (BLUE, "solid"),
    "IT": ("#009E73", "dash"),
    "ES": ("#B58900", "dot"),
    "FR": ("#CC79A7", "dashdot"),
    "UK": (VERMILION, "longdash"),
}
_OTHER_LINE: Final = ("#56B4E9", "longdashdot")
# Labels at the end of lines stand at least so far apart, of the height of the chart.
_LABEL_GAP: Final = 0.075
_GROUNDS: Final = {False: "rgba(255,255,255,0.85)", True: "rgba(23,22,20,0.85)"}
_BAR_PIXELS: Final = 30
_DAY_MS: Final = 86_400_000
CONFIG: Final[dict[str, Any]] = {"displayModeBar": False, "scrollZoom": False, "responsive": True}


@dataclass(frozen=True, slots=True)
class Line:
    """A price over time in one store.

    Attributes:
        prices: in euros, each valid until the next time; None: no offer.
        ends_at: until when the last one holds.
    """

    store: str
    times: Sequence[datetime]
    prices: Sequence[float | None]
    ends_at: datetime | None

    @property
    def last(self) -> float | None:
        """The price at the end."""
        return self.prices[-1] if self.prices else None

    @property
    def low(self) -> tuple[datetime, float] | None:
        """When it was lowest first, and how low."""
        return min(
            ((at, price) for at, price in zip(self.times, self.prices, strict=True) if price is not None), key=_by_price, default=None
        )


def draw_history(lines: Sequence[Line], words: Words, zone: tzinfo, *, is_dark: bool = False) -> go.Figure:
    """Step lines of several stores, each named at its end, its low marked; buttons choose how far back."""
    figure = go.Figure()
    for line in lines:
        color, dash = LINES.get(line.store, _OTHER_LINE)
        times, prices = [at.astimezone(zone) for at in line.times], list(line.prices)
        if line.ends_at is not None and prices:
            times, prices = [*times, line.ends_at.astimezone(zone)], [*prices, prices[-1]]
        figure.add_scatter(
            x=times,
            y=prices,
            name=line.store,
            mode="lines",
            line={"shape": "hv", "color": color, "width": 2.5, "dash": dash},
            hovertemplate=f"{line.store} %{{y:,.2f}} €<br>%{{x|%d.%m.%Y %H:%M}}<extra></extra>",
        )
        if line.low is not None:
            at, price = line.low
            figure.add_scatter(
                x=[at.astimezone(zone)],
                y=[price],
                mode="markers",
                marker={"color": color, "size": 11, "symbol": "triangle-up", "line": {"color": "white", "width": 1}},
                hovertemplate=words("low_of", store=line.store, price=money(price, "EUR", words.language))
                + "<br>%{x|%d.%m.%Y}<extra></extra>",
            )
    for line in lines:
        if line.low is not None:
            # On a ground of its own, because other lines cross it.
            figure.add_annotation(
                x=line.low[0].astimezone(zone), y=line.low[1], yshift=-17, text=money(line.low[1], "EUR", words.language), showarrow=False,
                font={"size": 11}, bgcolor=_GROUNDS[is_dark], borderpad=1,
            )  # fmt: skip
    for line, height in zip(lines, _apart([line.last for line in lines], _span_of(lines)), strict=True):
        if height is not None:
            # The name in the line's colour, the price in the page's own, which stands out on any ground.
            color = LINES.get(line.store, _OTHER_LINE)[0]
            label = f'<b><span style="color:{color}">{line.store}</span></b> {money(line.last, "EUR", words.language)}'
            figure.add_annotation(
                x=1.005, xref="paper", xanchor="left", y=height, yanchor="middle", text=label, showarrow=False, font={"size": 13}
            )  # fmt: skip
    buttons = [
        {"count": count, "step": step, "stepmode": "backward", "label": words(key)}
        for count, step, key in ((1, "month", "range_month"), (3, "month", "range_quarter"), (6, "month", "range_half"))
    ]
    figure.update_xaxes(
        rangeselector={"buttons": [*buttons, {"step": "all", "label": words("range_year")}], "x": 0, "y": 1.02, "yanchor": "bottom"},
        type="date",
        showgrid=False,
        tickformat="%d.%m.\n%Y" if words.language == "de" else "%b %d\n%Y",
    )
    figure.update_yaxes(title_text=words("price_eur"), tickformat=",.2f", rangemode="normal")
    return _framed(figure, words.language, height=420, right=92, top=48)


def draw_waterfall(parts: Sequence[ProfitPart], profit_minor: int | None, words: Words) -> go.Figure:
    """From the sale down to what is left, one bar a part; parts of nothing are left out, and no sum is shown where a part is unknown."""
    shown = [part for part in parts if part.amount_minor != 0]
    names = [words.name(part.name) for part in shown]
    amounts = [(part.amount_minor or 0) / 100 for part in shown]
    labels = [words("unknown") if part.amount_minor is None else minor(part.amount_minor, "EUR", words.language) for part in shown]
    measures = ["relative"] * len(shown)
    if profit_minor is not None:
        names.append(words("profit"))
        amounts.append(profit_minor / 100)
        labels.append(minor(profit_minor, "EUR", words.language))
        measures.append("total")
    figure = go.Figure(
        go.Waterfall(
            orientation="h",
            y=names,
            x=amounts,
            measure=measures,
            text=[f"<b>{label}</b>" if measure == "total" else label for label, measure in zip(labels, measures, strict=True)],
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": BLUE}},
            decreasing={"marker": {"color": VERMILION}},
            totals={"marker": {"color": GREY if (profit_minor or 0) >= 0 else "#7f1d1d"}},
            connector={"line": {"color": "rgba(128,128,128,0.5)", "width": 1}},
            hoverinfo="skip",
        )
    )
    reach = _reach(amounts, measures)
    room = 0.28 * (reach[1] - reach[0] or 1)
    # The label of a cost stands left of its bar.
    ends = zip(accumulate(amounts), amounts, strict=True)
    left = min(0.0, min((end - room for end, amount in ends if amount < 0), default=0.0))
    figure.update_xaxes(title_text=words("amount_eur"), tickformat=",.0f", range=[left, reach[1] + room], zeroline=True)
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    return _framed(figure, words.language, height=90 + _BAR_PIXELS * len(names), left=8)


def draw_hours(hours: Sequence[SpentHour], words: Words, zone: tzinfo) -> go.Figure:
    """Tokens spent in each hour."""
    figure = go.Figure(
        go.Bar(
            x=[hour.hour_at.astimezone(zone) for hour in hours],
            y=[hour.tokens for hour in hours],
            marker={"color": BLUE},
            width=0.8 * _DAY_MS / 24,
            hovertemplate="%{x|%d.%m. %H:%M}: %{y}<extra></extra>",
        )
    )
    most = max((hour for hour in hours), key=lambda hour: hour.tokens, default=None)
    if most is not None and most.tokens > 0:
        figure.add_annotation(
            x=most.hour_at.astimezone(zone), y=most.tokens, text=number(most.tokens, words.language), showarrow=False, yanchor="bottom"
        )
    figure.update_xaxes(title_text=words("hour_axis"), tickformat="%H:%M", showgrid=False)
    figure.update_yaxes(title_text=words("tokens_axis"), rangemode="tozero", tickformat=",d")
    return _framed(figure, words.language, height=300)


def draw_operations(spent: Sequence[SpentTokens], words: Words) -> go.Figure:
    """Tokens by what they were spent on, the dearest on top."""
    ordered = sorted(spent, key=lambda one: one.tokens)
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=[one.operation for one in ordered],
            x=[one.tokens for one in ordered],
            text=[number(one.tokens, words.language) for one in ordered],
            textposition="outside",
            cliponaxis=False,
            marker={"color": BLUE},
            hoverinfo="skip",
        )
    )
    most = max((one.tokens for one in ordered), default=0)
    figure.update_xaxes(title_text=words("tokens_axis"), range=[0, 1.18 * most or 1], tickformat=",d")
    figure.update_yaxes(automargin=True, showgrid=False, type="category")
    return _framed(figure, words.language, height=90 + 34 * len(ordered))


def _framed(figure: go.Figure, language: Language, *, height: int, left: int = 0, right: int = 16, top: int = 12) -> go.Figure:
    figure.update_layout(
        height=height,
        margin={"l": left, "r": right, "t": top, "b": 8},
        showlegend=False,
        separators=",." if language == "de" else ".,",
        dragmode=False,
        hoverlabel={"align": "left"},
    )
    return figure


def _by_price(found: tuple[datetime, float]) -> tuple[float, datetime]:
    return found[1], found[0]


def _span_of(lines: Sequence[Line]) -> float:
    prices = [price for line in lines for price in line.prices if price is not None]
    return max(prices) - min(prices) if prices else 0.0


def _apart(heights: Sequence[float | None], span: float) -> list[float | None]:
    """The heights, moved up where labels would lie on each other."""
    gap = _LABEL_GAP * span
    placed: dict[int, float] = {}
    lowest = None
    for place in sorted((one for one, height in enumerate(heights) if height is not None), key=lambda one: heights[one] or 0.0):
        height = heights[place] or 0.0
        lowest = height if lowest is None else max(height, lowest + gap)
        placed[place] = lowest
    return [placed.get(place) for place in range(len(heights))]


def _reach(amounts: Sequence[float], measures: Sequence[str]) -> tuple[float, float]:
    """The least and the most the bars come to."""
    level, least, most = 0.0, 0.0, 0.0
    for amount, measure in zip(amounts, measures, strict=True):
        level = amount if measure == "total" else level + amount
        least, most = min(least, level), max(most, level)
    return least, most


def convert(prices: Sequence[float | None], currency: str, per_euro: Mapping[str, float]) -> list[float | None] | None:
    """Prices in euros; None where there is no rate."""
    if currency == "EUR":
        return list(prices)
    rate = per_euro.get(currency)
    if not rate:
        return None
    return [None if price is None else round(price / rate, 2) for price in prices]
