"""What the pages say and ask, without a browser: their scripts run in this process, on the real API."""

import re
from collections.abc import Callable, Iterator

import pytest
from streamlit.testing.v1 import AppTest

from api.app import create_app
from dashboard import session
from dashboard.client import KeeperClient
from deployments.stack import ROOT
from tests.integration.dashboard.conftest import KEYBOARDS, House
from tests.services.api import serve

pytestmark = pytest.mark.xdist_group("dashboard")

Draw = Callable[..., AppTest]


def _script(view: str) -> None:
    # Its text is a script of its own.
    from importlib import import_module

    from dashboard import session

    with session.guarded():
        import_module(f"dashboard.views.{view}").show()


@pytest.fixture
def draw(house: House) -> Iterator[Draw]:
    """A function that draws a page for somebody who is signed in."""
    opened: list[KeeperClient] = []

    def run(view: str, *, language: str = "en", key: str | None = None, **asked: str) -> AppTest:
        client = KeeperClient(house.url, key or house.key)
        opened.append(client)
        page = AppTest.from_function(_script, default_timeout=30, args=(view,))
        page.session_state["language"] = language
        page.session_state["keeper.client"] = client
        page.session_state["keeper.me"] = client.fetch_me()
        for name, value in asked.items():
            page.query_params[name] = value
        drawn = page.run()
        assert not drawn.exception
        return drawn

    yield run
    for client in opened:
        client.close()


def said(page: AppTest) -> str:
    """All that stands on a page, tables aside."""
    kinds = (page.title, page.subheader, page.markdown, page.caption, page.info, page.warning, page.error, page.success)
    return "\n".join(str(one.value) for kind in kinds for one in kind)


def test_figures_stand_in_the_form_of_the_language(draw: Draw) -> None:
    assert [one.value for one in draw("opportunities", language="de").metric] == ["4", "5", "5", "20,04 €", "66,65 %"]


def test_chosen_stores_order_and_limit_are_asked_for(draw: Draw, house: House) -> None:
    page = draw("opportunities")
    page.button_group(key="source").select("FR")
    page.selectbox(key="sort").select("roi")
    page.selectbox(key="limit").select(25)
    page.run()

    assert house.overheard.asked[-1] == {"min_margin": ["10"], "source": ["FR"], "sort": ["roi"], "limit": ["25"]}
    assert len(page.dataframe[0].value) == 1


def test_doubtful_matches_are_shown_when_asked_for_and_say_why(draw: Draw) -> None:
    page = draw("opportunities")
    page.toggle(key="doubtful").set_value(True).run()

    assert ["1 and 2 pieces"] in [list(notes) for notes in page.dataframe[0].value["notes"]]


def test_unknown_profit_is_no_number(draw: Draw) -> None:
    table = draw("opportunities").dataframe[0].value

    assert list(table["profit"].isna()) == [False, False, False, True]
    assert list(table["notes"][3]) == ["stale", "missing: FBA fee", "missing: Customs duty"]


def test_age_is_that_of_the_older_price_at_the_comparison(draw: Draw) -> None:
    ages = list(draw("opportunities").dataframe[0].value["age"])

    assert [round(age, 2) for age in ages] == [1, 0, 3, 2]


def test_what_was_asked_is_kept_for_a_minute(draw: Draw, house: House) -> None:
    page = draw("opportunities")
    before = len(house.overheard.asked)
    page.run()

    assert len(house.overheard.asked) == before


def test_product_without_a_known_fee_names_what_is_missing(draw: Draw, house: House) -> None:
    page = draw("product", asin=KEYBOARDS[2], opportunity=str(house.opportunities[2]))

    assert "The profit is unknown because a part is missing: " in said(page)


def test_product_that_is_not_known_is_told_with_what_to_do(draw: Draw) -> None:
    page = draw("product", asin="B000000000")

    assert "B000000000 is not known in any store" in said(page)
    assert "watch it" in said(page)


@pytest.mark.parametrize("asin", ["", "../../status", "<script>", "B07W6JG6Z7/history"])
def test_address_that_names_no_asin_asks_for_one(draw: Draw, asin: str) -> None:
    assert "Enter an ASIN or a few words" in said(draw("product", asin=asin))


def test_words_find_a_product(draw: Draw) -> None:
    page = draw("product")
    page.text_input(key="asin_or_words").set_value("cherry stream").run()
    assert KEYBOARDS[1] in page.selectbox[0].options[0]

    page.selectbox[0].select_index(0).run()

    assert page.query_params["asin"] == KEYBOARDS[1]
    assert "Prices in all stores" in said(page)


def test_store_without_a_history_is_no_fault(draw: Draw) -> None:
    page = draw("product", asin=KEYBOARDS[1])

    assert "No such product" not in said(page)
    assert "Price history" in said(page)


def test_forecast_stands_under_the_history_or_why_there_is_none(draw: Draw) -> None:
    assert re.search(r"DE in 7 days(\\:| between) ", said(draw("product", asin=KEYBOARDS[0])))
    assert re.search(r"DE in 7 Tagen(\\:| zwischen) ", said(draw("product", asin=KEYBOARDS[0], language="de")))


def test_title_of_somebody_else_is_no_markup(draw: Draw) -> None:
    page = draw("product", asin=KEYBOARDS[2])

    assert r"\*Trust\* Taro \[Tastatur\] \$5" in said(page)


def test_watch_that_is_there_already_is_told_in_the_words_of_the_api(draw: Draw) -> None:
    page = draw("watches")
    page.text_input(key="new_asin").set_value(KEYBOARDS[0])
    page.button[0].click().run()

    assert "This price is watched already" in said(page)


def test_asin_that_cannot_be_one_is_told_before_it_is_sent(draw: Draw) -> None:
    page = draw("watches", language="de")
    page.text_input(key="new_asin").set_value("B07!")
    page.button[0].click().run()

    assert "Eine ASIN hat zehn Zeichen" in said(page)


def test_key_that_only_reads_is_offered_no_change(draw: Draw, house: House) -> None:
    page = draw("watches", key=house.reading_key)

    assert "This key may only read." in said(page)
    assert len(page.button) == 0


def test_chosen_watch_stays_chosen_when_others_come_and_words_change(draw: Draw, house: House) -> None:
    page = draw("watches")
    chosen = next(one for one in page.selectbox if one.label == "Which one")
    chosen.select_index(2).run()
    added = house.ask("POST", "/api/v1/watches", json={"asin": "B0C26KBXQP"})
    page.session_state["keeper.client"].forget()
    page.run()

    assert next(one for one in page.selectbox if one.label == "Which one").value == 3
    house.ask("DELETE", f"/api/v1/watches/{added['id']}")


def test_watches_have_their_last_ninety_days_beside_them(draw: Draw) -> None:
    table = draw("watches").dataframe[0].value

    assert {len(line) for line in table["spark"]} == {60}
    assert table["to_target"][1] == 0


def test_deals_are_searched_and_filtered(draw: Draw) -> None:
    page = draw("deals")
    assert len(page.dataframe[0].value) == 4

    page.number_input(key="deal_to").set_value(55.0).run()
    assert list(page.dataframe[0].value["price"]) == [39.99, 49.99]

    page.text_input(key="deal_words").set_value("nothing like that").run()
    assert "No deal fits." in said(page)


def test_deal_says_what_is_to_be_known_of_it(draw: Draw) -> None:
    assert [list(one) for one in draw("deals").dataframe[0].value["notes"]] == [["low of a year"], ["list price is a fiction"], [], []]


def test_tokens_tell_balance_and_forecast(draw: Draw) -> None:
    page = draw("tokens")

    assert [one.label for one in page.metric] == ["Balance", "At most", "Refill a minute", "Last hour", "Last day", "Watches need"]
    assert "The refill carries all watches." in said(page)


def test_system_that_is_off_is_not_called_down(draw: Draw) -> None:
    page = draw("system")

    assert "Everything is up." in said(page)
    assert "gray-badge" in said(page)


@pytest.mark.parametrize(("is_private", "told"), [(True, ""), (False, "these pages can be reached from other machines")])
def test_without_keys_only_this_machine_comes_in(house: House, monkeypatch: pytest.MonkeyPatch, is_private: bool, told: str) -> None:
    without = house.settings.model_copy(update={"api": house.settings.api.model_copy(update={"auth": "off"})})
    monkeypatch.setattr(session, "is_private", lambda: is_private)
    with serve(create_app(without)) as url:
        monkeypatch.setenv("KEEPER_DASHBOARD_API_URL", url)
        page = AppTest.from_file(ROOT / "dashboard" / "app.py", default_timeout=30).run()
        if is_private:
            page.session_state["keeper.client"].close()

    assert not page.exception
    assert (session.ME in page.session_state) is is_private
    assert told in said(page)


def test_api_that_is_down_is_told_without_a_trace(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    page = draw("tokens")
    page.session_state["keeper.client"] = KeeperClient("http://127.0.0.1:9", "keeper_x")
    page.run()

    assert not page.exception
    assert "The API does not answer" in said(page)


def test_key_that_is_revoked_meanwhile_leads_back_to_the_sign_in(draw: Draw, house: House) -> None:
    page = draw("tokens")
    page.session_state["keeper.client"] = KeeperClient(house.url, "keeper_revoked")
    page.run()

    assert "keeper.client" not in page.session_state or page.session_state["keeper.client"] is None
