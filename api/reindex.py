"""An index of Elasticsearch anew, as a run on demand."""

from enum import StrEnum
from uuid import UUID

from fastapi import APIRouter, status
from fastapi.responses import Response
from pydantic import Field

from api.access import Admin
from api.live import House
from api.once import OnceOnly
from api.problems import problems
from api.runs import Runs
from api.schemas import Answer, Body
from keeper.audit import Action, noting

router = APIRouter(tags=["health"])

_DEPLOYMENT = "reindex/by-hand"
# Within a slot the same alias is given the same run.
_SLOT_SECONDS = 60


class IndexAlias(StrEnum):
    """What can be built anew."""

    PRICES = "keeper-prices"
    DEALS = "keeper-deals"
    METRICS = "keeper-metrics"
    PRODUCTS = "products"


class ReindexRequest(Body):
    """Which index."""

    alias: IndexAlias


class StartedReindex(Answer):
    """A run that will build an index anew."""

    run_id: UUID
    name: str
    url: str = Field(description="Its page in Prefect's UI")
    alias: IndexAlias


@router.post("/reindex", status_code=status.HTTP_202_ACCEPTED, responses=problems(409, body=True), response_model=StartedReindex)
def start_reindex(body: ReindexRequest, caller: Admin, live: House, once: OnceOnly) -> StartedReindex | Response:
    """Start a run that builds an index anew from PostgreSQL, while searches and writes go on, and puts it in place of the old one."""

    def effect() -> StartedReindex:
        runs = Runs(live.settings)
        deployment_id = runs.find_deployment(_DEPLOYMENT)
        slot = round(live.now().timestamp()) // _SLOT_SECONDS
        run = runs.start(deployment_id, {"alias": body.alias.value}, idempotency_key=once.key or f"reindex {body.alias} {slot}")
        return StartedReindex(run_id=run.run_id, name=run.name, url=run.url, alias=body.alias)

    def placed() -> StartedReindex:
        with live.place(live.waits), noting(live.resources.engine, caller.actor, Action.REINDEX, body.alias.value):
            return effect()

    # Prefect knows the key, too.
    known = "Prefect's UI shows whether it runs"
    return once.act(placed, status=status.HTTP_202_ACCEPTED, known=lambda: known, may_repeat=True)
