"""The commands about labels of texts: `palate train-text`, `palate import labels`, `palate export labels`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.command_line import DATA, Config, Data, Json, answer, database, settings_of, spinner, tell_left_out, utc_now
from palate.supervisor import role

if TYPE_CHECKING:
    from palate.train_text import Learned

File = Annotated[Path, typer.Argument(help="Path of the file: lines of JSON.", dir_okay=False)]


def add_to(app: typer.Typer, import_app: typer.Typer, export_app: typer.Typer) -> None:
    """Register the commands."""
    app.command("train-text")(train_text)
    import_app.command("labels")(import_labels)
    export_app.command("labels")(export_labels)


def train_text(
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the shipped model.")] = False,
    data: Data = DATA,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Learn categories, and what is no news, from this installation's labels, on top of the shipped model.

    The model is put into DATA/text. The loop that reads sources takes it up by itself, and tells the items of the last two weeks
    anew.
    """
    from palate import own_categories
    from palate import train_text as training

    settings = settings_of(config)
    with role(data, "train-text"):
        if reset:
            had = own_categories.reset(data)
            words = "The shipped model is used again." if had else "The shipped model is used: there was no other."
            answer(as_json, {"reset": had}, words)
            return
        with database(data, settings) as engine, spinner("Learning …", as_json) as progress:
            learned = training.run(engine, data, settings.train_text, progress)
    answer(as_json, {"languages": [asdict(one) for one in learned]}, "\n".join(map(_told, learned)))


def import_labels(file: File, data: Data = DATA, config: Config = None) -> None:
    """Take in labels of texts with their annotators, as `palate export labels` writes them; they count at once."""
    from palate import label_transfer

    settings = settings_of(config)
    with database(data, settings) as engine:
        report = label_transfer.import_labels(engine, file, settings.labels, utc_now())
    typer.echo(f"{report.taken} labels taken in from {file}.")
    tell_left_out(report, file)


def export_labels(file: File, data: Data = DATA, config: Config = None) -> None:
    """Every label with its annotator and its text, to a .jsonl file."""
    from palate import label_transfer

    with database(data, settings_of(config)) as engine:
        rows = label_transfer.export_labels(engine, file)
    typer.echo(f"{rows} labels written to {file}.")


def _told(one: Learned) -> str:
    return (
        f"{one.language}: learned from {one.labels} labels, of which {one.right} are right now ({one.right_before} before); "
        f"{one.moved} of {one.others} texts without a label have another class."
    )
