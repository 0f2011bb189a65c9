"""A report on how Keeper works: sections of facts, each asked for by itself, so that one that cannot be answered stops no other."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from keeper.domain.report import ReportKind, ReportUnreadable


@dataclass(frozen=True, slots=True)
class Section:
    """One subject.

    Attributes:
        facts: what is known, in order.
        warnings: what a person should look at, a sentence each.
        failure: why nothing is known; None where something is.
    """

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class OperationsReport:
    """One day."""

    composed_at: datetime
    since: datetime
    sections: tuple[Section, ...]

    @property
    def warnings(self) -> list[str]:
        """Of all sections, those that failed first."""
        failed = [f"{one.title}: {one.failure}" for one in self.sections if one.failure]
        return failed + [f"{one.title}: {warning}" for one in self.sections for warning in one.warnings]


def encode_operations(report: OperationsReport) -> dict[str, Any]:
    """As JSON values."""
    return {
        "kind": ReportKind.OPERATIONS.value,
        "composed_at": report.composed_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "since": report.since.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "sections": [
            {"title": one.title, "facts": [list(fact) for fact in one.facts], "warnings": list(one.warnings), "failure": one.failure}
            for one in report.sections
        ],
    }


def decode_operations(content: Mapping[str, Any]) -> OperationsReport:
    """The inverse of `encode_operations`.

    Raises:
        ReportUnreadable: a key is missing or holds something else.
    """
    try:
        return OperationsReport(
            composed_at=datetime.fromisoformat(content["composed_at"]),
            since=datetime.fromisoformat(content["since"]),
            sections=tuple(
                Section(
                    str(one["title"]),
                    tuple((str(name), str(value)) for name, value in one["facts"]),
                    tuple(str(warning) for warning in one["warnings"]),
                    one["failure"],
                )
                for one in content["sections"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ReportUnreadable(f"a stored report cannot be read ({error!r}); it was written by another version of Keeper") from error


def write_markdown(report: OperationsReport) -> str:
    """For people in a terminal and for Prefect."""
    lines = [f"## Keeper's operations, {report.since:%Y-%m-%d %H:%M} to {report.composed_at:%Y-%m-%d %H:%M} UTC", ""]
    lines += [f"- **{_cell(warning)}**" for warning in report.warnings] or ["Nothing needs a look."]
    for section in report.sections:
        lines += ["", f"### {section.title}", ""]
        if section.failure:
            lines.append(f"Not known: {_cell(section.failure)}")
        elif section.facts:
            lines += ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in section.facts)]
        else:
            lines.append("Nothing.")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
