"""One scheduler per job and database, by a session advisory lock."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError


@contextmanager
def hold_job(engine: Engine, name: str) -> Iterator[bool]:
    """Hold the lock of a job on a connection of its own; yields False at once when another process has it.

    The lock ends with the connection, so the job of a killed process is free again within seconds. Where only the connection is lost,
    the job goes on: what it takes is claimed row by row, so a second one beside it does nothing twice.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"name": name}
        held: bool = connection.execute(text("SELECT pg_try_advisory_lock(hashtext('keeper.job'), hashtext(:name))"), key).scalar_one()
        try:
            yield held
        finally:
            if held:
                try:
                    connection.execute(text("SELECT pg_advisory_unlock(hashtext('keeper.job'), hashtext(:name))"), key)
                except SQLAlchemyError:
                    # Ended, if it has not gone by itself: back in the pool it would hold the lock for good.
                    connection.invalidate()
