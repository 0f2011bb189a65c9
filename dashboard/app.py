"""The script Streamlit runs for each visit: who asks, in which language, which page."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboard import session
from dashboard.shown import plain
from dashboard.views import deals, opportunities, product, sign_in, system, tokens, watches
from dashboard.words import Words

# A file of our own: any other icon the browser would fetch from somebody else.
_ICON = Path(__file__).with_name("icon.svg")
# Less room around, more for what is shown.
_STYLE = """<style>
.stMainBlockContainer { padding: 3.5rem 2.25rem 3rem; }
.stMainBlockContainer h1 { font-size: 2.1rem; padding-top: 0; }
[data-testid="stMetricValue"] { font-size: 1.7rem; }
@media (max-width: 640px) { .stMainBlockContainer { padding: 3.5rem 1rem 2rem; } }
</style>"""
_PAGES: tuple[tuple[str, str, str, Callable[[], None]], ...] = (
    ("opportunities", "", ":material/swap_horiz:", opportunities.show),
    ("product_page", "product", ":material/inventory_2:", product.show),
    ("watches", "watches", ":material/visibility:", watches.show),
    ("deals", "deals", ":material/sell:", deals.show),
    ("tokens", "tokens", ":material/toll:", tokens.show),
    ("systems", "systems", ":material/monitor_heart:", system.show),
)


def main() -> None:
    """Draw one page."""
    st.set_page_config(page_title="Keeper", page_icon=str(_ICON), layout="wide")
    st.html(_STYLE)
    words = session.begin()
    pages = {key: st.Page(show, title=words(key), icon=icon, url_path=path or None, default=not path) for key, path, icon, show in _PAGES}
    is_known = session.me() is not None
    chosen = st.navigation(list(pages.values()), position="sidebar" if is_known else "hidden")
    session.keep_pages(pages)
    with session.guarded():
        if is_known:
            chosen.run()
        else:
            sign_in.show()
    with st.sidebar:
        _foot(words)
    session.refresh_by_itself()


def _foot(words: Words) -> None:
    known = session.me()
    if known is not None:
        st.caption(words("signed_in_as", name=plain(known.name)))
        with st.container(horizontal=True):
            if st.button(words("refresh"), icon=":material/refresh:", help=words("refreshes")):
                session.client().forget()
                st.rerun()
            st.button(words("sign_out"), icon=":material/logout:", on_click=session.sign_out)
    session.choose_language()


main()
