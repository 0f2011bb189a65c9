"""API keys of people, and the audit log."""

from datetime import timedelta
from typing import Annotated

import typer

from keeper.cli_common import HOUSE, PEOPLE, Json, make_group, open_resources, show_json
from keeper.domain.access import Scope

key_app = make_group("API keys: made, listed, revoked.")

UserName = Annotated[str | None, typer.Option("--user", "-u", help="Whose; needed where there are several users", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Put them on the program's command line."""
    app.add_typer(key_app, name="key", rich_help_panel=PEOPLE)
    app.command("audit", rich_help_panel=HOUSE)(show_audit)


@key_app.command("add")
def key_add(
    label: Annotated[str, typer.Argument(help="What you call it")],
    scope: Annotated[Scope, typer.Option(case_sensitive=False, help="What it may do; admin only for an admin")] = Scope.WRITE,
    days: Annotated[int | None, typer.Option("--days", min=1, max=3650, help="Valid so long; without, until it is revoked")] = None,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Make another API key, which is shown this once.

    Example: [bold]keeper key add dashboard --scope read --days 90 --user anna[/bold]
    """
    from keeper.accounts import add_api_key
    from keeper.audit import Action, note, operator
    from keeper.postgres.users import find_user, select_user
    from keeper.terminal import say

    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user)
        name = select_user(connection, user_id).name
        made = add_api_key(connection, user_id, label=label, scope=scope, lasts=timedelta(days=days) if days else None)
        note(connection, operator(), Action.KEY_ADD, f"key {made.key_id} of {name}, {scope}")
    if is_json:
        show_json({"key_id": made.key_id, "user": name, "scope": scope, "api_key": made.shown_key})
        return
    say(f"Key {made.key_id} of {name} may {scope}. It is shown only now, keep it safe:")
    print(made.shown_key)


@key_app.command("list")
def key_list(user: UserName = None, is_json: Json = False) -> None:
    """Somebody's keys, revoked ones included; never the keys themselves."""
    from keeper.postgres.users import find_user, select_api_keys
    from keeper.terminal import show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        found = select_api_keys(connection, find_user(connection, user))
    if is_json:
        show_json(found)
        return
    times = [(one, (one.created_at, one.last_used_at, one.expires_at, one.revoked_at)) for one in found]
    show_table(
        ["ID", "Label", "Scope", "Made", "Last used", "Ends", "Revoked"],
        [(one.key_id, one.label, one.scope, *(f"{at:%Y-%m-%d %H:%M}" if at else "–" for at in all_of_it)) for one, all_of_it in times],
        right=["ID"],
    )


@key_app.command("revoke")
def key_revoke(
    key_id: Annotated[int | None, typer.Argument(metavar="[ID]", help="As `keeper key list` shows it", show_default=False)] = None,
    is_all: Annotated[bool, typer.Option("--all", help="All of this user's")] = False,
    user: UserName = None,
    is_json: Json = False,
) -> None:
    """Make a key worth nothing; a running API notices within a second.

    Example: [bold]keeper key revoke 7 --user anna[/bold] · [bold]keeper key revoke --all --user ben[/bold]
    """
    from keeper.audit import Action, note, operator
    from keeper.postgres.users import find_user, revoke_api_key, revoke_api_keys, select_user
    from keeper.terminal import say

    if (key_id is not None) == is_all:
        raise typer.BadParameter("name the key to revoke, or --all")
    with open_resources() as resources, resources.engine.begin() as connection:
        user_id = find_user(connection, user)
        name = select_user(connection, user_id).name
        if key_id is None:
            revoked = revoke_api_keys(connection, user_id)
        else:
            revoke_api_key(connection, user_id, key_id)
            revoked = [key_id]
        for one in revoked:
            note(connection, operator(), Action.KEY_REVOKE, f"key {one} of {name}")
    if is_json:
        show_json({"revoked": revoked, "user": name})
        return
    say(f"{len(revoked)} keys of {name} are worth nothing any more." if revoked else f"{name} had no usable key.")


def show_audit(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many")] = 50,
    actor: Annotated[str | None, typer.Option("--actor", help="Only what this user or account did", show_default=False)] = None,
    is_json: Json = False,
) -> None:
    """Who did what that concerns others, the newest first: over the API and by commands. Kept KEEPER_KEEP_AUDIT_DAYS.

    Example: [bold]keeper audit --limit 20 --actor anna[/bold]
    """
    from keeper.postgres.audit import select_entries
    from keeper.terminal import say, show_table

    with open_resources() as resources, resources.engine.begin() as connection:
        found = select_entries(connection, actor=actor, limit=limit)
    if is_json:
        show_json(found)
        return
    if not found:
        say("Nothing was noted.")
        return
    show_table(
        ["When (UTC)", "Who", "Way", "Key", "Action", "What", "Outcome"],
        [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.actor, one.via, one.key_id or "–", one.action, one.target, one.outcome) for one in found],
        right=["Key"],
    )
