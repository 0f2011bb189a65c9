"""Your whole list, as a file: in and out."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain, islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from sqlalchemy import Connection

from api.access import Reader, Writer
from api.live import House
from api.once import OnceOnly
from api.problems import HttpProblem, problems
from api.schemas import Answer
from keeper.domain.watch_list import COLUMNS, MOST_ROWS, Existing, ListForm, RowProblem, decode_list
from keeper.postgres import installation
from keeper.watchlist import export_watches, import_watches, write_csv, write_json

router = APIRouter(tags=["watches"])

_MEDIA_TYPES = {ListForm.CSV: "text/csv", ListForm.JSON: "application/json"}
_LINES_AT_ONCE = 500
_COLUMNS_TOLD = (
    f"`asin` (or a link to the product's page) and any of {', '.join(f'`{name}`' for name in COLUMNS[1:])}: the target in whole units "
    "(`49.90`), the interval like `6h` or in seconds"
)
_CSV_EXAMPLE = "asin,marketplace,target,interval\nB00OCMRV40,DE,49.90,6h\nB08DG4C63H,UK,,1d\n"
_JSON_EXAMPLE = [
    {"asin": "B00OCMRV40", "target": "49.90", "interval": "6h"},
    {"asin": "B08DG4C63H", "marketplace": "UK", "is_paused": True},
]


class Mode(StrEnum):
    """What one bad row costs."""

    ALL_OR_NOTHING = "all_or_nothing"
    PARTIAL = "partial"


class RejectedRow(Answer):
    """Why a row was not taken."""

    line: int = Field(description="Of the file, from 1; in JSON the place in the list, from 1")
    field: str | None = Field(description="null: it is about the row as a whole", examples=["target"])
    message: str = Field(examples=["'cheap' is not an amount; write it like 49.90"])


class ImportedWatches(Answer):
    """What became of a file."""

    rows: int = Field(description="Of the file, rejected ones too")
    added: int
    updated: int
    kept: int = Field(description="Were there already, and stay as they are")
    rejected: list[RejectedRow] = Field(description="By line; a row with several faults is there several times")


class ExportedWatch(Answer):
    """A watch as an import takes it, with title and price beside it."""

    asin: str
    marketplace: str
    price_type: str
    target: str | None = Field(description="In whole units, as text so that nothing is rounded")
    interval: str = Field(examples=["6h"])
    hysteresis_pct: float
    is_paused: bool
    title: str | None
    price: str | None
    currency: str


_ROWS_SCHEMA: dict[str, Any] = {"type": "array", "maxItems": MOST_ROWS, "items": {}}
_IMPORT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"At most {MOST_ROWS:,} rows. CSV has a first line with the names of its columns; of them {_COLUMNS_TOLD}. "
        "JSON has objects with the same names.",
        "content": {
            _MEDIA_TYPES[ListForm.CSV]: {"schema": {"type": "string", "minLength": 1}, "example": _CSV_EXAMPLE},
            _MEDIA_TYPES[ListForm.JSON]: {
                "schema": {
                    "anyOf": [
                        _ROWS_SCHEMA,
                        {"type": "object", "required": ["watches"], "properties": {"watches": _ROWS_SCHEMA}},
                    ]
                },
                "example": _JSON_EXAMPLE,
            },
        },
    }
}
_EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {
            _MEDIA_TYPES[ListForm.CSV]: {"schema": {"type": "string"}},
            _MEDIA_TYPES[ListForm.JSON]: {
                "schema": {
                    "type": "object",
                    "required": ["watches"],
                    "properties": {"watches": {"type": "array", "items": ExportedWatch.model_json_schema()}},
                }
            },
        },
    }
}


async def _form_of(request: Request) -> ListForm:
    named = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    for form, media_type in _MEDIA_TYPES.items():
        if named == media_type:
            return form
    raise HttpProblem(415, f"send {' or '.join(_MEDIA_TYPES.values())}")


async def _content(request: Request) -> bytes:
    return await request.body()


@router.post("/watches/import", responses=problems(409, 415, body=True), response_model=ImportedWatches, openapi_extra=_IMPORT_BODY)
def import_list(
    caller: Writer,
    once: OnceOnly,
    form: Annotated[ListForm, Depends(_form_of)],
    content: Annotated[bytes, Depends(_content)],
    mode: Annotated[
        Mode, Query(description="With all_or_nothing one rejected row is 422, and nothing is written; with partial the others are")
    ] = Mode.PARTIAL,
    existing: Annotated[
        Existing, Query(description="Watches you have already: left as they are, or changed to what the file says")
    ] = Existing.KEEP,
) -> ImportedWatches | Response:
    """Add watches from a file, CSV or JSON. Each row that cannot be taken is named by line and field.

    What `GET /api/v1/watches/export` gave changes nothing when it comes in again.
    """
    listed = decode_list(content, form)

    def effect(connection: Connection) -> ImportedWatches:
        done = import_watches(
            connection,
            caller.user_id,
            listed,
            now=installation.select_now(connection),
            is_all_or_nothing=mode is Mode.ALL_OR_NOTHING,
            existing=existing,
        )
        if mode is Mode.ALL_OR_NOTHING and done.rejected:
            raise RequestValidationError([_told(problem) for problem in done.rejected])
        rejected = [RejectedRow(line=one.line, field=one.field, message=one.message) for one in done.rejected]
        return ImportedWatches(rows=done.rows, added=done.added, updated=done.updated, kept=done.kept, rejected=rejected)

    return once.change(effect, status=200)


def _told(problem: RowProblem) -> dict[str, Any]:
    place = ("body", f"line{problem.line}") if problem.field is None else ("body", f"line{problem.line}", problem.field)
    return {"type": "row", "loc": place, "msg": problem.message}


@router.get("/watches/export", responses=problems() | _EXPORTED, response_class=StreamingResponse)
def export_list(
    caller: Reader, live: House, format: Annotated[ListForm, Query(description="How the file is written")] = ListForm.CSV
) -> StreamingResponse:
    """All your watches, paused ones too, as a file that `POST /api/v1/watches/import` takes."""
    rows = export_watches(live.resources.engine, caller.user_id)
    # Read before the answer begins: a database that is away is a problem, not half a file.
    first = list(islice(rows, 1))
    lines = (write_csv if format is ListForm.CSV else write_json)(chain(first, rows))
    name = f'attachment; filename="watches.{format}"'
    return StreamingResponse(_together(lines), media_type=_MEDIA_TYPES[format], headers={"Content-Disposition": name})


def _together(lines: Iterable[str]) -> Iterator[str]:
    """Many lines at once: each piece costs a change of threads."""
    waiting = iter(lines)
    while piece := "".join(islice(waiting, _LINES_AT_ONCE)):
        yield piece
