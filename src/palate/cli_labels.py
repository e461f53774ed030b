"""The commands about labels of texts: `palate train-text`, `palate import labels`, `palate export labels`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.errors import PalateError
from palate.supervisor import role

if TYPE_CHECKING:
    import sqlalchemy as sa

    from palate.settings import Settings
    from palate.train_text import Learned, Progress

Data = Annotated[Path, typer.Option(help="Folder that holds all state.", file_okay=False)]
Config = Annotated[Path | None, typer.Option(help="Settings file (TOML).", dir_okay=False)]
File = Annotated[Path, typer.Argument(help="Path of the file: lines of JSON.", dir_okay=False)]
DATA = Path("data")


def add_to(app: typer.Typer, import_app: typer.Typer, export_app: typer.Typer) -> None:
    """Register the commands."""
    app.command("train-text")(train_text)
    import_app.command("labels")(import_labels)
    export_app.command("labels")(export_labels)


def train_text(
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the shipped model.")] = False,
    data: Data = DATA,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")] = False,
) -> None:
    """Learn categories, and what is no news, from this installation's labels, on top of the shipped model.

    The model is put into DATA/text. The loop that reads sources takes it up by itself, and tells the items of the last two weeks
    anew.
    """
    from palate import own_categories
    from palate import train_text as training

    settings = _settings(config)
    with role(data, "train-text"):
        if reset:
            had = own_categories.reset(data)
            words = "The shipped model is used again." if had else "The shipped model is used: there was no other."
            typer.echo(json.dumps({"reset": had}) if as_json else words)
            return
        with _database(data, settings) as engine, _spinner(as_json) as progress:
            learned = training.run(engine, data, settings.train_text, progress)
    rows = [asdict(one) for one in learned]
    typer.echo(json.dumps({"languages": rows}) if as_json else "\n".join(map(_told, learned)))


def import_labels(file: File, data: Data = DATA, config: Config = None) -> None:
    """Take in labels of texts with their annotators, as `palate export labels` writes them; they count at once."""
    from palate import label_transfer

    settings = _settings(config)
    with _database(data, settings) as engine:
        report = label_transfer.import_labels(engine, file, settings.labels, datetime.now(UTC))
    typer.echo(f"{report.taken} labels taken in from {file}.")
    for fault in report.faults:
        print(f"palate: {file}, line {fault.line}: {fault.reason}.", file=sys.stderr)
    if report.left_out:
        raise PalateError(f"{report.left_out} of {report.taken + report.left_out} rows of {file} were left out.")


def export_labels(file: File, data: Data = DATA, config: Config = None) -> None:
    """Every label with its annotator and its text, to a .jsonl file."""
    from palate import label_transfer

    with _database(data, _settings(config)) as engine:
        rows = label_transfer.export_labels(engine, file)
    typer.echo(f"{rows} labels written to {file}.")


def _told(one: Learned) -> str:
    return (
        f"{one.language}: learned from {one.labels} labels, of which {one.right} are right now ({one.right_before} before); "
        f"{one.moved} of {one.others} texts without a label have another class."
    )


def _settings(config: Path | None) -> Settings:
    from palate.settings import load

    return load(config)


@contextmanager
def _database(data: Path, settings: Settings) -> Iterator[sa.Engine]:
    from palate.database import connect, migrate

    engine = connect(settings.database_url, data)
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _spinner(quiet: bool) -> Iterator[Progress]:
    from rich.console import Console

    with Console(stderr=True, quiet=quiet).status("Learning …") as status:
        yield status.update
