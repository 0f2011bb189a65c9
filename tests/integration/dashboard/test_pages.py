"""The dashboard in a real browser. Screenshots of each page, wide and narrow, are kept in `.keeper/test-artifacts/` to look at."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

from tests.integration.dashboard.conftest import KEYBOARDS, Dashboard, House

pytestmark = pytest.mark.xdist_group("dashboard")

ARTIFACTS = Path(__file__).parents[3] / ".keeper" / "test-artifacts"
FORMS = {"wide": (1400, 1000), "narrow": (390, 844)}
PAGES = {
    "product": ("Product", "Price history"),
    "watches": ("Watches", "Change a watch"),
    "deals": ("Deals", "4 of 4 shown."),
    "tokens": ("Tokens", "By operation, last day"),
    "systems": ("Systems", "Exchange rates"),
    "opportunities": ("Opportunities", "4 of 4 shown."),
}
_WAIT = 20_000
_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 192 192" width="192" height="192"><rect width="192" height="192" fill="#fff"/>'
    '<rect x="8" y="60" width="176" height="76" rx="8" fill="#444"/></svg>'
)

_FRAMES_LATER = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => done(true), 300))))"
# What reaches out of the window; tables scroll.
_CUT = """
[...document.querySelectorAll('[data-testid=stMain] *')]
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('[data-testid=stDataFrame]'))
  .map(one => one.outerHTML.slice(0, 200))
"""

expect.set_options(timeout=_WAIT)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def visit(browser: Browser, dashboard: Dashboard) -> Iterator[Open]:
    """A function that opens a page in a window of its own. No page asks anybody but the dashboard, and Amazon for pictures."""
    strangers: list[str] = []

    def answer(route: Route) -> None:
        if route.request.url.startswith("https://m.media-amazon.com/"):
            route.fulfill(content_type="image/svg+xml", body=_PICTURE)
        else:
            strangers.append(route.request.url)
            route.abort()

    with ExitStack() as stack:

        def open_page(path: str = "", *, form: str = "wide", locale: str = "en-GB") -> Page:
            width, height = FORMS[form]
            context = browser.new_context(viewport={"width": width, "height": height}, locale=locale, timezone_id="Europe/Berlin")
            stack.callback(context.close)
            context.set_default_timeout(_WAIT)
            page = context.new_page()
            page.route(lambda url: not url.startswith((dashboard.url, "data:", "blob:")), answer)
            page.goto(f"{dashboard.url}/{path}")
            return page

        yield open_page
    assert strangers == []


@pytest.fixture(scope="module")
def windows(visit: Open, house: House) -> dict[str, Page]:
    """Of each form a window in which somebody is signed in."""
    made = {form: visit(f"product?asin={KEYBOARDS[0]}", form=form) for form in FORMS}
    for page in made.values():
        sign_in(page, house.key)
    return made


@pytest.fixture
def wide(windows: dict[str, Page]) -> Page:
    return windows["wide"]


def sign_in(page: Page, key: str) -> None:
    field = page.locator("input[type=password]")
    field.fill(key)
    field.press("Enter")
    expect(field).to_have_count(0)


def go(page: Page, title: str) -> None:
    """By the list of pages; on a narrow screen it is behind a button."""
    opener = page.get_by_test_id("stExpandSidebarButton")
    if opener_was_there := opener.is_visible():
        opener.click()
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True).click()
    if opener_was_there:
        closer = page.get_by_test_id("stSidebarCollapseButton").get_by_role("button")
        closer.click()
        expect(opener).to_be_visible()
    expect(page.get_by_role("heading", name=title, exact=True, level=1)).to_be_visible()


def settle(page: Page) -> None:
    """Until the page is drawn whole."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)


def shoot(page: Page, name: str) -> None:
    """The whole page: it scrolls inside the window, so the window is made as high as what it holds."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    settle(page)
    size = page.viewport_size
    assert size is not None
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], int(height))})
    # Charts and tables take their new size in the frames after.
    page.wait_for_function(_FRAMES_LATER)
    (ARTIFACTS / f"dashboard-{name}.png").write_bytes(page.screenshot())
    page.set_viewport_size(size)


def click_row(table: Locator, row: int) -> None:
    """The box at the beginning of a row; the table is one picture, whose head is 36 pixels high and its rows 48."""
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    table.page.mouse.click(box["x"] + 16, box["y"] + 36 + 48 * row + 24)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_drawn_without_a_fault_and_not_wider_than_its_window(windows: dict[str, Page], name: str, form: str) -> None:
    title, told = PAGES[name]
    page = windows[form]
    if name != "product":
        go(page, title)

    expect(page.get_by_text(told).first).to_be_visible()
    shoot(page, f"{name}-{form}")
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= FORMS[form][0]
    assert page.evaluate(_CUT) == []


def test_key_is_in_no_address_no_storage_and_no_log(wide: Page, dashboard: Dashboard, house: House) -> None:
    kept = wide.evaluate("JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage}) + document.cookie")

    assert house.key not in wide.url
    assert house.key not in kept
    assert house.key not in dashboard.log.read_text()


def test_slider_asks_for_the_margin_it_shows_and_nothing_is_told_in_words(wide: Page, house: House) -> None:
    go(wide, "Opportunities")
    expect(wide.get_by_text("4 of 4 shown.")).to_be_visible()
    wide.get_by_role("slider").press("End")

    expect(wide.get_by_text("No opportunity with this margin")).to_be_visible()
    assert house.overheard.asked[-1]["min_margin"] == ["100"]
    shoot(wide, "opportunities-empty-wide")


def test_row_of_the_table_opens_its_product_with_links_to_every_shop(wide: Page, house: House) -> None:
    go(wide, "Tokens")
    go(wide, "Opportunities")
    expect(wide.get_by_text("4 of 4 shown.")).to_be_visible()
    settle(wide)
    click_row(wide.get_by_test_id("stDataFrame"), 1)

    expect(wide).to_have_url(re.compile(rf"/product\?asin={KEYBOARDS[0]}&opportunity={house.opportunities[0]}$"))
    for host in ("de", "it", "es", "fr", "co.uk"):
        expect(wide.locator(f'a[href="https://www.amazon.{host}/dp/{KEYBOARDS[0]}"]')).to_be_visible()
    expect(wide.get_by_text("Digital fee, selling").first).to_be_visible()


def test_download_is_the_table_as_csv_without_a_formula(wide: Page) -> None:
    go(wide, "Opportunities")
    with wide.expect_download() as downloading:
        wide.get_by_test_id("stDownloadButton").get_by_role("button").click()

    rows = list(csv.DictReader(io.StringIO(downloading.value.path().read_text("utf-8-sig"))))
    assert [row["source_market"] for row in rows] == ["FR", "DE", "DE", "UK"]
    assert (rows[1]["profit_eur"], rows[3]["profit_eur"]) == ("10.54", "")
    assert rows[3]["title"].startswith("'=HYPERLINK")


def test_watch_is_added_changed_paused_and_removed(wide: Page, house: House) -> None:
    go(wide, "Watches")
    wide.get_by_role("textbox", name="ASIN").fill(KEYBOARDS[3].lower())
    wide.get_by_role("spinbutton", name="Target", exact=True).fill("29.90")
    wide.get_by_role("button", name="Add", exact=True).click()
    expect(wide.get_by_text(f"{KEYBOARDS[3]} is watched.")).to_be_visible()
    settle(wide)
    [added] = house.ask("GET", f"/api/v1/watches?asin={KEYBOARDS[3]}")["watches"]
    assert (added["target"], added["interval_seconds"]) == (29.9, 6 * 3600)

    wide.get_by_role("combobox", name="Which one").click()
    wide.get_by_role("option", name=re.compile("Dell")).click()
    # While the page changes, the form of the watch before is still there.
    expect(wide.locator('input[aria-label="Target, EUR"][value="29.90"]')).to_be_visible()
    settle(wide)
    wide.get_by_role("spinbutton", name="Target, EUR").fill("31.50")
    wide.get_by_role("button", name="Save").click()
    expect(wide.get_by_text("Saved.")).to_be_visible()
    assert house.ask("GET", f"/api/v1/watches/{added['id']}")["target"] == 31.5

    wide.get_by_role("button", name="Pause").click()
    expect(wide.get_by_role("button", name="Resume")).to_be_visible()
    assert house.ask("GET", f"/api/v1/watches/{added['id']}")["is_paused"]

    wide.get_by_role("button", name="Remove", exact=True).click()
    wide.get_by_role("button", name="Really remove").click()
    expect(wide.get_by_text("Removed.")).to_be_visible()
    assert house.ask("GET", f"/api/v1/watches?asin={KEYBOARDS[3]}&state=all")["watches"] == []


def test_api_that_goes_down_is_told_and_the_page_recovers_by_itself(wide: Page, house: House) -> None:
    go(wide, "Systems")
    expect(wide.get_by_text("Everything is up.")).to_be_visible()
    house.way.cut()
    try:
        wide.get_by_role("button", name="Refresh now").click()
        expect(wide.get_by_text("The API does not answer")).to_be_visible()
        expect(wide.get_by_text(f"Nothing answers at {house.dashboards_url}")).to_be_visible()
        shoot(wide, "api-down-wide")
        expect(wide.get_by_test_id("stException")).to_have_count(0)
    finally:
        house.way.restore()

    expect(wide.get_by_text("Everything is up.")).to_be_visible()
    expect(wide.get_by_text("The API does not answer")).to_have_count(0)


def test_german_for_who_reads_german_and_english_at_a_click(visit: Open) -> None:
    page = visit(locale="de-DE")
    expect(page.get_by_role("button", name="Anmelden")).to_be_visible()
    shoot(page, "sign-in-wide")

    page.get_by_role("radio", name="English").click()

    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_signing_out_forgets_the_key_and_a_wrong_one_is_told(wide: Page) -> None:
    wide.get_by_role("button", name="Sign out").click()
    field = wide.locator("input[type=password]")
    field.fill("keeper_wrong")
    field.press("Enter")

    expect(wide.get_by_text("The API does not know this key")).to_be_visible()
    expect(field).to_be_visible()


def test_process_says_nothing_of_faults(dashboard: Dashboard) -> None:
    """The last one here: after all pages were drawn and the API was away."""
    said = dashboard.log.read_text()

    assert "Traceback" not in said
    assert "deprecat" not in said.lower()
