"""The command `palate report`: the business's figures of the event log."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("report")(report)


def report(
    weeks: Annotated[int, typer.Option(help="Complete weeks to go back.", min=1, max=520)] = 12,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one self-contained page to this file.", dir_okay=False)
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder that holds all state.", file_okay=False)] = Path("data"),
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).", dir_okay=False)] = None,
    threads: Annotated[int | None, typer.Option(help="Of DuckDB. [default: all processors]", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")] = False,
) -> None:
    """Who comes back, what they do and what they are worth: by day, week and variant, with intervals."""
    import numpy as np
    from rich.console import Console

    from palate.business import figures, page
    from palate.database import opened
    from palate.evaluation.report import write
    from palate.settings import load

    settings = load(config)
    with (
        opened(settings.database_url, data, settings.store) as engine,
        tempfile.TemporaryDirectory(prefix="report-", dir=data) as scratch,
        Console(stderr=True, quiet=as_json).status("Adding up …"),
    ):
        found = figures.report(
            engine,
            data / "events",
            settings.report,
            settings.interactions,
            datetime.now(UTC),
            scratch=Path(scratch),
            weeks=weeks,
            threads=threads,
            random=np.random.default_rng(0),
        )
    if html is not None:
        write(html, page.to_html(found, "What people do"))
    typer.echo(json.dumps(page.to_json(found)) if as_json else page.to_text(found))
