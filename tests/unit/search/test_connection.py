"""Errors in plain words, and no secret in any of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elasticsearch import ApiError, ConnectionTimeout, SerializationError, SSLError, TransportError, UnsupportedProductError
from elasticsearch import ConnectionError as NoConnection

from keeper.domain.errors import KeeperError
from keeper.search.connection import SearchConnection, SearchDown, SearchRefused, open_client, plain_errors

API_KEY = "a2V5LW9mLXRoZS10ZXN0"
PASSWORD = "pass-of-the-test"
CONNECTION = SearchConnection(("http://search.test:9200",), api_key=API_KEY, username="keeper", password=PASSWORD)


def _api_error(status: int, body: Any, error: type[ApiError] = ApiError) -> ApiError:
    meta = ApiResponseMeta(status, "1.1", HttpHeaders(), 0.1, NodeConfig("http", "search.test", 9200))
    return error("failed", meta, body)


def _told(kind: str, reason: str) -> dict[str, Any]:
    return {"error": {"type": kind, "reason": reason}}


def _translated(error: Exception) -> KeeperError:
    with pytest.raises(KeeperError) as caught, plain_errors(CONNECTION):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        pytest.param(ConnectionTimeout("timed out"), SearchDown, "does not answer within 30 s", id="silence"),
        pytest.param(
            NoConnection("<HTTPConnection object at 0x7f>: Failed to establish: [Errno 111] Connection refused"),
            SearchDown,
            "cannot be reached (Failed to establish: [Errno 111] Connection refused)",
            id="refused",
        ),
        pytest.param(
            NoConnection("HTTPConnection(host='127.0.0.1', port=1): Failed to establish: [Errno 111] Connection refused"),
            SearchDown,
            "cannot be reached (Failed to establish: [Errno 111] Connection refused)",
            id="refused, as urllib3 says it by now",
        ),
        pytest.param(SSLError("unknown CA"), SearchDown, "KEEPER_ELASTICSEARCH_CA_FILE", id="certificate"),
        pytest.param(SerializationError("<html>"), SearchDown, "cannot be read", id="a proxy's page"),
        pytest.param(TransportError("broken"), SearchDown, "cannot be reached", id="another"),
        pytest.param(_api_error(429, _told("es_rejected_execution_exception", "full")), SearchDown, "overloaded", id="429"),
        pytest.param(_api_error(503, _told("master_not_discovered_exception", "")), SearchDown, "503", id="503"),
        pytest.param(_api_error(502, "<html>bad gateway</html>"), SearchDown, "fails (502 )", id="502 of a proxy"),
        pytest.param(_api_error(401, _told("security_exception", "x")), SearchRefused, "KEEPER_ELASTICSEARCH_API_KEY", id="401"),
        pytest.param(_api_error(403, _told("security_exception", "needs create")), SearchRefused, "needs create", id="403"),
        pytest.param(_api_error(400, _told("media_type_header_exception", "x")), SearchRefused, "needs 9 or newer", id="older server"),
        pytest.param(_api_error(400, _told("parsing_exception", "odd")), SearchRefused, "400 parsing_exception: odd", id="400"),
        pytest.param(_api_error(200, {}, UnsupportedProductError), SearchRefused, "is not Elasticsearch", id="another server"),
    ],
)
def test_error_says_what_is_wrong(error: Exception, kind: type[KeeperError], words: str) -> None:
    translated = _translated(error)
    assert type(translated) is kind
    assert words in str(translated)
    assert "http://search.test:9200" in str(translated)


@pytest.mark.parametrize("secret", [API_KEY, PASSWORD], ids=["API key", "password"])
@pytest.mark.parametrize("status", [400, 403, 429, 500])
def test_a_secret_that_is_echoed_is_masked(status: int, secret: str) -> None:
    assert secret not in str(_translated(_api_error(status, _told("x", f"for {secret}"))))


@pytest.mark.parametrize(
    ("changes", "echoed"),
    [
        pytest.param({}, "a2VlcGVyOnBhc3Mtb2YtdGhlLXRlc3Q=", id="header of basic auth"),
        pytest.param({}, "key-of-the-test", id="decoded API key"),
        pytest.param({"api_key": "aWQ6czNjcjN0LWtleQ=="}, "id:s3cr3t-key", id="id and key"),
        pytest.param({"api_key": "aWQ6czNjcjN0LWtleQ=="}, "s3cr3t-key", id="the key of an encoded one"),
        pytest.param({"api_key": "aWQ6czNjcjN0LWtleQ"}, "aWQ6czNjcjN0LWtleQ==", id="encoded without its padding, echoed with it"),
        pytest.param({"api_key": "id:s3cr3t-key"}, "aWQ6czNjcjN0LWtleQ==", id="encoded by somebody on the way"),
        pytest.param({"username": "jürgen", "password": "schlüssel"}, "asO8cmdlbjpzY2hsw7xzc2Vs", id="basic auth beyond ASCII"),
    ],
)
def test_a_secret_is_masked_in_every_form_it_travels_in(changes: dict[str, Any], echoed: str) -> None:
    masked = replace(CONNECTION, **changes).redact(f"Authorization: <{echoed}>")
    assert masked == "Authorization: <***>"


def test_a_text_without_secrets_stays_as_it_is() -> None:
    assert SearchConnection(("http://search.test:9200",)).redact("index keeper-prices") == "index keeper-prices"
    assert SearchConnection(("http://search.test:9200",), api_key="not base64!").redact("index keeper-prices") == "index keeper-prices"


def test_repr_shows_no_secret() -> None:
    assert API_KEY not in repr(CONNECTION)
    assert PASSWORD not in repr(CONNECTION)


def test_reason_is_cut_short() -> None:
    assert len(str(_translated(_api_error(400, _told("x", "y" * 10_000))))) < 500


@pytest.mark.parametrize(
    ("url", "port"), [("https://search.test", 443), ("http://search.test/es", 80), ("http://search.test:9200", 9200)], ids=str
)
def test_address_without_a_port_has_that_of_its_scheme(url: str, port: int) -> None:
    client = open_client(SearchConnection((url,)))
    assert [node.port for node in client.transport.node_pool.all()] == [port]
    client.close()


def test_user_without_password_is_refused() -> None:
    with pytest.raises(SearchRefused, match="KEEPER_ELASTICSEARCH_PASSWORD"):
        open_client(SearchConnection(("http://search.test:9200",), username="keeper"))


def test_ca_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchRefused, match="cannot be spoken to"):
        open_client(SearchConnection(("https://search.test:9200",), ca_file=tmp_path / "ca.pem"))


def test_api_key_that_can_be_none_is_refused_and_not_shown() -> None:
    with pytest.raises(SearchRefused, match="KEEPER_ELASTICSEARCH_API_KEY") as caught:
        open_client(SearchConnection(("http://search.test:9200",), api_key="schlüssel"))
    assert "schlüssel" not in repr(caught.value)
