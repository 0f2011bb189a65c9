"""Let the catalog grow: note candidates, ask for lists while too few wait, fetch what the share of the tokens allows."""

from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.annotations import quote

from flows.artifacts import show_discovered
from keeper.discover import JOB, Discovered, Kept, discover
from keeper.keepa.answer import ProductAnswer
from keeper.plan import PlannedRequest
from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from tasks.discover import fetch_bestsellers, fetch_found, keep_candidates, plan_candidates
from tasks.fetch import fetch
from tasks.relay import relay


@flow(name="discovery", flow_run_name="discover products")
def discovery() -> State[Any]:
    """Find products and fetch them as far as the share of the tokens goes. What it does not reach waits for the next run."""
    resources = process_resources()
    with hold_job(resources.engine, JOB) as is_mine:
        if not is_mine:
            return Cancelled(message="another discovery is under way on this database; it goes on alone")
        discovered = Discovered()
        discover(
            resources.engine,
            queries=resources.discovery_queries(),
            marketplaces=resources.deal_marketplaces(),
            settings=resources.discover_settings,
            fetch_list=fetch_bestsellers,
            fetch_found=fetch_found,
            plan=plan_candidates,
            check=_check,
            discovered=discovered,
        )
        _tell(discovered)
        show_discovered(JOB, discovered)
    parts = [discovered.sentence, *discovered.troubles, *discovered.notes]
    return (Failed if discovered.troubles else Completed)(message="; ".join(parts))


def _check(request: PlannedRequest) -> Kept:
    # Quoted, as in the price watch: Prefect looks for futures in every number of an answer otherwise.
    return keep_candidates(request, cast(ProductAnswer, quote(fetch(request))))


def _tell(discovered: Discovered) -> None:
    """Deliver what was just recorded. What cannot be delivered waits in the outbox for `flows.delivery`."""
    try:
        relay(longest_seconds=60)
    except Exception as error:  # noqa: BLE001  the products are recorded
        discovered.notes[f"events wait in the outbox: {type(error).__name__}"] = None


if __name__ == "__main__":
    discovery()
