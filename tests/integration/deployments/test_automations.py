"""The automations on a real Prefect server: what they look at, and that they act when it happens."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State, StateType
from prefect.events import emit_event
from prefect.events.schemas.automations import Automation, EventTrigger, Posture
from prefect.states import Cancelled, Failed, Late, Pending, Running, Scheduled
from pydantic import SecretStr

from deployments.automations import ensure_automations, read_ours, wanted_automations
from keeper.settings import PrefectSettings
from tests.services.waiting import wait_until

# event states each waits for (or, proactive, misses), seconds within, threshold
TRIGGERS = {
    "keeper: a run is unhealthy": (Posture.Reactive, {"Failed", "Crashed", "TimedOut"}, 0, 1),
    "keeper: a run has died": (Posture.Proactive, {"*"}, 300, 1),
    "keeper: a run is stuck": (
        Posture.Proactive,
        {"Running", "Cancelling", "Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Paused"}
        | {"Completed", "Failed", "Crashed", "Cancelled", "TimedOut"},
        300,
        1,
    ),
    "keeper: the outbox is silent": (Posture.Proactive, {"Completed"}, 900, 1),
    "keeper: a run is late": (Posture.Reactive, {"Late"}, 0, 1),
    "keeper: runs give way again and again": (Posture.Reactive, {"Cancelled"}, 2700, 8),
}


def by_name(client: SyncPrefectClient) -> dict[str, Automation]:
    """Keeper's."""
    return {one.name: one for one in read_ours(client)}


def trigger_of(automation: Automation) -> EventTrigger:
    """They all wait for events."""
    assert isinstance(automation.trigger, EventTrigger)
    return automation.trigger


def test_each_looks_at_what_the_table_says(client: SyncPrefectClient) -> None:
    ensure_automations(client, PrefectSettings())

    there = by_name(client)
    assert {*there} == {*TRIGGERS, "keeper: tokens or a system"}
    for name, (posture, states, seconds, threshold) in TRIGGERS.items():
        trigger = trigger_of(there[name])
        expected = {f"prefect.flow-run.{state}" for state in states}
        assert (trigger.posture, trigger.expect, trigger.within.total_seconds(), trigger.threshold) == (
            posture, expected, seconds, threshold
        ), name  # fmt: skip
    pending = {f"prefect.flow-run.{state}" for state in ("Pending", "Submitting", "InfrastructurePending")}
    assert trigger_of(there["keeper: a run is stuck"]).after == pending
    assert trigger_of(there["keeper: a run has died"]).after == {"prefect.flow-run.heartbeat"}
    crashing = [name for name, one in there.items() if any(action.type == "change-flow-run-state" for action in one.actions)]
    assert sorted(crashing) == ["keeper: a run has died", "keeper: a run is stuck"]


def test_what_a_person_changed_is_mended_and_what_they_switched_off_stays_off(client: SyncPrefectClient) -> None:
    ensure_automations(client, PrefectSettings())
    (wanted,) = [one for one in wanted_automations() if one.name == "keeper: a run is late"]
    known = by_name(client)[wanted.name]
    client.update_automation(known.id, wanted.model_copy(update={"enabled": False, "description": "mine"}))

    assert ensure_automations(client, PrefectSettings()) == ["automation keeper: a run is late changed"]
    mended = by_name(client)["keeper: a run is late"]
    assert (mended.enabled, mended.description != "mine") == (False, True)
    assert ensure_automations(client, PrefectSettings()) == []


class Told:
    """A web server that keeps what it is told."""

    def __init__(self) -> None:
        told: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.told = told
        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """With a secret, as such addresses have."""
        return f"http://127.0.0.1:{self.server.server_port}/hooks/secret-of-the-chat"

    def names(self) -> list[str]:
        """Of the automations that told something."""
        return [one["automation"] for one in self.told]


@pytest.fixture
def hook() -> Iterator[Told]:
    """Ended with the test."""
    made = Told()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


class Runs:
    """Runs of a deployment, whose states a test sets."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client
        flow_id = client.create_flow_from_name("price-watch")
        self.deployment_id = client.create_deployment(flow_id, "tick", tags=["keeper"])

    def start(self, *states: State[Any]) -> UUID:
        """A run that goes through these."""
        run = self.client.create_flow_run_from_deployment(self.deployment_id, tags=["keeper"])
        for state in states:
            self.client.set_flow_run_state(run.id, state, force=True)
        return run.id

    def state(self, run_id: UUID) -> tuple[StateType | None, str | None]:
        """Of one of them."""
        run = self.client.read_flow_run(run_id)
        return (run.state.type, run.state.message) if run.state else (None, None)


def test_what_goes_wrong_is_told_as_soon_as_it_happens(client: SyncPrefectClient, hook: Told) -> None:
    settings = PrefectSettings(webhook_url=SecretStr(hook.url))
    assert ensure_automations(client, settings)[0] == "webhook keeper-automations made"
    assert ensure_automations(client, settings) == []
    assert "secret-of-the-chat" not in client.request("POST", "/automations/filter", json={}).text
    runs = Runs(client)

    runs.start(Running(), Failed(message='Keepa said "no"'))
    runs.start(Late())
    for _ in range(8):
        runs.start(Cancelled())
    emit_event("keeper.kafka.down", resource={"prefect.resource.id": "keeper.kafka"}, payload={"why": "nobody answers"})

    wanted = {"unhealthy", "late", "again", "system"}
    wait_until(lambda: {name.split()[-1] for name in hook.names()} >= wanted, f"told only {hook.names()}")
    (failed,) = [one for one in hook.told if one["automation"] == "keeper: a run is unhealthy"]
    assert (failed["state"], failed["message"]) == ("Failed", 'Keepa said "no"')
    (down,) = [one for one in hook.told if one["automation"] == "keeper: tokens or a system"]
    assert (down["event"], down["details"]) == ("keeper.kafka.down", {"why": "nobody answers"})
    assert ensure_automations(client, PrefectSettings())[-1] == "webhook keeper-automations removed"


@pytest.mark.slow
def test_dead_and_stuck_runs_are_marked_crashed_and_the_living_left_alone(client: SyncPrefectClient) -> None:
    # The shortest time Prefect allows, which is not long enough for real heartbeats: the test sends those.
    short = timedelta(seconds=10)
    for one in wanted_automations(silent_run=short, stuck_run=short):
        client.create_automation(one)
    runs = Runs(client)
    dead, stuck = runs.start(Running()), runs.start(Pending())
    living = runs.start(Pending(), Running())
    waiting = runs.start(Scheduled())

    beat(dead)
    told_at = 0.0

    def are_crashed() -> bool:
        nonlocal told_at
        if time.monotonic() - told_at > 2:
            told_at = time.monotonic()
            beat(living)
        return all(runs.state(one)[0] is StateType.CRASHED for one in (dead, stuck))

    wait_until(are_crashed, "a dead or a stuck run stays", longest_seconds=60)
    assert runs.state(dead)[1] == "no heartbeat any more; marked by Keeper's automation"
    assert runs.state(stuck)[1] == "pending for too long; marked by Keeper's automation"
    assert [runs.state(one)[0] for one in (living, waiting)] == [StateType.RUNNING, StateType.SCHEDULED]


def beat(run_id: UUID) -> None:
    """A heartbeat, as a run of Keeper's deployments sends it."""
    emit_event(
        "prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        related=[{"prefect.resource.id": "prefect.tag.keeper", "prefect.resource.role": "tag"}],
    )
