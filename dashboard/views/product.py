"""One product: its prices in all stores, what a trade leaves and why, how its price moved."""

import re
from collections.abc import Sequence

import pandas as pd
import streamlit as st

from dashboard import session
from dashboard.bodies import Explanation, Opportunity, ProductInStore, ProductPage
from dashboard.charts import CONFIG, Line, convert, draw_history, draw_waterfall
from dashboard.client import ApiRefused, KeyRefused
from dashboard.shown import ALL_STORES, STORES, cut, day, forecast_line, minor, moment, number, percent, plain, web_link
from dashboard.views.opportunities import notes_of
from dashboard.words import Words

_ASIN = re.compile(r"[A-Z0-9]{10}")
_KINDS = ("NEW", "BUY_BOX_SHIPPING", "NEW_FBA", "AMAZON", "USED")
_DAYS = 365
_POINTS = 600
# Nobody has looked at the product in that store.
_NOT_FOUND = 404
_TITLE_LENGTH = 160
_PICTURE_PIXELS = 160


def show() -> None:
    """The page."""
    words = session.words()
    st.title(words("product_page"))
    asin = _choose(words)
    if asin is None:
        return
    with session.told():
        page = session.client().fetch_product(asin)
        _tell_product(page, words)
        _tell_trade(page, words)
        _tell_history(page, words)


def _choose(words: Words) -> str | None:
    """The ASIN in the address or the one that is typed; words are looked for."""
    asked = st.query_params.get("asin", "").strip().upper()
    known = asked if _ASIN.fullmatch(asked) else None
    typed = st.text_input(words("asin_or_words"), placeholder=words("asin_hint"), key="asin_or_words").strip()
    if not typed:
        if known is None:
            st.info(words("no_product_chosen"), icon=":material/info:")
        return known
    if _ASIN.fullmatch(typed.upper()) and any(sign.isdigit() for sign in typed):
        _remember(typed.upper())
        return typed.upper()
    return _search(typed, words) or known


def _search(typed: str, words: Words) -> str | None:
    for store in STORES:
        found = {one.asin: one for one in session.client().search_products(typed[:200], store).products}
        if not found:
            continue
        chosen = st.selectbox(
            words("found"),
            list(found),
            index=None,
            format_func={asin: f"{asin} · {cut(one.title or '', 90)}" for asin, one in found.items()}.__getitem__,
            key=f"found {typed}",
        )
        if chosen is not None:
            _remember(chosen)
        return chosen
    st.info(words("nothing_found", text=plain(typed)), icon=":material/search_off:")
    return None


def _remember(asin: str) -> None:
    if st.query_params.get("asin") != asin:
        st.query_params.from_dict({"asin": asin})


def _tell_product(page: ProductPage, words: Words) -> None:
    image = web_link(page.image_url)
    left, right = st.columns([1, 5] if image is not None else [1, 1000])
    with left:
        if image is not None:
            st.image(image, width=_PICTURE_PIXELS, alt=page.title or page.asin)
    with right, st.container():
        st.subheader(plain(cut(page.title or words("no_title"), _TITLE_LENGTH)), anchor=False)
        facts = [page.asin, page.brand, page.category]
        st.caption(" · ".join(plain(one) for one in facts if one))
        with st.container(horizontal=True, gap="small", key="shops"):
            for store, seen in _in_order(page):
                if (link := web_link(seen.link)) is not None:
                    price = minor(seen.price, seen.currency, words.language)
                    st.link_button(f"Amazon {store} · {plain(price)}", link, icon=":material/open_in_new:")
    st.subheader(words("prices_in_stores"), anchor=False)
    if not page.markets:
        st.info(words("no_prices"), icon=":material/info:")
        return
    st.dataframe(
        _table_of(page, words), hide_index=True, width="stretch", column_config={words("store"): st.column_config.TextColumn(pinned=True)}
    )


def _in_order(page: ProductPage) -> list[tuple[str, ProductInStore]]:
    """Stores as people list them; any other last."""
    order = {store: place for place, store in enumerate(ALL_STORES)}
    return sorted(page.markets.items(), key=lambda one: (order.get(one[0], len(order)), one[0]))


def _table_of(page: ProductPage, words: Words) -> pd.DataFrame:
    language, zone = words.language, session.zone()

    def said(value: bool | None) -> str:
        return "–" if value is None else words("yes" if value else "no")

    def counted(value: int | None) -> str:
        return "–" if value is None else number(value, language)

    rows = [
        {
            words("store"): store,
            words("price"): minor(seen.price, seen.currency, language),
            words("price_basis"): seen.price_type or "–",
            words("checked"): moment(seen.checked_at, language, zone),
            words("lowest_year"): minor(seen.lowest_year_minor, seen.currency, language),
            words("rank"): counted(seen.sales_rank),
            words("monthly_sold"): counted(seen.monthly_sold),
            words("rating"): "–" if seen.rating is None else number(seen.rating, language, 1),
            words("reviews"): counted(seen.review_count),
            words("sellers"): counted(seen.offer_count),
            words("amazon_in_box"): said(seen.buy_box_is_amazon),
            words("hazardous"): said(seen.is_hazardous),
            words("heat_sensitive"): said(seen.is_heat_sensitive),
            words("return_rate"): "–" if seen.return_rate is None else str(seen.return_rate),
        }
        for store, seen in _in_order(page)
    ]
    table = pd.DataFrame(rows)
    told = [column for column in table if len(table) == 0 or not (table[column] == "–").all()]
    return table[told]


def _tell_trade(page: ProductPage, words: Words) -> None:
    st.subheader(words("what_is_left"), anchor=False)
    by_id = {one.id: one for one in page.opportunities or ([page.best_opportunity] if page.best_opportunity else [])}
    if not by_id:
        st.info(words("no_opportunity_here"), icon=":material/info:")
        return
    asked = st.query_params.get("opportunity", "")
    first = int(asked) if asked.isdecimal() else None
    trades = {one.id: _trade_name(one, words) for one in by_id.values()}
    chosen = session.choose(words("trade"), trades, key=f"trade {page.asin} {asked}", first=first)
    with session.told():
        _tell_explanation(session.client().explain(chosen), words)


def _trade_name(one: Opportunity, words: Words) -> str:
    profit = words("unknown") if one.profit_minor is None else minor(one.profit_minor, "EUR", words.language)
    return f"{one.source_market} → {one.target_market} · {words('profit')} {profit}"


def _tell_explanation(known: Explanation, words: Words) -> None:
    one, language = known.opportunity, words.language
    with st.container(horizontal=True, key="trade_figures"):
        st.metric(words("buy_price"), minor(one.source_price, one.source_currency, language), border=True, width=171)
        st.metric(words("sell_price"), minor(one.target_price, one.target_currency, language), border=True, width=171)
        st.metric(words("profit"), minor(known.profit_minor, "EUR", language), border=True, width=171)
        st.metric(words("roi"), percent(one.roi_pct, language), border=True, width=171)
        st.metric(words("profit_margin"), percent(one.profit_margin_pct, language), border=True, width=171)
        st.metric(words("margin_pct"), percent(one.margin_percentage, language), border=True, width=171)
        break_even = known.highest_purchase.break_even
        st.metric(words("break_even"), minor(break_even, one.source_currency, language), border=True, width=310)
        wanted = known.highest_purchase.wanted_roi
        st.metric(words("for_wanted_roi"), minor(wanted, one.source_currency, language), border=True, width=310)
    missing = [words.name(part.name) for part in known.parts if part.amount_minor is None]
    if missing:
        st.warning(words("profit_unknown", parts=", ".join(missing)), icon=":material/help:")
    notes = notes_of(one, words)
    if notes:
        st.caption(f"{words('notes')}: " + plain(", ".join(notes)))
    st.plotly_chart(draw_waterfall(known.parts, known.profit_minor, words), config=CONFIG, key=f"waterfall {one.id}")
    if known.naive_profit_minor is not None:
        st.caption(words("naive", profit=plain(minor(known.naive_profit_minor, "EUR", language))))
    with st.expander(words("reckoning")):
        st.dataframe(_parts_of(known, words), hide_index=True, width="stretch")


def _parts_of(known: Explanation, words: Words) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                words("part"): words.name(part.name),
                words("amount_eur"): part.why_unknown or words("unknown")
                if part.amount_minor is None
                else minor(part.amount_minor, "EUR", words.language),
                words("stands_on"): "; ".join(
                    " · ".join(one for one in (row.table, row.key, row.valid_from, row.source) if one) for row in part.rows
                ),
            }
            for part in known.parts
        ]
    )


def _tell_history(page: ProductPage, words: Words) -> None:
    st.subheader(words("price_history"), anchor=False)
    stores = [store for store, _ in _in_order(page)]
    with st.container(horizontal=True, key="history_choice"):
        chosen = st.pills(words("stores"), stores, selection_mode="multi", default=stores[:5], key=f"stores {page.asin}")
        kind = st.selectbox(words("kind_of_price"), _KINDS, key="kind_of_price", width=220)
    lines, remarks = _lines(page.asin, list(chosen), kind, words)
    if lines:
        figure = draw_history(lines, words, session.zone(), is_dark=st.context.theme.type == "dark")
        st.plotly_chart(figure, config=CONFIG, key=f"history {page.asin}")
    else:
        st.info(words("no_history"), icon=":material/info:")
    if remarks:
        st.caption(" ".join(remarks))
    if lines:
        _tell_forecast(page.asin, [line.store for line in lines], kind, words)


def _tell_forecast(asin: str, stores: Sequence[str], kind: str, words: Words) -> None:
    """Of the store where the person waits for a price, or the first; its absence leaves the page as it is."""
    targets = {
        one.marketplace: one.target
        for one in session.client().fetch_watches()
        if one.asin == asin and one.price_type == kind and one.target is not None
    }
    store = next((store for store in stores if store in targets), stores[0])
    try:
        known = session.client().fetch_forecast(asin, store, kind, target=targets.get(store))
    except KeyRefused:
        raise
    except ApiRefused as error:
        if error.status != _NOT_FOUND:
            session.tell(error)
        return
    if known.horizons:
        st.caption(forecast_line(known, words))


def _lines(asin: str, stores: Sequence[str], kind: str, words: Words) -> tuple[list[Line], list[str]]:
    lines: list[Line] = []
    remarks: list[str] = []
    for store in stores:
        try:
            known = session.client().fetch_history(asin, store, kind, days=_DAYS, points=_POINTS)
        except KeyRefused:
            raise
        except ApiRefused as error:
            if error.status != _NOT_FOUND:
                session.tell(error)
            continue
        if not known.points:
            continue
        rates = {rate.currency: rate for rate in session.client().fetch_stats().rates} if known.currency != "EUR" else {}
        per_euro = {name: rate.per_euro for name, rate in rates.items() if rate.per_euro}
        prices = convert([point.price for point in known.points], known.currency, per_euro)
        if prices is None:
            remarks.append(words("no_rate", store=store, currency=known.currency))
            continue
        if (rate := rates.get(known.currency)) is not None:
            told = {"when": day(rate.quoted_on, words.language), "rate": number(rate.per_euro or 0, words.language, 4)}
            remarks.append(words("converted", currency=known.currency, **told))
        lines.append(Line(store, [point.observed_at for point in known.points], prices, known.end_at))
    return lines, remarks
