"""For probes: no key needed, and nothing told that is nobody's business."""

from importlib.metadata import version

from fastapi import APIRouter
from pydantic import Field

from api.live import House
from api.problems import problems
from api.schemas import Answer
from keeper.postgres import installation
from keeper.resources import NotMigrated

router = APIRouter(tags=["health"])
# Also below `/api/v1`, where everything is.
process = APIRouter()


class Health(Answer):
    """It is there."""

    status: str = Field(examples=["ok"])
    version: str = Field(description="Keeper's", examples=["0.1.0"])


@process.get("/health", responses=problems())
async def health() -> Health:
    """Whether the process answers. Asks nobody, so a probe may restart what fails it."""
    return Health(status="ok", version=version("keeper"))


@router.get("/health/ready", responses=problems())
def ready(live: House) -> Health:
    """Whether it can work: the database answers and is migrated. 503 says what is missing."""
    with live.begin() as connection:
        if not installation.check_schema(connection):
            raise NotMigrated("the database is not migrated to this version of Keeper; run `keeper migrate`")
    return Health(status="ready", version=version("keeper"))


router.include_router(process)
