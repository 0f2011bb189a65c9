"""Composes a report and an alert of a deal: HTML that survives mail clients, the same as text, and short for chats.

Mail clients know tables, inline styles and not much more; some strip the style block, where only the narrow and the dark form live.
Gmail cuts what is longer than 102 KB. Price charts are cells of a table, so that they need no picture from anywhere.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from keeper.domain.money import Money
from keeper.domain.operations import OperationsReport, decode_operations
from keeper.domain.report import (
    DealAlert,
    FilterPart,
    GoneDeal,
    HeldAlert,
    Mark,
    Report,
    ReportDeal,
    ReportEntry,
    ReportKind,
    WatchDrop,
    decode_report,
)
from keeper.notify.message import Message, one_line, shown_image

_TITLE_LENGTH = 140
_ROW_TITLE_LENGTH = 80
_CHAT_TITLE_LENGTH = 70
_CHAT_DEALS = 5
_CHAT_DROPS = 3
_CHAT_PROBLEMS = 2
# Discord takes 2,000 with the title; some count an emoji as two.
_CHAT_LENGTH = 1_700
_MOST_GONE = 10
_CHART_HEIGHT = 40
_CHART_STEPS = 12
_BLOCKS = "▁▂▃▄▅▆▇█"
# So that it stays below Gmail's 102 KB.
MOST_CARDS = 12
MOST_ROWS = 30
MOST_PARTS = 15

# A picture as Amazon keeps it; with a mark before the ending it is sent in another size.
_AMAZON_IMAGE = re.compile(r"(https://[a-z0-9.-]*(?:media-amazon|ssl-images-amazon)\.com/images/I/[^./]+)\.(jpg|png|gif)")

# By name: the class by which the dark form finds it, and the style for clients that strip style blocks.
_LOOKS = {
    "page": ("pg", "margin:0;padding:0;background:#eeede8"),
    "card": ("cd", "background:#ffffff;border:1px solid #dddbd3;border-radius:12px"),
    "ink": ("i", "color:#1d1d1b"),
    "muted": ("m", "color:#5b5a55"),
    "good": ("g", "color:#0b6138"),
    "link": ("i", "color:#1d1d1b;text-decoration:none"),
    "title": ("t", "color:#1d1d1b;text-decoration:none"),
    "key": (
        "k",
        "background:#f7f6f2;color:#1d1d1b;border:1px solid #c9c7bd;border-bottom:3px solid #b1afa4;border-radius:6px;"
        "font-weight:bold;text-align:center",
    ),
    "new": ("bn", "background:#dfe8ff;color:#1f3a93;border-radius:5px;padding:2px 7px;font-weight:bold"),
    "low": ("bl", "background:#d9f2e2;color:#0a5430;border-radius:5px;padding:2px 7px;font-weight:bold"),
    "plain": ("bp", "background:#efeee9;color:#4b4a45;border-radius:5px;padding:2px 7px"),
    "warn": ("bw", "background:#fdeacb;color:#6b4300;border-radius:5px;padding:2px 7px"),
    "button": ("bt", "background:#1d1d1b;color:#ffffff;border-radius:8px;text-decoration:none;font-weight:bold;display:inline-block"),
    "bar": ("cb", "background:#cfd8d1"),
    "last": ("cl", "background:#12834e"),
    "rule": ("r", "border-top:1px solid #e6e4dc"),
    "frame": ("fr", "background:#ffffff;border-radius:8px"),
}


class _Bar(NamedTuple):
    """Some spans of time with the same height in a chart; without an offer the height is 0."""

    spans: int
    height: int
    is_last: bool


def compose_report(report: Report) -> Message:
    """The message of a day."""
    return Message(title=_subject(report), text=_text(report), html=render_report(report), chat=_chat(report))


def compose_content(content: Mapping[str, Any]) -> Message:
    """The message of a kept report, of whatever kind.

    Raises:
        ReportUnreadable: another version of Keeper wrote it.
    """
    if content.get("kind") == ReportKind.OPERATIONS:
        return compose_operations(decode_operations(content))
    return compose_report(decode_report(content))


def compose_deal_alert(alert: DealAlert) -> Message:
    """The message of a deal that is told at once."""
    deal = alert.deal
    title = one_line(deal.title, _TITLE_LENGTH) or deal.asin
    subject = " · ".join([f"{deal.price}: {one_line(deal.title, 80) or deal.asin}", *_fall(deal)])
    lines = [title, *_facts(deal), f"Filter: {one_line(alert.filter_name, 100)}", deal.link]
    html = _environment().get_template("deal_alert.html").render(alert=alert, **_words())
    return Message(title=subject, text="\n".join(lines), html=_squeezed(html))


def compose_operations(report: OperationsReport) -> Message:
    """The message for administrators."""
    count = len(report.warnings)
    words = f"{count} thing{'s' if count != 1 else ''} to look at" if count else "all is well"
    subject = f"Keeper's operations, {report.composed_at:%a} {report.composed_at.day} {report.composed_at:%b}: {words}"
    lines = [subject]
    for section in report.sections:
        lines += ["", f"== {section.title} =="]
        lines += [f"! {warning}" for warning in section.warnings]
        lines += [f"Not known: {section.failure}"] if section.failure else [f"{name}: {value}" for name, value in section.facts]
    html = _environment().get_template("operations.html").render(report=report, subject=subject, **_words())
    short = [subject, *(f"! {one_line(warning, 200)}" for warning in report.warnings[:_CHAT_DEALS])]
    more = count - _CHAT_DEALS
    short += [f"and {more} more: `keeper report operations`"] if more > 0 else []
    return Message(title=subject, text="\n".join(lines) + "\n", html=_squeezed(html), chat="\n".join(short[1:]) or "Nothing needs a look.")


def render_report(report: Report) -> str:
    """The whole report as one HTML page."""
    html = (
        _environment()
        .get_template("report.html")
        .render(
            report=report, parts=_parts(report), left_out=_left_out(report), subject=_subject(report), summary=_summary(report), **_words()
        )
    )
    return _squeezed(html)


class _Part(NamedTuple):
    """A filter as the page shows it: news as cards, the rest as rows.

    Attributes:
        side: a few words beside the name.
        left_out: entries for which there was no room.
    """

    name: str
    side: str
    cards: list[ReportEntry]
    rows: list[ReportEntry]
    gone: Sequence[GoneDeal]
    left_out: int


def _parts(report: Report) -> list[_Part]:
    """The filters that have something to tell. A deal that an earlier one has shown is a row in a later one."""
    told: set[object] = set()
    parts = [part for part in report.parts if part.entries or part.gone][:MOST_PARTS]
    shares = max(1, sum(1 for part in parts if part.entries))
    shown = []
    for part in parts:
        news = [entry for entry in part.entries if entry.mark.is_news and entry.deal.key not in told]
        cards = news[: max(1, MOST_CARDS // shares)] if len(told) < MOST_CARDS else []
        chosen = {entry.deal.key for entry in cards}
        told |= chosen
        rows = [entry for entry in part.entries if entry.deal.key not in chosen]
        room = max(1, MOST_ROWS // shares)
        many = f"the best {len(part.entries)}" if part.has_more else f"{len(part.entries)} deal{'s' if len(part.entries) != 1 else ''}"
        gone = part.gone[:_MOST_GONE]
        shown.append(_Part(part.name, many if part.entries else "", cards, rows[:room], gone, max(0, len(rows) - room)))
    return shown


def _left_out(report: Report) -> int:
    """Filters for which there was no room."""
    return max(0, sum(1 for part in report.parts if part.entries or part.gone) - MOST_PARTS)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("keeper.notify", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _words() -> dict[str, object]:
    return {
        "look": _look,
        "bars": _bars,
        "fall": _fall,
        "stars": _stars,
        "number": _number,
        "title": lambda text, asin: one_line(text, _TITLE_LENGTH) or asin,
        "short": lambda text, asin: one_line(text, _ROW_TITLE_LENGTH) or asin,
        "name": lambda text: one_line(text, 100),
        "image": _small_image,
        # A fact is not broken over two lines.
        "facts": lambda deal: [fact.replace(" ", "\u00a0") for fact in (*_prices(deal), *_standing(deal))],
        "chart_range": lambda deal: _range(deal.chart, deal.price.currency),
        "kind": _kind,
        "Mark": Mark,
        "chart_height": _CHART_HEIGHT,
    }


def _look(name: str, more: str = "") -> Markup:
    """Class and style of something; `more` is added to the style."""
    short, style = _LOOKS[name]
    return Markup('class="{}" style="{}"').format(short, f"{style};{more}" if more else style)


def _squeezed(html: str) -> str:
    """Without the template's indentation, which is not worth its bytes."""
    return re.sub(r"\n\s*", "\n", html).strip() + "\n"


def _bars(chart: Sequence[int | None]) -> list[_Bar]:
    """Heights of a chart, equal neighbours as one, which keeps it short; nothing where there is too little to see."""
    heights = _heights(chart, _CHART_STEPS)
    bars: list[_Bar] = []
    for place, height in enumerate(heights):
        pixels = 0 if height is None else round(_CHART_HEIGHT * height / _CHART_STEPS)
        is_last = place == len(heights) - 1
        if bars and bars[-1].height == pixels and not is_last:
            bars[-1] = bars[-1]._replace(spans=bars[-1].spans + 1)
        else:
            bars.append(_Bar(1, pixels, is_last))
    return bars


def _heights(chart: Sequence[int | None], steps: int) -> list[int | None]:
    """From 2 for the lowest to `steps` for the highest; empty where fewer than two spans have a price."""
    known = [amount for amount in chart if amount is not None]
    if len(known) < 2:
        return []
    low, high = min(known), max(known)
    span = max(high - low, 1)
    return [None if amount is None else (2 + round((steps - 2) * (amount - low) / span) if high > low else steps // 2) for amount in chart]


def _sparkline(chart: Sequence[int | None]) -> str:
    return "".join(" " if height is None else _BLOCKS[height - 1] for height in _heights(chart, len(_BLOCKS)))


def _fall(deal: ReportDeal) -> list[str]:
    """How much cheaper it is than it mostly was, or than the list price where that is all that is known."""
    if deal.below_median_pct is not None and deal.below_median_pct >= 1:
        return [f"{deal.below_median_pct:.0f} % below its median"]
    if deal.median_90 is None and deal.discount_pct is not None and deal.discount_pct >= 1 and not deal.is_list_price_fiction:
        return [f"{deal.discount_pct:.0f} % below list price"]
    return []


def _stars(deal: ReportDeal) -> str | None:
    if deal.rating_tenths is None or deal.rating_tenths <= 0:
        return None
    reviews = f" ({deal.review_count:,})" if deal.review_count else ""
    return f"★ {deal.rating_tenths / 10:.1f}{reviews}"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _kind(deal: ReportDeal | WatchDrop) -> str:
    return deal.price_type.value.replace("_", " ").lower()


def _subject(report: Report) -> str:
    day = f"{report.report_date:%a} {report.report_date.day} {report.report_date:%b}"
    said = []
    news = report.count(Mark.NEW) + report.count(Mark.CHEAPER)
    if news:
        said.append(f"{news} new deal{'s' if news != 1 else ''}")
    elif report.deal_count:
        said.append(f"{report.deal_count} deal{'s' if report.deal_count != 1 else ''} still on")
    if report.drops_found:
        said.append(f"{report.drops_found} watched price{'s' if report.drops_found != 1 else ''} fell")
    if report.held_found:
        said.append(f"{report.held_found} held back")
    if report.problems:
        said.append(f"{len(report.problems)} filter{'s' if len(report.problems) != 1 else ''} to mend")
    best = [f"best {report.best[0].deal.price} {one_line(report.best[0].deal.title, 50)}"] if report.best else []
    return one_line(f"Keeper, {day}: {', '.join(said) or 'nothing today'}{''.join(f'; {one}' for one in best)}", 180)


def _facts(deal: ReportDeal, chart_days: int = 0) -> Iterator[str]:
    yield " · ".join([f"{deal.price}", *_fall(deal), *_lows(deal)])
    for facts in (_prices(deal), [*_standing(deal), *([f"score {_number(deal.score)} of 100"] if deal.score is not None else [])]):
        if facts:
            yield " · ".join(facts)
    if line := _sparkline(deal.chart):
        low, high = _range(deal.chart, deal.price.currency)
        yield f"{chart_days} days {line} between {low} and {high}"


def _prices(deal: ReportDeal) -> list[str]:
    known = {"median of 90 days": deal.median_90, "low of the year": deal.lowest_year, "list price": deal.list_price}
    return [f"{what} {money}" for what, money in known.items() if money is not None]


def _standing(deal: ReportDeal) -> list[str]:
    stars = _stars(deal)
    return ([stars] if stars else []) + ([f"rank {_number(deal.sales_rank)}"] if deal.sales_rank and deal.sales_rank > 0 else [])


def _range(chart: Sequence[int | None], currency: str) -> tuple[Money, Money]:
    known = [amount for amount in chart if amount is not None]
    return Money(min(known), currency), Money(max(known), currency)


def _small_image(url: str | None) -> str | None:
    found = shown_image(url)
    sized = _AMAZON_IMAGE.fullmatch(found) if found else None
    return f"{sized.group(1)}._SL192_.{sized.group(2)}" if sized else found


def _summary(report: Report) -> str:
    said = [_changes(report)] if _changes(report) else []
    if report.drops_found:
        said.append(f"{report.drops_found} of your watched prices fell")
    if report.held_found:
        said.append(f"{report.held_found} held back")
    return " · ".join(said) or "A quiet day"


def _lows(deal: ReportDeal) -> list[str]:
    if deal.is_all_time_low:
        return ["all-time low"]
    return ["lowest in a year"] if deal.is_year_low else []


def _marked(entry: ReportEntry) -> str:
    if entry.mark is Mark.NEW:
        return "[new] "
    if entry.mark is Mark.CHEAPER:
        return f"[cheaper, was {entry.before}] "
    return f"[dearer, was {entry.before}] " if entry.mark is Mark.DEARER else ""


def _changes(report: Report) -> str:
    counts = {
        "new": report.count(Mark.NEW),
        "cheaper": report.count(Mark.CHEAPER),
        "dearer": report.count(Mark.DEARER),
        "gone": report.gone_count,
    }
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _text(report: Report) -> str:
    lines = [f"Keeper, {report.report_date:%A} {report.report_date.day} {report.report_date:%B %Y}"]
    if changes := _changes(report):
        lines.append(f"Since the last report: {changes}")
    if not report.has_offers:
        lines += ["", "Nothing matched your filters today, and no price you watch fell."]
    for part in report.parts:
        lines += _text_of_part(part, report.chart_days)
    if report.drops:
        lines += ["", "== Prices you watch that fell =="]
        for drop in report.drops:
            lines += ["", one_line(drop.title, _TITLE_LENGTH) or drop.asin, f"   {_drop(drop)}", f"   {drop.link}"]
        lines += _more(report.drops_found - len(report.drops), "more prices fell")
    if report.held:
        lines += ["", "== Held back, because that hour had told enough =="]
        for one in report.held:
            lines += ["", one_line(one.deal.title, _TITLE_LENGTH) or one.deal.asin, f"   {_held(one)}", f"   {one.deal.link}"]
        lines += _more(report.held_found - len(report.held), "more wait for the next report")
    lines += [line for problem in report.problems for line in ("", f"! {one_line(problem, 300)}")]
    lines += ["", f"Composed {report.composed_at:%Y-%m-%d %H:%M} UTC for {report.user} ({report.timezone})."]
    return "\n".join(lines) + "\n"


def _text_of_part(part: FilterPart, chart_days: int) -> Iterator[str]:
    if not (part.entries or part.gone):
        return
    yield from ("", f"== {one_line(part.name, 100)} ==")
    for number, entry in enumerate(part.entries, start=1):
        yield ""
        yield f"{number}. {_marked(entry)}{one_line(entry.deal.title, _TITLE_LENGTH) or entry.deal.asin}"
        yield from (f"   {fact}" for fact in _facts(entry.deal, chart_days))
        yield f"   {entry.deal.link}"
    if part.has_more:
        yield from ("", "More deals match than are told here.")
    if part.gone:
        yield from ("", "Gone since the last report:")
        yield from (f"- {one_line(one.title, _ROW_TITLE_LENGTH) or one.asin}, was {one.price}" for one in part.gone)


def _drop(drop: WatchDrop) -> str:
    target = f" · your target {drop.target}" if drop.target else ""
    return f"{drop.price}, was {drop.before} (−{drop.fall_pct} %){target}"


def _held(one: HeldAlert) -> str:
    return " · ".join([f"{one.deal.price}", *_fall(one.deal), f"filter {one_line(one.filter_name, 60)}"])


def _more(count: int, what: str) -> list[str]:
    return ["", f"{count} {what}."] if count > 0 else []


def _chat(report: Report) -> str:
    """The best few, within what the shortest chat takes."""
    blocks: list[str] = []
    best = sorted(report.best, key=lambda entry: not entry.mark.is_news)
    for entry in best[:_CHAT_DEALS]:
        deal = entry.deal
        name = one_line(deal.title, _CHAT_TITLE_LENGTH) or deal.asin
        blocks.append("\n".join([f"{_marked(entry)}{name}", " · ".join([str(deal.price), *_fall(deal), *_lows(deal)]), deal.link]))
    for drop in report.drops[:_CHAT_DROPS]:
        name = one_line(drop.title, _CHAT_TITLE_LENGTH) or drop.asin
        blocks.append(f"You watch {name}\n{drop.price}, was {drop.before} (−{drop.fall_pct} %)\n{drop.link}")
    everything = len(best) + report.drops_found + report.held_found
    changes = _changes(report)
    while True:
        left = everything - len(blocks)
        head = [f"Since the last report: {changes}"] if changes else []
        tail = [f"! {one_line(problem, 300)}" for problem in report.problems[:_CHAT_PROBLEMS]]
        tail += [f"and {left} more: `keeper report show`"] if left > 0 else []
        text = "\n\n".join([*head, *blocks, *tail]) or "Nothing matched your filters today, and no price you watch fell."
        if len(text.encode("utf-16-le")) // 2 <= _CHAT_LENGTH or not blocks:
            return text
        blocks.pop()
