"""`keeper watchdog`: look at what Keeper brings about, and tell the operators; for cron, for people, for Prefect's own outages."""

from typing import TYPE_CHECKING, Annotated

import typer

from keeper.cli_common import HOUSE, CommandFailed, Json, log_to_stderr, read_settings, show_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keeper.domain.watchdog import Seen
    from keeper.settings import Settings


def add_commands(app: typer.Typer) -> None:
    """To the program."""
    app.command(rich_help_panel=HOUSE)(watchdog)


def watchdog(
    is_explained: Annotated[
        bool, typer.Option("--explain", help="What each check looks at, its thresholds, what it sees, what to do; tells nobody")
    ] = False,
    is_json: Json = False,
) -> None:
    """Look at what Keeper brings about, and tell the operators of each trouble once, and once that it is over. Ends with 1 on trouble.

    Needs no Prefect: from cron, it tells when Prefect itself is down.

    Example: [bold]*/5 * * * * keeper watchdog --json >> /var/log/keeper-watchdog.log[/bold]
    """
    from keeper.resources import machine_now
    from keeper.watchdog import look, watch

    settings = read_settings()
    if is_explained:
        seen = look(settings, now=machine_now())
        _explain(settings, seen, is_json=is_json)
        _end(seen)
        return
    log_to_stderr(settings)
    done = watch(settings, now=machine_now())
    if is_json:
        show_json(
            {
                "ok": not done.troubles,
                "troubles": done.troubles,
                "opened": [one.title for one in done.opened],
                "ended": [one.title for one in done.ended],
                "told": done.told,
                "untold": done.untold,
                "heartbeat": done.heartbeat,
            }
        )
    else:
        _show(done.seen)
        for problem in done.untold:
            typer.echo(f"not told: {problem}")
        typer.echo(f"told: {done.told} messages; heartbeat {done.heartbeat}")
    _end(done.seen)


def _show(seen: "Sequence[Seen]") -> None:
    from keeper.terminal import say_finding

    for one in seen:
        if one.troubles:
            for trouble in one.troubles:
                say_finding(trouble.title, "broken", trouble.text, trouble.remedy)
        else:
            say_finding(one.check, "good" if one.is_judged else "note", one.text, "")


def _explain(settings: "Settings", seen: "Sequence[Seen]", *, is_json: bool) -> None:
    from keeper.settings import variable_of
    from keeper.terminal import say, say_finding
    from keeper.watchdog import CHECKS

    explained = []
    for check, one in zip(CHECKS, seen, strict=True):
        # A secret's value says that it is set.
        thresholds = {variable_of(("watchdog", name)): getattr(settings.watchdog, name) for name in check.settings}
        explained.append(
            {"check": check.name, "looks_at": check.looks_at, "settings": thresholds, "sees": one.text, "troubles": one.troubles,
             "what_to_do": check.remedy}
        )  # fmt: skip
        if is_json:
            continue
        say_finding(check.name, "broken" if one.troubles else "good" if one.is_judged else "note", one.text, "")
        say(f"  looks at: {check.looks_at}")
        for name, value in thresholds.items():
            say(f"  {name}={','.join(map(str, value)) if isinstance(value, tuple) else '' if value is None else value}")
        for remedy in dict.fromkeys([*(trouble.remedy for trouble in one.troubles), check.remedy]):
            if remedy:
                say(f"  what to do: {remedy}")
    if is_json:
        show_json({"ok": not any(one.troubles for one in seen), "checks": explained})


def _end(seen: "Sequence[Seen]") -> None:
    troubles = [trouble.title for one in seen for trouble in one.troubles]
    if troubles:
        raise CommandFailed(f"{len(troubles)} trouble{'s' if len(troubles) != 1 else ''}: {', '.join(troubles)}")
