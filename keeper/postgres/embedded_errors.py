"""What can go wrong with the embedded PostgreSQL server.

EmbeddedServerError
├── BinariesMissingError      no PostgreSQL to run
├── FolderUnusableError       a folder cannot be made, read or trusted
├── ServerAccountError        no account the server could run as
├── MajorVersionError         the data belong to another major version
├── DataMovedAwayError        the data lived elsewhere and are gone
├── ServerStartError          initdb or the server itself refused
├── ServerNotRunningError     an address was asked of a stopped server
├── TcpUnavailableError       it runs, but not on the TCP port that was asked for
├── ServerRefusesError        it runs, but does not let us in
└── ServerBusyError           (transient) starting, stopping or recovering for longer than we wait
"""

from pathlib import Path

from keeper.domain.errors import KeeperError, TransientError


class EmbeddedServerError(KeeperError):
    """The embedded PostgreSQL server cannot be used."""


class BinariesMissingError(EmbeddedServerError):
    """There is no complete PostgreSQL where it was looked for."""

    def __init__(self, looked_in: Path | None, reason: str) -> None:
        self.looked_in = looked_in
        where = f" in {looked_in}" if looked_in else ""
        super().__init__(
            f"No usable PostgreSQL programs{where}: {reason}. Run `make setup`, set KEEPER_POSTGRES_BIN to the bin folder of "
            "PostgreSQL 15 or newer, or set KEEPER_DATABASE_URL to a server of your own."
        )


class FolderUnusableError(EmbeddedServerError):
    """A folder of the server cannot be made, read or trusted."""

    def __init__(self, folder: Path, reason: str, remedy: str) -> None:
        self.folder = folder
        self.reason = reason
        super().__init__(f"The embedded PostgreSQL cannot use {folder}: {reason}. {remedy}")


class ServerAccountError(EmbeddedServerError):
    """The server has no account to run as."""


class MajorVersionError(EmbeddedServerError):
    """The data folder was made by another major version of PostgreSQL."""

    def __init__(self, folder: Path, data_major: str, programs_major: str) -> None:
        self.folder = folder
        self.data_major = data_major
        self.programs_major = programs_major
        super().__init__(
            f"The data in {folder} were made by PostgreSQL {data_major}, the programs are PostgreSQL {programs_major}. "
            f"Set KEEPER_POSTGRES_BIN to the bin folder of a PostgreSQL {data_major}; to move to {programs_major}, make a backup with it, "
            f"move {folder} away, unset KEEPER_POSTGRES_BIN and restore the backup."
        )


class DataMovedAwayError(EmbeddedServerError):
    """The data were kept outside the data folder and are no longer there."""

    def __init__(self, pointer: Path, place: Path) -> None:
        self.pointer = pointer
        self.place = place
        super().__init__(
            f"The embedded PostgreSQL kept its data in {place}, and they are gone. "
            f"Bring them back, or delete {pointer} to begin with an empty database."
        )


class ServerStartError(EmbeddedServerError):
    """`initdb` or the server ended with an error; the end of its log is in the text."""

    def __init__(self, step: str, log_tail: str, remedy: str) -> None:
        self.step = step
        self.log_tail = log_tail
        super().__init__(f"The embedded PostgreSQL failed at {step}. {remedy}\n{log_tail}")


class ServerNotRunningError(EmbeddedServerError):
    """The server does not run, so it has no address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"The embedded PostgreSQL with its data in {folder} does not run. Any Keeper command that needs it starts it.")


class TcpUnavailableError(EmbeddedServerError):
    """The running server does not listen where this caller needs it."""

    def __init__(self, wanted_port: int, running_port: int | None) -> None:
        self.wanted_port = wanted_port
        self.running_port = running_port
        wanted = "a TCP port" if wanted_port == 0 else f"TCP port {wanted_port}"
        runs = "without TCP" if running_port is None else f"on TCP port {running_port}"
        super().__init__(
            f"{wanted} was asked for, but the embedded PostgreSQL already runs {runs}. Stop it with `make down`, then start again."
        )


class ServerRefusesError(EmbeddedServerError):
    """The server runs but refused our connection."""


class ServerBusyError(EmbeddedServerError, TransientError):
    """The server is starting, stopping or recovering for longer than we wait."""
