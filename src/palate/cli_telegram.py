"""The commands `palate accounts` and `palate channels`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.command_line import (
    DATA,
    Config,
    Data,
    Json,
    answer,
    columns,
    database,
    reading,
    settings_of,
    utc_now,
    writing,
)
from palate.errors import InvalidInput, NotFound, PalateError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from palate.channels import Channel
    from palate.sources.channel_list import Listed

accounts_app = typer.Typer(help="Accounts of Telegram that listen to channels.", no_args_is_help=True)
channels_app = typer.Typer(help="Channels of Telegram: the pool, and the plan of joins.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The account's name: yours to choose.")]
Handle = Annotated[str, typer.Argument(help="A channel: its @name, its link, or an invite link.")]

STATES = ("candidate", "wanted", "requested", "joined", "failed", "left", "paused")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(accounts_app, name="accounts")
    app.add_typer(channels_app, name="channels")


# --- accounts -------------------------------------------------------------------------------------------------------------


@accounts_app.command("key")
def accounts_key() -> None:
    """Make a key under which sessions are encrypted, for PALATE_TELEGRAM__SESSION_KEY."""
    from palate import accounts

    typer.echo(accounts.new_key())


@accounts_app.command("add")
def accounts_add(
    name: Name,
    phone: Annotated[str | None, typer.Option(help="Its number, such as +491701234567.")] = None,
    data: Data = DATA,
    config: Config = None,
) -> None:
    """Add an account. It joins and reads nothing before it is logged in."""
    from palate import accounts

    with writing(data, settings_of(config)) as connection:
        accounts.add(connection, name, phone, utc_now())
    typer.echo(f"{name} is added: log it in with `palate accounts login {name}`.")


@accounts_app.command("login")
def accounts_login(name: Name, data: Data = DATA, config: Config = None) -> None:
    """Log an account in, with the code that Telegram sends to its other devices, and its password if it has one."""
    from palate import logging_in

    settings = settings_of(config)
    with database(data, settings) as engine:
        account = logging_in.log_in(engine, name, settings.telegram, utc_now(), _ask_code, _ask_password)
    days = settings.joining.first_days
    typer.echo(f"{account.name} is logged in; it listens at once, and joins channels after {days:g} days.")


def _ask_code() -> str:
    return str(typer.prompt("Code that Telegram has just sent")).strip()


def _ask_password() -> str:
    return str(typer.prompt("Password of the account's two-step verification", hide_input=True))


@accounts_app.command("list")
def accounts_list(data: Data = DATA, config: Config = None, as_json: Json = False) -> None:
    """The accounts: their state, how many channels they are in, and when they join next."""
    from palate import accounts, joins, memberships

    settings = settings_of(config)
    with reading(data, settings) as connection:
        joined = memberships.count_joined(connection)
        why = joins.why_idle(connection, settings.joining, utc_now())
        rows: list[dict[str, Any]] = [
            {
                "name": one.name,
                "state": one.state,
                "channels": joined.get(one.key, 0),
                "premium": one.premium,
                "joins": why[one.name],
                "error": one.error,
            }
            for one in accounts.list_accounts(connection)
        ]
    shown = [
        [str(row["name"]), str(row["state"]), f"{row['channels']} channels", str(row["error"] or row["joins"])]
        for row in rows
    ]
    answer(as_json, rows, columns(shown) or "No accounts yet: `palate accounts add NAME`.")


@accounts_app.command("pause")
def accounts_pause(name: Name, data: Data = DATA, config: Config = None) -> None:
    """Let an account rest; it keeps its channels."""
    from palate import accounts

    with writing(data, settings_of(config)) as connection:
        accounts.pause(connection, name)
    typer.echo(f"{name} rests until `palate accounts resume {name}`.")


@accounts_app.command("resume")
def accounts_resume(name: Name, data: Data = DATA, config: Config = None) -> None:
    """Use an account again that was paused, or that Telegram has set free."""
    from palate import accounts, alerts

    with writing(data, settings_of(config)) as connection:
        accounts.resume(connection, name)
        alerts.end_all_of(connection, name, utc_now())
    typer.echo(f"{name} is active.")


@accounts_app.command("remove")
def accounts_remove(name: Name, data: Data = DATA, config: Config = None) -> None:
    """Forget an account and its session; its channels go to the others."""
    from palate import joins

    with writing(data, settings_of(config)) as connection:
        moved = joins.remove(connection, name, utc_now())
    typer.echo(f"{name} is gone; {moved} channels are to be joined by others.")


# --- channels -------------------------------------------------------------------------------------------------------------


@channels_app.command("add")
def channels_add(
    handles: Annotated[list[str] | None, typer.Argument(help="@names, links or invite links.")] = None,
    file: Annotated[Path | None, typer.Option(help="A list: CSV, or a channel on each line.", dir_okay=False)] = None,
    category: Annotated[str | None, typer.Option(help="First label of their posts, where the list names none.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Read their public pages, without an account.")] = False,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Put channels into the pool, to be joined when the plan says so."""
    from palate.sources import channel_list
    from palate.sources.archive import BadRow
    from palate.sources.handles import parse

    listed: list[Listed | BadRow] = [channel_list.Listed(parse(text)) for text in handles or []]
    listed += channel_list.read(file) if file is not None else []
    if not listed:
        raise PalateError("Name the channels, or a list of them with --file.")
    good = [one for one in listed if not isinstance(one, BadRow)]
    with writing(data, settings_of(config)) as connection:
        rows = [_add(connection, one, category, preview) for one in good]
    for bad in (one for one in listed if isinstance(one, BadRow)):
        print(f"palate: {file}, line {bad.line}: {bad.reason}.", file=sys.stderr)
    answer(as_json, rows, columns([[row["channel"], row["state"]] for row in rows]))
    if len(good) < len(listed):
        raise PalateError(f"{len(listed) - len(good)} of {len(listed)} channels were left out.")


def _add(connection: sa.Connection, listed: Listed, category: str | None, preview: bool) -> dict[str, Any]:
    from palate import channels, subscriptions
    from palate.previews import PREVIEW

    handle, category = listed.handle, listed.category or category
    if not preview:
        username, invite = handle.username, handle.invite
        added = channels.add(
            connection, utc_now(), username=username, invite=invite, title=listed.title, category=category
        )
        return {"channel": added.address, "state": added.state}
    if handle.username is None:
        raise InvalidInput("a private channel has no public page: an account has to join it")
    address, options = f"https://t.me/{handle.username}", {"labels": [category]} if category else {}
    source = subscriptions.add(connection, PREVIEW, address, utc_now(), title=listed.title, options=options)
    return {"channel": source.address, "state": source.status}


@channels_app.command("list")
def channels_list(
    state: Annotated[str | None, typer.Option(help=f"Only those that are {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 1000,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """The pool. Candidates, with --state candidate, are those that posts name, the most named first."""
    from palate import channels

    if state is not None and state not in STATES:
        raise PalateError(f"No channel is {state}: choose among {', '.join(STATES)}.")
    with reading(data, settings_of(config)) as connection:
        if state == "candidate":
            ranked = channels.candidates(connection, limit)
            rows = [_row(one.channel) | {"mentions": one.mentions, "sources": one.sources} for one in ranked]
        else:
            listed = channels.list_channels(connection, [state] if state else None)  # type: ignore[list-item]
            rows = [_row(one) for one in listed[:limit]]
    shown = [[row["channel"], row["state"], row["title"] or "", _said(row)] for row in rows]
    answer(as_json, rows, columns(shown) or "No channels: `palate channels add NAME`.")


def _row(channel: Channel) -> dict[str, Any]:
    return {
        "channel": channel.address,
        "state": channel.state,
        "title": channel.title,
        "category": channel.category,
        "error": channel.error,
    }


def _said(row: dict[str, Any]) -> str:
    if "mentions" in row:
        return f"named {row['mentions']} times by {row['sources']} sources"
    return row["error"] or row["category"] or ""


@channels_app.command("plan")
def channels_plan(
    limit: Annotated[int, typer.Option(help="How many joins to look ahead.", min=1, max=10_000)] = 30,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What is joined next, when, by which account, and why not sooner; as long as all goes well."""
    from palate import joins

    settings = settings_of(config)
    with reading(data, settings) as connection:
        planned = joins.plan(connection, settings.joining, utc_now(), limit)
        why = joins.why_idle(connection, settings.joining, utc_now())
    rows = [
        {
            "time": one.time.isoformat(timespec="seconds"),
            "account": one.account,
            "channel": one.channel.address,
            "reason": one.reason,
        }
        for one in planned
    ]
    shown = [[f"{one.time:%Y-%m-%d %H:%M} UTC", one.account, one.channel.address, one.reason] for one in planned]
    idle = "; ".join(f"{name}: {reason}" for name, reason in why.items())
    answer(as_json, rows, columns(shown) or f"Nothing is going to be joined. {idle or 'There is no account.'}")


@channels_app.command("pause")
def channels_pause(handle: Handle, data: Data = DATA, config: Config = None) -> None:
    """Don't join a channel, or listen to it no more; no account leaves it."""
    from palate import channels

    with writing(data, settings_of(config)) as connection:
        found = _find(connection, handle)
        channels.pause(connection, found.key)
    typer.echo(f"{found.name} is paused.")


@channels_app.command("resume")
def channels_resume(handle: Handle, data: Data = DATA, config: Config = None) -> None:
    """Join a channel after all, or listen to it again."""
    from palate import channels

    with writing(data, settings_of(config)) as connection:
        found = _find(connection, handle)
        channels.resume(connection, found.key)
        state = channels.get(connection, found.key).state
    typer.echo(f"{found.name} is {state}.")


def _find(connection: sa.Connection, text: str) -> Channel:
    from palate import channels
    from palate.sources.handles import parse

    handle = parse(text)
    found = channels.find(connection, username=handle.username, invite=handle.invite)
    if found is None:
        raise NotFound(f"The pool has no channel {text[:100]}: `palate channels list` names all.")
    return found
