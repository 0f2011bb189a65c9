"""Composes the message of an opportunity."""

from html import escape

from keeper.domain.opportunity_alert import OpportunityAlert
from keeper.notify.message import Message, one_line, shown_image

_TITLE_LENGTH = 200
_SUBJECT_TITLE_LENGTH = 70
_RULE_LENGTH = 100


def compose_opportunity_alert(alert: OpportunityAlert) -> Message:
    """What it leaves, where to buy and where to sell, and what to know before."""
    title = one_line(alert.title or "", _TITLE_LENGTH) or alert.asin
    short = one_line(alert.title or "", _SUBJECT_TITLE_LENGTH) or alert.asin
    subject = f"{alert.profit} profit, ROI {alert.roi_pct} %: {alert.source_market} → {alert.target_market}, {short}"
    rows = _rows(alert)
    lines = [title, *(f"{label}: {value}" for label, value in rows), f"Buy: {alert.source_link}", f"Sell: {alert.target_link}"]
    image_url = shown_image(alert.image_url)
    image = f'<p><img src="{escape(image_url)}" alt="{escape(title)}" width="240"></p>\n' if image_url else ""
    cells = "".join(f"<tr><td>{escape(label)}</td><td><strong>{escape(value)}</strong></td></tr>\n" for label, value in rows)
    links = "".join(
        f'<p>{word} <a href="{escape(link)}">{escape(link)}</a></p>\n'
        for word, link in (("Buy:", alert.source_link), ("Sell:", alert.target_link))
    )
    html = f'<html><body>\n<h2>{escape(title)}</h2>\n{image}<table cellpadding="4">\n{cells}</table>\n{links}</body></html>\n'
    return Message(title=subject, text="\n".join(lines), html=html)


def _rows(alert: OpportunityAlert) -> list[tuple[str, str]]:
    of_sale = "" if alert.profit_margin_pct is None else f", {alert.profit_margin_pct} % of the sale price"
    rows = [
        ("Profit", f"{alert.profit} (ROI {alert.roi_pct} %{of_sale})"),
        ("Reckoned for", "your own seller's profile" if alert.is_own else "the default seller"),
        ("Buy for", f"{alert.source_price} at {alert.source_market.host}"),
        ("Sell for", f"{alert.target_price} at {alert.target_market.host}"),
        ("Gross gap", f"{alert.margin} ({alert.margin_pct} %)"),
    ]
    if alert.invested is not None:
        rows.append(("Invested", str(alert.invested)))
    if alert.flags:
        rows.append(("Before you buy", ", ".join(one_line(flag, 80) for flag in alert.flags)))
    rows += [
        ("Score", f"{alert.score} of 100"),
        ("Prices seen", f"{alert.checked_at:%Y-%m-%d %H:%M} UTC"),
        ("Rule", one_line(alert.rule, _RULE_LENGTH)),
    ]
    return rows
