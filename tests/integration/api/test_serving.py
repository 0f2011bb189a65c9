"""TLS, and what is believed of a proxy: over real connections from two addresses of this machine."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.serving import serving_options
from keeper.settings import ApiSettings, SettingsInvalid, read_settings
from tests.integration.api.conftest import MakeApi
from tests.services.certificates import Certificate, make_certificate

# The proxy in these tests is 127.0.0.1; whoever comes from 127.0.0.2 is none.
_PROXY, _STRANGER = "127.0.0.1", "127.0.0.2"
_HSTS = "strict-transport-security"
_NO_KEY = {"X-API-Key": "keeper_" + "a" * 43}


def _ask(url: str, come_from: str, path: str = "/health", **headers: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=come_from), timeout=30) as client:
        return client.get(url + path, headers=headers)


def test_with_a_certificate_it_speaks_https_and_nothing_else(make_api: MakeApi, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    url = make_api(tls_cert=files.cert, tls_key=files.key)

    answered = httpx.get(f"{url}/health", verify=ssl.create_default_context(cafile=str(files.cert)), trust_env=False)

    assert (url[:8], answered.status_code, answered.headers[_HSTS]) == ("https://", 200, "max-age=31536000")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{url}/health".replace("https", "http"), trust_env=False)


def test_of_tls_1_2_only_ciphers_with_forward_secrecy_are_spoken(make_api: MakeApi, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    url = make_api(tls_cert=files.cert, tls_key=files.key)
    context = ssl.create_default_context(cafile=str(files.cert))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert httpx.get(f"{url}/health", verify=context, trust_env=False).status_code == 200

    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")

    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", verify=context, trust_env=False)


def _with_key_of_another(folder: Path, files: Certificate) -> tuple[Path, Path]:
    return files.cert, make_certificate(folder, "other").key


BAD: dict[str, tuple[Callable[[Path, Certificate], tuple[Path, Path]], str]] = {
    "no certificate file": (lambda folder, files: (folder / "none", files.key), r"KEEPER_API_TLS_CERT: .*/none cannot be read \(No such"),
    "no key file": (lambda folder, files: (files.cert, folder / "none"), "KEEPER_API_TLS_KEY: .*/none cannot be read"),
    "a key in the certificate's place": (
        lambda _, files: (files.key, files.key),
        "KEEPER_API_TLS_CERT: .*holds no certificate in PEM form",
    ),
    "a certificate in the key's place": (lambda _, files: (files.cert, files.cert), "KEEPER_API_TLS_KEY: .*holds no private key"),
    "another's key": (_with_key_of_another, "is not that of the certificate"),
    "a key with a password": (
        lambda folder, files: (files.cert, make_certificate(folder, "locked", password=b"hunter2").key),
        "KEEPER_API_TLS_KEY: .*opens without a password",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_certificate_that_cannot_serve_is_named_before_anything_starts(tmp_path: Path, case: str) -> None:
    make, problem = BAD[case]
    cert, key = make(tmp_path, make_certificate(tmp_path))

    with pytest.raises(SettingsInvalid, match=problem):
        serving_options(ApiSettings(tls_cert=cert, tls_key=key))


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "a certificate alone": ({"KEEPER_API_TLS_CERT": "api.crt"}, "KEEPER_API_TLS_CERT and KEEPER_API_TLS_KEY need each other"),
    "everybody": ({"KEEPER_API_TRUSTED_PROXIES": "*"}, "KEEPER_API_TRUSTED_PROXIES.*would believe everybody"),
    "everybody as a network": ({"KEEPER_API_TRUSTED_PROXIES": "10.0.0.7, 0.0.0.0/0"}, "KEEPER_API_TRUSTED_PROXIES.*must not be everybody"),
    "a network with a host in it": ({"KEEPER_API_TRUSTED_PROXIES": "10.0.0.7/8"}, "must be addresses and networks"),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_would_serve_otherwise_than_meant_are_refused(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    variables, problem = WRONG[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsInvalid, match=problem):
        read_settings()


@pytest.mark.parametrize(
    ("trusted", "come_from", "is_believed"),
    [((_PROXY,), _PROXY, True), ((_PROXY,), _STRANGER, False), ((), _PROXY, False), (("127.0.0.2/31",), _STRANGER, True)],
    ids=["the proxy", "a stranger", "nobody is trusted", "a proxy of a trusted network"],
)
def test_only_a_trusted_proxy_says_that_a_request_came_over_https(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch, trusted: tuple[str, ...], come_from: str, is_believed: bool
) -> None:
    # What uvicorn would go by.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")

    answered = _ask(make_api(trusted_proxies=trusted), come_from, **{"X-Forwarded-Proto": "https"})

    assert (_HSTS in answered.headers) is is_believed


def _tries(url: str, come_from: str, *forwarded: str) -> list[int]:
    return [_ask(url, come_from, "/api/v1/watches", **_NO_KEY, **{"X-Forwarded-For": one}).status_code for one in forwarded]


def test_behind_a_trusted_proxy_tries_are_counted_by_the_address_it_names(make_api: MakeApi) -> None:
    url = make_api(trusted_proxies=(_PROXY,), failed_tries_per_minute=1)

    assert _tries(url, _PROXY, "192.0.2.1", "192.0.2.2", "192.0.2.1") == [401, 401, 429]


def test_who_names_other_addresses_of_their_own_is_counted_by_the_one_they_come_from(make_api: MakeApi) -> None:
    url = make_api(trusted_proxies=(_PROXY,), failed_tries_per_minute=1)

    assert _tries(url, _STRANGER, "192.0.2.1", "192.0.2.2") == [401, 429]
    # What a caller wrote before the proxy did counts no more than what they wrote without it.
    assert _tries(url, _PROXY, "192.0.2.3, 192.0.2.9", "192.0.2.4, 192.0.2.9") == [401, 429]


def test_addresses_of_one_network_of_ipv6_are_counted_together(make_api: MakeApi) -> None:
    url = make_api(trusted_proxies=(_PROXY,), failed_tries_per_minute=1)

    assert _tries(url, _PROXY, "2001:db8::1", "2001:db8::ffff", "2001:db8:0:1::1", "::ffff:192.0.2.7") == [401, 429, 401, 401]


def test_a_right_key_is_let_in_from_where_wrong_ones_came(make_api: MakeApi, make_person: Any) -> None:
    url = make_api(failed_tries_per_minute=1)
    anna = make_person(url, "anna")
    assert [anna.client.get("/api/v1/watches", headers={"Authorization": f"Bearer {_NO_KEY['X-API-Key']}"}).status_code for _ in "ab"] == [
        401,
        429,
    ]

    answered = anna.ask("GET", "/api/v1/users/me")

    assert answered.status_code == 200
