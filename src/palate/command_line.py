"""What the commands share: their common options, the settings, the database, and how they answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from palate.errors import PalateError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from palate.settings import Settings
    from palate.transfer import Report

Data = Annotated[Path, typer.Option(help="Folder that holds all state.", file_okay=False)]
Config = Annotated[Path | None, typer.Option(help="Settings file (TOML).", dir_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
DATA = Path("data")


def settings_of(config: Path | None) -> Settings:
    """All settings, from a file if there is one. Raises SettingsError."""
    from palate.settings import load

    return load(config)


@contextmanager
def database(data: Path, settings: Settings) -> Iterator[sa.Engine]:
    """The installation's database, migrated; closed afterwards. Raises DatabaseError, DataFolderError."""
    from palate.database import opened

    with opened(settings.database_url, data, settings.store) as engine:
        yield engine


@contextmanager
def in_role(data: Path, settings: Settings, name: str) -> Iterator[sa.Engine]:
    """The database, for the one process that has this role on the data folder and, on PostgreSQL, on all machines.

    Raises AlreadyRunning, and what `database` does.
    """
    from palate import advisory, supervisor

    with (
        supervisor.role(data, name),
        database(data, settings) as engine,
        advisory.role(engine, name, f"palate {name}"),
    ):
        yield engine


@contextmanager
def reading(data: Path, settings: Settings) -> Iterator[sa.Connection]:
    """A connection of it to read from. Raises as `database` does."""
    from palate.database import reading

    with database(data, settings) as engine, reading(engine) as connection:
        yield connection


@contextmanager
def writing(data: Path, settings: Settings) -> Iterator[sa.Connection]:
    """A connection of it to write to, in one transaction. Raises as `database` does."""
    from palate.database import writing

    with database(data, settings) as engine, writing(engine) as connection:
        yield connection


def utc_now() -> datetime:
    """The time at which a command is asked: it takes it once, or hands this down."""
    return datetime.now(UTC)


def answer(as_json: bool, value: Any, text: str) -> None:
    """Say what was asked for, to a program or to a person."""
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text, each column as wide as what is in it."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def tell_left_out(report: Report, file: Path) -> None:
    """Name on stderr the rows of a file that were not taken in. Raises PalateError when there are any."""
    for fault in report.faults:
        print(f"palate: {file}, line {fault.line}: {fault.reason}.", file=sys.stderr)
    if report.left_out:
        raise PalateError(f"{report.left_out} of {report.taken + report.left_out} rows of {file} were left out.")


@contextmanager
def spinner(what: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Something that turns on stderr while a command works; gives what changes its words."""
    from rich.console import Console

    with Console(stderr=True, quiet=quiet).status(what) as status:
        yield status.update
