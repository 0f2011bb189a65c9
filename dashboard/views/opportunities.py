"""Price gaps between stores, best first: filters, figures, a table, a file."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import session
from dashboard.bodies import Opportunity, OpportunityPage, Stats
from dashboard.shown import STORES, cell, cut, in_units, minor, moment, money, number, percent, web_link
from dashboard.words import Words

_LIMITS = (25, 50, 100, 250, 500, 1000)
_DEFAULT_LIMIT = 100
_DEFAULT_MARGIN = 10
_SORTS = {"profit": "sort_profit", "roi": "sort_roi", "margin": "sort_margin", "score": "sort_score"}
_TITLE_LENGTH = 70
_ROW_PIXELS = 48
_MOST_ROWS_SHOWN = 12
_FIGURE_PIXELS = 171


def show() -> None:
    """The page."""
    words = session.words()
    asked = _choose(words)
    st.title(words("opportunities"))
    with session.told():
        stats = session.client().fetch_stats()
        _tell_figures(stats, words)
    with session.told():
        found = session.client().fetch_opportunities(**asked)
        _tell_found(found, words)


def _choose(words: Words) -> dict[str, Any]:
    with st.sidebar:
        st.subheader(words("filters"))
        least = st.slider(
            words("least_margin"), 0, 100, _DEFAULT_MARGIN, format="%d %%", help=words("least_margin_help"), key="least_margin"
        )
        source = st.pills(words("buy_in"), STORES, selection_mode="multi", key="source")
        target = st.pills(words("sell_in"), STORES, selection_mode="multi", key="target")
        sort = st.selectbox(words("order"), list(_SORTS), format_func=lambda one: words(_SORTS[one]), key="sort")
        limit = st.selectbox(words("limit"), _LIMITS, index=_LIMITS.index(_DEFAULT_LIMIT), key="limit")
        doubtful = st.toggle(words("with_doubtful"), help=words("with_doubtful_help"), key="doubtful")
    return {
        "min_margin": least,
        "source": list(source),
        "target": list(target),
        "sort": sort,
        "limit": limit,
        "include_doubtful": "true" if doubtful else None,
    }


def _tell_figures(stats: Stats, words: Words) -> None:
    language = words.language
    counts = stats.opportunities
    with st.container(horizontal=True, key="figures"):
        st.metric(words("products_known"), number(stats.products, language), border=True, width=_FIGURE_PIXELS)
        st.metric(
            words("opportunities"),
            number(counts.open, language),
            border=True,
            width=_FIGURE_PIXELS,
            help=words("profitable", count=counts.profitable),
        )
        markets = stats.markets if isinstance(stats.markets, int) else len(stats.markets)
        st.metric(words("stores"), number(markets, language), border=True, width=_FIGURE_PIXELS)
        st.metric(words("best_profit"), minor(stats.best_profit_minor, "EUR", language), border=True, width=_FIGURE_PIXELS)
        st.metric(words("best_margin"), percent(stats.best_margin_percentage, language), border=True, width=_FIGURE_PIXELS)
    if stats.compared_at is None:
        st.info(words("never_compared"), icon=":material/info:")


def _tell_found(found: OpportunityPage, words: Words) -> None:
    told = [words("own_seller" if found.seller == "own" else "default_seller")]
    if found.compared_at is not None:
        told.insert(0, words("compared_at", when=moment(found.compared_at, words.language, session.zone())))
    if not found.opportunities:
        st.info(words("no_opportunities"), icon=":material/search_off:")
        st.caption(" ".join(told))
        return
    told.insert(0, _count(found, words))
    st.caption(" ".join(told))
    table = table_of(found.opportunities, found.compared_at, words)
    _draw(table, found.opportunities, words)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        by_id = {one.id: one for one in found.opportunities}
        chosen = st.selectbox(
            words("open_product"),
            list(by_id),
            index=None,
            placeholder=words("open_product_hint"),
            format_func=lambda one: _named(by_id[one]),
            key="chosen",
        )
        st.download_button(
            words("csv"), csv_of(found.opportunities), "opportunities.csv", "text/csv", on_click="ignore", icon=":material/download:"
        )
    if chosen is not None:
        session.open_product(by_id[chosen].asin, chosen)


def _count(found: OpportunityPage, words: Words) -> str:
    shown = number(len(found.opportunities), words.language)
    if found.total is None or found.total <= len(found.opportunities):
        return words("shown_of", shown=shown, total=shown if found.next is None else "…")
    key = "shown_of_many" if found.total >= 1000 else "shown_of"
    return words(key, shown=shown, total=number(found.total, words.language))


def _named(one: Opportunity) -> str:
    return f"{one.source_market} → {one.target_market} · {cut(one.title or one.asin, _TITLE_LENGTH)}"


def table_of(found: Sequence[Opportunity], compared_at: datetime | None, words: Words) -> pd.DataFrame:
    """A row each, its amounts as numbers so that columns sort by them."""
    return pd.DataFrame(
        {
            "image": [web_link(one.image_url) or "" for one in found],
            "way": [f"{one.source_market} → {one.target_market}" for one in found],
            "profit": [None if one.profit_minor is None else one.profit_minor / 100 for one in found],
            "roi": [one.roi_pct for one in found],
            "title": [one.title or one.asin for one in found],
            "buy": [in_units(one.source_price, one.source_currency) for one in found],
            "sell": [in_units(one.target_price, one.target_currency) for one in found],
            "margin": [one.margin / 100 for one in found],
            "margin_pct": [one.margin_percentage for one in found],
            "score": [one.score for one in found],
            "buy_link": [web_link(one.source_link) for one in found],
            "sell_link": [web_link(one.target_link) for one in found],
            "age": [_age_hours(one, compared_at) for one in found],
            "notes": [notes_of(one, words) for one in found],
        }
    ).astype({"profit": "float64", "roi": "float64", "score": "float64", "age": "float64"})


def notes_of(one: Opportunity, words: Words) -> list[str]:
    """What a reseller should know before buying."""
    missing = [words("missing_part", name=words.name(name)) for name in one.unknown]
    return [*([words("stale")] if one.is_stale else []), *missing, *one.doubts, *map(words.name, one.flags)]


def _age_hours(one: Opportunity, compared_at: datetime | None) -> float | None:
    """Of the older price, at the comparison: both are told by the same clock, which need not be this machine's."""
    if compared_at is None or one.source_checked_at is None or one.target_checked_at is None:
        return None
    return max(0.0, (compared_at - min(one.source_checked_at, one.target_checked_at)).total_seconds() / 3600)


def _draw(table: pd.DataFrame, found: Sequence[Opportunity], words: Words) -> None:
    language = words.language

    def euros(value: float) -> str:
        return money(value, "EUR", language)

    def percents(value: float) -> str:
        return percent(value, language)

    def hours(value: float) -> str:
        return number(value, language, 1)

    unknown = words("unknown")
    styled = table.style.format(
        {"margin": euros, "margin_pct": percents, "profit": euros, "roi": percents, "age": hours, "score": "{:.0f}"}, na_rep=unknown
    )
    for column, currencies in (("buy", [one.source_currency for one in found]), ("sell", [one.target_currency for one in found])):
        for currency in sorted(set(currencies)):
            rows = [row for row, known in enumerate(currencies) if known == currency]
            styled = styled.format(_of(currency, words), subset=pd.IndexSlice[rows, [column]])
    config = st.column_config
    chosen = st.dataframe(
        styled,
        key="opportunities",
        hide_index=True,
        row_height=_ROW_PIXELS,
        height="content" if len(table) <= _MOST_ROWS_SHOWN else _ROW_PIXELS * _MOST_ROWS_SHOWN,
        placeholder=words("unknown"),
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "image": config.ImageColumn("", width=56),
            "way": config.TextColumn(words("way"), width=80),
            "profit": config.NumberColumn(words("profit"), width=84, help=words("profit_help")),
            "roi": config.NumberColumn(words("roi"), width=80),
            "title": config.TextColumn(words("product"), width=230),
            "buy": config.NumberColumn(words("buy_price"), width=80),
            "sell": config.NumberColumn(words("sell_price"), width=80),
            "margin": config.NumberColumn(words("margin"), width=80),
            "margin_pct": config.NumberColumn(words("margin_pct"), width=80),
            "score": config.NumberColumn(words("score"), width=80),
            "buy_link": config.LinkColumn(words("buy_link"), display_text=":material/open_in_new:", width=72),
            "sell_link": config.LinkColumn(words("sell_link"), display_text=":material/open_in_new:", width=80),
            "age": config.NumberColumn(words("age_hours"), width=100, help=words("age_hours_help")),
            "notes": config.ListColumn(words("notes"), width=240),
        },
    )
    rows = chosen["selection"]["rows"]
    if rows and rows[0] < len(found):
        one = found[rows[0]]
        session.open_product(one.asin, one.id)


def _of(currency: str, words: Words) -> Any:
    return lambda value: money(value, currency, words.language)


def csv_of(found: Sequence[Opportunity]) -> bytes:
    """The same for a spreadsheet, with every field, in the API's own names."""
    rows = [
        {
            "asin": one.asin,
            "title": cell(one.title or ""),
            "brand": cell(one.brand or ""),
            "category": cell(one.category or ""),
            "source_market": one.source_market,
            "target_market": one.target_market,
            "source_price": in_units(one.source_price, one.source_currency),
            "source_currency": one.source_currency,
            "target_price": in_units(one.target_price, one.target_currency),
            "target_currency": one.target_currency,
            "price_type": one.price_type,
            "margin_eur": one.margin / 100,
            "margin_percentage": one.margin_percentage,
            "profit_eur": None if one.profit_minor is None else one.profit_minor / 100,
            "roi_pct": one.roi_pct,
            "profit_margin_pct": one.profit_margin_pct,
            "unknown": cell("; ".join(one.unknown)),
            "is_stale": one.is_stale,
            "doubts": cell("; ".join(one.doubts)),
            "flags": cell("; ".join(one.flags)),
            "score": one.score,
            "source_checked_at": one.source_checked_at.isoformat() if one.source_checked_at else None,
            "target_checked_at": one.target_checked_at.isoformat() if one.target_checked_at else None,
            "first_seen_at": one.first_seen_at.isoformat() if one.first_seen_at else None,
            "source_link": one.source_link,
            "target_link": one.target_link,
        }
        for one in found
    ]
    # With the mark by which spreadsheets know UTF-8.
    written: str = pd.DataFrame(rows).to_csv(index=False)
    return written.encode("utf-8-sig")
