"""The dashboard in a real browser. Screenshots of each page, wide and narrow, are kept in `.keeper/test-artifacts/` to look at."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from tests.integration.dashboard.conftest import KEYBOARDS, Dashboard, House

pytestmark = pytest.mark.xdist_group("dashboard")

ARTIFACTS = Path(__file__).parents[3] / ".keeper" / "test-artifacts"
FORMS = {"wide": (1400, 1000), "narrow": (390, 844)}
_WAIT = 20_000
_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 192 192" width="192" height="192"><rect width="192" height="192" fill="#fff"/>'
    '<rect x="8" y="60" width="176" height="76" rx="8" fill="#444"/></svg>'
)
PAGES = {
    "opportunities": ("", "Opportunities"),
    "product": (f"product?asin={KEYBOARDS[0]}", "Product"),
    "watches": ("watches", "Watches"),
    "deals": ("deals", "Deals"),
    "tokens": ("tokens", "Tokens"),
    "systems": ("systems", "Systems"),
}


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, dashboard: Dashboard, house: House) -> Iterator[Open]:
    """A function that opens a page and signs in. Nothing but the dashboard and pictures is asked for by any of them."""
    contexts: list[BrowserContext] = []
    strangers: list[str] = []

    def answer(route: Route) -> None:
        if route.request.url.startswith("https://m.media-amazon.com/"):
            route.fulfill(content_type="image/svg+xml", body=_PICTURE)
        else:
            strangers.append(route.request.url)
            route.abort()

    def open_page(path: str = "", *, form: str = "wide", locale: str = "en-GB", key: str | None = None, signs_in: bool = True) -> Page:
        width, height = FORMS[form]
        context = browser.new_context(viewport={"width": width, "height": height}, locale=locale, timezone_id="Europe/Berlin")
        contexts.append(context)
        context.set_default_timeout(_WAIT)
        page = context.new_page()
        page.route(lambda url: not url.startswith((dashboard.url, "data:", "blob:")), answer)
        page.goto(f"{dashboard.url}/{path}")
        if signs_in:
            sign_in(page, house.key if key is None else key)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert strangers == []


def sign_in(page: Page, key: str) -> None:
    field = page.locator("input[type=password]")
    field.fill(key)
    field.press("Enter")
    expect(field).to_have_count(0, timeout=_WAIT)


def settle(page: Page) -> None:
    """Until the page is drawn whole."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=_WAIT)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=_WAIT)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_drawn_without_a_fault_and_not_wider_than_its_window(visit: Open, name: str, form: str) -> None:
    path, title = PAGES[name]
    page = visit(path, form=form)

    expect(page.get_by_role("heading", name=title, exact=True).first).to_be_visible(timeout=_WAIT)
    settle(page)
    shoot(page, f"dashboard-{name}-{form}")
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= FORMS[form][0]


def shoot(page: Page, name: str) -> None:
    """The whole page: Streamlit scrolls inside it, so the window is made as high as what it holds."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    assert size is not None
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(height))})
    page.wait_for_timeout(700)
    (ARTIFACTS / f"{name}.png").write_bytes(page.screenshot())
    page.set_viewport_size(size)


def test_sign_in_with_a_wrong_key_says_so_and_stays(visit: Open) -> None:
    page = visit(signs_in=False)
    field = page.locator("input[type=password]")
    field.fill("keeper_wrong")
    field.press("Enter")

    expect(page.get_by_text("The API does not know this key")).to_be_visible()
    expect(field).to_be_visible()


def test_key_is_in_no_address_and_no_log(visit: Open, dashboard: Dashboard, house: House) -> None:
    page = visit("tokens")
    expect(page.get_by_role("heading", name="Tokens", exact=True)).to_be_visible()

    assert house.key not in page.url
    assert house.key not in dashboard.log.read_text()
    assert page.evaluate("JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage}) + document.cookie").find(house.key) == -1


def test_signing_out_forgets_the_key(visit: Open) -> None:
    page = visit()
    page.get_by_role("button", name="Sign out").click()

    expect(page.locator("input[type=password]")).to_be_visible()


def test_german_for_who_reads_german_and_english_at_a_click(visit: Open) -> None:
    page = visit(locale="de-DE")
    expect(page.get_by_role("heading", name="Gelegenheiten", exact=True)).to_be_visible()

    page.get_by_role("radio", name="English").click()

    expect(page.get_by_role("heading", name="Opportunities", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Watches")).to_be_visible()


def test_slider_asks_for_the_margin_it_shows(visit: Open, house: House) -> None:
    page = visit()
    expect(page.get_by_text("4 of 4 shown.")).to_be_visible()
    house.arbitrage.asked.clear()
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(48):
        slider.press("ArrowRight")

    expect(page.get_by_text("2 of 2 shown.")).to_be_visible()
    assert house.arbitrage.asked[-1]["min_margin"] == 58


def test_filters_of_stores_are_asked_for(visit: Open, house: House) -> None:
    page = visit()
    buy = page.get_by_role("group", name="Buy in").or_(page.locator("[data-testid=stButtonGroup]").first)
    buy.get_by_text("FR", exact=True).first.click()

    expect(page.get_by_text("1 of 1 shown.")).to_be_visible()
    assert house.arbitrage.asked[-1]["source"] == ["FR"]


def test_margin_that_nothing_has_is_told_in_words(visit: Open) -> None:
    page = visit()
    slider = page.get_by_role("slider")
    slider.press("End")

    expect(page.get_by_text("No opportunity with this margin")).to_be_visible()
    settle(page)
    shoot(page, "dashboard-opportunities-empty-wide")


def test_row_of_the_table_opens_its_product_with_links_to_every_shop(visit: Open) -> None:
    page = visit()
    settle(page)
    table = page.get_by_test_id("stDataFrame").locator("canvas").first
    table.click(position={"x": 16, "y": 36 + 24})

    expect(page).to_have_url(re.compile(rf"/product\?asin={KEYBOARDS[0]}&opportunity=0$"))
    for host in ("de", "it", "es", "fr", "co.uk"):
        expect(page.locator(f'a[href="https://www.amazon.{host}/dp/{KEYBOARDS[0]}"]')).to_be_visible()
    expect(page.get_by_text("Digital fee, selling").first).to_be_visible()


def test_product_without_a_known_fee_names_what_is_missing(visit: Open) -> None:
    page = visit(f"product?asin={KEYBOARDS[2]}&opportunity=2")

    expect(page.get_by_text("The profit is unknown because a part is missing: FBA fee")).to_be_visible()
    settle(page)
    shoot(page, "dashboard-product-unknown-wide")


def test_product_that_is_not_known_is_told_and_not_thrown(visit: Open) -> None:
    page = visit("product?asin=B000000000")

    expect(page.get_by_text("there is no product B000000000")).to_be_visible()
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_words_find_a_product(visit: Open) -> None:
    page = visit("product")
    page.get_by_label("ASIN or words").fill("cherry stream")
    page.get_by_label("ASIN or words").press("Enter")
    page.get_by_role("combobox", name="Found").click()
    page.get_by_role("option", name=re.compile(KEYBOARDS[1])).click()

    expect(page).to_have_url(re.compile(rf"asin={KEYBOARDS[1]}"))
    expect(page.get_by_role("heading", name="Prices in all stores")).to_be_visible()


def test_download_is_the_table_as_csv_without_a_formula(visit: Open) -> None:
    page = visit()
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download as CSV").click()

    rows = list(csv.DictReader(io.StringIO(downloading.value.path().read_text("utf-8-sig"))))
    assert [row["source_market"] for row in rows] == ["DE", "FR", "UK", "DE"]
    assert (rows[0]["profit_eur"], rows[2]["profit_eur"]) == ("10.54", "")
    assert rows[2]["title"].startswith("'=HYPERLINK")


def test_watch_is_added_changed_paused_and_removed(visit: Open, house: House) -> None:
    page = visit("watches")
    page.get_by_label("ASIN").fill(KEYBOARDS[3].lower())
    page.get_by_label("Target", exact=True).first.fill("29.90")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text(f"{KEYBOARDS[3]} is watched.")).to_be_visible()
    [added] = house.ask("GET", f"/api/v1/watches?asin={KEYBOARDS[3]}")["watches"]
    assert (added["target"], added["interval_seconds"]) == (29.9, 6 * 3600)

    page.get_by_role("combobox", name="Which one").click()
    page.get_by_role("option", name=re.compile("Dell")).click()
    target = page.get_by_label("Target, EUR")
    expect(target).to_have_value("29.90")
    target.fill("31.50")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert house.ask("GET", f"/api/v1/watches/{added['id']}")["target"] == 31.5

    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert house.ask("GET", f"/api/v1/watches/{added['id']}")["is_paused"]

    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Really remove").click()
    expect(page.get_by_text("Removed.")).to_be_visible()
    assert house.ask("GET", f"/api/v1/watches?asin={KEYBOARDS[3]}&state=all")["watches"] == []


def test_watch_that_is_there_already_is_told_in_the_words_of_the_api(visit: Open) -> None:
    page = visit("watches")
    page.get_by_label("ASIN").fill(KEYBOARDS[0])
    page.get_by_role("button", name="Add", exact=True).click()

    expect(page.get_by_text("This price is watched already")).to_be_visible()


def test_key_that_only_reads_is_offered_no_change(visit: Open, house: House) -> None:
    page = visit("watches", key=house.reading_key)

    expect(page.get_by_text("This key may only read.")).to_be_visible()
    expect(page.get_by_role("button", name="Add", exact=True)).to_have_count(0)


def test_deals_are_searched_and_filtered(visit: Open) -> None:
    page = visit("deals")
    expect(page.get_by_text("4 of 4 shown.")).to_be_visible()

    page.get_by_label("Price to").fill("55")
    page.get_by_label("Price to").press("Enter")
    expect(page.get_by_text("2 of 2 shown.")).to_be_visible()

    page.get_by_label("Words").fill("nothing like that")
    page.get_by_label("Words").press("Enter")
    expect(page.get_by_text("No deal fits.")).to_be_visible()


def test_api_that_goes_down_is_told_and_the_page_recovers_by_itself(visit: Open, house: House) -> None:
    page = visit("systems")
    expect(page.get_by_text("Everything is up.")).to_be_visible()
    house.switch_off()
    try:
        page.get_by_role("button", name="Refresh now").click()
        expect(page.get_by_text("The API does not answer")).to_be_visible()
        expect(page.get_by_text(f"nothing answers at {house.url}")).to_be_visible()
        settle(page)
        shoot(page, "dashboard-api-down-wide")
        expect(page.get_by_test_id("stException")).to_have_count(0)
    finally:
        house.switch_on()

    expect(page.get_by_text("Everything is up.")).to_be_visible()
    expect(page.get_by_text("The API does not answer")).to_have_count(0)


def test_sign_in_waits_for_an_api_that_is_down(visit: Open, house: House) -> None:
    house.switch_off()
    try:
        page = visit(signs_in=False)
        expect(page.get_by_text("The API does not answer")).to_be_visible()
    finally:
        house.switch_on()

    expect(page.locator("input[type=password]")).to_be_visible()


def test_process_says_nothing_of_faults(dashboard: Dashboard) -> None:
    """The last one here: after all pages were drawn and the API was away."""
    said = dashboard.log.read_text()

    assert "Traceback" not in said
    assert "deprecat" not in said.lower()
