"""How long answers take is told by route, and by nothing that is somebody's own."""

import httpx
from prometheus_client.exposition import generate_latest

from api.app import create_app
from keeper.settings import Settings
from tests.integration.api.conftest import MakePerson
from tests.services.api import serve

ASIN = "B07W6JG6Z7"


def test_times_are_told_by_route_and_hold_neither_products_nor_keys(settings: Settings, make_person: MakePerson) -> None:
    app = create_app(settings)
    with serve(app) as url:
        anna = make_person(url, "anna")
        assert anna.ask("GET", f"/api/v1/prices/{ASIN}/history").status_code in (200, 404)
        assert anna.ask("GET", f"/api/v1/feeds/{anna.key}/deals/1.atom").status_code == 403
        assert anna.ask("GET", f"/nowhere/{ASIN}").status_code == 404
        assert httpx.get(f"{url}/api/v1/watches").status_code == 401
        assert httpx.request("BREW", f"{url}/health").status_code == 405
    # The server has ended: an answer is counted when it is out, which its reader may see first.
    told = generate_latest(app.state.times.registry).decode()

    counted = [line for line in told.splitlines() if line.startswith("api_request_duration_seconds_count")]
    assert any('method="GET",route="/api/v1/prices/{asin}/history"' in line for line in counted)
    assert any('method="GET",route="none",status="4xx"' in line for line in counted)
    assert any('route="/api/v1/feeds/{token}/deals/{filter_id}.atom",status="4xx"' in line for line in counted)
    assert any('route="/api/v1/watches",status="4xx"' in line for line in counted)
    assert any('method="other"' in line for line in counted)
    assert ASIN not in told
    assert anna.key not in told
