"""Collect deals: the seeds, then Keepa's feed query by query, newest first; what is over ends, and what is new is told."""

from itertools import product
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.annotations import quote

from flows.artifacts import show_deals
from keeper.check import Checked
from keeper.collect import Collected
from keeper.collection import BudgetSpent, Gathered, check_share, queries_in_turn, seeds_in_turn, walk_query, walk_seeds
from keeper.domain.deal import MOST_PAGES, DealQuery
from keeper.domain.deal_files import Seeds
from keeper.domain.marketplace import Marketplace
from keeper.domain.wording import read_marketplace
from keeper.keepa.answer import DealAnswer, ProductAnswer
from keeper.keepa.requests import DEAL_PAGE_TOKENS
from keeper.plan import PlannedRequest
from keeper.postgres.jobs import hold_job
from keeper.resources import process_resources
from tasks.collect import collect, collect_seeds, end_deals, plan_seeds
from tasks.fetch import fetch, fetch_deals
from tasks.record import record
from tasks.relay import relay

_LONGEST_REASON = 300


def _run_name() -> str:
    asked = flow_run.parameters
    sources = [name for name, wish in (("seeds", "is_with_seeds"), ("feed", "is_with_feed")) if asked.get(wish, True)]
    stores = asked.get("marketplaces")
    return f"collect deals: {' and '.join(sources) or 'only what is over'}{' in ' + ', '.join(stores) if stores else ''}"


@flow(name="deal-collection", flow_run_name=_run_name)
def deal_collection(
    is_with_seeds: bool = True, is_with_feed: bool = True, marketplaces: list[str] | None = None, most_pages: int = MOST_PAGES
) -> State[Any]:
    """Collect deals as far as the share of the tokens goes. What it does not reach waits for the next run.

    Args:
        is_with_seeds: look at the products of the seed files.
        is_with_feed: ask Keepa's feed of deals.
        marketplaces: only these stores, of those that are collected in; empty for all.
        most_pages: of each query at most so many pages of 150 deals, 5 tokens each.
    """
    job = f"deal-collection/{deployment.name or 'by-hand'}"
    resources = process_resources()
    with hold_job(resources.engine, job) as is_mine:
        if not is_mine:
            return Cancelled(message=f"another scheduler runs {job} on this database; remove one of the two deployments")
        gathered = Gathered()
        stores = [read_marketplace(one) for one in marketplaces] if marketplaces else list(resources.deal_marketplaces())
        files = resources.deal_files()
        gathered.troubles |= dict.fromkeys(files.troubles)
        queries = [query for query in files.queries if query.marketplace in stores] if is_with_feed else []
        if is_with_seeds:
            for seeds, store in seeds_in_turn(resources.engine, product(files.seeds, stores)):
                _collect_seeds(seeds, store, gathered, len(queries))
        _collect_feed(queries, gathered, most_pages)
        gathered.ended += end_deals()
        _tell(gathered)
        show_deals(job, resources.engine, gathered)
    parts = [gathered.sentence, *gathered.troubles, *gathered.notes]
    return (Failed if gathered.troubles else Completed)(message="; ".join(parts))


def _collect_seeds(seeds: Seeds, marketplace: Marketplace, gathered: Gathered, queries: int) -> None:
    def plan(some: Seeds, store: Marketplace) -> list[PlannedRequest]:
        return plan_seeds(some, store, queries=queries)

    def check(request: PlannedRequest) -> Checked:
        # Quoted, as in the price watch: Prefect looks for futures in every number of an answer otherwise.
        return record(request, cast(ProductAnswer, quote(fetch(request))))

    def keep(some: Seeds, store: Marketplace) -> Gathered:
        return collect_seeds(some, store)

    resources = process_resources()
    walk_seeds(
        resources.engine,
        seeds,
        marketplace,
        plan=plan,
        check=check,
        keep=keep,
        gathered=gathered,
    )


def _collect_feed(queries: list[DealQuery], gathered: Gathered, most_pages: int) -> None:
    resources = process_resources()
    engine = resources.engine

    def fetch_page(query: DealQuery, page: int) -> DealAnswer:
        # Before the task: that the share is spent is how most runs end, and no failed task.
        check_share(engine, tokens=DEAL_PAGE_TOKENS, share_pct=resources.settings.deals.share_pct)
        return fetch_deals(query, page)

    def keep(query: DealQuery, page: int, answer: DealAnswer) -> tuple[Collected, int | None]:
        return collect(query, page, cast(DealAnswer, quote(answer)), most_pages=most_pages)

    for query in queries_in_turn(engine, queries):
        try:
            walk_query(engine, query, fetch_page=fetch_page, keep=keep, gathered=gathered, most_pages=most_pages)
        except BudgetSpent as error:
            gathered.notes[str(error)] = None
            return


def _tell(gathered: Gathered) -> None:
    """Deliver what was just collected. What cannot be delivered waits in the outbox for `flows.delivery`."""
    try:
        by_sink = relay(longest_seconds=60)
    except Exception as error:  # noqa: BLE001  the deals are recorded
        gathered.notes[f"events wait in the outbox: {type(error).__name__}"] = None
        return
    for sink, done in by_sink.items():
        if done.down:
            gathered.notes[f"events for {sink} wait in the outbox: {done.down[:_LONGEST_REASON]}"] = None


if __name__ == "__main__":
    deal_collection()
