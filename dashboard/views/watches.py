"""What a person watches: all of it with its last 90 days, and ways to add, change, pause and remove."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import session
from dashboard.bodies import Watch
from dashboard.client import ApiRefused, KeyRefused
from dashboard.shown import ALL_STORES, currency_of, cut, interval, moment, money, web_link
from dashboard.words import Words

_ASIN = re.compile(r"[A-Z0-9]{10}")
_KINDS = ("NEW", "BUY_BOX_SHIPPING", "AMAZON", "USED")
_INTERVALS = (15 * 60, 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400)
_DEFAULT_INTERVAL = 6 * 3600
_DEFAULT_HYSTERESIS = 2.0
# Each is a question to the API.
_MOST_SPARKLINES = 40
_SPARK_DAYS = 90
_SPARK_POINTS = 60
_ROW_PIXELS = 48
_MOST_ROWS_SHOWN = 12
_SAID = "keeper.watches.said"


def show() -> None:
    """The page."""
    words = session.words()
    st.title(words("watches"))
    if (said := st.session_state.pop(_SAID, None)) is not None:
        st.success(said, icon=":material/check:")
    with session.told():
        watches = session.client().fetch_watches()
        if watches:
            _draw(watches, words)
        else:
            st.info(words("no_watches"), icon=":material/info:")
        if not session.may_write():
            st.caption(words("read_only"))
            return
        left, right = st.columns(2)
        with left:
            _add(words)
        with right:
            if watches:
                _change(watches, words)


def _draw(watches: Sequence[Watch], words: Words) -> None:
    language, zone = words.language, session.zone()
    table = pd.DataFrame(
        {
            "image": [web_link(one.image_url) or "" for one in watches],
            "store": [one.marketplace for one in watches],
            "price": [one.price for one in watches],
            "target": [one.target for one in watches],
            "to_target": [_to_target(one) for one in watches],
            "title": [one.title or one.asin for one in watches],
            "spark": [_spark(one) if place < _MOST_SPARKLINES else [] for place, one in enumerate(watches)],
            "kind": [one.price_type for one in watches],
            "state": [words("paused" if one.is_paused else "active") for one in watches],
            "interval": [interval(one.interval_seconds, words) for one in watches],
            "next": ["–" if one.is_paused else moment(one.next_check_at, language, zone) for one in watches],
            "failure": [one.last_failure or "" for one in watches],
            "link": [web_link(one.link) for one in watches],
        }
    ).astype({"price": "float64", "target": "float64", "to_target": "float64"})
    styled = table.style.format({"to_target": lambda value: _signed(value, words)}, na_rep="–")
    currencies = [one.currency for one in watches]
    for currency in sorted(set(currencies)):
        rows = [row for row, known in enumerate(currencies) if known == currency]
        styled = styled.format(_of(currency, words), subset=pd.IndexSlice[rows, ["price", "target"]], na_rep="–")
    config = st.column_config
    st.dataframe(
        styled,
        key="watches",
        hide_index=True,
        row_height=_ROW_PIXELS,
        height="content" if len(table) <= _MOST_ROWS_SHOWN else _ROW_PIXELS * _MOST_ROWS_SHOWN,
        placeholder="–",
        column_config={
            "image": config.ImageColumn("", width=56),
            "store": config.TextColumn(words("store"), width=60),
            "price": config.NumberColumn(words("price"), width=80),
            "target": config.NumberColumn(words("target"), width=80),
            "to_target": config.NumberColumn(words("to_target"), width=88),
            "title": config.TextColumn(words("product"), width=240),
            "spark": config.LineChartColumn(words("days_90"), width=140, color="blue"),
            "kind": config.TextColumn(words("price_basis"), width=88),
            "state": config.TextColumn(words("state"), width=76),
            "interval": config.TextColumn(words("interval"), width=92),
            "next": config.TextColumn(words("next_check"), width=136),
            "failure": config.TextColumn(words("last_failure"), width=160),
            "link": config.LinkColumn(words("at_amazon"), display_text=":material/open_in_new:", width=92),
        },
    )
    if len(watches) > _MOST_SPARKLINES:
        st.caption(words("sparklines_cut", count=_MOST_SPARKLINES))


def _to_target(one: Watch) -> float | None:
    """How far the price must fall, percent; 0 where it is low enough."""
    if one.price is None or one.target is None or one.price <= 0:
        return None
    return min(0.0, (one.target - one.price) / one.price * 100)


def _signed(value: float, words: Words) -> str:
    written = f"{abs(value):.1f}".replace(".", "," if words.language == "de" else ".")
    return "✓" if value == 0 else f"−{written} %"


def _of(currency: str, words: Words) -> Any:
    return lambda value: money(value, currency, words.language)


def _spark(one: Watch) -> list[float]:
    """Prices at equal steps of time, so that the line shows how long each held."""
    try:
        known = session.client().fetch_history(one.asin, one.marketplace, one.price_type, days=_SPARK_DAYS, points=_SPARK_POINTS)
    except KeyRefused:
        raise
    except ApiRefused:
        # Not seen yet.
        return []
    return steps(
        [(point.observed_at.timestamp(), point.price) for point in known.points], known.end_at.timestamp() if known.end_at else None
    )


def steps(points: Sequence[tuple[float, float | None]], end: float | None) -> list[float]:
    """A step function at `_SPARK_POINTS` equal steps; where there was no offer, the price before it."""
    priced = [(at, price) for at, price in points if price is not None]
    if not priced:
        return []
    start, end = priced[0][0], max(end or 0.0, priced[-1][0])
    found, place = [], 0
    for step in range(_SPARK_POINTS):
        at = start + (end - start) * step / (_SPARK_POINTS - 1)
        while place + 1 < len(priced) and priced[place + 1][0] <= at:
            place += 1
        found.append(priced[place][1])
    return found


def _add(words: Words) -> None:
    st.subheader(words("add_watch"), anchor=False)
    with st.form("add_watch", clear_on_submit=False):
        asin = st.text_input(words("asin"), placeholder="B07W6JG6Z7", key="new_asin", max_chars=10)
        left, right = st.columns(2)
        store = left.selectbox(words("store"), ALL_STORES, key="new_store")
        kind = right.selectbox(words("kind_of_price"), _KINDS, key="new_kind")
        target = left.number_input(
            words("target"),
            min_value=0.01,
            max_value=10_000_000.0,
            value=None,
            step=1.0,
            format="%.2f",
            help=words("target_help"),
            key="new_target",
        )
        every = right.selectbox(
            words("interval"),
            _INTERVALS,
            index=_INTERVALS.index(_DEFAULT_INTERVAL),
            format_func=lambda one: interval(one, words),
            key="new_interval",
        )
        is_sent = st.form_submit_button(words("add"), type="primary")
    if not is_sent:
        return
    asin = asin.strip().upper()
    if not _ASIN.fullmatch(asin):
        st.warning(words("asin_wrong"), icon=":material/error:")
        return
    with session.told():
        session.client().add_watch(
            asin=asin,
            marketplace=store,
            price_type=kind,
            target=None if target is None else round(target, 2),
            interval_seconds=every,
        )
        _say(words("added", asin=asin))


def _change(watches: Sequence[Watch], words: Words) -> None:
    st.subheader(words("change_watch"), anchor=False)
    by_id = {one.id: one for one in watches}
    chosen = session.choose(words("which_watch"), {one.id: _named(one) for one in watches}, key="which_watch")
    one = by_id[chosen]
    with st.form(f"change {one.id}"):
        left, right = st.columns(2)
        target = left.number_input(
            f"{words('target')}, {currency_of(one.marketplace)}",
            min_value=0.01,
            max_value=10_000_000.0,
            value=one.target,
            step=1.0,
            format="%.2f",
            help=words("target_help"),
            key=f"target {one.id} {one.target}",
        )
        choices = sorted({*_INTERVALS, one.interval_seconds})
        every = right.selectbox(
            words("interval"),
            choices,
            index=choices.index(one.interval_seconds),
            format_func=lambda some: interval(some, words),
            key=f"interval {one.id} {one.interval_seconds}",
        )
        hysteresis = left.number_input(
            words("hysteresis"),
            min_value=0.0,
            max_value=100.0,
            value=one.hysteresis_pct,
            step=0.5,
            key=f"hysteresis {one.id} {one.hysteresis_pct}",
        )
        if st.form_submit_button(words("save"), type="primary"):
            _save(one, target, every, hysteresis, words)
    with st.container(horizontal=True):
        if st.button(words("resume" if one.is_paused else "pause"), icon=":material/play_arrow:" if one.is_paused else ":material/pause:"):
            with session.told():
                session.client().change_watch(one.id, is_paused=not one.is_paused)
                _say(words("saved"))
        with st.popover(words("remove"), icon=":material/delete:"):
            if st.button(words("remove_sure", asin=one.asin, store=one.marketplace), type="primary"):
                with session.told():
                    session.client().remove_watch(one.id)
                    _say(words("removed"))


def _named(one: Watch) -> str:
    return f"{one.marketplace} · {cut(one.title or one.asin, 60)} · {one.price_type}"


def _save(one: Watch, target: float | None, every: int, hysteresis: float, words: Words) -> None:
    wanted = None if target is None else round(target, 2)
    changed: dict[str, Any] = {}
    if wanted != one.target:
        changed["target"] = wanted
    if every != one.interval_seconds:
        changed["interval_seconds"] = every
    if hysteresis != one.hysteresis_pct:
        changed["hysteresis_pct"] = hysteresis
    with session.told():
        if changed:
            session.client().change_watch(one.id, **changed)
        _say(words("saved"))


def _say(text: str) -> None:
    """After the page was drawn anew with what changed."""
    st.session_state[_SAID] = text
    st.rerun()
