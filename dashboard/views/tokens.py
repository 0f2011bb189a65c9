"""The token budget: what is left, what it went on, how long it lasts."""

import streamlit as st

from dashboard import session
from dashboard.bodies import Forecast, Tokens
from dashboard.charts import CONFIG, draw_hours, draw_operations
from dashboard.shown import number, percent, span
from dashboard.words import Words


def show() -> None:
    """The page."""
    words = session.words()
    st.title(words("tokens"))
    with session.told():
        known = session.client().fetch_tokens()
        if known.source == "simulator":
            st.caption(words("simulated"))
        _tell_figures(known, words)
        _tell_forecast(known.forecast, words)
        _tell_spending(known, words)


def _tell_figures(known: Tokens, words: Words) -> None:
    language = words.language
    with st.container(horizontal=True, key="figures"):
        _figure(words("balance"), number(known.tokens, language))
        _figure(words("capacity"), number(known.capacity, language))
        _figure(words("refill"), number(known.refill_per_minute, language))
        _figure(words("spent_hour"), number(sum(one.tokens for one in known.last_hour), language))
        _figure(words("spent_day"), number(sum(one.tokens for one in known.last_day), language))
        _figure(words("watches_need"), percent(known.forecast.needed_pct, language, 1), words("of_refill"))
    st.progress(
        min(1.0, max(0.0, known.tokens / known.capacity if known.capacity else 0.0)),
        words("share_left", pct=percent(100 * known.tokens / known.capacity if known.capacity else None, language, 0)),
    )


def _figure(label: str, value: str, meaning: str | None = None) -> None:
    st.metric(label, value, help=meaning, border=True, width=171)


def _tell_forecast(known: Forecast, words: Words) -> None:
    st.subheader(words("forecast"), anchor=False)
    said = []
    if known.minutes_until_full == 0:
        said.append(words("is_full"))
    elif known.minutes_until_full is not None:
        said.append(words("full_in", time=span(known.minutes_until_full, words)))
    if known.minutes_until_empty_as_spent is not None:
        said.append(words("empty_as_spent", time=span(known.minutes_until_empty_as_spent, words)))
    if known.minutes_until_empty_as_planned is not None:
        said.append(words("empty_as_planned", time=span(known.minutes_until_empty_as_planned, words)))
    if known.minutes_until_empty_as_spent is None and known.minutes_until_empty_as_planned is None:
        said.append(words("never_empty"))
    st.write("\n".join(f"- {one}" for one in said))
    if known.watches_fit:
        st.success(words("watches_fit"), icon=":material/check_circle:")
    else:
        st.warning(words("watches_do_not_fit"), icon=":material/hourglass_bottom:")


def _tell_spending(known: Tokens, words: Words) -> None:
    if not any(hour.tokens for hour in known.hours) and not known.last_day:
        st.info(words("nothing_spent"), icon=":material/info:")
        return
    left, right = st.columns([3, 2])
    with left:
        st.subheader(words("tokens_per_hour"), anchor=False)
        st.plotly_chart(draw_hours(known.hours, words, session.zone()), config=CONFIG, key="hours")
    with right:
        st.subheader(words("by_operation"), anchor=False)
        st.plotly_chart(draw_operations(known.last_day, words), config=CONFIG, key="operations")
