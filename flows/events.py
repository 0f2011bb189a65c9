"""What a run tells Prefect's automations: the tokens run low, a system goes down or comes back. One event at a change, none at a run.

What was told last is a Prefect variable, because each run is a process of its own: it is there from the bad news to the good. Telling
never fails the run.
"""

import logging
from collections.abc import Mapping
from typing import Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.events import emit_event
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from keeper.domain.events import Sink
from keeper.relay import Relayed

logger = logging.getLogger(__name__)

TOKENS: Final = "tokens"
KEEPA: Final = "keepa"
_SYSTEMS: Final = {Sink.KAFKA.value: "kafka", Sink.SEARCH.value: "elasticsearch", Sink.NOTIFY.value: "channels"}
_VARIABLE: Final = "keeper_trouble_"
_LONGEST_REASON: Final = 300


def systems_of(by_sink: Mapping[str, Relayed]) -> dict[str, str | None]:
    """Why each system that was to be delivered to is down; None where it is not."""
    return {_SYSTEMS[sink]: done.down for sink, done in by_sink.items() if sink in _SYSTEMS}


def tell_changes(troubles: Mapping[str, str | None]) -> None:
    """Tell what has changed since it was told last.

    Args:
        troubles: what is wrong with each of them, by `tokens`, `keepa` or a system of `systems_of`; None where all is well. What this run
            has not seen is missing.
    """
    if not troubles:
        return
    try:
        with get_client(sync_client=True) as client:
            told = {one.name.removeprefix(_VARIABLE) for one in client.read_variables() if one.name.startswith(_VARIABLE)}
            for subject, trouble in troubles.items():
                if (trouble is not None) == (subject in told):
                    continue
                try:
                    if trouble is None:
                        client.delete_variable_by_name(_VARIABLE + subject)
                    else:
                        client.create_variable(VariableCreate(name=_VARIABLE + subject, value=trouble[:_LONGEST_REASON]))
                except (ObjectAlreadyExists, ObjectNotFound):
                    # Another run has told it a moment ago.
                    continue
                _emit(subject, trouble)
    except Exception:
        # The run has done its work, and does not fail because nobody could be told.
        logger.exception("what has changed could not be told to Prefect")


def _emit(subject: str, trouble: str | None) -> None:
    bad, good = ("low", "enough") if subject == TOKENS else ("down", "back")
    emit_event(
        event=f"keeper.{subject}.{good if trouble is None else bad}",
        resource={"prefect.resource.id": f"keeper.{subject}", "prefect.resource.name": subject},
        payload={"why": (trouble or "")[:_LONGEST_REASON]},
    )
