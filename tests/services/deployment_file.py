"""The strict reading of `prefect.yaml`. Prefect ignores unknown keys, so a misspelt limit would be no limit at all."""

import inspect
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import islice, pairwise
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, model_validator

WORK_POOLS = frozenset({"keeper-process", "keeper-heavy"})
WORK_QUEUES = frozenset({"critical", "default"})
TAGS = frozenset({"keeper", "keepa", "critical"})
# What runs when somebody asks for it.
BY_HAND = "by-hand"
SHORTEST_GAP = timedelta(minutes=5)
# Enough to see each gap of a schedule that repeats within a day.
_FIRINGS_LOOKED_AT = 300


class _Strict(BaseModel):
    model_config = {"extra": "forbid"}


def _known(names: frozenset[str]) -> AfterValidator:
    def check(name: str, info: ValidationInfo) -> str:
        if name not in names:
            raise ValueError(f"{info.field_name} {name} is none of {', '.join(sorted(names))}")
        return name

    return AfterValidator(check)


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        raise ValueError(str(error)) from error
    return name


class WorkPool(_Strict):
    """Where the runs go."""

    name: Annotated[str, _known(WORK_POOLS)]
    work_queue_name: Annotated[str, _known(WORK_QUEUES)]
    job_variables: dict[str, Any] = Field(default_factory=dict)


class ConcurrencyLimit(_Strict):
    """One run at a time; a new one gives way, and a killed one lets go after a minute."""

    limit: Literal[1]
    collision_strategy: Literal["CANCEL_NEW"]
    grace_period_seconds: Literal[60]


class Schedule(_Strict):
    """When."""

    cron: str
    timezone: Annotated[str, AfterValidator(_timezone)]
    slug: str = Field(pattern=r"^[a-z0-9-]+$")
    active: bool = True

    @model_validator(mode="after")
    def _is_seldom_enough(self) -> "Schedule":
        try:
            # What Prefect's scheduler itself reads cron lines with.
            times = list(islice(CronSim(self.cron, datetime(2026, 1, 1, tzinfo=UTC)), _FIRINGS_LOOKED_AT))
        except CronSimError as error:
            raise ValueError(f"{self.cron} is no cron line: {error}") from error
        if min(later - earlier for earlier, later in pairwise(times)) < SHORTEST_GAP:
            raise ValueError(f"{self.cron} fires more often than every five minutes")
        return self


class Deployment(_Strict):
    """One deployment."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    description: str = Field(min_length=10)
    entrypoint: str = Field(pattern=r"^flows\.[a-z_]+\.[a-z_]+$")
    tags: list[Annotated[str, _known(TAGS)]] = Field(min_length=1)
    work_pool: WorkPool
    concurrency_limit: ConcurrencyLimit
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: list[Schedule]

    @model_validator(mode="after")
    def _says_when(self) -> "Deployment":
        if bool(self.schedules) == (self.name == BY_HAND):
            raise ValueError(f"a deployment has a schedule, or its name is {BY_HAND}")
        return self

    @model_validator(mode="after")
    def _fits_its_flow(self) -> "Deployment":
        module, name = self.entrypoint.rsplit(".", 1)
        try:
            flow = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{self.entrypoint} cannot be imported: {error}") from error
        if not isinstance(flow, Flow):
            raise ValueError(f"{self.entrypoint} is no flow")
        try:
            inspect.signature(flow.fn).bind(**self.parameters)
            flow.validate_parameters(self.parameters)
        except (TypeError, ParameterTypeError) as error:
            raise ValueError(f"{self.entrypoint}: {error}") from error
        return self


class DeploymentFile(_Strict):
    """`prefect.yaml`."""

    name: Literal["keeper"]
    definitions: dict[str, dict[str, Any]]
    pull: Annotated[Sequence[Mapping[str, Any]], Field(max_length=0)]
    deployments: list[Deployment] = Field(min_length=1)

    @model_validator(mode="after")
    def _repeats_nothing(self) -> "DeploymentFile":
        for what, names in (
            ("slug", [schedule.slug for one in self.deployments for schedule in one.schedules]),
            ("deployment", [f"{one.entrypoint}/{one.name}" for one in self.deployments]),
        ):
            if len(names) != len(set(names)):
                raise ValueError(f"a {what} is there twice: {', '.join(sorted(names))}")
        return self
