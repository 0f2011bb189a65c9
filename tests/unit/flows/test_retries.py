"""One retry layer: fetch on transient errors, database tasks on a database that comes back, flows never."""

import pytest
from prefect import Flow, Task

from flows.delivery import delivery
from flows.maintenance import maintenance
from flows.price_watch import price_watch
from tasks.fetch import fetch
from tasks.maintain import maintain
from tasks.plan import plan
from tasks.record import note_failure, record
from tasks.relay import relay
from tasks.retries import on_database, on_transient


@pytest.mark.parametrize("job", [price_watch, delivery, maintenance], ids=lambda job: job.name)
def test_a_flow_is_not_tried_again(job: Flow[..., object]) -> None:
    assert job.retries == 0


def test_fetch_is_tried_three_times_more_only_on_transient_errors() -> None:
    assert (fetch.retries, fetch.retry_condition_fn) == (3, on_transient)


def test_fetch_waits_longer_each_time_and_with_jitter() -> None:
    delays = fetch.retry_delay_seconds
    assert isinstance(delays, list)
    assert delays == sorted(delays)
    assert fetch.retry_jitter_factor


@pytest.mark.parametrize("work", [plan, record, note_failure, relay, maintain], ids=lambda work: work.name)
def test_a_database_task_is_tried_three_times_more_only_on_its_database(work: Task[..., object]) -> None:
    assert (work.retries, work.retry_condition_fn) == (3, on_database)
