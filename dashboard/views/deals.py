"""Deals: words, filters, the hits with their worth."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import session
from dashboard.bodies import Deal
from dashboard.shown import ALL_STORES, moment, money, number, percent, web_link
from dashboard.words import Words

_SORTS = {
    "score": "sort_best",
    "relevance": "sort_relevance",
    "price": "sort_cheap",
    "-price": "sort_dear",
    "discount": "sort_discount",
    "newest": "sort_newest",
}
_PAGE = 50
_MOST_PAGES = 20
_ROW_PIXELS = 48
_MOST_ROWS_SHOWN = 12
_PAGES = "keeper.deals.pages"


def show() -> None:
    """The page."""
    words = session.words()
    st.title(words("deals"))
    text = st.text_input(words("search_words"), key="deal_words", max_chars=200, icon=":material/search:").strip()
    asked = _choose(words) | {"text": text}
    if st.session_state.get("keeper.deals.asked") != asked:
        st.session_state["keeper.deals.asked"], st.session_state[_PAGES] = asked, 1
    with session.told():
        found, total, has_more = _search(asked, st.session_state[_PAGES])
        if not found:
            st.info(words("no_deals"), icon=":material/search_off:")
            return
        _draw(found, total, words)
        if has_more and st.button(words("more"), icon=":material/expand_more:"):
            st.session_state[_PAGES] += 1
            st.rerun()


def _choose(words: Words) -> dict[str, Any]:
    with st.sidebar:
        st.subheader(words("filters"))
        store = st.selectbox(words("store"), ALL_STORES, key="deal_store")
        sort = st.selectbox(words("order"), list(_SORTS), format_func=lambda one: words(_SORTS[one]), key="deal_sort")
        left, right = st.columns(2)
        low = left.number_input(words("price_from"), min_value=0.01, max_value=1e7, value=None, step=5.0, format="%.2f", key="deal_from")
        high = right.number_input(words("price_to"), min_value=0.01, max_value=1e7, value=None, step=5.0, format="%.2f", key="deal_to")
        below = st.slider(words("below_median_from"), 0, 80, 0, format="%d %%", key="deal_below")
        score = st.slider(words("score_from"), 0, 100, 0, key="deal_score")
        rating = st.slider(words("rating_from"), 0.0, 5.0, 0.0, step=0.5, format="%.1f", key="deal_rating")
        ended = st.toggle(words("with_ended"), key="deal_ended")
        glitches = st.toggle(words("with_glitches"), key="deal_glitches")
    return {
        "marketplace": store,
        "sort": sort,
        "price_from": None if low is None else round(low, 2),
        "price_to": None if high is None else round(high, 2),
        "below_median_from": below or None,
        "score_from": score or None,
        "rating_from": rating or None,
        "includes_ended": ended,
        "includes_glitches": glitches,
    }


def _search(asked: dict[str, Any], pages: int) -> tuple[list[Deal], int | None, bool]:
    found: list[Deal] = []
    total, cursor = None, None
    for place in range(min(pages, _MOST_PAGES)):
        page = session.client().search_deals(**asked, limit=_PAGE, cursor=cursor)
        found += page.deals
        total = page.total if place == 0 else total
        cursor = page.next_cursor
        if cursor is None:
            break
    return found, total, cursor is not None and pages < _MOST_PAGES


def _draw(found: Sequence[Deal], total: int | None, words: Words) -> None:
    language, zone = words.language, session.zone()
    shown = number(len(found), language)
    known = "…" if total is None else number(total, language)
    st.caption(words("shown_of_many" if total is not None and total >= 1000 else "shown_of", shown=shown, total=known))
    currency = found[0].currency

    def amount(value: float) -> str:
        return money(value, currency, language)

    def percents(value: float) -> str:
        return percent(value, language, 1)

    table = pd.DataFrame(
        {
            "image": [web_link(one.image_url) or "" for one in found],
            "price": [one.price for one in found],
            "below": [one.below_median_pct for one in found],
            "score": [one.score for one in found],
            "title": [one.title or one.asin for one in found],
            "median": [one.median_90 for one in found],
            "list": [one.list_price for one in found],
            "discount": [one.discount_pct for one in found],
            "rating": [one.rating for one in found],
            "link": [web_link(one.link) for one in found],
            "notes": [_notes(one, words) for one in found],
            "since": [moment(one.since, language, zone) for one in found],
        }
    )
    numbers = ["price", "median", "below", "list", "discount", "score", "rating"]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    styled = table.style.format(
        {"price": amount, "median": amount, "list": amount, "below": percents, "discount": percents, "score": "{:.0f}",
         "rating": lambda value: number(value, language, 1)}, na_rep="–",
    )  # fmt: skip
    config = st.column_config
    st.dataframe(
        styled,
        key="deals",
        hide_index=True,
        row_height=_ROW_PIXELS,
        height="content" if len(table) <= _MOST_ROWS_SHOWN else _ROW_PIXELS * _MOST_ROWS_SHOWN,
        placeholder="–",
        column_config={
            "image": config.ImageColumn("", width=56),
            "price": config.NumberColumn(words("price"), width=84),
            "below": config.NumberColumn(words("below_median"), width=108),
            "score": config.NumberColumn(words("score"), width=80),
            "title": config.TextColumn(words("product"), width=260),
            "median": config.NumberColumn(words("median"), width=112),
            "list": config.NumberColumn(words("list_price"), width=88),
            "discount": config.NumberColumn(words("discount"), width=84),
            "rating": config.NumberColumn(words("rating"), width=68),
            "link": config.LinkColumn(words("at_amazon"), display_text=":material/open_in_new:", width=88),
            "notes": config.ListColumn(words("notes"), width=190),
            "since": config.TextColumn(words("since"), width=136),
        },
    )


def _notes(one: Deal, words: Words) -> list[str]:
    said = {
        "all_time_low": one.is_all_time_low,
        "year_low": one.is_year_low and not one.is_all_time_low,
        "fiction": one.is_list_price_fiction,
        "glitch": one.is_glitch,
        "ended": one.ended_at is not None,
    }
    return [words(key) for key, is_so in said.items() if is_so]
