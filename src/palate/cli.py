"""The command `palate`. The only place that reads settings; every part gets its Params from here."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from palate import (
    cli_evaluation,
    cli_exchange,
    cli_experiments,
    cli_labels,
    cli_people,
    cli_play,
    cli_recommend,
    cli_report,
    cli_simulate,
    cli_spark,
    cli_telegram,
    cli_tuning,
    cli_watch,
    supervisor,
)
from palate.command_line import (
    DATA,
    Config,
    Data,
    Json,
    answer,
    database,
    in_role,
    settings_of,
    spinner,
    tell_left_out,
    utc_now,
)
from palate.errors import PalateError
from palate.supervisor import role

if TYPE_CHECKING:
    import sqlalchemy as sa

    from palate.settings import Settings
    from palate.transfer import Progress, Report

app = typer.Typer(
    help="Palate gathers posts, articles and videos, learns from what people do, and serves each person a feed that fits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
import_app = typer.Typer(help="Take in a file of events or items.", no_args_is_help=True)
export_app = typer.Typer(help="Write events or items to a file.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(export_app, name="export")

Host = Annotated[
    str | None, typer.Option(help="Address to listen on; anything but loopback asks for API keys. [default: 127.0.0.1]")
]
Port = Annotated[int | None, typer.Option(help="Port to listen on. [default: 8080]", min=0, max=65535)]
File = Annotated[Path, typer.Argument(help="Path of the file.", dir_okay=False)]
Played = Annotated[str | None, typer.Option("--play", hidden=True)]
FORMATS = "auto, jsonl, csv, parquet, movielens, deskdrop or gorse"
FileFormat = Annotated[str, typer.Option("--format", help=f"Format of the file: {FORMATS}.")]
ModelFile = Annotated[Path, typer.Argument(help="Path of the file; of a folder for Spark.")]
ModelFormat = Annotated[str, typer.Option("--format", help="Whose format: implicit or spark.")]

DEMO = Path("data/demo")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line (None: the process's own); what goes wrong is one sentence on stderr and exit status 1."""
    child = supervisor.LEASH in os.environ
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: its threads wait longer than they work
    supervisor.follow_parent()
    try:
        app(arguments)
    except PalateError as error:
        print(f"palate: {error}", file=sys.stderr)
        sys.exit(supervisor.GIVE_UP if child else 1)
    except KeyboardInterrupt:
        sys.exit(130)


# --- the servers ----------------------------------------------------------------------------------------------------------


@app.command()
def serve(data: Data = DATA, config: Config = None, host: Host = None, port: Port = None) -> None:
    """Everything: the web page and the API, the loop that reads sources, the loop that learns, and the bot if there is one."""
    _log("serve")
    settings = settings_of(config)
    host, port = host or settings.server.host, settings.server.port if port is None else port
    with role(data, "serve"):
        common = _common(data, config)
        children = {
            "api": ["api", *common, "--host", host, "--port", str(port)],
            "ingest": ["ingest", *common],
            "train": ["train", *common],
        }
        if settings.bot.token is not None:
            children["bot"] = ["bot", *common]
        _supervise(children, host, port, f"Palate, with its data in {data}")


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help=f"Folder that holds all state. [default: {DEMO}]", file_okay=False)
    ] = None,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    telegram: Annotated[
        bool,
        typer.Option(
            "--telegram", help="Play Telegram on this machine: channels, accounts, the bot and people, at /telegram."
        ),
    ] = False,
) -> None:
    """Everything, with sample content and simulated readers; your own feed starts beside it, in a folder of its own."""
    _log("demo")
    settings = settings_of(config)
    if settings.database_url is not None or settings.store is not None:
        raise PalateError(
            "The demo keeps its sample apart, in SQLite: unset database_url and store for it, or run `palate serve`."
        )
    host, port = host or settings.server.host, settings.server.port if port is None else port
    if telegram:
        data = data or cli_play.DATA
        with role(data, "serve"):
            _check_free(host, port)
            children = cli_play.set_up(data, _common(data, config), host, port)
            _supervise(children, host, port, "Palate on a Telegram of its own, to be watched at /telegram")
    _show_sample(data or DEMO, config, host, port)


def _show_sample(data: Path, config: Path | None, host: str, port: int) -> NoReturn:
    own = data.parent if data.name == "demo" else data / "own"
    with role(data, "serve"), role(own, "serve"):
        if not (data / "palate.sqlite").exists():
            _put_sample(data)
        common, beside = _common(data, config), _common(own, config)
        children = {
            "api": ["api", *common, "--host", host, "--port", str(port), "--own", str(own)],
            "train": ["train", *common],
            "ingest": ["ingest", *common, "--sample"],
            "own ingest": ["ingest", *beside],
            "own train": ["train", *beside],
        }
        _supervise(children, host, port, "Palate, with its sample")


@app.command()
def api(
    data: Data = DATA,
    config: Config = None,
    host: Host = None,
    port: Port = None,
    workers: Annotated[int | None, typer.Option(help="Processes. [default: 1]", min=1)] = None,
    own: Annotated[Path | None, typer.Option(hidden=True)] = None,
    play: Played = None,
) -> None:
    """The web page and the HTTP API alone."""
    _log_requests()
    from palate.delivery import application

    settings = settings_of(config)
    server = settings.server
    played = cli_play.read(play)
    sample = own is not None or played is not None
    installations = [application.Installation(prefix="", data=data, sample=sample, play=played)]
    if own is not None:
        installations.append(application.Installation(prefix="/own", data=own))
    application.run(
        installations,
        settings.database_url,
        _serving_params(settings),
        host=host or server.host,
        port=server.port if port is None else port,
        workers=workers or server.workers,
        set_up=_log_requests,
    )


@app.command("ingest")
def ingest_command(
    data: Data = DATA,
    config: Config = None,
    once: Annotated[bool, typer.Option("--once", help="Read every source that is due, and exit.")] = False,
    sample: Annotated[bool, typer.Option("--sample", hidden=True)] = False,
    play: Played = None,
) -> None:
    """Read the sources when they are due, for as long as it runs."""
    _log("ingest")
    from palate import ingest

    settings = settings_of(config)
    with in_role(data, settings, "ingest") as engine:
        if sample:
            _bring_sample_up_to_date(engine)
        if once:
            report = ingest.run_once(
                engine,
                settings.ingest,
                settings.fetch,
                utc_now(),
                stories=settings.stories,
                data=data,
                telegram=settings.telegram,
            )
            typer.echo(report)
        else:
            stop, played = supervisor.stop_signal(), cli_play.read(play)
            clock = played.clock if played is not None else utc_now
            with _listening(engine, data, settings, stop, clock), _releasing(engine, settings, stop, clock):
                ingest.follow(
                    engine,
                    settings.ingest,
                    settings.fetch,
                    stop,
                    utc_now,
                    stories=settings.stories,
                    data=data,
                    telegram=settings.telegram,
                )


@app.command("train")
def train_command(
    data: Data = DATA,
    config: Config = None,
    full: Annotated[bool, typer.Option("--full", help="One full cycle, publish, exit.")] = False,
    increment: Annotated[
        bool,
        typer.Option(
            "--increment", help="One cycle that learns what is new, all else staying as it is; publish, exit."
        ),
    ] = False,
    runs_on: cli_spark.Runs = "embedded",
    master: cli_spark.Master = None,
    store: cli_spark.Store = None,
    as_json: Json = False,
) -> None:
    """Learn from the event log, for as long as it runs."""
    _log("train")
    from palate import experiment_judging, list_making, ranker_training, replica, train

    settings = settings_of(config)
    params, lists = train.params_of(settings, settings.feed.model), list_making.params_of(settings)
    rankers = ranker_training.params_of(settings)
    if full and increment:
        raise PalateError("--full learns all anew, --increment what is new: choose one of them.")
    cli_spark.check_training(runs_on, master, full or increment, params)
    with in_role(data, settings, "train") as engine:
        if not (full or increment):
            judging = experiment_judging.judging_of(settings)
            train.follow(engine, data, params, supervisor.stop_signal(), utc_now, lists, judging, rankers)
            return
        with (
            spinner("Learning from what is new …" if increment else "Learning from all events …", quiet=as_json),
            cli_spark.solvers(runs_on, master, store, data) as solvers,
        ):
            cycle = train.learn(
                engine,
                data,
                params,
                utc_now(),
                lists,
                kind="incremental" if increment else "full",
                solvers=solvers,
                rankers=rankers,
            )
            replica.push(engine, data)  # says what is wrong, where the cycle went on
        answer(as_json, cycle.to_json(), cycle.summary())
        if cycle.version is None:
            raise PalateError(f"No new snapshot: {cycle.reason}.")


@app.command("bot")
def bot_command(data: Data = DATA, config: Config = None) -> None:
    """Serve people on Telegram through a bot of yours, for as long as it runs. Takes the setting bot.token."""
    _log("bot")
    settings = settings_of(config)
    if settings.bot.token is None:
        raise PalateError("The bot needs the token that @BotFather gave you: set PALATE_BOT__TOKEN.")
    try:
        from palate.delivery import bot
    except ImportError as error:
        raise PalateError("The bot needs its library: pip install 'palate[telegram]'.") from error
    with in_role(data, settings, "bot"):
        stop = supervisor.stop_signal()
        bot.run(data, settings.database_url, _serving_params(settings), settings.bot, stop)


# --- files ----------------------------------------------------------------------------------------------------------------


@import_app.command("events")
def import_events(file: File, format: FileFormat = "auto", data: Data = DATA, config: Config = None) -> None:
    """Append the events of a file to the log. Columns: user, item, type, value, time."""
    _import(file, format, data, config, "events")


@import_app.command("items")
def import_items(file: File, format: FileFormat = "auto", data: Data = DATA, config: Config = None) -> None:
    """Store the items of a file. Columns: item, title, text, url, source, published, kind, labels."""
    _import(file, format, data, config, "items")


def _import(file: Path, format: str, data: Path, config: Path | None, what: str) -> None:
    from palate import transfer

    if format not in FORMATS.replace(" or ", ", ").split(", "):
        raise PalateError(f"There is no format {format}: choose among {FORMATS}.")
    run: Callable[..., Report] = transfer.import_events if what == "events" else transfer.import_items
    with database(data, settings_of(config)) as engine, _counter(f"Taking in {what}") as progress:
        report = run(engine, file, format, utc_now(), progress)
    typer.echo(f"{report.taken} {what} taken in from {file}.")
    tell_left_out(report, file)


@import_app.command("model")
def import_model(file: ModelFile, format: ModelFormat = "implicit", data: Data = DATA, config: Config = None) -> None:
    """Publish the vectors of another program as the model `ials`, which `[feed] model = "ials"` serves."""
    from palate import model_transfer, replica, train

    settings = settings_of(config)
    params = train.params_of(settings, "ials")
    with in_role(data, settings, "train") as engine:
        found, version = model_transfer.import_model(engine, data, file, _model_format(format), params, utc_now())
        replica.push(engine, data)
    typer.echo(f"{len(found.users)} users and {len(found.items)} items taken in from {file}: snapshot {version}.")


@export_app.command("model")
def export_model(file: ModelFile, format: ModelFormat = "implicit", data: Data = DATA, config: Config = None) -> None:
    """The vectors of the published model `ials`, with their ids: a file for `implicit`, a folder for Spark's ALSModel."""
    from palate import model_transfer, replica

    with database(data, settings_of(config)) as engine:
        replica.fetch(engine, data)
        found = model_transfer.export_model(engine, data, file, _model_format(format), utc_now())
    typer.echo(f"{len(found.users)} users and {len(found.items)} items written to {file}.")


def _model_format(format: str) -> Any:
    if format not in ("implicit", "spark"):
        raise PalateError(f"There is no format {format} of models: choose implicit or spark.")
    return format


@export_app.command("events")
def export_events(file: File, data: Data = DATA, config: Config = None) -> None:
    """Every durable event once, to .jsonl, .csv or .parquet by the file's ending."""
    from palate import transfer

    with database(data, settings_of(config)) as engine, _counter("Writing events") as progress:
        rows = transfer.export_events(engine, data / "events", file, progress)
    typer.echo(f"{rows} events written to {file}.")


@export_app.command("items")
def export_items(file: File, data: Data = DATA, config: Config = None) -> None:
    """Every item, to .jsonl, .csv or .parquet by the file's ending."""
    from palate import transfer

    with database(data, settings_of(config)) as engine, _counter("Writing items") as progress:
        rows = transfer.export_items(engine, file, progress)
    typer.echo(f"{rows} items written to {file}.")


# --- asking ---------------------------------------------------------------------------------------------------------------


@app.command("settings")
def settings_command(
    config: Config = None,
    preset: Annotated[
        str | None, typer.Option(help="Instead a settings file to begin with: video, for what people watch.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every setting with its value (secrets hidden) and meaning; checks the settings file."""
    if preset is not None:
        typer.echo(_preset(preset), nl=False)
        return
    from palate.settings import describe
    from palate.settings_file import without_secrets

    values = without_secrets(settings_of(config))
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    for setting in describe():
        part = values
        for section in setting.section.split(".") if setting.section else ():
            part = part[section]
        value = part[setting.name]
        name = f"{setting.section}.{setting.name}" if setting.section else setting.name
        typer.echo(f"{name} = {json.dumps(value)}\n    {setting.meaning}")


def _preset(name: str) -> str:
    known = {file.stem: file for file in sorted((Path(__file__).parent / "presets").glob("*.toml"))}
    if name not in known:
        raise PalateError(f"There is no preset {name}: choose {' or '.join(known)}.")
    return known[name].read_text("utf-8")


cli_recommend.add_to(app)
cli_evaluation.add_to(app)
cli_experiments.add_to(app)
cli_tuning.add_to(app)
cli_simulate.add_to(app)
cli_telegram.add_to(app)
cli_play.add_to(app)
cli_watch.add_to(app)
cli_report.add_to(app)
cli_people.add_to(app)
cli_labels.add_to(app, import_app, export_app)
cli_exchange.add_to(import_app, export_app)


# --- what the commands share ----------------------------------------------------------------------------------------------


def _serving_params(settings: Settings) -> Any:
    from palate.delivery.context import ServingParams

    return ServingParams(
        store=settings.store,
        server=settings.server,
        feed=settings.feed,
        events=settings.events,
        interactions=settings.interactions,
        ingest=settings.ingest,
        stories=settings.stories,
        labels=settings.labels,
        fetch=settings.fetch,
        joining=settings.joining,
        gorse=settings.gorse,
        rules=settings.rules,
        surfaces=settings.surfaces,
        quality=settings.quality,
    )


def _common(data: Path, config: Path | None) -> list[str]:
    return ["--data", str(data), *(["--config", str(config)] if config else [])]


def _supervise(children: dict[str, list[str]], host: str, port: int, title: str) -> NoReturn:
    _check_free(host, port)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    supervisor.become(supervisor.Plan(children=children, host=shown, port=port, title=title))


def _check_free(host: str, port: int) -> None:
    """Say at once that the port is taken, before anything is started."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise PalateError(
            f"Port {port} of {host} can't be used ({error.strerror}): choose another with --port."
        ) from error


def _put_sample(data: Path) -> None:
    """The first time, before anything is served, in a child process: this one is about to become the supervisor."""
    typer.echo("Putting the sample in place …")
    child = get_context("spawn").Process(target=_prepare_sample, args=(data,))
    child.start()
    child.join()
    if child.exitcode != 0:
        raise PalateError(f"The sample could not be put into {data}: see the lines above, or remove the folder.")


def _prepare_sample(data: Path) -> None:
    from palate.database import opened

    with opened(None, data) as engine:
        _bring_sample_up_to_date(engine)


def _bring_sample_up_to_date(engine: sa.Engine) -> None:
    from palate import demo

    demo.prepare(engine, utc_now())


def _log(role_name: str) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {role_name:6} %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    for chatty in ("httpx", "alembic", "aiogram.event", "telethon", "apscheduler"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _log_requests() -> None:
    from palate.delivery.observing import RequestIds

    _log("api")
    for handler in logging.getLogger().handlers:
        handler.addFilter(RequestIds())
        handler.setFormatter(logging.Formatter("%(asctime)s api    %(levelname)s %(request)s %(message)s", "%H:%M:%S"))


@contextmanager
def _listening(
    engine: sa.Engine, data: Path, settings: Settings, stop: threading.Event, clock: Callable[[], datetime]
) -> Iterator[None]:
    """Telegram's channels are listened to beside the block; when that ends the rest of what was heard is stored."""
    from palate import hub, staging

    params = (settings.hub, settings.telegram, settings.joining)
    chat = settings.bot.staging_channel
    channel = None if chat is None else staging.channel_of(chat)
    listener = threading.Thread(target=hub.follow, args=(engine, data, *params, stop, clock, channel), name="hub")
    listener.start()
    try:
        yield
    finally:
        stop.set()
        listener.join()


@contextmanager
def _releasing(
    engine: sa.Engine, settings: Settings, stop: threading.Event, clock: Callable[[], datetime]
) -> Iterator[None]:
    """Editions come out beside the block."""
    from palate import editions

    if not settings.editions:
        yield
        return
    params = (settings.editions, settings.interactions)
    releaser = threading.Thread(target=editions.follow, args=(engine, *params, stop, clock), name="editions")
    releaser.start()
    try:
        yield
    finally:
        stop.set()
        releaser.join()


@contextmanager
def _counter(what: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda rows: bar.update(task, completed=rows)
