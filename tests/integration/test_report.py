"""Reports on a real database: what they hold, that each is there once, and at what cost."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from keeper.domain.deal_filter import DealFilter
from keeper.domain.events import Sink
from keeper.domain.marketplace import Marketplace
from keeper.domain.report import FilterPart, Mark, Report, decode_report
from keeper.notify.report import compose_report
from keeper.postgres import deal_filters, reports
from keeper.postgres.outbox import insert_events
from keeper.report import Reported, ReportSettings, preview, report
from tests.integration.deals import add_deal, add_filter, add_reader, asin_of, end_deal
from tests.integration.makers import ALL_SINKS, NOW, add_watch, ago, one, product, rows, run_record, use_sinks

ROOT = Path(__file__).parents[2]
SETTINGS = ReportSettings()


def run(engine: Engine, *, now: datetime = NOW, settings: ReportSettings = SETTINGS) -> Reported:
    return report(engine, now=now, settings=settings)


def kept(engine: Engine, name: str = "anna") -> list[Report]:
    """A user's reports, oldest first."""
    contents = rows(
        engine,
        "SELECT r.content FROM deal_reports r JOIN users u ON u.id = r.user_id WHERE u.name = :name ORDER BY r.report_date",
        name=name,
    )
    return [decode_report(content) for content in contents]


def shown(part: FilterPart) -> list[tuple[str, Mark]]:
    return [(entry.deal.asin, entry.mark) for entry in part.entries]


def test_report_holds_the_best_of_each_filter(engine: Engine) -> None:
    user_id = add_reader(engine)
    add_filter(engine, user_id, "Cheap", DealFilter(marketplaces=(Marketplace.DE,), price_to_minor=5000))
    add_filter(engine, user_id, "All")
    for number in range(12):
        add_deal(engine, number, price=4000 if number % 3 == 0 else 8000)

    done = run(engine)

    (report_,) = kept(engine)
    assert [(part.name, len(part.entries), part.has_more) for part in report_.parts] == [("Cheap", 4, False), ("All", 10, True)]
    assert shown(report_.parts[0]) == [(asin_of(number), Mark.NEW) for number in (0, 3, 6, 9)]
    assert (done.users[0].deals, done.users[0].is_told, done.deliveries) == (10, True, 1)
    deal = report_.parts[0].entries[0].deal
    assert (deal.price.amount_minor, deal.median_90, deal.score, deal.rating_tenths) == (
        4000,
        replace(deal.price, amount_minor=9990),
        90,
        46,
    )


def test_number_of_deals_is_settable(engine: Engine) -> None:
    add_filter(engine, add_reader(engine))
    for number in range(4):
        add_deal(engine, number)

    run(engine, settings=ReportSettings(deals_per_filter=2))

    assert [len(part.entries) for part in kept(engine)[0].parts] == [2]


def test_report_says_what_is_new_cheaper_dearer_and_gone(engine: Engine) -> None:
    add_filter(engine, add_reader(engine))
    old = ago(days=2)
    first = [add_deal(engine, number, changed_at=old, announced_at=old) for number in range(5)]
    run(engine, now=ago(days=1))
    for key, price in ((first[1], 5990), (first[2], 7990)):
        end_deal(engine, key, at=ago(hours=3))
        add_deal(engine, int(key[0][-4:]), price=price)
    end_deal(engine, first[3], at=ago(hours=3))
    add_deal(engine, 5)

    run(engine)

    part = kept(engine)[1].parts[0]
    assert shown(part) == [
        (asin_of(0), Mark.KNOWN), (asin_of(1), Mark.CHEAPER), (asin_of(2), Mark.DEARER), (asin_of(4), Mark.KNOWN), (asin_of(5), Mark.NEW),
    ]  # fmt: skip
    assert [(entry.before.amount_minor if entry.before else None) for entry in part.entries] == [None, 6990, 6990, None, None]
    assert [(gone.asin, gone.price.amount_minor) for gone in part.gone] == [(asin_of(3), 6990)]


def test_new_is_what_was_announced_since_the_last_report(engine: Engine) -> None:
    user_id = add_reader(engine)
    add_filter(engine, user_id)
    old = ago(days=2)
    first = [add_deal(engine, number, changed_at=old, announced_at=old) for number in range(3)]
    settings = ReportSettings(deals_per_filter=2)
    run(engine, now=ago(days=1), settings=settings)
    end_deal(engine, first[0], at=ago(hours=3))

    done = run(engine, settings=settings)

    assert shown(kept(engine)[1].parts[0]) == [(asin_of(1), Mark.KNOWN), (asin_of(2), Mark.UNTOLD)]
    assert (done.users[0].is_told, done.users[0].news) == (True, 0)


def test_deal_that_another_filter_has_told_is_known(engine: Engine) -> None:
    user_id = add_reader(engine)
    add_filter(engine, user_id)
    add_deal(engine, changed_at=ago(days=2), announced_at=ago(days=2))
    run(engine, now=ago(days=1))
    add_filter(engine, user_id, "Another")

    run(engine)

    assert [shown(part) for part in kept(engine)[1].parts] == [[(asin_of(0), Mark.KNOWN)]] * 2


@pytest.mark.parametrize(("wants_empty", "deliveries"), [(False, 0), (True, 1)])
def test_day_that_shows_what_was_told_yesterday_is_empty(engine: Engine, wants_empty: bool, deliveries: int) -> None:
    add_filter(engine, add_reader(engine, wants_empty=wants_empty))
    add_deal(engine, changed_at=ago(days=2), announced_at=ago(days=2))

    told = [run(engine, now=ago(days=1)).deliveries, run(engine).deliveries]

    assert told == [1, deliveries]
    assert "1 deal still on" in compose_report(kept(engine)[1]).title


def test_deal_that_fell_out_of_the_best_is_not_gone(engine: Engine) -> None:
    add_filter(engine, add_reader(engine))
    add_deal(engine, 5, changed_at=ago(days=2), announced_at=ago(days=2))
    settings = ReportSettings(deals_per_filter=1)
    run(engine, now=ago(days=1), settings=settings)
    add_deal(engine, 1)

    run(engine, settings=settings)

    part = kept(engine)[1].parts[0]
    assert (shown(part), part.gone) == ([(asin_of(1), Mark.NEW)], ())


def test_watched_prices_that_fell_within_a_day_are_told_largest_first(engine: Engine) -> None:
    user_id = add_reader(engine)
    other = add_reader(engine, "ben")
    history = {
        "B000000001": [(ago(days=9), 10000), (ago(hours=3), 9000)],
        "B000000002": [(ago(days=9), 10000), (ago(hours=3), 5000)],
        "B000000003": [(ago(days=9), 10000), (ago(days=2), 5000)],  # before
        "B000000004": [(ago(days=9), 10000), (ago(hours=3), 11000)],  # risen
        "B000000005": [(ago(hours=3), 5000)],  # nothing known before
        "B000000006": [(ago(days=9), 10000), (ago(hours=3), 5000)],  # ben's
        "B000000007": [(ago(days=9), 10000), (ago(hours=3), 9901)],  # by less than a percent
    }
    for asin in history:
        add_watch(engine, other if asin.endswith("6") else user_id, 7000, asin=asin, now=ago(days=10))
    run_record(engine, *(product(points, asin=asin) for asin, points in history.items()))

    run(engine)

    (report_,) = kept(engine)
    assert [(drop.asin, str(drop.fall_pct), drop.before.amount_minor) for drop in report_.drops] == [
        ("B000000002", "50.00", 10000), ("B000000001", "10.00", 10000),
    ]  # fmt: skip
    assert [drop.target.amount_minor if drop.target else None for drop in report_.drops] == [7000, 7000]
    assert [drop.asin for drop in kept(engine, "ben")[0].drops] == ["B000000006"]


def _watched_price(engine: Engine, *points: tuple[datetime, int | None], now: datetime) -> list[tuple[int, int]]:
    """The drops of the report that is made when Keeper has learnt these."""
    run_record(engine, product(points, at=now))
    run(engine, now=now)
    return [(drop.before.amount_minor, drop.price.amount_minor) for drop in kept(engine)[-1].drops]


def test_fall_that_keeper_learns_of_late_is_told_by_the_next_report(engine: Engine) -> None:
    add_watch(engine, add_reader(engine), now=ago(days=20))
    first = _watched_price(engine, (ago(days=9), 10000), now=ago(days=2))

    late = _watched_price(engine, (ago(days=3), 8000), now=NOW)
    again = _watched_price(engine, (ago(days=3), 8000), now=NOW + timedelta(days=1))

    assert (first, late, again) == ([], [(10000, 8000)], [])


def test_fall_of_a_day_without_report_is_told_by_the_next_one(engine: Engine) -> None:
    add_watch(engine, add_reader(engine), now=ago(days=20))
    _watched_price(engine, (ago(days=9), 10000), now=ago(days=5))

    assert _watched_price(engine, (ago(days=4), 8000), now=NOW) == [(10000, 8000)]


def test_small_falls_add_up_and_a_gap_of_offers_hides_none(engine: Engine) -> None:
    add_watch(engine, add_reader(engine), now=ago(days=20))
    found = [
        _watched_price(engine, (ago(days=days, hours=1), amount), now=ago(days=days))
        for days, amount in ((8, 10000), (7, 9950), (6, 9890), (5, None), (4, 9000), (3, 9500), (2, 9400))
    ]

    assert found == [[], [], [(10000, 9890)], [], [(9890, 9000)], [], [(9500, 9400)]]


def test_chart_is_of_the_recorded_prices(engine: Engine) -> None:
    add_filter(engine, add_reader(engine))
    add_watch(engine, add_reader(engine, "ben", hour=None), asin=asin_of(0))
    run_record(engine, product([(ago(days=200), 9000), (ago(days=45), None), (ago(days=30), 7000)], asin=asin_of(0)))
    add_deal(engine)

    run(engine)

    chart = kept(engine)[0].parts[0].entries[0].deal.chart
    assert chart == (9000,) * 15 + (None,) * 5 + (7000,) * 10


def test_empty_day_is_kept_and_not_sent(engine: Engine) -> None:
    add_filter(engine, add_reader(engine))

    done = [run(engine) for _ in range(2)]

    assert [(len(one.users), one.deliveries) for one in done] == [(1, 0), (0, 0)]
    assert one(engine, "SELECT deal_count FROM deal_reports") == 0
    assert rows(engine, "SELECT 1 FROM deliveries UNION ALL SELECT 1 FROM events") == []


def test_empty_day_is_sent_to_one_who_wants_it(engine: Engine) -> None:
    add_reader(engine, wants_empty=True)
    assert (run(engine).deliveries, one(engine, "SELECT kind FROM events")) == (1, "report")


def test_each_user_has_their_own_day_and_hour(engine: Engine) -> None:
    add_reader(engine, "early", timezone="Pacific/Kiritimati", hour=2)
    add_reader(engine, "late", timezone="Pacific/Pago_Pago", hour=1)
    add_reader(engine, "later", hour=14)
    add_reader(engine, "never", hour=None)
    add_reader(engine, "lost", timezone="Atlantis/Capital", hour=12)

    run(engine)  # at 12:00 UTC

    found = rows(engine, "SELECT u.name, r.report_date FROM deal_reports r JOIN users u ON u.id = r.user_id ORDER BY 1")
    assert found == [("early", date(2026, 11, 21)), ("late", date(2026, 11, 20)), ("lost", date(2026, 11, 20))]


def test_hourly_runs_over_the_change_of_clocks_report_each_day_once(engine: Engine) -> None:
    add_reader(engine, "berlin", hour=2)
    add_reader(engine, "lord-howe", timezone="Australia/Lord_Howe", hour=2)
    start = datetime(2026, 10, 23, 12, tzinfo=UTC)

    for hours in range(96):
        run(engine, now=start + timedelta(hours=hours))

    found = rows(engine, "SELECT u.name, r.report_date FROM deal_reports r JOIN users u ON u.id = r.user_id ORDER BY 1, 2")
    assert [day for name, day in found if name == "berlin"] == [date(2026, 10, day) for day in range(23, 28)]
    assert [day for name, day in found if name == "lord-howe"] == [date(2026, 10, day) for day in range(23, 28)]


def test_filter_that_cannot_be_read_is_told_its_owner(engine: Engine) -> None:
    user_id = add_reader(engine)
    add_filter(engine, user_id, "Broken", rules={"wordz": "x"})
    add_filter(engine, user_id, "Good")
    add_deal(engine)

    run(engine)

    (report_,) = kept(engine)
    assert [part.name for part in report_.parts] == ["Good"]
    assert "Your filter Broken cannot be read: wordz" in report_.problems[0]
    assert "Your filter Broken cannot be read" in compose_report(report_).html


def test_report_of_a_broken_filter_alone_is_sent_and_names_it_everywhere(engine: Engine) -> None:
    add_filter(engine, add_reader(engine), "Broken", rules={"wordz": "x"})

    done = run(engine)

    message = compose_report(kept(engine)[0])
    assert (done.deliveries, done.users[0].is_told) == (1, True)
    assert "1 filter to mend" in message.title
    assert all("Your filter Broken cannot be read: wordz" in form for form in (message.text, message.html, message.chat or ""))


def test_preview_is_what_would_be_sent_and_keeps_nothing(engine: Engine) -> None:
    user_id = add_reader(engine)
    add_filter(engine, user_id)
    add_deal(engine)

    with engine.begin() as connection:
        shown_ = preview(connection, user_id, now=NOW, settings=SETTINGS)
    nothing = rows(engine, "SELECT 1 FROM deal_reports")
    run(engine)

    assert (nothing, [shown_]) == ([], kept(engine))


def test_deals_of_reports_are_published_to_kafka_once_under_their_collections_event_id(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    for name in ("anna", "ben"):
        add_filter(engine, add_reader(engine, name))
    for number in range(3):
        add_deal(engine, number)

    done = run(engine)

    deals = rows(engine, "SELECT event_id, revision FROM collected_deals ORDER BY asin")
    assert rows(engine, "SELECT event_id, version FROM events WHERE kind = 'deal_update' ORDER BY seq") == deals
    assert rows(engine, "SELECT payload ->> 'event_id' FROM events WHERE kind = 'deal_update' ORDER BY seq") == [
        str(key) for key, _ in deals
    ]
    assert rows(engine, "SELECT sink, count(*) FROM outbox GROUP BY 1 ORDER BY 1") == [("kafka", 3), ("notify", 2)]
    assert done.published == 3


def test_without_kafka_deals_are_not_published_again(engine: Engine) -> None:
    use_sinks(engine, {Sink.SEARCH, Sink.NOTIFY})
    add_filter(engine, add_reader(engine))
    add_deal(engine)
    assert run(engine).published == 0


def test_two_runs_at_once_keep_each_report_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        add_filter(engine, add_reader(engine, f"user{number}"))
    for number in range(5):
        add_deal(engine, number)
    ready, insert = threading.Barrier(3), reports.insert_reports

    def insert_together(*arguments: Any, **rest: Any) -> Any:
        ready.wait(30)
        return insert(*arguments, **rest)

    monkeypatch.setattr(reports, "insert_reports", insert_together)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: run(engine), range(3)))

    assert sorted(len(one.users) for one in done) == [0, 0, 20]
    assert rows(engine, "SELECT count(*), count(DISTINCT user_id) FROM deal_reports") == [(20, 20)]
    assert one(engine, "SELECT count(*) FROM events WHERE kind = 'report'") == one(engine, "SELECT count(*) FROM deliveries") == 20


def test_run_killed_between_composing_and_keeping_has_told_nobody_and_the_next_tells_once(engine: Engine) -> None:
    add_filter(engine, add_reader(engine))
    add_deal(engine)
    database = engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.report_process", database, NOW.isoformat()], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "composed\n"
    process.kill()
    process.communicate()
    before = rows(engine, "SELECT 1 FROM deal_reports UNION ALL SELECT 1 FROM events UNION ALL SELECT 1 FROM deliveries")

    done = [run(engine, now=NOW + timedelta(minutes=minutes)) for minutes in (5, 10)]

    assert before == []
    assert [one.deliveries for one in done] == [1, 0]
    assert one(engine, "SELECT count(*) FROM deal_reports") == 1


def test_failure_while_keeping_leaves_nothing_of_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    add_filter(engine, add_reader(engine))
    add_deal(engine)

    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(reports, "insert_events", fail)
    with pytest.raises(OSError, match="no space left"):
        run(engine)
    left = rows(engine, "SELECT 1 FROM deal_reports UNION ALL SELECT 1 FROM deliveries")
    monkeypatch.setattr(reports, "insert_events", insert_events)

    assert left == []
    assert run(engine).deliveries == 1


def test_user_who_is_deleted_meanwhile_takes_no_other_report_along(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("anna", "ben"):
        add_filter(engine, add_reader(engine, name))
    add_deal(engine)
    insert = reports.insert_reports

    def delete_first(*arguments: Any, **rest: Any) -> Any:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM users WHERE name = 'anna'"))
        return insert(*arguments, **rest)

    monkeypatch.setattr(reports, "insert_reports", delete_first)
    assert [one.user for one in run(engine).users] == ["ben"]


def _statements(engine: Engine, users: int, first: int) -> int:
    for number in range(first, first + users):
        user_id = add_reader(engine, f"user{number}")
        for name in ("a", "b"):
            add_filter(engine, user_id, name)
    counted: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        counted.append(statement)

    event.listen(engine, "before_cursor_execute", count)
    try:
        assert len(run(engine).users) == users
    finally:
        event.remove(engine, "before_cursor_execute", count)
    return len(counted)


def test_number_of_statements_does_not_grow_with_users(engine: Engine) -> None:
    use_sinks(engine, ALL_SINKS)
    for number in range(30):
        add_deal(engine, number)

    few, many = _statements(engine, 2, 0), _statements(engine, 60, 2)

    assert few == many
    assert many < 25


def test_many_filters_and_deals_are_compared_in_several_statements_with_the_same_reports(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("anna", "ben", "cleo"):
        user_id = add_reader(engine, name)
        add_filter(engine, user_id)
        add_filter(engine, user_id, "Cheap", DealFilter(marketplaces=(Marketplace.DE,), price_to_minor=5000))
    for number in range(6):
        add_deal(engine, number, price=4000 if number % 3 == 0 else 8000)
    with engine.begin() as connection:
        asked, _ = deal_filters.select_asked(connection)
        together = deal_filters.select_matches(connection, asked, limit_per_filter=4)
        monkeypatch.setattr(deal_filters, "_PAIRS_AT_ONCE", 6 * 4)
        statements: list[str] = []
        event.listen(connection, "before_cursor_execute", lambda *rest: statements.append(rest[2]))
        apart = deal_filters.select_matches(connection, asked, limit_per_filter=4)

    assert apart == together
    assert sum("filters AS MATERIALIZED" in one for one in statements) == 2


def test_statements_of_reports_have_longer_than_others_and_the_others_have_not(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    add_reader(engine)
    limits: list[str] = []
    select = reports.select_last_reports

    def look(connection: Any, *rest: Any) -> Any:
        limits.append(connection.execute(text("SHOW statement_timeout")).scalar_one())
        return select(connection, *rest)

    monkeypatch.setattr(reports, "select_last_reports", look)
    run(engine)

    assert (limits, one(engine, "SHOW statement_timeout")) == (["5min"], "1min")


def test_more_users_than_are_taken_at_once_all_get_their_report(engine: Engine) -> None:
    for number in range(7):
        add_filter(engine, add_reader(engine, f"user{number}"))
    add_deal(engine)

    assert len(run(engine, settings=ReportSettings(users_at_once=3)).users) == 7
