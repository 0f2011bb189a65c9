"""The verbs around a whole watch list: a file is taken in, and the list is written so that it can be taken in again."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from keeper.domain.errors import TransientError
from keeper.domain.money import Money
from keeper.domain.watch import WatchChange, WatchState
from keeper.domain.watch_list import COLUMNS, EXPORT_COLUMNS, FORMULA_SIGNS, Existing, ListedWatch, RowProblem, WatchList
from keeper.domain.wording import write_span
from keeper.postgres import watches
from keeper.postgres.watches import StandingWatch, WatchExists, WatchRow, WatchUnknown

_PAGE = 1000
_CSV_END = "\r\n"


class WatchListChanged(TransientError):
    """Somebody else changed the same watches while a file was taken in."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file.

    Attributes:
        rows: of the file; each was added, updated or kept, or is among the rejected, or all were left because some are.
        kept: were there already, and stay as they are.
        rejected: by line; a row with several faults is there several times.
    """

    rows: int
    added: int = 0
    updated: int = 0
    kept: int = 0
    rejected: tuple[RowProblem, ...] = ()


def import_watches(
    connection: Connection, user_id: int, listed: WatchList, *, now: datetime, is_all_or_nothing: bool, existing: Existing
) -> Imported:
    """Take a file into a user's list, in as many statements for ten thousand rows as for one. Idempotent.

    Of a watch that is there already, `existing` says whether what the row says is taken over; what it does not say stays.

    Args:
        connection: in a transaction the caller commits.
        is_all_or_nothing: with any row rejected, nothing is written.

    Raises:
        WatchListChanged: see there; the transaction must not be committed.
    """
    watches.lock_watch_list(connection, user_id)
    standing = watches.select_standing(connection, user_id, [one.watch for one in listed.watches])
    new: list[ListedWatch] = []
    changes: dict[int, WatchChange] = {}
    rejected = list(listed.rejected)
    kept = 0
    for one, found in zip(listed.watches, standing, strict=True):
        change = _change(one, found) if found is not None and existing is Existing.UPDATE else None
        if found is None:
            new.append(one)
        elif change is None:
            kept += 1
        elif change.is_paused is not None and found.has_twin:
            message = f"there is a paused watch of this price beside watch {found.watch_id}; remove one"
            rejected.append(RowProblem(one.line, "is_paused", message))
        else:
            changes[found.watch_id] = change
    rejected.sort(key=lambda problem: problem.line)
    if is_all_or_nothing and rejected:
        return Imported(listed.rows, rejected=tuple(rejected))
    are_paused = [one.is_paused or False for one in new]
    added = watches.insert_watches(connection, user_id, [one.watch for one in new], now=now, are_paused=are_paused)
    try:
        watches.update_each_watch(connection, user_id, changes, now=now)
    except (WatchUnknown, WatchExists) as error:
        raise WatchListChanged("somebody changed the same watches at this very moment; import the file again") from error
    return Imported(listed.rows, len(added), len(changes), kept + len(new) - len(added), tuple(rejected))


def _change(one: ListedWatch, found: StandingWatch) -> WatchChange | None:
    """What the row says that is not so yet; None: nothing."""
    watch, said = one.watch, one.said
    target_minor = watch.target.amount_minor if watch.target else None
    is_other_target = "target" in said and target_minor != found.target_minor
    is_other_interval = "interval" in said and round(watch.interval.total_seconds()) != found.interval_seconds
    is_other_hysteresis = "hysteresis_pct" in said and watch.hysteresis_pct != found.hysteresis_pct
    is_other_state = one.is_paused is not None and one.is_paused != found.is_paused
    if not (is_other_target or is_other_interval or is_other_hysteresis or is_other_state):
        return None
    return WatchChange(
        target=watch.target if is_other_target else None,
        clears_target=is_other_target and watch.target is None,
        interval=watch.interval if is_other_interval else None,
        hysteresis_pct=watch.hysteresis_pct if is_other_hysteresis else None,
        is_paused=one.is_paused if is_other_state else None,
    )


def export_watches(engine: Engine, user_id: int) -> Iterator[WatchRow]:
    """All watches of a user, paused ones too, by id.

    Each page is read in a transaction of its own, so that a slow reader holds no connection.
    """
    after_id = 0
    while True:
        with engine.begin() as connection:
            page = watches.select_watches(connection, user_id=user_id, state=WatchState.ALL, after_id=after_id, limit=_PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        after_id = page[-1].watch_id


def write_csv(rows: Iterable[WatchRow]) -> Iterator[str]:
    """Lines of CSV: what an import takes, then title, price and currency for people.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    line = io.StringIO(newline="")
    # With a shorter end of line the writer would not quote a title that holds the other sign.
    writer = csv.writer(line, lineterminator=_CSV_END)

    def written(cells: Iterable[str]) -> str:
        writer.writerow(cells)
        text = line.getvalue().removesuffix(_CSV_END)
        line.seek(0)
        line.truncate()
        return f"{text}\n"

    yield written((*COLUMNS, *EXPORT_COLUMNS))
    for row in rows:
        yield written(
            (
                row.asin,
                row.marketplace,
                row.price_type,
                _amount(row.target_minor, row.currency) or "",
                write_span(row.interval_seconds),
                f"{row.hysteresis_pct:g}",
                "true" if row.is_paused else "false",
                _guarded(row.title or ""),
                _amount(row.amount_minor, row.currency) or "",
                row.currency,
            )
        )


def write_json(rows: Iterable[WatchRow]) -> Iterator[str]:
    """The same as an object with a list of `watches`, each on a line of its own. Amounts are text, so that none is rounded."""
    separator = '{"watches": ['
    for row in rows:
        fields = {
            "asin": row.asin,
            "marketplace": row.marketplace,
            "price_type": row.price_type,
            "target": _amount(row.target_minor, row.currency),
            "interval": write_span(row.interval_seconds),
            "hysteresis_pct": row.hysteresis_pct,
            "is_paused": row.is_paused,
            "title": row.title,
            "price": _amount(row.amount_minor, row.currency),
            "currency": row.currency,
        }
        yield f"{separator}\n{json.dumps(fields, ensure_ascii=False)}"
        separator = ","
    yield "\n]}\n" if separator == "," else f"{separator}]}}\n"


def _amount(amount_minor: int | None, currency: str) -> str | None:
    return None if amount_minor is None else str(Money(amount_minor, currency).amount)


def _guarded(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text
