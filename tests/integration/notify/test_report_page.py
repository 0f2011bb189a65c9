"""A report in a real browser: wide, narrow, dark. The screenshots are kept in `.keeper/test-artifacts/` for people to look at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from keeper.domain.report import DealAlert, Report
from keeper.notify.report import compose_deal_alert, render_report
from tests.unit.notify.reports import EMPTY, REPORT, deal, full

ARTIFACTS = Path(__file__).parents[3] / ".keeper" / "test-artifacts"
_FORMS = {"wide": (1000, "light"), "narrow": (360, "light"), "dark": (360, "dark"), "dark-wide": (1000, "dark")}
_KEYS = "".join(
    f'<rect x="{16 + 16 * x}" y="{68 + 16 * y}" width="13" height="13" rx="2" fill="#ddd"/>' for x in range(10) for y in range(4)
)
_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 192 192"><rect width="192" height="192" fill="#fff"/>'
    f'<rect x="8" y="60" width="176" height="76" rx="8" fill="#444"/>{_KEYS}</svg>'
)
# Of every text: what it says, and how much it stands out from what is behind it (WCAG 2.2, "relative luminance", "contrast ratio").
_CONTRASTS = """
() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = channels(getComputedStyle(element).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
      if (color[3] !== 0) throw new Error("half transparent: " + element.outerHTML);
    }
    throw new Error("nothing behind");
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.getClientRects().length === 0) continue;
    const [one, other] = [luminance(channels(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a);
    found.push([walker.currentNode.data.trim(), (one + 0.05) / (other + 0.05)]);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


def _answer(route: Route) -> None:
    route.fulfill(content_type="image/svg+xml", body=_PICTURE)


@pytest.fixture
def show(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that opens HTML in a form; what it opened is photographed at the end of the test."""
    opened: list[tuple[str, Page]] = []

    def open_page(html: str, form: str, name: str = "") -> Page:
        width, scheme = _FORMS[form]
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        page.route("**/*", _answer)
        page.set_content(html, wait_until="load")
        opened.append((f"{name}-{form}" if name else "", page))
        return page

    yield open_page
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    for name, page in opened:
        if name:
            # Playwright would write it from a thread that stays.
            (ARTIFACTS / f"{name}.png").write_bytes(page.screenshot(full_page=True))
        page.close()


@pytest.mark.parametrize("form", _FORMS)
def test_report_is_not_wider_than_its_window(show: Any, form: str) -> None:
    page = show(render_report(REPORT), form, "report")

    assert page.evaluate("document.documentElement.scrollWidth") <= _FORMS[form][0]
    assert page.evaluate("[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth).length") == 0


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("report", [REPORT, EMPTY], ids=["full", "empty"])
def test_every_text_stands_out(show: Any, report: Report, form: str) -> None:
    contrasts = show(render_report(report), form).evaluate(_CONTRASTS)

    assert len(contrasts) > 8
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


def test_contrast_is_measured(show: Any) -> None:
    page = show(
        '<body style="background:#fff"><p style="color:#777">a</p><p style="color:#767676">b</p><p style="color:#000">c</p>', "wide"
    )

    assert [(text, round(ratio, 2)) for text, ratio in page.evaluate(_CONTRASTS)] == [("a", 4.48), ("b", 4.54), ("c", 21)]


@pytest.mark.parametrize("form", _FORMS)
def test_pictures_and_charts_have_their_boxes(show: Any, form: str) -> None:
    page = show(render_report(REPORT), form)

    boxes = page.evaluate("[...document.images].map(i => [i.width, i.height, i.complete && i.naturalWidth > 0])")
    assert len(boxes) == 5
    assert all(min(width, height) >= 76 and is_loaded for width, height, is_loaded in boxes)
    heights = page.evaluate("[...document.querySelectorAll('.cb, .cl')].map(bar => bar.getBoundingClientRect().height)")
    assert min(heights) >= 6
    assert max(heights) == 40


def test_boxes_stand_while_pictures_are_blocked(browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 900})
    page.route("**/*", lambda route: route.abort())
    page.set_content(render_report(REPORT), wait_until="load")

    boxes = page.evaluate("[...document.images].map(i => [i.width, i.height])")
    page.close()
    assert boxes == [[76, 76]] * 5


def test_nothing_of_a_report_runs(show: Any) -> None:
    page = show(render_report(REPORT), "wide")
    assert page.evaluate("[document.scripts.length, document.querySelectorAll('[onerror]').length]") == [0, 0]


@pytest.mark.parametrize("form", ["narrow", "dark-wide"])
def test_alert_of_a_deal_is_not_wider_than_its_window_and_stands_out(show: Any, form: str) -> None:
    page = show(compose_deal_alert(DealAlert("Below 100 €", deal(is_year_low=True))).html, form, "deal-alert")

    assert page.evaluate("document.documentElement.scrollWidth") <= _FORMS[form][0]
    assert [one for one in page.evaluate(_CONTRASTS) if one[1] < 4.5] == []


def test_largest_report_fits_into_a_narrow_window(show: Any) -> None:
    page = show(render_report(full(20, 10)), "narrow", "largest")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
