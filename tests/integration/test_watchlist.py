"""The verbs of the whole watch list: a file goes in, all of it or what of it can; a list that went out comes in again unchanged."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from keeper.domain.marketplace import Marketplace
from keeper.domain.watch import WatchChange, WatchState
from keeper.domain.watch_list import Existing, ListForm, RowProblem, decode_list
from keeper.postgres import watches
from keeper.postgres.watches import WatchRow, remove_watches, select_watches, update_watches
from keeper.watchlist import Imported, WatchListChanged, export_watches, import_watches, write_csv, write_json
from tests.integration.makers import ASIN, NOW, add_user, add_watch, ago, everything, one, product, rows, run_record

OTHER = "B00OCMRV40"
LATER = NOW + timedelta(hours=1)


def take_in(engine: Engine, user_id: int, text: str, *, is_all_or_nothing: bool = False, existing: Existing = Existing.KEEP) -> Imported:
    listed = decode_list(text.encode(), ListForm.CSV)
    with engine.begin() as connection:
        return import_watches(connection, user_id, listed, now=LATER, is_all_or_nothing=is_all_or_nothing, existing=existing)


def watched(engine: Engine, user_id: int) -> list[WatchRow]:
    with engine.begin() as connection:
        return select_watches(connection, user_id=user_id, state=WatchState.ALL)


def pause(engine: Engine, user_id: int, watch_id: int) -> None:
    with engine.begin() as connection:
        update_watches(connection, user_id, [watch_id], WatchChange(is_paused=True), now=NOW)


@pytest.fixture
def anna(engine: Engine) -> int:
    return add_user(engine)


def test_a_file_becomes_watches(engine: Engine, anna: int) -> None:
    done = take_in(engine, anna, f"asin,marketplace,target,interval,is_paused\n{ASIN},UK,49.90,30m,\n{OTHER},,,,true\n")
    assert done == Imported(rows=2, added=2)
    facts = [(row.asin, row.marketplace, row.target_minor, row.interval_seconds, row.is_paused) for row in watched(engine, anna)]
    assert facts == [(ASIN, "UK", 4990, 1800, False), (OTHER, "DE", None, 21600, True)]


def test_an_imported_watch_is_due_now(engine: Engine, anna: int) -> None:
    take_in(engine, anna, f"asin\n{ASIN}\n")
    assert one(engine, "SELECT created_at, next_check_at FROM watched_products JOIN planned_checks USING (asin)") == (LATER, LATER)


def test_what_can_be_taken_is_and_the_rest_is_named(engine: Engine, anna: int) -> None:
    done = take_in(engine, anna, f"asin,target\nwrong,1\n{ASIN},1\n{OTHER},x\n")
    assert (done.added, [(problem.line, problem.field) for problem in done.rejected]) == (1, [(2, "asin"), (4, "target")])


@pytest.mark.parametrize("existing", Existing)
def test_all_or_nothing_writes_nothing_where_one_row_is_rejected(engine: Engine, anna: int, existing: Existing) -> None:
    add_watch(engine, anna, 100)
    before = everything(engine)
    done = take_in(engine, anna, f"asin,target\n{ASIN},5\n{OTHER},5\nwrong,1\n", is_all_or_nothing=True, existing=existing)
    assert (done.rows, done.added, done.updated, done.kept, len(done.rejected)) == (3, 0, 0, 0, 1)
    assert everything(engine) == before


def test_all_or_nothing_writes_all_where_none_is_rejected(engine: Engine, anna: int) -> None:
    assert take_in(engine, anna, f"asin\n{ASIN}\n{OTHER}\n", is_all_or_nothing=True).added == 2


def test_what_is_there_is_kept_where_asked(engine: Engine, anna: int) -> None:
    add_watch(engine, anna, 100)
    pause(engine, anna, add_watch(engine, anna, asin=OTHER))
    before = everything(engine)
    done = take_in(engine, anna, f"asin,target,is_paused\n{ASIN},5,true\n{OTHER},5,false\n")
    assert (done, everything(engine) == before) == (Imported(rows=2, kept=2), True)


@pytest.mark.parametrize(
    ("columns", "cells", "expected"),
    [
        pytest.param("target", "5", (500, 3600, 7.5, False), id="target"),
        pytest.param("target", "", (None, 3600, 7.5, False), id="no target"),
        pytest.param("interval,hysteresis_pct", "30m,", (100, 1800, 7.5, False), id="interval, an empty cell"),
        pytest.param("hysteresis_pct", "3.25", (100, 3600, 3.25, False), id="hysteresis"),
        pytest.param("is_paused", "yes", (100, 3600, 7.5, True), id="paused"),
        pytest.param("target,interval,hysteresis_pct,is_paused", "1,1h,7.5,no", (100, 3600, 7.5, False), id="as it is"),
    ],
)
def test_what_a_row_says_is_taken_over_and_the_rest_stays(
    engine: Engine, anna: int, columns: str, cells: str, expected: tuple[Any, ...]
) -> None:
    add_watch(engine, anna, 100, interval=timedelta(hours=1), hysteresis_pct=7.5)
    before = everything(engine)
    done = take_in(engine, anna, f"asin,{columns}\n{ASIN},{cells}\n", existing=Existing.UPDATE)
    [row] = watched(engine, anna)
    assert (row.target_minor, row.interval_seconds, row.hysteresis_pct, row.is_paused) == expected
    assert (done.updated, done.kept) == ((0, 1) if everything(engine) == before else (1, 0))


def test_an_import_resumes_what_it_says_is_not_paused(engine: Engine, anna: int) -> None:
    pause(engine, anna, add_watch(engine, anna))
    assert take_in(engine, anna, f"asin,is_paused\n{ASIN},no\n", existing=Existing.UPDATE).updated == 1
    assert one(engine, "SELECT is_active, next_check_at FROM watched_products JOIN planned_checks USING (asin)") == (True, LATER)


def test_a_removed_watch_is_added_anew(engine: Engine, anna: int) -> None:
    removed = add_watch(engine, anna)
    with engine.begin() as connection:
        remove_watches(connection, anna, [removed], now=NOW)
    assert take_in(engine, anna, f"asin\n{ASIN}\n").added == 1


def test_the_lists_of_others_are_not_touched(engine: Engine, anna: int) -> None:
    bert = add_user(engine, "bert")
    add_watch(engine, bert, 100)
    before = watched(engine, bert)
    done = take_in(engine, anna, f"asin,target\n{ASIN},5\n", existing=Existing.UPDATE)
    assert (done.added, watched(engine, bert)) == (1, before)


def test_pausing_one_of_two_watches_of_a_price_is_rejected_by_line(engine: Engine, anna: int) -> None:
    pause(engine, anna, add_watch(engine, anna))
    with engine.begin() as connection:
        active = connection.execute(
            text("INSERT INTO watched_products (user_id, asin, marketplace, currency) VALUES (:user, :asin, 'DE', 'EUR') RETURNING id"),
            {"user": anna, "asin": ASIN},
        ).scalar_one()
    done = take_in(engine, anna, f"asin,is_paused\n{ASIN},yes\n{OTHER},\n", existing=Existing.UPDATE)
    message = f"there is a paused watch of this price beside watch {active}; remove one"
    assert done == Imported(rows=2, added=1, rejected=(RowProblem(2, "is_paused", message),))


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def file_of(asins: Sequence[str], target: int) -> str:
    return "".join(["asin,target,interval\n", *(f"{asin},{target},{30 + target}m\n" for asin in asins)])


def test_ten_thousand_rows_take_as_many_statements_as_two(engine: Engine, anna: int) -> None:
    many = [f"B{number:09d}" for number in range(10_000)]
    counts = []
    for asins in ([ASIN, OTHER], many):
        with counted(engine) as sent:
            take_in(engine, anna, file_of(asins, 5))
            done = take_in(engine, anna, file_of(asins, 6), existing=Existing.UPDATE)
        assert done.updated == len(asins)
        counts.append(len(sent))
    assert counts[0] == counts[1]
    assert rows(engine, "SELECT target_minor, interval_seconds, count(*) FROM watched_products GROUP BY 1, 2") == [(600, 2160, 10_002)]


def test_the_same_file_twice_at_once_is_one_list(engine: Engine, anna: int) -> None:
    asins = [f"B{number:09d}" for number in range(500)]
    start = threading.Barrier(2)

    def work(some: Sequence[str]) -> Imported:
        start.wait(10)
        return take_in(engine, anna, file_of(some, 5))

    with ThreadPoolExecutor(2) as pool:
        both = [future.result(60) for future in [pool.submit(work, asins), pool.submit(work, asins[::-1])]]
    assert sorted((done.added, done.kept) for done in both) == [(0, 500), (500, 0)]


def test_a_watch_that_goes_away_meanwhile_fails_the_import_and_writes_nothing(
    engine: Engine, anna: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_id = add_watch(engine, anna)
    look = watches.select_standing

    def look_and_remove(*arguments: Any) -> Any:
        found = look(*arguments)
        with engine.begin() as other:
            remove_watches(other, anna, [watch_id], now=NOW)
        return found

    monkeypatch.setattr(watches, "select_standing", look_and_remove)
    with pytest.raises(WatchListChanged, match="import the file again"):
        take_in(engine, anna, f"asin,target\n{ASIN},5\n{OTHER},5\n", existing=Existing.UPDATE)
    assert watched(engine, anna) == []


# --- out, and in again


@pytest.fixture
def lived_in(engine: Engine, anna: int) -> Engine:
    """A list with a bit of everything, checked once, another user's beside it."""
    add_watch(engine, anna, 4500, interval=timedelta(hours=36), hysteresis_pct=2.25)
    add_watch(engine, anna, 4980, marketplace=Marketplace.JP)
    pause(engine, anna, add_watch(engine, anna, asin=OTHER, interval=timedelta(seconds=90)))
    with engine.begin() as connection:
        remove_watches(connection, anna, [add_watch(engine, anna, asin="B000000009")], now=NOW)
    add_watch(engine, add_user(engine, "bert"), asin="B000000008")
    run_record(engine, product([(ago(days=1), 4400)], title='=Tastatur, "mechanisch"'))
    return engine


@pytest.mark.parametrize("existing", Existing)
@pytest.mark.parametrize(("form", "write"), [(ListForm.CSV, write_csv), (ListForm.JSON, write_json)], ids=["csv", "json"])
def test_a_list_that_went_out_changes_nothing_when_it_comes_in_again(
    lived_in: Engine, anna: int, form: ListForm, write: Callable[[Iterator[WatchRow]], Iterator[str]], existing: Existing
) -> None:
    before = everything(lived_in)
    content = "".join(write(export_watches(lived_in, anna))).encode()
    with lived_in.begin() as connection:
        done = import_watches(connection, anna, decode_list(content, form), now=LATER, is_all_or_nothing=True, existing=existing)
    assert (done, everything(lived_in) == before) == (Imported(rows=3, kept=3), True)


def test_a_list_goes_to_another_user_whole(lived_in: Engine, anna: int) -> None:
    carl = add_user(lived_in, "carl")
    take_in(lived_in, carl, "".join(write_csv(export_watches(lived_in, anna))))

    def wishes(user_id: int) -> list[tuple[Any, ...]]:
        return [
            (row.asin, row.marketplace, row.price_type, row.target_minor, row.interval_seconds, row.hysteresis_pct, row.is_paused)
            for row in watched(lived_in, user_id)
        ]

    assert wishes(carl) == wishes(anna)


@pytest.mark.parametrize("length", [1000, 2001])
def test_a_list_as_long_as_a_page_or_longer_goes_out_whole(engine: Engine, anna: int, length: int) -> None:
    take_in(engine, anna, file_of([f"B{number:09d}" for number in range(length)], 5))
    ids = [row.watch_id for row in export_watches(engine, anna)]
    assert ids == rows(engine, "SELECT id FROM watched_products ORDER BY id")
