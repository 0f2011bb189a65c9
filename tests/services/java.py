"""Java programs from Maven Central: which JDK runs them, and their one download.

A download lives in a folder of its own below `downloads_folder`; the folder appears by a rename when it is complete, so what is there is
whole. Two processes that want the same one wait for one another.
"""

import atexit
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from keeper.domain.errors import KeeperError
from keeper.postgres.embedded import ROOT_PLACE

# Another folder for the downloads, so that several checkouts share them.
DOWNLOADS = "KEEPER_TEST_DOWNLOADS"
# The JDK for one program, where the usual places hold none.
JAVA_HOME = "KEEPER_TEST_JAVA_HOME"
SERVICES_FOLDER = Path(__file__).parents[2] / ".keeper" / "services"
_POMS = Path(__file__).parent / "maven"
_USUAL_PLACES = ("/usr/lib/jvm", "/opt/java", "/Library/Java/JavaVirtualMachines")
_DOWNLOAD_SECONDS = 1200
_LOCK_SECONDS = 1300
_POLL_SECONDS = 0.1

Say = Callable[[str], None]


class ServiceMissing(KeeperError):
    """What the real services need is not on this machine; the text names it."""


class DownloadFailed(KeeperError):
    """Maven did not bring a program; the text holds the end of what it said."""


def say_nothing(_line: str) -> None:
    """For those who do not want to hear of progress."""


def find_java_home(oldest: int, modules: Sequence[str] = ()) -> Path | None:
    """The home of a Java of at least this version that has the modules: of those that do, the one with the lowest version."""
    found = []
    for home in _java_homes():
        version, has = _read_release(home)
        if version >= oldest and set(modules) <= has:
            found.append((version, home))
    return min(found, default=(0, None))[1]


def missing_programs(name: str, account: int | None, oldest: int, modules: Sequence[str] = ()) -> str | None:
    """What must be installed before a program of this name (see `download`) runs, for a person; None where nothing is missing."""
    wanted = []
    if find_java_home(oldest, modules) is None:
        wanted.append(f"{'a JDK' if modules else 'Java'} {oldest} or newer (JAVA_HOME or {JAVA_HOME} names it)")
    if shutil.which("mvn") is None and not (downloads_folder(account) / name).exists():
        wanted.append("Maven (mvn)")
    return " and ".join(wanted) or None


def downloads_folder(account: int | None, say: Say = say_nothing) -> Path:
    """Where downloads are kept, reachable for the account (None: ours)."""
    folder = Path(os.environ.get(DOWNLOADS) or SERVICES_FOLDER / "downloads").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if can_reach(folder, account):
        return folder
    elsewhere = ROOT_PLACE / "services"
    say(f"account {account} cannot reach {folder}, because a folder above it is private: the download is kept in {elsewhere}")
    elsewhere.mkdir(parents=True, exist_ok=True)
    return elsewhere


def can_reach(folder: Path, account: int | None) -> bool:
    """Whether the account may list the folder and enter it."""
    if account is None:
        return os.access(folder, os.R_OK | os.X_OK)
    done = subprocess.run(["/bin/sh", "-c", 'test -r "$0" && test -x "$0"', folder], user=account, extra_groups=[], cwd="/", check=False)
    return done.returncode == 0


def download(name: str, pom: str, goal: Sequence[str], *, folder: Path, finish: Callable[[Path], Path], say: Say, size: str) -> Path:
    """The folder of a program, brought by Maven where it is not there yet.

    Args:
        name: the program and its version, as the folder is called.
        pom: file below `maven/`.
        goal: Maven's goal and options; it writes to `-DoutputDirectory`, which is added.
        folder: where downloads are kept.
        finish: gets the output folder and returns the part to keep.
        say: told when the download begins and ends.
        size: for the person who waits.

    Raises:
        DownloadFailed: Maven said no, or took too long.
    """
    kept = folder / name
    if kept.exists():
        return kept
    with locked(folder / f"{name}.lock", _LOCK_SECONDS):
        if kept.exists():
            return kept
        for stale in folder.glob(f"{name}.partial-*"):
            shutil.rmtree(stale, ignore_errors=True)
        # Its name differs each time: a Maven whose starter was killed may still write.
        partial = Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=folder))
        say(f"{name}: downloading (once, {size})...")
        began = time.monotonic()
        try:
            # A repository of its own: the archive can be deleted, and two Mavens at once do not share one.
            _run_maven(
                ["-f", _POMS / pom, f"-Dmaven.repo.local={partial / 'repository'}", *goal, f"-DoutputDirectory={partial / 'output'}"],
                log=partial / "maven.log",
            )
            result = finish(partial / "output")
            _open_for_reading(result)
            result.rename(kept)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        say(f"{name}: downloaded in {time.monotonic() - began:.0f} s")
        return kept


@contextmanager
def locked(path: Path, longest_seconds: float) -> Iterator[None]:
    """Hold an exclusive lock on a file.

    Raises:
        DownloadFailed: somebody else held it for too long.
    """
    with path.open("a") as file:
        deadline = time.monotonic() + longest_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise DownloadFailed(f"another process has held {path} for {longest_seconds:.0f} s") from error
                time.sleep(_POLL_SECONDS)
        yield


def _run_maven(arguments: Sequence[str | Path], *, log: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceMissing("Maven (mvn) is not installed")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [maven, "-B", "-q", *arguments], cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        # A thread that waits for it may itself be ended with the interpreter.
        atexit.register(process.kill)
        try:
            code = process.wait(_DOWNLOAD_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise DownloadFailed(f"Maven took longer than {_DOWNLOAD_SECONDS} s:\n{tail(log)}") from error
        finally:
            process.kill()
            process.wait()
            atexit.unregister(process.kill)
    if code != 0:
        raise DownloadFailed(f"Maven ended with {code}:\n{tail(log)}")


def tail(log: Path, lines: int = 25) -> str:
    """The end of a log."""
    if not log.exists():
        return f"({log} does not exist)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _java_homes() -> Iterator[Path]:
    for name in (JAVA_HOME, "JAVA_HOME"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    on_path = shutil.which("java")
    if on_path is not None:
        yield Path(on_path).resolve().parents[1]
    for place in _USUAL_PLACES:
        for home in sorted(Path(place).glob("*")):
            yield home / "Contents" / "Home" if (home / "Contents" / "Home").exists() else home


def _read_release(home: Path) -> tuple[int, set[str]]:
    """Version and modules from the file every JDK has; (0, nothing) where it or the program is missing."""
    if not os.access(home / "bin" / "java", os.X_OK):
        return 0, set()
    try:
        lines = (home / "release").read_text(errors="replace")
    except OSError:
        return 0, set()
    version = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', lines, re.MULTILINE)
    modules = re.search(r'^MODULES="([^"]*)"', lines, re.MULTILINE)
    return int(version[1]) if version else 0, set(modules[1].split()) if modules else set()


def _open_for_reading(folder: Path) -> None:
    """Whatever the umask: another account will read it."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if path.is_dir() or mode & 0o100 else 0))
