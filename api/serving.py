"""How uvicorn serves the application: its certificate, and whom it believes about where a request comes from."""

import ssl
from typing import Any

from keeper.settings import ApiSettings, SettingsInvalid

_GRACE_SECONDS = 15
_KEEP_ALIVE_SECONDS = 75
# Open ones, idle or not; beyond that uvicorn itself answers 503. The API turns requests away long before.
_MOST_CONNECTIONS = 5000
# Of TLS 1.2, the oldest version that Python offers: only with keys that are forgotten, and with authentication.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def serving_options(settings: ApiSettings) -> dict[str, Any]:
    """For uvicorn.

    Raises:
        SettingsInvalid: the certificate and its key are none, or do not belong together.
    """
    options: dict[str, Any] = {
        "server_header": False,
        # Uvicorn itself would believe whatever the variable FORWARDED_ALLOW_IPS says.
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": _GRACE_SECONDS,
        "limit_concurrency": _MOST_CONNECTIONS,
    }
    if settings.tls_cert is not None and settings.tls_key is not None:
        _check_certificate(settings)
        options |= {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key), "ssl_ciphers": _CIPHERS}
    return options


def _check_certificate(settings: ApiSettings) -> None:
    """Before anything is opened; OpenSSL's own words name neither file nor setting, and a password it would ask for on the terminal."""
    assert settings.tls_cert is not None and settings.tls_key is not None  # noqa: S101  asked by the only caller
    for variable, path in (("KEEPER_API_TLS_CERT", settings.tls_cert), ("KEEPER_API_TLS_KEY", settings.tls_key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise SettingsInvalid(f"{variable}: {path} cannot be read ({error.strerror})") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An answer of no length stands for "no password".
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"the key in {settings.tls_key} is not that of the certificate in {settings.tls_cert}"
        elif not _is_certificate(settings):
            problem = f"KEEPER_API_TLS_CERT: {settings.tls_cert} holds no certificate in PEM form"
        else:
            problem = f"KEEPER_API_TLS_KEY: {settings.tls_key} holds no private key in PEM form that opens without a password"
        raise SettingsInvalid(problem) from None


def _is_certificate(settings: ApiSettings) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.tls_cert)
    except ssl.SSLError:
        return False
    return True
