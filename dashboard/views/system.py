"""How every system is, and what waits for it."""

import pandas as pd
import streamlit as st

from dashboard import session
from dashboard.bodies import HouseStatus, Stats
from dashboard.shown import day, moment, number, plain, span, told
from dashboard.words import Words

_ICONS = {"up": ":material/check_circle:", "down": ":material/error:", "off": ":material/do_not_disturb_on:"}
_COLORS = {"up": "green", "down": "red", "off": "gray"}


def show() -> None:
    """The page."""
    words = session.words()
    st.title(words("systems"))
    with session.told():
        _tell_status(session.client().fetch_status(), words)
    with session.told():
        _tell_rates(session.client().fetch_stats(), words)


def _tell_status(known: HouseStatus, words: Words) -> None:
    down = [one.name for one in known.systems if one.condition == "down"]
    if down:
        st.error(words("some_down", names=plain(", ".join(down))), icon=":material/error:")
    else:
        st.success(words("all_well"), icon=":material/check_circle:")
    for warning in known.warnings:
        st.warning(told(warning), icon=":material/warning:")
    if known.source == "simulator":
        st.caption(words("simulated"))
    for one in known.systems:
        with st.container(border=True):
            color = _COLORS.get(one.condition, "gray")
            condition = words(one.condition) if one.condition in _ICONS else plain(one.condition)
            since = words("since").lower()
            when = moment(one.since, words.language, session.zone())
            st.markdown(f"**{plain(one.name)}** :{color}-badge[{_ICONS.get(one.condition, '')} {condition}] :gray[{since} {plain(when)}]")
            st.markdown(told(one.text))
            if one.last_error:
                st.caption(words("last_error", text=told(one.last_error)))
    _tell_waiting(known, words)


def _tell_waiting(known: HouseStatus, words: Words) -> None:
    language = words.language
    if known.waiting:
        st.subheader(words("waiting"), anchor=False)
        st.dataframe(
            pd.DataFrame(
                [
                    {
                        words("receiver"): one.name if one.is_on else f"{one.name} ({words('off')})",
                        words("messages"): one.messages,
                        words("postponed"): one.postponed,
                        words("oldest"): "–" if one.oldest_seconds is None else span(one.oldest_seconds / 60, words),
                        words("dead_letters"): one.dead_letters,
                    }
                    for one in known.waiting
                ]
            ),
            hide_index=True,
        )
    if known.consumers:
        st.subheader(words("consumers"), anchor=False)
        st.dataframe(
            pd.DataFrame(
                [
                    {
                        words("group"): one.group,
                        words("topic"): one.topic,
                        words("lag"): "–" if one.lag is None else number(one.lag, language),
                        words("problem"): one.problem,
                    }
                    for one in known.consumers
                ]
            ),
            hide_index=True,
        )
    if known.indices:
        st.subheader(words("indices"), anchor=False)
        st.dataframe(
            pd.DataFrame(
                [
                    {
                        words("index"): one.alias,
                        words("documents"): number(one.documents, language),
                        words("rows"): "–" if one.rows is None else number(one.rows, language),
                        words("problem"): one.problem,
                    }
                    for one in known.indices
                ]
            ),
            hide_index=True,
        )


def _tell_rates(stats: Stats, words: Words) -> None:
    if stats.compared_at is not None:
        st.caption(words("compared_at", when=moment(stats.compared_at, words.language, session.zone())))
    if not stats.rates:
        return
    st.subheader(words("rates"), anchor=False)
    st.dataframe(
        pd.DataFrame(
            [
                {
                    words("currency"): one.currency,
                    words("per_euro"): words("unknown") if one.per_euro is None else number(one.per_euro, words.language, 4),
                    words("quoted_on"): day(one.quoted_on, words.language),
                    words("age_days"): "–" if one.age_days is None else str(one.age_days),
                    words("state"): words("stale") if one.is_stale else "✓",
                }
                for one in stats.rates
            ]
        ),
        hide_index=True,
    )
