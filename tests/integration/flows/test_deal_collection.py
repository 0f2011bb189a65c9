"""Deal collection under a real Prefect server, against a Keepa that fails on request."""

from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from keeper.postgres.jobs import hold_job
from tests.services.installation import Installation

JOB = "deal_collection.deal_collection"


def test_seeds_and_feed_become_deals_for_their_tokens(installation: Installation) -> None:
    end = installation.run(JOB)

    assert end.state == "Completed", end.message
    deals = installation.count("collected_deals")
    assert deals > 0
    assert end.message.startswith(f"{deals} new deals, ")
    [(products, pages)] = installation.rows(
        """
        SELECT sum(tokens_consumed) FILTER (WHERE operation = 'product'), sum(tokens_consumed) FILTER (WHERE operation = 'deal')
        FROM keepa_calls
        """
    )
    assert (products, pages % 5) == (47, 0)
    assert f"{products + pages} tokens" in end.message


def test_a_second_run_finds_nothing_new_and_pays_for_no_seed(installation: Installation) -> None:
    installation.run(JOB)
    deals = installation.count("collected_deals")

    end = installation.run(JOB)

    assert end.message.startswith("0 new deals")
    assert installation.count("collected_deals") == deals
    assert installation.rows("SELECT sum(tokens_consumed)::int FROM keepa_calls WHERE operation = 'product'") == [(47,)]


@pytest.mark.parametrize("kind", ["503", "cut_off"])
def test_a_passing_failure_is_tried_again(installation: Installation, kind: str) -> None:
    installation.tell_simulator("faults", kind=kind, path="/deal", next=1)

    end = installation.run(JOB, is_with_seeds=False)

    assert end.state == "Completed", end.message
    assert installation.count("collected_deals") > 0
    assert installation.count("token_reservations") == 0


def test_a_lasting_failure_is_told_and_the_seeds_are_collected(installation: Installation) -> None:
    installation.tell_simulator("faults", kind="400", path="/deal", share=1.0)

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert "keyboards-de NEW: Keepa answered 400" in end.message
    assert installation.rows("SELECT DISTINCT source FROM collected_deals") == [("seeds",)]
    assert installation.count("token_reservations") == 0


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_collected(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("asin\n", encoding="utf-8")
    installation.environment["KEEPER_DEALS_SEEDS"] = f"seeds/keyboards.csv,{tmp_path}"

    end = installation.run(JOB)

    assert end.state == "Failed"
    assert "mine.csv: no line of it holds an ASIN" in end.message
    assert installation.rows("SELECT DISTINCT source FROM deal_collections ORDER BY 1") == [("feed",), ("seeds",)]


def test_pages_end_when_the_share_is_spent(installation: Installation) -> None:
    installation.environment["KEEPER_DEALS_SHARE_PCT"] = "0.1"

    end = installation.run(JOB, is_with_seeds=False)

    assert end.state == "Completed"
    assert "KEEPER_DEALS_SHARE_PCT" in end.message
    assert installation.rows("SELECT 1 FROM keepa_calls WHERE operation = 'deal'") == []
    with installation.prefect.client() as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(end.run_id)])))
    assert [task.name for task in tasks if task.name.startswith("fetch") or (task.state and task.state.is_failed())] == []


def test_one_collects_at_a_time(installation: Installation) -> None:
    with hold_job(installation.engine, "deal-collection/hourly") as is_mine:
        assert is_mine
        end = installation.end_of(installation.start(JOB, deployment="hourly"))
    assert end.state == "Cancelled"
