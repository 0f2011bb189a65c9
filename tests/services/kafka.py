"""A real Apache Kafka (KRaft, broker and controller in one process per node), as plain Java processes on 127.0.0.1."""

import base64
import contextlib
import ipaddress
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.services.cluster import Cluster, NodeFailed
from tests.services.java import Say, download, downloads_folder, find_java_home, missing_programs, say_nothing
from tests.services.proxy import Proxy

VERSION: Final = "4.3.1"
_PROGRAM = f"kafka-{VERSION}"
OLDEST_JAVA: Final = 17
# More than Keeper's largest message, so that a refusal for size is a choice of the test's own.
LARGEST_MESSAGE_BYTES: Final = 8 * 1024 * 1024
SASL_USERNAME: Final = "keeper"
_FORMAT_SECONDS = 120
_STARTED = b"Kafka Server started"


def missing() -> str | None:
    """What must be installed before Kafka runs here; None where nothing is missing."""
    return missing_programs(_PROGRAM, None, OLDEST_JAVA)


def fetch_jars(say: Say = say_nothing) -> Path:
    """The folder of the broker's jars; downloads them once.

    Raises:
        DownloadFailed: see there.
    """
    return download(
        _PROGRAM,
        "kafka.xml",
        ["dependency:copy-dependencies", "-DincludeScope=runtime"],
        folder=downloads_folder(None, say),
        finish=lambda output: output,
        say=say,
        size="44 MB",
    )


class KafkaCluster(Cluster):
    """Brokers, 1 or 3: with three, replication 3 and min in-sync 2; with one, 1 and 1. Topics are never made by themselves.

    Args:
        tls: a second listener with a certificate of a CA made here, `ca_file`.
        sasl: a listener that wants `SASL_USERNAME` and `sasl_password` (PLAIN), over TLS where `tls` is on.
        proxied: a listener whose advertised address is that of a proxy; `open_proxies` starts them.
        replication: of topics that do not say, and of Kafka's own.
        least_in_sync: replicas that must have a message before it is acknowledged.
        heap: of one node, as Java writes it.
        options: more lines of server.properties.
    """

    title = "Kafka"
    foreign_ports = frozenset({"proxy"})

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        *,
        tls: bool = False,
        sasl: bool = False,
        proxied: bool = False,
        replication: int | None = None,
        least_in_sync: int | None = None,
        heap: str = "256m",
        options: dict[str, str] | None = None,
        keep: bool = False,
        is_temporary: bool = False,
        is_quick: bool = True,
        say: Say = say_nothing,
    ) -> None:
        super().__init__(folder, nodes, keep=keep, is_temporary=is_temporary, is_quick=is_quick, say=say)
        self.replication = replication or min(nodes, 3)
        self.least_in_sync = least_in_sync or max(1, self.replication - 1)
        self._tls = tls
        self._sasl = sasl
        self._proxied = proxied
        self._heap = heap
        self._options = options or {}
        self._jars: Path | None = None

    @property
    def bootstrap_servers(self) -> str:
        """All nodes, comma separated."""
        return self._servers("plain")

    @property
    def tls_bootstrap_servers(self) -> str:
        """The listeners with TLS (`tls=True`)."""
        return self._servers("tls")

    @property
    def sasl_bootstrap_servers(self) -> str:
        """The listeners that want a password (`sasl=True`)."""
        return self._servers("sasl")

    @property
    def proxied_bootstrap_servers(self) -> str:
        """The proxies' addresses (`proxied=True`); somebody must run them, see `open_proxies`."""
        return self._servers("proxy")

    @property
    def ca_file(self) -> Path:
        """PEM of the CA that signed the nodes' certificates (`tls=True`)."""
        return self.folder / "ca.pem"

    @property
    def sasl_password(self) -> str:
        """Of `SASL_USERNAME`."""
        return _read_or_make(self.folder / "sasl-password", lambda: secrets.token_urlsafe(18))

    @contextlib.contextmanager
    def open_proxies(self) -> Iterator[list[Proxy]]:
        """A proxy before each node, in the nodes' order, where the PROXIED listeners say they are."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(Proxy(self.port(node, "proxied"), port=self.port(node, "proxy"))) for node in self.nodes]

    def address(self, node: int) -> str:
        """Host and port of one node."""
        return f"127.0.0.1:{self.port(node, 'plain')}"

    def _servers(self, name: str) -> str:
        return ",".join(f"127.0.0.1:{self.port(node, name)}" for node in self.nodes)

    def _fetch_program(self) -> None:
        self._jars = fetch_jars(self._say)

    def _port_names(self) -> Sequence[str]:
        wanted = {"plain": True, "controller": True, "tls": self._tls, "sasl": self._sasl, "proxied": self._proxied, "proxy": self._proxied}
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def _start_nodes(self, nodes: Sequence[int]) -> None:
        self._say(f"Kafka: starting {len(nodes)} of {len(self.nodes)}...")
        if self._tls:
            self._make_certificates()
        for node in nodes:
            (self.node_folder(node) / "tmp").mkdir(parents=True, exist_ok=True)
            (self.node_folder(node) / "server.properties").write_text(self._properties(node))
        self._format(nodes)
        for node in nodes:
            # Only this start's lines count as its own.
            log = self.log(node)
            if log.exists():
                log.replace(log.with_suffix(".old"))
            command = [*self._java(node, self._heap), "kafka.Kafka", "server.properties"]
            self._spawn(node, command, log=log, cwd=self.node_folder(node))
        self._wait_until_ready(nodes)
        self._say(f"Kafka: ready at {self.bootstrap_servers}")

    def _is_ready(self, node: int) -> bool:
        """A broker says so after it has caught up and is let in; its port opens a moment earlier."""
        log = self.log(node)
        if not log.exists() or _STARTED not in log.read_bytes():
            return False
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port(node, "plain"))) == 0

    def _java(self, node: int, heap: str) -> list[str | Path]:
        home = find_java_home(OLDEST_JAVA)
        if home is None or self._jars is None:
            self._fetch_program()
        assert self._jars is not None
        assert home is not None
        return [
            home / "bin" / "java",
            "-Xms64m",
            f"-Xmx{heap}",
            *self.java_options,
            f"-Djava.io.tmpdir={self.node_folder(node) / 'tmp'}",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            f"{self._jars}/*",
        ]

    def _format(self, nodes: Sequence[int]) -> None:
        """Prepare the storage of those that have none: every node of one cluster with the same id."""
        cluster_id = _read_or_make(self.folder / "cluster-id", _make_cluster_id)
        running = []
        for node in nodes:
            if not (self.node_folder(node) / "data" / "meta.properties").exists():
                command = [*self._java(node, "128m"), "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id]
                log = (self.node_folder(node) / "format.log").open("wb")
                with log:
                    running.append(
                        subprocess.Popen(
                            [*command, "-c", "server.properties"],
                            cwd=self.node_folder(node),
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                        )
                    )
        codes = [one.wait(_FORMAT_SECONDS) for one in running]
        if any(codes):
            said = "\n".join((self.node_folder(node) / "format.log").read_text() for node in nodes)
            raise NodeFailed(f"Kafka's storage could not be prepared:\n{said}")

    def _properties(self, node: int) -> str:
        here = "127.0.0.1"
        protocols = {
            "plain": "PLAINTEXT",
            "tls": "SSL",
            "sasl": "SASL_SSL" if self._tls else "SASL_PLAINTEXT",
            "proxied": "PLAINTEXT",
            "controller": "PLAINTEXT",
        }
        listeners = [name for name in protocols if name in self._port_names()]
        advertised = {name: self.port(node, "proxy" if name == "proxied" else name) for name in listeners if name != "controller"}
        lines = {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(f"{one}@{here}:{self.port(one, 'controller')}" for one in self.nodes),
            "listeners": ",".join(f"{name.upper()}://{here}:{self.port(node, name)}" for name in listeners),
            "advertised.listeners": ",".join(f"{name.upper()}://{here}:{port}" for name, port in advertised.items()),
            "listener.security.protocol.map": ",".join(f"{name.upper()}:{protocols[name]}" for name in listeners),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "log.dirs": str(self.node_folder(node) / "data"),
            "num.network.threads": "2",
            "num.io.threads": "4",
            "num.partitions": "3",
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(LARGEST_MESSAGE_BYTES),
            "replica.fetch.max.bytes": str(LARGEST_MESSAGE_BYTES),
            "default.replication.factor": str(self.replication),
            "min.insync.replicas": str(self.least_in_sync),
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker is let in again only after its old session has ended: 4 s instead of 9.
            "broker.heartbeat.interval.ms": "1000",
            "broker.session.timeout.ms": "4000",
        }
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            lines[f"{topic}.replication.factor"] = str(self.replication)
            lines[f"{topic}.num.partitions"] = "8"
        for topic in ("transaction.state.log", "share.coordinator.state.topic"):
            lines[f"{topic}.min.isr"] = str(self.least_in_sync)
        if self._tls:
            lines |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.folder / "server.pem"),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.ca_file),
            }
        if self._sasl:
            users = f'username="admin" password="{self.sasl_password}" user_{SASL_USERNAME}="{self.sasl_password}"'
            lines |= {
                "sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl.plain.sasl.jaas.config": (f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"),
                # Who comes with a password may do what no rule forbids; who comes without makes the rules.
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "allow.everyone.if.no.acl.found": "true",
            }
        return "".join(f"{name}={value}\n" for name, value in (lines | self._options).items())

    def _make_certificates(self) -> None:
        """A CA that nobody else trusts, and one certificate for all nodes."""
        if self.ca_file.exists():
            return
        ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Keeper's tests")])
        now = datetime.now(UTC)
        blank = x509.CertificateBuilder().not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=365))
        ca = (
            blank.subject_name(ca_name)
            .issuer_name(ca_name)
            .serial_number(x509.random_serial_number())
            .public_key(ca_key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
        certificate = (
            blank.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
            .issuer_name(ca_name)
            .serial_number(x509.random_serial_number())
            .public_key(key.public_key())
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / "server.pem").write_bytes(private + certificate.public_bytes(pem) + ca.public_bytes(pem))
        self.ca_file.write_bytes(ca.public_bytes(pem))


def _make_cluster_id() -> str:
    # Kafka's tool takes a leading dash for an option.
    return base64.urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")


def _read_or_make(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())
    return path.read_text()
