"""The commands by which data comes from other systems and goes to them: `palate import gorse`, `palate export vectors`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate.command_line import DATA, Config, Data, database, settings_of, utc_now
from palate.errors import ArchiveError, PalateError

if TYPE_CHECKING:
    from palate.gorse_import import What
    from palate.transfer import Progress, Report

From = Annotated[
    list[str], typer.Argument(help="Address of a running server (http://host:8088), or files of its bulk export.")
]
Key = Annotated[str | None, typer.Option(help="The server's API key.", envvar="GORSE_API_KEY")]


def add_to(import_app: typer.Typer, export_app: typer.Typer) -> None:
    """Register the commands."""
    import_app.command("gorse")(import_gorse)
    export_app.command("vectors")(export_vectors)


def import_gorse(origin: From, key: Key = None, data: Data = DATA, config: Config = None) -> None:
    """Take in users, items and feedback of Gorse, from its running server or from files.

    What is cut off goes on where it was when the same command is given again; nothing counts twice.
    """
    from palate import gorse_import

    settings = settings_of(config)
    with database(data, settings) as engine, ExitStack() as stack:
        told = _bars(stack)
        if any(one.startswith(("http://", "https://")) for one in origin):
            if len(origin) > 1:
                raise ArchiveError("Give one address of a server, or files: not both, and not several servers.")
            source = gorse_import.Source(origin[0], key)
            reports = gorse_import.from_server(engine, source, settings.gorse, utc_now, told)
        else:
            reports = gorse_import.from_files(engine, list(map(Path, origin)), settings.gorse, utc_now, told)
    _tell(reports)


def export_vectors(
    file: Annotated[Path, typer.Argument(help="Path of the file, .parquet or .npy.", dir_okay=False)],
    of: Annotated[str, typer.Option(help="Whose: items or people.")] = "items",
    model: Annotated[str | None, typer.Option(help="Learned by fm or ials; ials where it is published.")] = None,
    data: Data = DATA,
    config: Config = None,
) -> None:
    """The published vectors of items or people with their ids; beside a .npy the ids are in a file .ids.json."""
    from palate import replica, vector_transfer

    if of not in ("items", "people") or model not in (None, "fm", "ials"):
        raise PalateError("Choose --of items or people, and --model fm or ials.")
    with database(data, settings_of(config)) as engine:
        replica.fetch(engine, data)
        found = vector_transfer.export_vectors(engine, data, file, of, model)  # type: ignore[arg-type]  # just checked
    shape = f"{len(found.ids)} vectors of {found.values.shape[1]} numbers"
    typer.echo(f"{shape}, by {found.model} of snapshot {found.version}, written to {file}.")


def _tell(reports: dict[What, Report]) -> None:
    typer.echo(", ".join(f"{report.taken} {what}" for what, report in reports.items()) + " taken in.")
    for what, report in reports.items():
        for fault in report.faults:
            print(f"palate: {what}, number {fault.line}: {fault.reason}.", file=sys.stderr)
    left_out = sum(report.left_out for report in reports.values())
    if left_out:
        raise PalateError(f"{left_out} things of Gorse's were left out.")


def _bars(stack: ExitStack) -> Callable[[What], Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    bar = stack.enter_context(Bar(*columns, console=Console(stderr=True), transient=True))

    def begin(what: What) -> Progress:
        task = bar.add_task(f"Taking in {what}", total=None)
        return lambda rows: bar.update(task, completed=rows)

    return begin
