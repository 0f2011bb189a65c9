"""By hand, or asked for over the API: an index of Elasticsearch anew from PostgreSQL, put in place of the old one."""

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.artifacts import show_counts
from tasks.reindex import reindex as rebuild


@flow(name="reindex", flow_run_name="build {alias} anew")
def reindex(alias: Literal["keeper-prices", "keeper-deals", "keeper-metrics", "products"]) -> State[Any]:
    """Writes and searches go on meanwhile; the old index is kept until somebody drops it.

    Args:
        alias: the index, by the name it is searched under.
    """
    done = rebuild(alias)
    counted = {"documents": done.documents, "events delivered meanwhile": done.delivered}
    show_counts(f"reindex/{alias}", counted, [f"built {done.new}", *([f"kept {done.old}"] if done.old else [])])
    kept = f"; {done.old} is kept" if done.old else ""
    return Completed(message=f"{done.alias}: {done.documents} documents in {done.new}, {done.delivered} events meanwhile{kept}")
