"""Credentials and certificates, at a server of this test's own: the tested copy of Elasticsearch has no security features."""

import json
import logging
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keeper.search.connection import SearchConnection, SearchDown, open_client, probe

API_KEY = "a2V5LW9mLXRoZS10ZXN0"


class SecureServer:
    """Speaks TLS on 127.0.0.1, says that it is Elasticsearch, and keeps the headers it got."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.seen: list[dict[str, str]] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append({name.lower(): value for name, value in self.headers.items()})
                body = json.dumps({"version": {"number": "9.4.3"}}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hangs up on our certificate is what some tests want."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, is_ca: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    name, issuer_name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (subject, issuer))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    return builder.sign(signer, hashes.SHA256())


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


@pytest.fixture
def server(tmp_path: Path, ca_file: Path) -> Iterator[SecureServer]:
    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_file.write_bytes(_certificate("CA of a test", signer, "CA of a test", signer, is_ca=True).public_bytes(serialization.Encoding.PEM))
    certificate, key_file = tmp_path / "node.pem", tmp_path / "node.key"
    certificate.write_bytes(_certificate("node", key, "CA of a test", signer, is_ca=False).public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    running = SecureServer(certificate, key_file)
    yield running
    running.close()


def _probe(connection: SearchConnection) -> None:
    client = open_client(connection)
    try:
        probe(client, connection)
    finally:
        client.close()


def test_api_key_goes_out_over_tls_signed_by_our_ca(server: SecureServer, ca_file: Path) -> None:
    _probe(SearchConnection((server.url,), api_key=API_KEY, ca_file=ca_file))
    assert server.seen[0]["authorization"] == f"ApiKey {API_KEY}"


def test_user_and_password_go_out(server: SecureServer, ca_file: Path) -> None:
    _probe(SearchConnection((server.url,), username="keeper", password="pass:wörd", ca_file=ca_file))
    assert server.seen[0]["authorization"] == "Basic " + b64encode("keeper:pass:wörd".encode()).decode()


def test_api_key_goes_before_user_and_password(server: SecureServer, ca_file: Path) -> None:
    _probe(SearchConnection((server.url,), api_key=API_KEY, username="keeper", password="x", ca_file=ca_file))
    assert server.seen[0]["authorization"] == f"ApiKey {API_KEY}"


def test_without_credentials_none_go_out(server: SecureServer, ca_file: Path) -> None:
    _probe(SearchConnection((server.url,), ca_file=ca_file))
    assert "authorization" not in server.seen[0]


def test_certificate_of_an_unknown_ca_is_refused_before_the_key_goes_out(server: SecureServer) -> None:
    with pytest.raises(SearchDown, match="KEEPER_ELASTICSEARCH_CA_FILE"):
        _probe(SearchConnection((server.url,), api_key=API_KEY))
    assert server.seen == []


def test_certificate_of_another_host_is_refused(server: SecureServer, ca_file: Path) -> None:
    with pytest.raises(SearchDown, match="TLS fails"):
        _probe(SearchConnection((server.url.replace("127.0.0.1", "localhost"),), api_key=API_KEY, ca_file=ca_file))
    assert server.seen == []


def test_no_log_holds_the_key(server: SecureServer, ca_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _probe(SearchConnection((server.url,), api_key=API_KEY, ca_file=ca_file))
    assert API_KEY not in caplog.text


def test_broken_ca_file_is_said(server: SecureServer, ca_file: Path) -> None:
    ca_file.write_text("no certificate")
    with pytest.raises(Exception, match="cannot be spoken to with these settings"):
        open_client(SearchConnection((server.url,), ca_file=ca_file))
