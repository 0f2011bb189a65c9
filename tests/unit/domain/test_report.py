"""When a report is due, what a chart shows, and that a kept report is read as it was written."""

from datetime import UTC, date, datetime, timedelta

import pytest

from keeper.domain.price_series import PriceSeries
from keeper.domain.report import (
    DealAlert,
    ReportUnreadable,
    TimezoneUnknown,
    decode_deal_alert,
    decode_report,
    due_date,
    encode_deal_alert,
    encode_report,
    read_timezone,
    sketch,
)
from tests.unit.notify.reports import EMPTY, REPORT, deal


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


BERLIN, KIRITIMATI, PAGO_PAGO, NEW_YORK = "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/New_York"
# Zone, hour, the last moment at which it has not come, the date it then is of.
COMES = {
    "winter": (BERLIN, 7, "2026-11-21T05:59:59", "2026-11-21"),
    "summer": (BERLIN, 7, "2026-07-21T04:59:59", "2026-07-21"),
    "day clocks go forward": (BERLIN, 7, "2026-03-29T04:59:59", "2026-03-29"),
    "day before clocks go forward": (BERLIN, 7, "2026-03-28T05:59:59", "2026-03-28"),
    "hour that clocks skip comes with the next": (BERLIN, 2, "2026-03-29T00:59:59", "2026-03-29"),
    "hour after the skipped one comes with it": (BERLIN, 3, "2026-03-29T00:59:59", "2026-03-29"),
    "day clocks go back": (BERLIN, 7, "2026-10-25T05:59:59", "2026-10-25"),
    "hour that clocks repeat comes the first time": (BERLIN, 2, "2026-10-24T23:59:59", "2026-10-25"),
    "hour after the repeated one": (BERLIN, 3, "2026-10-25T01:59:59", "2026-10-25"),
    "midnight": (BERLIN, 0, "2026-11-20T22:59:59", "2026-11-21"),
    "14 hours ahead": (KIRITIMATI, 7, "2026-11-20T16:59:59", "2026-11-21"),
    "11 hours behind": (PAGO_PAGO, 7, "2026-11-21T17:59:59", "2026-11-21"),
    "11 hours behind, late": (PAGO_PAGO, 23, "2026-11-22T09:59:59", "2026-11-21"),
    "America's own spring": (NEW_YORK, 2, "2026-03-08T06:59:59", "2026-03-08"),
}


@pytest.mark.parametrize("case", COMES)
def test_report_is_due_from_its_local_hour_on(case: str) -> None:
    zone, hour, not_yet, day = COMES[case]
    before, day_before = utc(not_yet), date.fromisoformat(day) - timedelta(days=1)

    dates = [
        due_date(now, timezone=read_timezone(zone), report_hour=hour, last_date=day_before)
        for now in (before, before + timedelta(seconds=1))
    ]

    assert dates == [None, date.fromisoformat(day)]


def test_missed_hour_is_made_up_for_until_the_local_day_ends() -> None:
    def due(now: str) -> date | None:
        return due_date(utc(now), timezone=read_timezone(BERLIN), report_hour=7, last_date=date(2026, 11, 20))

    assert due("2026-11-21T22:59:59") == date(2026, 11, 21)
    assert due("2026-11-21T23:00:00") is None  # the next day's has not come, and this one's is past


@pytest.mark.parametrize("hour", range(24))
@pytest.mark.parametrize("zone", [BERLIN, KIRITIMATI, PAGO_PAGO, NEW_YORK, "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_hourly_runs_over_a_year_find_each_day_once(zone: str, hour: int) -> None:
    timezone, last = read_timezone(zone), date(2026, 1, 1)
    found = []
    for hours in range(366 * 24):
        day = due_date(utc("2026-01-02T12:00:00") + timedelta(hours=hours), timezone=timezone, report_hour=hour, last_date=last)
        if day is not None:
            found.append(day)
            last = day

    assert found == [found[0] + timedelta(days=days) for days in range(len(found))]
    assert len(found) >= 365


def test_one_who_never_had_a_report_gets_the_first() -> None:
    assert due_date(utc("2026-11-21T12:00"), timezone=read_timezone(BERLIN), report_hour=7, last_date=None) == date(2026, 11, 21)


@pytest.mark.parametrize("name", ["Europe/Bremen", "", "../etc/passwd", "/etc/passwd", "Europe", "x\x00y", "Ä" * 300])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(TimezoneUnknown, match="write it like Europe/Berlin"):
        read_timezone(name)


SERIES = PriceSeries([100, 120, 125, 160], [50, 30, None, 40])
SKETCHES = {
    "before its first point there is nothing": (0, 100, (None, None, None, 50)),
    "a dip shorter than a span is seen": (100, 140, (50, 50, 30, None)),
    "a value lasts": (160, 200, (40, 40, 40, 40)),
    "the present price that begins at the end": (120, 160, (30, None, None, 40)),
}


@pytest.mark.parametrize("case", SKETCHES)
def test_chart_holds_the_lowest_of_each_span(case: str) -> None:
    start, end, expected = SKETCHES[case]
    assert sketch(SERIES, start, end, 4) == expected


@pytest.mark.parametrize("report", [REPORT, EMPTY], ids=["full", "empty"])
def test_kept_report_is_read_as_it_was_written(report: object) -> None:
    assert decode_report(encode_report(report)) == report  # type: ignore[arg-type]


def test_kept_deal_alert_is_read_as_it_was_written() -> None:
    alert = DealAlert("Instant", deal())
    assert decode_deal_alert(encode_deal_alert(alert)) == alert


@pytest.mark.parametrize("change", [{"parts": [{}]}, {"composed_at": "yesterday"}, {"composed_at": "2026-11-21T06:00:00"}, {"drops": None}])
def test_report_of_another_version_says_so(change: dict[str, object]) -> None:
    with pytest.raises(ReportUnreadable, match="another version"):
        decode_report(encode_report(REPORT) | change)


def test_deal_in_two_filters_counts_once() -> None:
    assert REPORT.deal_count == 7


def test_report_without_deals_drops_and_held_alerts_is_empty() -> None:
    assert (EMPTY.is_empty, REPORT.is_empty) == (True, False)
