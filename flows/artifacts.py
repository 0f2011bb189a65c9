"""What a run shows in the Prefect UI. An artifact that cannot be written never fails the run."""

import logging

from prefect.artifacts import create_markdown_artifact

from keeper.check import Checked
from keeper.domain.money import Money

logger = logging.getLogger(__name__)
_MOST_FAILURES = 100


def show_checks(job: str, done: Checked) -> None:
    """The failures and the ten largest drops of a run."""
    lines = [f"## {done.sentence}", "", f"{done.changes} prices changed, {done.alerts} alerts", ""]
    if done.falls:
        lines += ["| Product | Price | Now | Before | Fall |", "|---|---|---|---|---|"]
        for fall in done.falls:
            now, before = Money(fall.amount_minor or 0, fall.currency), Money(fall.previous_minor or 0, fall.currency)
            pct = 100 * (before.amount_minor - now.amount_minor) / before.amount_minor
            lines.append(f"| {fall.asin} {fall.marketplace} | {fall.price_type} | {now} | {before} | {pct:.1f} % |")
        lines.append("")
    if done.failures:
        lines += ["| Failed | Why |", "|---|---|"]
        lines += [f"| {name} | {_cell(why)} |" for name, why in list(done.failures.items())[:_MOST_FAILURES]]
        if len(done.failures) > _MOST_FAILURES:
            lines.append(f"| and {len(done.failures) - _MOST_FAILURES} more | |")
    try:
        create_markdown_artifact("\n".join(lines), key=job.lower().replace("/", "-"), description=done.sentence)
    except Exception:
        logger.exception("the artifact of %s could not be written", job)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
