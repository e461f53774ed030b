"""What `palate demo --telegram` starts: the folder is filled, the stage is set, and a process plays Telegram."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from palate import supervisor
from palate.errors import PalateError

if TYPE_CHECKING:
    from palate.delivery.context import Play
    from palate.play.stage import Stage

DATA = Path("data/demo-telegram")


def add_to(app: typer.Typer) -> None:
    """Register the command of the process."""
    app.command("loopback", hidden=True)(loopback)


def read(written: str | None) -> Play | None:
    """What the option --play says; None everywhere but in the demo."""
    if written is None:
        return None
    from palate.delivery.context import Play
    from palate.play import stage

    played = stage.read(written)
    return Play(played.address, played.clock, played.speed)


def set_up(data: Path, common: list[str], host: str, port: int) -> dict[str, list[str]]:
    """Begin a play in its own folder: clear → set the stage → fill. Gives the processes to start, for the supervisor; what they
    need besides is in the environment afterwards.

    Raises DataFolderError for a folder that holds something else, PalateError without the packages.
    """
    try:
        from palate import accounts
        from palate.play import preparing, stage
    except ImportError as error:
        raise PalateError("This demo needs more packages: pip install 'palate[telegram]'.") from error
    preparing.clear(data)
    now = datetime.now(UTC)
    set_stage = stage.Stage(now - stage.BACK, now, *_free_ports(2))
    typer.echo("Putting the channels in place …")
    child = get_context("spawn").Process(target=_prepare, args=(data, set_stage))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise PalateError(f"The demo could not be put into {data}: see the lines above.")
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    os.environ |= stage.variables(set_stage, f"http://{shown}:{port}", accounts.new_key())
    set_stage = replace(set_stage, began=datetime.now(UTC))  # the play begins now, however long that took
    return _children(set_stage, common, host, port)


def _children(stage: Stage, common: list[str], host: str, port: int) -> dict[str, list[str]]:
    played = ["--play", stage.written()]
    return {
        "loopback": ["loopback", *common, *played],
        "api": ["api", *common, "--host", host, "--port", str(port), *played],
        "ingest": ["ingest", *common, *played],
        "train": ["train", *common],
        "bot": ["bot", *common],
    }


def _prepare(data: Path, stage: Stage) -> None:
    from palate.database import opened
    from palate.play import preparing

    with opened(None, data) as engine:
        preparing.prepare(engine, stage)


def loopback(
    data: Annotated[Path, typer.Option(file_okay=False)],
    play: Annotated[str, typer.Option()],
    config: Annotated[Path | None, typer.Option(dir_okay=False)] = None,
) -> None:
    """Play Telegram, for the demo alone."""
    from palate.database import opened
    from palate.play import running, stage
    from palate.settings import load

    with supervisor.role(data, "loopback"), opened(None, data) as engine:
        running.run(engine, stage.read(play), load(config).telegram, supervisor.stop_signal())


def _free_ports(number: int) -> list[int]:
    """Ports of the loopback address that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
