"""What the logs of a run bear: its id, and that of the request that asked for it; JSON where the settings say so."""

import logging
from typing import Final

import prefect.main  # noqa: F401  which sets up Prefect's own logging, once
from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler

from keeper import trace
from keeper.accounts import mask_keys
from keeper.logs import JsonFormatter, MaskingFormatter, Redaction, TextFormatter
from keeper.settings import SettingsInvalid, list_secrets, read_settings
from keeper.trace import Trace

_LOGGERS: Final = ("", "prefect", "prefect.extra", "prefect.flow_runs", "prefect.task_runs")
# A process runs one flow: its threads have no context of Prefect's, and are the run's all the same.
_of_process: list[Trace] = []


def follow_run() -> None:
    """From here on what this process logs and records is its run's."""
    trace.look_to(_run)
    try:
        settings = read_settings()
    except SettingsInvalid:
        return  # The run says so itself, as soon as it needs them.
    redact = Redaction(list_secrets(settings), mask_keys)
    for handler in {id(one): one for name in _LOGGERS for one in logging.getLogger(name).handlers}.values():
        if isinstance(handler, APILogHandler):
            handler.setFormatter(TextFormatter(redact, "%(message)s", facts=("request_id",)))
        elif isinstance(handler, PrefectConsoleHandler):
            plain = MaskingFormatter(redact, handler.formatter or logging.Formatter())
            handler.setFormatter(JsonFormatter(redact) if settings.log_format == "json" else plain)


def _run() -> Trace | None:
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        found = next((one for one in map(trace.read_tag, context.flow_run.tags) if one is not None), None)
        _of_process[:] = [Trace(request_id=found, run_id=str(context.flow_run.id))]
    return _of_process[0] if _of_process else None
