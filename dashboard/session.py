"""What one person's visit holds: their language, their key and what was asked with it. Nothing of it is written anywhere."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import tzinfo
from typing import Any, Final

import streamlit as st

from dashboard import shown
from dashboard.__main__ import API_URL, CA_FILE, is_loopback
from dashboard.bodies import Me
from dashboard.client import KEPT_SECONDS, ApiDown, ApiForeign, ApiRefused, KeeperClient, KeyRefused
from dashboard.shown import plain, zone_of
from dashboard.words import LANGUAGES, Words, language_of

RETRY_SECONDS: Final = 3.0
# Of a proxy, who may pass on what somebody else asks: the API looks for the same ones.
_OF_PROXIES = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip")
# What a visit remembers, by name.
ME: Final = "keeper.me"
_LANGUAGE, _CLIENT, _PAGES = "language", "keeper.client", "keeper.pages"
_DUE, _IS_DOWN = "keeper.due", "keeper.is_down"


def api_url() -> str:
    """Where the API is."""
    return os.environ.get(API_URL) or "http://127.0.0.1:8000"


def begin() -> Words:
    """The words of this visit: at first in the browser's language."""
    if _LANGUAGE not in st.session_state:
        st.session_state[_LANGUAGE] = language_of(st.context.locale)
    return words()


def choose_language() -> None:
    """The choice of another one."""
    st.segmented_control(
        words()("language"),
        list(LANGUAGES),
        format_func=lambda one: LANGUAGES[one],
        key=_LANGUAGE,
        required=True,
        label_visibility="collapsed",
    )


def words() -> Words:
    """The words of this visit's language."""
    return Words(st.session_state.get(_LANGUAGE) or "en")


def zone() -> tzinfo:
    """The browser's time zone."""
    return zone_of(st.context.timezone)


def client() -> KeeperClient:
    """Of the person who is signed in."""
    found: KeeperClient = st.session_state[_CLIENT]
    return found


def me() -> Me | None:
    """Who is signed in; None: nobody."""
    found: Me | None = st.session_state.get(ME)
    return found


def may_write() -> bool:
    """Whether the person's key may change something."""
    known = me()
    return known is not None and known.scope in ("write", "admin")


def sign_in(key: str | None) -> None:
    """Stay in with a key, or none where the API asks for none.

    Raises:
        ApiError: see `dashboard.client`.
    """
    st.session_state[_CLIENT], st.session_state[ME] = try_key(key)


def try_key(key: str | None) -> tuple[KeeperClient, Me]:
    """A client with it, and whose it is.

    Raises:
        ApiError: see `dashboard.client`.
    """
    asked = KeeperClient(api_url(), key, ca_file=os.environ.get(CA_FILE) or None)
    try:
        return asked, asked.fetch_me()
    except BaseException:
        asked.close()
        raise


def sign_out() -> None:
    """Forget the key and all that was asked with it."""
    known: KeeperClient | None = st.session_state.get(_CLIENT)
    language = st.session_state.get(_LANGUAGE)
    st.session_state.clear()
    if language is not None:
        st.session_state[_LANGUAGE] = language
    if known is not None:
        known.close()


def is_private() -> bool:
    """Whether only this machine can have opened the page: it listens here alone, and no proxy passes on what others ask."""
    address = st.get_option("server.address")
    return address is not None and is_loopback(address) and not any(name in st.context.headers for name in _OF_PROXIES)


def keep_pages(pages: Mapping[str, Any]) -> None:
    """Of this run, so that one may lead to another."""
    st.session_state[_PAGES] = dict(pages)


def open_product(asin: str, opportunity_id: int | None = None) -> None:
    """Go to the page of a product."""
    asked = {"asin": asin} | ({"opportunity": str(opportunity_id)} if opportunity_id is not None else {})
    st.switch_page(st.session_state[_PAGES]["product_page"], query_params=asked)


def choose(label: str, options: Mapping[int, str], *, key: str, first: int | None = None) -> int:
    """A choice by id that stays when the words of an option change: Streamlit knows options by their words, and would go back to the first.

    Args:
        first: chosen at the beginning, where it is among the options.
    """
    remembered = f"keeper.chosen {key}"
    known = st.session_state.get(remembered, first)
    wanted = known if known in options else next(iter(options))
    # Another key for other words: the choice is told anew by `index`.
    told_as = f"{key} {hash(tuple(options.values()))}"
    chosen = st.selectbox(label, list(options), index=list(options).index(wanted), format_func=options.__getitem__, key=told_as)
    st.session_state[remembered] = chosen
    return chosen


@contextmanager
def told() -> Iterator[None]:
    """A part of a page: what the API refuses is said in its place, and the other parts stay."""
    try:
        yield
    except KeyRefused:
        raise
    except ApiRefused as error:
        tell(error)


@contextmanager
def guarded() -> Iterator[None]:
    """A whole page: says so where the API is away, and looks again soon."""
    st.session_state[_IS_DOWN] = False
    say = words()
    try:
        yield
    except ApiDown as error:
        st.session_state[_IS_DOWN] = True
        st.error(f"**{say('api_down')}**\n\n{say('api_down_what', why=plain(str(error)))}", icon=":material/cloud_off:")
    except ApiForeign as error:
        st.session_state[_IS_DOWN] = True
        st.error(f"**{say('api_foreign')}**\n\n{plain(str(error))}", icon=":material/warning:")
    except KeyRefused:
        sign_out()
        st.session_state["keeper.was_refused"] = True
        st.rerun()
    except ApiRefused as error:
        tell(error)


def tell(error: ApiRefused) -> None:
    """What the API refused, and what to do."""
    hint = f"\n\n{shown.told(error.hint)}" if error.hint else ""
    st.warning(f"**{plain(error.title or str(error))}**\n\n{shown.told(str(error))}{hint}", icon=":material/error:")


def refresh_by_itself() -> None:
    """Draw the page anew after a minute, or soon where the API was away."""
    seconds = RETRY_SECONDS if st.session_state.get(_IS_DOWN) else KEPT_SECONDS
    st.session_state[_DUE] = time.monotonic() + seconds - 0.5
    st.fragment(_beat, run_every=seconds)()


def _beat() -> None:
    if time.monotonic() >= st.session_state.get(_DUE, 0.0):
        st.rerun()
