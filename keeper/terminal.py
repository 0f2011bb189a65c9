"""What a person sees: tables, progress, a price chart. Knows nothing of settings or SQL."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
# Nothing is cut off where a program or a file reads.
_PIPE_WIDTH = 400
_CHART_ROWS = 18
_SIGNS = {"good": ("✓", "green"), "note": ("·", "yellow"), "broken": ("✗", "red")}


def printable(text: object) -> str:
    """On one line and without control characters: a product's title must not drive the terminal."""
    return _UNPRINTABLE.sub(" ", str(text)).strip()


def shorten(text: str | None, length: int) -> str:
    """At most `length` characters of a text, printable; a dash for none."""
    line = printable(text or "–")
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def out() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(text: str) -> None:
    """One line for a person."""
    out().print(printable(text))


def say_finding(about: str, health: str, text: str, remedy: str) -> None:
    """One line for a check, and one for what to do."""
    sign, style = _SIGNS[health]
    out().print(Text.assemble((f"{sign} ", style), (f"{about}: ", "bold"), printable(text)))
    if remedy:
        out().print(Text(f"  → {printable(remedy)}"))


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), title: str | None = None) -> None:
    """A table; None shows as a dash. Columns named in `right` hold numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading in right, overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else printable(cell)) for cell in row))
    console = out()
    with console.capture() as drawn:
        console.print(table, soft_wrap=False)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def ago(at: datetime | None, now: datetime) -> str:
    """`3 h ago`, `in 20 min`, or `never` for None."""
    if at is None:
        return "never"
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(abs(seconds))} ago" if seconds > 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """A duration in its largest fitting unit: `45 s`, `12 min`, `6 h`, `3 d`."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            amount = seconds / size
            return f"{amount:.0f} {name}" if amount >= 10 or amount == round(amount) else f"{amount:.1f} {name}"
    return f"{seconds:.0f} s"


@dataclass(slots=True)
class Bar:
    """A progress bar that can grow."""

    _progress: Progress
    _task: int
    _total: int = field(default=0)

    def grow(self, by: int) -> None:
        """More to come."""
        self._total += by
        self._progress.update(self._task, total=self._total)  # type: ignore[arg-type]

    def advance(self, by: int) -> None:
        """So many are through."""
        self._progress.advance(self._task, by)  # type: ignore[arg-type]


@contextmanager
def progress(description: str, *, is_shown: bool = True) -> Iterator[Bar]:
    """A bar on standard error, where that is a terminal; gone at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not (is_shown and sys.stderr.isatty())) as shown:
        yield Bar(shown, shown.add_task(description, total=None))


def draw_prices(
    steps: Sequence[tuple[datetime, float | None]],
    *,
    start: datetime,
    end: datetime,
    target: float | None,
    size: tuple[int, int],
    is_coloured: bool,
) -> str:
    """A chart of a step function: each price holds from its moment until the next; None is a gap.

    Args:
        steps: oldest first; one before `start` is drawn from `start` on.
        size: columns and rows.
    """
    import plotext  # 50 ms that only this chart needs

    plotext.clear_figure()
    plotext.plot_size(size[0], max(size[1], _CHART_ROWS))
    plotext.theme("clear")
    for moments, amounts in _segments(steps, start, end):
        plotext.plot(moments, amounts, marker="braille", color="cyan")
    known = [amount for _, amount in steps if amount is not None]
    # A target far away would flatten the price into a line.
    if target is not None and known and min(known) - _reach(known) <= target <= max(known) + _reach(known):
        plotext.plot([start.timestamp(), end.timestamp()], [target, target], marker="dot", color="green")
    marks = [start + (end - start) * part / 4 for part in range(5)]
    pattern = "%d %b %H:%M" if end - start < timedelta(days=3) else "%d %b %y"
    plotext.xticks([mark.timestamp() for mark in marks], [f"{mark.astimezone(UTC):{pattern}}" for mark in marks])
    plotext.xlim(start.timestamp(), end.timestamp())
    drawn: str = plotext.build()
    if not is_coloured:
        drawn = str(plotext.uncolorize(drawn))
    return "\n".join(line.rstrip() for line in drawn.splitlines())


def _reach(amounts: Sequence[float]) -> float:
    return max(max(amounts) - min(amounts), 0.1 * max(amounts))


def _segments(steps: Sequence[tuple[datetime, float | None]], start: datetime, end: datetime) -> Iterator[tuple[list[float], list[float]]]:
    moments: list[float] = []
    amounts: list[float] = []
    ends = [at for at, _ in steps[1:]] + [end]
    for (at, amount), until in zip(steps, ends, strict=True):
        if amount is None:
            if moments:
                yield moments, amounts
                moments, amounts = [], []
            continue
        moments += [max(at, start).timestamp(), max(until, start).timestamp()]
        amounts += [amount, amount]
    if moments:
        yield moments, amounts
