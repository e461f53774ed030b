"""The commands `palate users` and `palate keys`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, cast

import typer

from palate.command_line import DATA, Config, Data, Json, answer, database, reading, settings_of, utc_now, writing
from palate.errors import NotFound

if TYPE_CHECKING:
    from palate.people import Scope

users_app = typer.Typer(help="People: list, show, log in, delete.", no_args_is_help=True)
keys_app = typer.Typer(
    help="API keys, which a server asks for when it listens on more than this machine.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(users_app, name="users")
    app.add_typer(keys_app, name="keys")


# --- people ---------------------------------------------------------------------------------------------------------------


@users_app.command("list")
def users_list(data: Data = DATA, config: Config = None, as_json: Json = False) -> None:
    """Ids of the people whom this installation knows."""
    from palate import people

    with reading(data, settings_of(config)) as connection:
        found = list(people.everybody(connection))
    answer(as_json, found, "\n".join(found) or "Nobody yet.")


@users_app.command("login-link")
def users_login_link(
    user: Annotated[str, typer.Argument(help="Id of the user; somebody new is made.")],
    address: Annotated[str, typer.Option(help="How the browser reaches the server.")] = "http://127.0.0.1:8080",
    owner: Annotated[bool, typer.Option("--owner", help="May change sources and see the training page.")] = False,
    annotator: Annotated[bool, typer.Option("--annotator", help="May label texts, at /labels.")] = False,
    hours: Annotated[float, typer.Option(help="How long the link is good; it is good once.", min=0.25, max=168)] = 24,
    data: Data = DATA,
    config: Config = None,
) -> None:
    """A link that logs a browser in as this user; what the browser did before goes with them."""
    import msgspec

    from palate import people

    with writing(data, settings_of(config)) as connection:
        person = people.get(connection, user) or people.upsert_user(connection, user, {}, utc_now())
        if owner or annotator:
            may = {"owner": owner or person.choices.owner, "annotator": annotator or person.choices.annotator}
            people.set_choices(connection, person.key, msgspec.structs.replace(person.choices, **may))
        token = people.create_login(connection, person.key, utc_now(), timedelta(hours=hours))
    typer.echo(f"{address.rstrip('/')}/login/{token}")


@users_app.command("delete")
def users_delete(
    user: Annotated[str, typer.Argument(help="Id of the user.")], data: Data = DATA, config: Config = None
) -> None:
    """Remove a person: their events, their vectors, their choices, everywhere."""
    from palate.delivery import forgetting

    with database(data, settings_of(config)) as engine:
        if not forgetting.delete_person(engine, data, user):
            raise NotFound(f"There is no user {user}.")
    typer.echo(f"{user} is gone.")


# --- keys -----------------------------------------------------------------------------------------------------------------


@keys_app.command("create")
def keys_create(
    scopes: Annotated[
        str, typer.Option(help="What the key may do: read, write, admin (each includes those before).")
    ] = "read",
    note: Annotated[str | None, typer.Option(help="For your memory.")] = None,
    data: Data = DATA,
    config: Config = None,
) -> None:
    """Make an API key. It is shown once: only its hash is kept."""
    from palate import people

    with writing(data, settings_of(config)) as connection:
        wanted = cast("list[Scope]", scopes.replace(",", " ").split())  # create_key checks them
        typer.echo(people.create_key(connection, wanted, note, utc_now()))


@keys_app.command("list")
def keys_list(data: Data = DATA, config: Config = None, as_json: Json = False) -> None:
    """The keys there are, without their secrets."""
    from palate import people

    with reading(data, settings_of(config)) as connection:
        keys = people.list_keys(connection)
    rows = [
        {"id": key.id, "scopes": sorted(key.scopes), "note": key.note, "revoked": key.revoked is not None}
        for key in keys
    ]
    lines = [
        "  ".join([key.id, " ".join(sorted(key.scopes)), key.note or "", "revoked" if key.revoked else ""]).rstrip()
        for key in keys
    ]
    answer(as_json, rows, "\n".join(lines) or "No keys yet.")


@keys_app.command("revoke")
def keys_revoke(
    id: Annotated[str, typer.Argument(help="Id of the key, from `palate keys list`.")],
    data: Data = DATA,
    config: Config = None,
) -> None:
    """Make a key useless, at once."""
    from palate import people

    with writing(data, settings_of(config)) as connection:
        people.revoke_key(connection, id, utc_now())
    typer.echo(f"{id} is revoked.")
