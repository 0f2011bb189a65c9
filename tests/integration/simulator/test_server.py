"""The simulator over a real socket: bytes, connections, faults, and itself as a process."""

import contextlib
import gzip
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from keeper.simulator.server import Simulator

ASIN = "B08DG4C63H"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(refill_per_minute=1000) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=simulator.url, params={"key": simulator.key}, timeout=30) as each:
        yield each
        each.post("/_simulator/faults", json={"clear": True})


def read_answer(simulator: Simulator, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=10) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
        return received


@pytest.mark.parametrize(
    ("parameters", "status"),
    [({"asin": ASIN, "domain": 3}, 200), ({"asin": ASIN, "domain": 99}, 400), ({"asin": ASIN, "domain": 3, "days": 0}, 405)],
    ids=["answer", "malformed", "out of range"],
)
def test_json_is_gzipped_when_accepted_errors_included(client: httpx.Client, parameters: dict[str, Any], status: int) -> None:
    with client.stream("GET", "/product", params=parameters, headers={"Accept-Encoding": "gzip"}) as response:
        raw = b"".join(response.iter_raw())
    assert (response.status_code, response.headers["content-encoding"]) == (status, "gzip")
    assert json.loads(gzip.decompress(raw))["refillRate"] == 1000


SELECTION = {"domainId": 3, "priceTypes": [1], "page": 0, "dateRange": 2, "includeCategories": [340_843_031, 9_223_372_036_854_775_807]}


def test_selection_may_be_posted_or_sent_in_the_url(client: httpx.Client) -> None:
    by_age = SELECTION | {"sortType": 1}
    get = client.get("/deal", params={"selection": json.dumps(by_age)})
    post = client.post("/deal/", json=by_age)
    assert (get.status_code, post.status_code) == (200, 200)
    assert len(get.json()["deals"]["dr"]) > 10
    assert get.json()["deals"] == post.json()["deals"]
    assert (get.json()["dealsCached"], post.json()["dealsCached"]) == (False, True)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null"], ids=["empty", "cut", "no UTF-8", "null"])
@pytest.mark.parametrize("path", ["/deal", "/query?domain=3"])
def test_posted_nonsense_is_400(client: httpx.Client, path: str, content: bytes) -> None:
    assert client.post(path, params={"key": client.params["key"], "domain": "3"}, content=content).status_code == 400


@pytest.mark.parametrize("kind", ["cut_off", "dropped", "broken_gzip", "wrong_json"])
def test_broken_page_of_deals_costs_what_the_page_costs(client: httpx.Client, kind: str) -> None:
    before = client.get("/_simulator/requests").json()["tokens_consumed"]
    with contextlib.suppress(httpx.HTTPError):
        client.post("/deal", json=SELECTION, headers={"X-Simulator-Fault": kind})
    assert client.get("/_simulator/requests").json()["tokens_consumed"] == before + 5


def test_json_is_plain_when_gzip_is_not_accepted(client: httpx.Client) -> None:
    response = client.get("/token", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in response.headers
    assert response.headers["content-type"].startswith("application/json")


def test_connection_serves_many_requests(simulator: Simulator) -> None:
    request = f"GET /token?key={simulator.key} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = request.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    assert read_answer(simulator, request + request + last).count(b"HTTP/1.1 200 ") == 3


def test_requests_in_parallel_all_get_their_answer(simulator: Simulator, client: httpx.Client) -> None:
    asins = simulator.keepa.catalog.asins()

    def ask(number: int) -> list[str]:
        wanted = asins[number : number + 10]
        products = client.get("/product", params={"asin": ",".join(wanted), "domain": 3, "stats": 30, "days": 7}).json()["products"]
        return [product["asin"] for product in products]

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(ask, range(20))) == [asins[number : number + 10] for number in range(20)]


@pytest.mark.parametrize("kind", ["429", "500", "503", "402", "400", "invalid_key"])
def test_header_asks_one_request_for_a_status(client: httpx.Client, kind: str) -> None:
    broken = client.get("/product", params={"asin": ASIN, "domain": 3}, headers={"X-Simulator-Fault": kind})
    assert broken.status_code == (400 if kind == "invalid_key" else int(kind))
    assert "tokensLeft" in broken.json()
    assert client.get("/product", params={"asin": ASIN, "domain": 3}).status_code == 200


def test_cut_off_body_ends_before_its_length(client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/product", params={"asin": ASIN, "domain": 3}, headers={"X-Simulator-Fault": "cut_off"})


def test_dropped_connection_has_no_answer(client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/product", params={"asin": ASIN, "domain": 3}, headers={"X-Simulator-Fault": "dropped"})


def test_broken_gzip_does_not_decompress(client: httpx.Client) -> None:
    with pytest.raises(httpx.DecodingError):
        client.get("/product", params={"asin": ASIN, "domain": 3}, headers={"X-Simulator-Fault": "broken_gzip"})


def test_wrong_json_does_not_parse(client: httpx.Client) -> None:
    response = client.get("/product", params={"asin": ASIN, "domain": 3}, headers={"X-Simulator-Fault": "wrong_json"})
    assert response.status_code == 200
    with pytest.raises(ValueError, match=r"Expecting|delimiter|Unterminated|Extra"):
        response.json()


def test_slow_answer_outlasts_a_clients_patience(client: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.get("/token", headers={"X-Simulator-Fault": "slow; seconds=30"}, timeout=0.2)


@pytest.mark.parametrize("kind", ["cut_off", "dropped", "broken_gzip", "wrong_json"])
def test_broken_bytes_cost_what_the_answer_costs(client: httpx.Client, kind: str) -> None:
    before = client.get("/_simulator/requests").json()["tokens_consumed"]
    with contextlib.suppress(httpx.HTTPError):
        client.get("/product", params={"asin": ASIN, "domain": 3}, headers={"X-Simulator-Fault": kind})
    assert client.get("/_simulator/requests").json()["tokens_consumed"] == before + 1


def test_ordered_fault_breaks_the_next_requests_of_its_path(client: httpx.Client) -> None:
    client.post("/_simulator/faults", json={"kind": "503", "next": 2, "path": "/product"}).raise_for_status()
    statuses = [client.get(path, params={"asin": ASIN, "domain": 3}).status_code for path in ("/token", "/product", "/product", "/product")]
    assert statuses == [200, 503, 503, 200]


def test_unknown_fault_in_the_header_is_named(client: httpx.Client) -> None:
    response = client.get("/token", headers={"X-Simulator-Fault": "418"})
    assert response.status_code == 400
    assert "fault kind" in response.json()["error"]


def test_control_answers_with_the_three_numbers_of_the_clock(client: httpx.Client) -> None:
    before = client.get("/_simulator/state").json()
    after = client.post("/_simulator/jump", json={"seconds": 3600}).json()
    assert after["now_ms"] - before["now_ms"] >= 3_600_000
    assert {"anchor_machine", "anchor_simulated", "speed"} <= after.keys()
    timestamp = client.get("/token").json()["timestamp"]
    assert timestamp >= after["now_ms"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/_simulator/jump", b"{", 400),
        ("POST", "/_simulator/jump", b"[]", 400),
        ("POST", "/_simulator/nothing", b"{}", 404),
        ("GET", "/_simulator/jump", b"", 404),
        ("POST", "/_simulator/jump", b"x" * 1_000_001, 413),
    ],
    ids=["no JSON", "no object", "unknown", "wrong method", "too large"],
)
def test_control_refuses_nonsense(client: httpx.Client, method: str, path: str, body: bytes, status: int) -> None:
    assert client.request(method, path, content=body).status_code == status


def test_endless_request_line_is_refused(simulator: Simulator) -> None:
    answer = read_answer(simulator, b"GET /token?key=" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 414 ")


def test_body_without_a_length_is_refused(simulator: Simulator) -> None:
    answer = read_answer(simulator, b"POST /_simulator/jump HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_key_never_reaches_output_of_any_kind(simulator: Simulator, client: httpx.Client, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("500", "dropped", "wrong_json"):
        with contextlib.suppress(httpx.HTTPError):
            client.get("/product", params={"asin": ASIN, "domain": 3}, headers={"X-Simulator-Fault": kind})
    read_answer(simulator, f"BAD /token?key={simulator.key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    read_answer(simulator, f"GET /token?key={simulator.key} HTTP/9 9\r\n\r\n".encode())
    captured = capfd.readouterr()
    assert simulator.key not in captured.out + captured.err
    assert simulator.key not in client.get("/_simulator/requests?last=1000").text
    assert simulator.key not in client.get("/_simulator/state").text


def test_closed_simulator_ends_idle_connections_and_a_second_close_does_nothing() -> None:
    simulator = Simulator()
    with httpx.Client(base_url=simulator.url, params={"key": simulator.key}) as client:
        assert client.get("/token").status_code == 200
        simulator.close()
        simulator.close()
        with pytest.raises(httpx.HTTPError):
            client.get("/token")


def test_two_simulators_with_one_seed_answer_alike() -> None:
    start_at = 1_795_000_000.0
    answers = []
    for products in (47, 100_000):
        with Simulator(products=products, seed=5, start_at=start_at) as simulator:
            response = httpx.get(
                f"{simulator.url}/product",
                params={"key": simulator.key, "asin": ASIN, "domain": 8, "stats": "2026-01-01,2026-10-01", "update": -1, "buybox": 1},
            )
            product = response.json()["products"][0]
            answers.append((product["csv"], product["stats"]["avg"], product["buyBoxSellerIdHistory"]))
    assert answers[0] == answers[1]


def test_process_prints_its_url_when_it_listens_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "keeper.simulator", "--port", "0", "--speed", "60", "--products", "100000", "--seed", "1"]
    command += ["--rate", "25", "--tokens", "9", "--start-at", "2026-11-01T00:00:00+00:00"]
    command += ["--listed", "60", "--glitches", "0.1", "--fictions", "0.1", "--traps", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        answer = httpx.get(f"{line['url']}/token", params={"key": "k" * 64}).json()
        category = httpx.get(f"{line['url']}/category", params={"key": "k" * 64, "domain": 3, "category": 430_178_031}).json()
        state = httpx.get(f"{line['url']}/_simulator/state").json()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert (answer["refillRate"], answer["tokensLeft"]) == (25, 9)
    assert 50 < category["categories"]["430178031"]["productCount"] <= 60
    assert (line["anchor_simulated"], line["speed"], state["products"]) == (1_793_491_200.0, 60.0, 100_000)
