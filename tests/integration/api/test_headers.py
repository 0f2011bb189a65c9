"""What every answer tells a browser, whatever was asked."""

import re
from pathlib import Path
from string import Formatter

import httpx
from playwright.sync_api import Route, sync_playwright

from api.app import create_app, list_routes
from keeper.settings import Settings
from tests.integration.api.conftest import ClientOf, MakeApi, MakePerson

_ALWAYS = {"x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer"}


def _lacks(answered: httpx.Response) -> list[str]:
    lacking = [name for name, value in _ALWAYS.items() if answered.headers.get(name) != value]
    policy = answered.headers.get("content-security-policy", "")
    lacking += [part for part in ("default-src 'none'", "frame-ancestors 'none'") if part not in policy]
    lacking += [] if "cache-control" in answered.headers or answered.request.method == "OPTIONS" else ["cache-control"]
    return lacking


def test_every_path_answers_with_every_header_to_whom_it_knows_and_to_whom_not(
    make_api: MakeApi, make_person: MakePerson, client_of: ClientOf, settings: Settings
) -> None:
    url = make_api()
    root, nobody = make_person(url, "root", is_admin=True).client, client_of(url, None)
    routes = [*list_routes(create_app(settings)), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nothing"), ("PUT", "/health")]
    lacking = {}
    for method, path in routes:
        # Of nobody: what there is would be deleted.
        filled = path.format(**{name: "999999999" for _, name, _, _ in Formatter().parse(path) if name})
        for client in (root, nobody):
            answered = client.request(method, filled, json={} if method in ("POST", "PATCH", "PUT") else None)
            if lacks := _lacks(answered):
                lacking[method, path, answered.status_code] = lacks

    assert lacking == {}


def test_refusals_before_any_route_and_preflights_have_them(make_api: MakeApi, client_of: ClientOf) -> None:
    url = make_api(largest_body_bytes=1024, cors_origins=("https://pages.example",))
    client = client_of(url, None)
    asked = {"Origin": "https://pages.example", "Access-Control-Request-Method": "GET"}

    refused, preflight = client.post("/api/v1/watches", content=b"x" * 2000), client.options("/api/v1/watches", headers=asked)

    assert (refused.status_code, preflight.status_code) == (413, 200)
    assert [name for name in _lacks(refused) if name != "cache-control"] == _lacks(preflight) == []


def test_over_plain_http_browsers_are_not_told_to_insist_on_https(api_url: str, client_of: ClientOf) -> None:
    assert "strict-transport-security" not in client_of(api_url, None).get("/health").headers


# Stands for Swagger UI, which a machine without a network cannot fetch: it draws with what the real one draws with.
_PROGRAM = """
window.SwaggerUIBundle = options => {
  fetch(options.url).then(answer => answer.json()).then(told => {
    const place = document.querySelector(options.dom_id);
    place.innerHTML = '<b id="title" style="color: rgb(1, 2, 3)"></b><img id="sign" src="data:image/svg+xml,<svg/>">';
    document.getElementById("title").textContent = told.info.title;
  });
  return {};
};
window.SwaggerUIBundle.presets = {apis: 1};
"""
_KINDS = {".js": ("text/javascript", _PROGRAM), ".css": ("text/css", "#title { font-weight: 700 }")}


def test_the_documentation_draws_under_its_policy_and_a_foreign_script_does_not_run(api_url: str, chromium: Path) -> None:
    complaints: list[str] = []
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        kind, body = _KINDS[Path(route.request.url).suffix]
        route.fulfill(body=body, content_type=kind)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.route(re.compile(rf"^(?!{re.escape(api_url)})https?://"), answer)
        page.goto(f"{api_url}/docs")
        page.wait_for_selector("#title:text-is('Keeper')", timeout=20_000)
        color = page.evaluate("getComputedStyle(document.getElementById('title')).color")
        loaded = list(complaints)
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.evil = 1'}))")
        elsewhere = "document.body.append(Object.assign(document.createElement('script'), {src: 'https://evil.example/a.js'}))"
        page.evaluate(elsewhere)
        is_evil = page.evaluate("window.evil === 1")
        browser.close()

    assert (color, loaded, is_evil) == ("rgb(1, 2, 3)", [], False)
    assert len(asked) == 2 and not any("evil" in url for url in asked)
    assert any("Content Security Policy" in one for one in complaints)
