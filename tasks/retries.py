"""When a task is worth another try."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task
from sqlalchemy.exc import OperationalError

from keeper.domain.errors import TransientError
from keeper.keepa.errors import KeepaError


def on_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Errors that may pass by themselves."""
    return isinstance(_raised(state), TransientError)


def on_keepa(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Errors of Keepa's that may pass by themselves; missing tokens were waited for already."""
    error = _raised(state)
    return isinstance(error, KeepaError) and isinstance(error, TransientError)


def on_unpaid(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """As `on_keepa`, for what is dear: not where Keepa may have taken its tokens already."""
    error = _raised(state)
    return on_keepa(task, run, state) and isinstance(error, KeepaError) and not error.may_have_cost


def on_database(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """A database that restarts, or a deadlock it broke."""
    return isinstance(_raised(state), OperationalError)


def on_transient_or_database(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Either of both."""
    return on_transient(task, run, state) or on_database(task, run, state)


def _raised(state: State[Any]) -> BaseException | None:
    error = state.data
    return error if isinstance(error, BaseException) else None
