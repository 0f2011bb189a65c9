"""A real Docker engine for the compose test, on a machine that has none running and no image registry: `python -m tests.services.engine`.

  up      start the engine of Debian's package docker.io (root only), unless one answers already, and print what to export
  down    end what `up` started; images stay for the next time, unless --delete
  images  make the stand-ins of base images (`tests/services/standins`)

Everything of it lies in /var/tmp/keeper-docker: its socket, images, volumes, and the plugin Compose v2, which is built once from the Go
module proxy (about six minutes on two cores) where the machine's docker has none.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from keeper.domain.errors import KeeperError
from tests.services.java import ServiceMissing, locked, tail

FOLDER: Final = Path("/var/tmp/keeper-docker")  # noqa: S108  kept between runs, for root alone
_USUAL_SOCKET = Path("/var/run/docker.sock")
_COMPOSE = "github.com/docker/compose/v2"
_COMPOSE_VERSION = "v2.40.3"
_START_SECONDS = 60
_STOP_SECONDS = 60
_BUILD_SECONDS = 1800
_PACKAGES = {"dockerd": "docker.io", "containerd": "containerd", "iptables": "iptables"}


class EngineFailed(KeeperError):
    """The engine or a command of docker's said no; the text holds what it said."""


class Engine:
    """The engine below one folder; or the one that runs on this machine already, which is left as it is."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.is_own = folder.joinpath("dockerd.pid").exists() or not _answers({**os.environ})
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "docker.sock" if self.is_own else _USUAL_SOCKET

    @property
    def environment(self) -> dict[str, str]:
        """What docker's commands need; a configuration of their own, so that nobody's credentials are used."""
        own = {
            "DOCKER_CONFIG": str(self.folder / "config"),
            "DOCKER_HOST": f"unix://{self.socket}",
            # The engine's BuildKit is as old as Debian; the classic builder knows all that our files say.
            "DOCKER_BUILDKIT": "0",
        }
        return {**os.environ, "DOCKER_SOCKET": str(self.socket), **(own if self.is_own else {})}

    def is_running(self) -> bool:
        """Whether it answers."""
        return _answers(self.environment)

    def start(self) -> None:
        """Start it, unless it runs; and have Compose.

        Raises:
            ServiceMissing: a package is not installed, or we are not root.
            EngineFailed: it did not come up.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.folder / "start.lock", _BUILD_SECONDS):
            if not _answers(self.environment):
                self._start()
            self._have_compose()

    def stop(self) -> bool:
        """End what `start` started. Returns whether it ran."""
        pid = self._pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._pid() is not None and time.monotonic() < deadline:
            if self._child is not None:
                self._child.poll()
            time.sleep(0.2)
        if self._child is not None:
            self._child.wait(_STOP_SECONDS)
            self._child = None
        self.folder.joinpath("dockerd.pid").unlink(missing_ok=True)
        return True

    def remove(self) -> None:
        """End it and delete its images, volumes and containers; the plugin stays."""
        self.stop()
        for name in ("data", "exec", "dockerd.log"):
            path = self.folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def docker(self, *words: str | Path, seconds: float = 600, input_bytes: bytes | None = None, cwd: Path | None = None) -> str:
        """Run `docker <words>`. Returns what it printed.

        Raises:
            EngineFailed: it said no.
        """
        return run(["docker", *map(str, words)], environment=self.environment, seconds=seconds, input_bytes=input_bytes, cwd=cwd)

    def has_image(self, name: str) -> bool:
        """Whether the engine has it."""
        return bool(self.docker("image", "ls", "--quiet", name).strip())

    def _pid(self) -> int | None:
        try:
            pid = int(self.folder.joinpath("dockerd.pid").read_text())
            is_ours = str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if is_ours else None

    def _start(self) -> None:
        missing = [package for program, package in _PACKAGES.items() if shutil.which(program, path=_path()) is None]
        if missing:
            raise ServiceMissing(f"the engine needs Debian's packages {', '.join(missing)}: apt-get install --no-install-recommends")
        if os.getuid() != 0:
            raise ServiceMissing("only root can start a Docker engine")
        log = self.folder / "dockerd.log"
        self.folder.joinpath("dockerd.pid").unlink(missing_ok=True)
        with log.open("wb") as output:
            self._child = process = subprocess.Popen(
                [
                    "dockerd",
                    *("--host", f"unix://{self.socket}"),
                    *("--data-root", self.folder / "data"),
                    *("--exec-root", self.folder / "exec"),
                    *("--pidfile", self.folder / "dockerd.pid"),
                    *("--default-ulimit", "nofile=1024:1024"),
                ],
                env={**os.environ, "PATH": _path()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.environment):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EngineFailed(f"the Docker engine did not start:\n{tail(log)}")
            time.sleep(0.2)

    def _have_compose(self) -> None:
        plugin = self.folder / "config" / "cli-plugins" / "docker-compose"
        if plugin.exists() or (not self.is_own and _has_compose(self.environment)):
            return
        plugin.parent.mkdir(parents=True, exist_ok=True)
        if shutil.which("go") is None:
            raise ServiceMissing("Compose v2 is not installed, and there is no Go to build it with")
        _build_compose(plugin)


def run(
    words: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = 600,
    input_bytes: bytes | None = None,
    cwd: Path | None = None,
) -> str:
    """What a command printed on standard output.

    Raises:
        EngineFailed: it said no, or took too long.
    """
    try:
        done = subprocess.run(words, env=environment, input=input_bytes or b"", capture_output=True, timeout=seconds, check=False, cwd=cwd)
    except subprocess.TimeoutExpired as error:
        raise EngineFailed(f"{' '.join(words[:4])} took longer than {seconds:.0f} s") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise EngineFailed(f"{' '.join(words[:6])} ended with {done.returncode}:\n{said[-4000:]}")
    return done.stdout.decode(errors="replace")


def _build_compose(plugin: Path) -> None:
    """In a copy of the module: `go install` refuses one that excludes versions."""
    module = json.loads(run(["go", "mod", "download", "-json", f"{_COMPOSE}@{_COMPOSE_VERSION}"], seconds=_BUILD_SECONDS))["Dir"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "compose"
        shutil.copytree(module, source)
        for path in (source, *source.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        partial = plugin.with_suffix(".new")
        run(
            [
                *("go", "build", "-mod=mod", "-trimpath"),
                *("-ldflags", f"-s -w -X {_COMPOSE}/internal.Version={_COMPOSE_VERSION}"),
                *("-o", str(partial), "./cmd"),
            ],
            environment={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
            seconds=_BUILD_SECONDS,
            cwd=source,
        )
    partial.replace(plugin)


def _answers(environment: Mapping[str, str]) -> bool:
    """Whether an engine does. `docker` itself may be missing."""
    try:
        return subprocess.run(["docker", "info"], env=environment, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _has_compose(environment: Mapping[str, str]) -> bool:
    return subprocess.run(["docker", "compose", "version"], env=environment, capture_output=True, timeout=30, check=False).returncode == 0


def _path() -> str:
    """Debian's engine is where only root looks."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def main(words: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.services.engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down|images")
    commands.add_parser("up", help="start it and print what to export")
    of_down = commands.add_parser("down", help="end what up started")
    of_down.add_argument("--delete", action="store_true", help="and delete its images, volumes and containers")
    commands.add_parser("images", help="make the stand-ins of base images")
    arguments = parser.parse_args(words)
    engine = Engine()
    try:
        if arguments.command == "down":
            ran = engine.stop()
            if arguments.delete:
                engine.remove()
            print("ended the Docker engine" if ran else "nothing ran", file=sys.stderr)
            return
        engine.start()
        if arguments.command == "images":
            from tests.services.standins import make_images

            make_images(engine, say=lambda line: print(line, file=sys.stderr, flush=True))
        for name in ("DOCKER_CONFIG", "DOCKER_HOST", "DOCKER_BUILDKIT", "DOCKER_SOCKET"):
            if name in engine.environment:
                print(f"export {name}='{engine.environment[name]}'")
    except KeeperError as error:
        sys.exit(f"engine: {error}")


if __name__ == "__main__":
    main()
