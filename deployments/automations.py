"""What Prefect's server notices by itself of Keeper's runs, and does: the automations, found by their tag and name.

Idempotent: one that is there is written anew only where it differs, and one a person has switched off stays off. They look at runs of
deployments alone, which carry the tag; whoever runs a flow by hand sees how it ends.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState, DoNothing
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict

from keeper.settings import PrefectSettings

TAG: Final = "keeper"
WEBHOOK: Final = "keeper-automations"
_RUNS: Final = {"prefect.resource.id": "prefect.flow-run.*"}
_OURS: Final = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
_PENDING: Final = ("Pending", "Submitting", "InfrastructurePending")
_FINAL: Final = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")
_NOT_PENDING: Final = ("Running", "Cancelling", "Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Paused", *_FINAL)
# `text` is what most chats read; a name, a state or a message may hold quotes.
_PAYLOAD: Final = (
    '{"text": {{ (automation.name ~ (": " ~ flow_run.name ~ " " ~ flow_run.state.name if flow_run else ""))|tojson }}, '
    '"automation": {{ automation.name|tojson }}, "what": {{ automation.description|tojson }}, '
    '"event": {{ (event.event if event else "")|tojson }}, "details": {{ (event.payload if event else {})|tojson }}, '
    '"run": {{ (flow_run.name if flow_run else "")|tojson }}, "state": {{ (flow_run.state.name if flow_run else "")|tojson }}, '
    '"message": {{ (flow_run.state.message or "" if flow_run else "")|tojson }}}'
)
# Ten heartbeats of 30 s. A server that was away for longer takes for dead what ran meanwhile: it heard none.
SILENT_RUN: Final = timedelta(minutes=5)
# An image may have to be pulled first.
STUCK_RUN: Final = timedelta(minutes=5)
# Two of the runs every five minutes may fail, or give way to a long one.
SILENT_OUTBOX: Final = timedelta(minutes=15)
# A check may take half an hour, and six runs give way to it. More means that a run holds its place for good, or two schedulers are at work.
_STORM: Final = (8, timedelta(minutes=45))


def wanted_automations(
    told: Sequence[ActionTypes] = (), *, silent_run: timedelta = SILENT_RUN, stuck_run: timedelta = STUCK_RUN
) -> list[AutomationCore]:
    """All of them.

    Args:
        told: what each does beside; none shows it in Prefect's UI only.
        silent_run: without a heartbeat for so long, a run is taken for dead.
        stuck_run: so long a run may be pending.
    """
    return [
        _automation(
            "keeper: a run is unhealthy",
            "A run has failed, crashed or taken too long. Its message says why; it can be run again with the same parameters.",
            EventTrigger(**_of_runs(), posture=Posture.Reactive, expect=_events("Failed", "Crashed", "TimedOut")),
            told,
        ),
        _automation(
            "keeper: a run has died",
            "A run sends no heartbeat any more: its machine or its worker is gone. It is marked Crashed, which frees its place.",
            EventTrigger(
                **_of_runs("prefect.resource.id"),
                posture=Posture.Proactive,
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},
                within=silent_run,
            ),
            [ChangeFlowRunState(state=StateType.CRASHED, message="no heartbeat any more; marked by Keeper's automation"), *told],
        ),
        _automation(
            "keeper: a run is stuck",
            "A run is pending and does not begin: its worker died, or its container cannot start. It is marked Crashed.",
            EventTrigger(
                **_of_runs("prefect.resource.id"),
                posture=Posture.Proactive,
                after=_events(*_PENDING),
                expect=_events(*_NOT_PENDING),
                within=stuck_run,
            ),
            [ChangeFlowRunState(state=StateType.CRASHED, message="pending for too long; marked by Keeper's automation"), *told],
        ),
        _automation(
            "keeper: the outbox is silent",
            "No delivery has completed: look at the runs of delivery/every-5min, at the worker of keeper-process, and at `keeper status`.",
            EventTrigger(
                match=_RUNS,
                match_related={"prefect.resource.role": "flow", "prefect.resource.name": "delivery"},
                posture=Posture.Proactive,
                expect=_events("Completed"),
                within=SILENT_OUTBOX,
            ),
            told,
        ),
        _automation(
            "keeper: a run is late",
            "Nobody has picked up a run in time: is a worker of its pool there, and has it a place free?",
            EventTrigger(**_of_runs(), posture=Posture.Reactive, expect=_events("Late")),
            told,
        ),
        _automation(
            "keeper: runs give way again and again",
            "A run holds its deployment for good, or another scheduler works on the same database.",
            EventTrigger(
                **_of_runs("related:deployment:prefect.resource.id"),
                posture=Posture.Reactive,
                expect=_events("Cancelled"),
                threshold=_STORM[0],
                within=_STORM[1],
            ),
            told,
        ),
        _automation(
            "keeper: tokens or a system",
            "The tokens run low, or Keepa, Kafka, Elasticsearch or the channels are down or back; the event says which.",
            EventTrigger(match={"prefect.resource.id": "keeper.*"}, posture=Posture.Reactive, expect={"keeper.*"}),
            told,
        ),
    ]


def _of_runs(each: str | None = None) -> dict[str, Any]:
    return {"match": _RUNS, "match_related": _OURS, "for_each": set() if each is None else {each}}


def _events(*states: str) -> set[str]:
    return {f"prefect.flow-run.{state}" for state in states}


def _automation(name: str, description: str, trigger: EventTrigger, actions: Sequence[ActionTypes]) -> AutomationCore:
    return AutomationCore(name=name, description=description, tags=[TAG], trigger=trigger, actions=list(actions) or [DoNothing()])


def ensure_automations(client: SyncPrefectClient, settings: PrefectSettings) -> list[str]:
    """Make those that are missing and mend those that differ. Returns a line per thing made or changed."""
    known_webhook = _read_webhook(client)
    changes, told = _ensure_webhook(known_webhook, settings)
    there = {one.name: one for one in read_ours(client)}
    for one in wanted_automations(told):
        known = there.get(one.name)
        if known is None:
            client.create_automation(one)
            changes.append(f"automation {one.name} made")
        elif _said(known) != _said(one):
            client.update_automation(known.id, one.model_copy(update={"enabled": known.enabled}))
            changes.append(f"automation {one.name} changed")
    if known_webhook is not None and not told:
        # Last, when no automation calls it any more.
        client.delete_block_document(known_webhook[0])
        changes.append(f"webhook {WEBHOOK} removed")
    return changes


def read_ours(client: SyncPrefectClient) -> list[Automation]:
    """Those that carry Keeper's tag."""
    found: list[Automation] = []
    while page := client.read_automations(offset=len(found), limit=200):
        found += page
    return [one for one in found if TAG in one.tags]


def _ensure_webhook(known: tuple[UUID, str] | None, settings: PrefectSettings) -> tuple[list[str], list[ActionTypes]]:
    """What was changed, and the action that tells; the address stands encrypted in Prefect's database."""
    if settings.webhook_url is None:
        return [], []
    wanted = settings.webhook_url.get_secret_value()
    if known is not None and known[1] == wanted:
        return [], [CallWebhook(block_document_id=known[0], payload=_PAYLOAD)]
    block = Webhook(url=settings.webhook_url, headers=SecretDict({"Content-Type": "application/json"}), allow_private_urls=True)
    block_id = block.save(WEBHOOK, overwrite=True)
    line = f"webhook {WEBHOOK} {'made' if known is None else 'changed'}"
    return [line], [CallWebhook(block_document_id=block_id, payload=_PAYLOAD)]


def _read_webhook(client: SyncPrefectClient) -> tuple[UUID, str] | None:
    try:
        document = client.read_block_document_by_name(WEBHOOK, Webhook.get_block_type_slug())
    except ObjectNotFound:
        return None
    return document.id, str(document.data.get("url", ""))


def _said(automation: AutomationCore) -> dict[str, Any]:
    """What of it Keeper decides; whether it is on is a person's choice."""
    said = automation.model_dump(mode="json", include={"description", "trigger", "actions"})
    for name in ("after", "expect", "for_each"):
        said["trigger"][name] = sorted(said["trigger"][name])
    said["trigger"].pop("id", None)
    return said
