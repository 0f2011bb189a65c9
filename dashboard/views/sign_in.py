"""Who asks: by an API key, or by none where the API wants none and only this machine can ask."""

import streamlit as st

from dashboard import session
from dashboard.client import KeyRefused


def show() -> None:
    """The form; passed over where no key is needed."""
    words = session.words()
    if st.session_state.pop("keeper.was_refused", False):
        st.error(words("key_refused"), icon=":material/key_off:")
    is_needed = st.session_state.get("keeper.key_needed", False)
    if not is_needed:
        try:
            if session.is_private():
                session.sign_in(None)
                st.rerun()
            session.try_key(None)[0].close()
            st.error(words("keys_needed"), icon=":material/lock:")
            return
        except KeyRefused:
            st.session_state["keeper.key_needed"] = True
    _, middle, _ = st.columns([1, 2, 1])
    with middle:
        st.title("Keeper")
        st.write(words("sign_in_how"))
        with st.form("sign_in", border=False):
            key = st.text_input(words("api_key"), type="password", autocomplete="current-password", placeholder="keeper_…")
            is_sent = st.form_submit_button(words("sign_in"), type="primary")
        if not is_sent:
            return
        if not key:
            st.warning(words("key_missing"))
            return
        try:
            session.sign_in(key.strip())
        except (KeyRefused, UnicodeEncodeError):
            st.error(words("key_refused"), icon=":material/key_off:")
            return
    st.rerun()
