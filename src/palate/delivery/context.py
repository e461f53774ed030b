"""What the API and the web pages share: one installation, opened for serving."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from palate import database, feed, gorse_feedback, people, replica
from palate.database import connect, migrate, writing
from palate.delivery.gorse_messages import GorseParams
from palate.delivery.metrics import Metrics
from palate.delivery.security import KeyCache
from palate.delivery.shared_figures import Worker
from palate.delivery.threads import Threads
from palate.delivery.varying import Varying
from palate.errors import DatabaseError, PalateError
from palate.events import EventParams
from palate.experiments import ExperimentParams, Varied
from palate.feed_params import FeedParams
from palate.group_commit import GroupCommit
from palate.heavy_learning import HeavyParams
from palate.identities import insert_new
from palate.ingest import IngestParams
from palate.interactions import InteractionParams
from palate.labels import LabelParams
from palate.live import Live
from palate.models import trees
from palate.quality import QualityParams
from palate.ranks import Ranks
from palate.rules import RuleParams
from palate.sources.fetching import FetchParams
from palate.sources.joining import JoiningParams
from palate.story_window import StoryParams
from palate.surface_params import SurfaceParams

P = ParamSpec("P")
T = TypeVar("T")

READY_SECONDS = 1.0

log = logging.getLogger(__name__)


class ServerParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback makes the API ask for keys."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 takes any free one."""
    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Processes of `palate api`."""
    names: tuple[str, ...] = ()
    """Host names by which people reach this server, for example through a proxy; other names are refused. Any name here makes
    the API ask for keys. Empty: on loopback its own names alone, elsewhere every name."""
    threads: Annotated[int, Meta(ge=1, le=128)] = 2
    """Threads of one process for what waits for the database or computes a feed: while one waits for the disk another computes.
    They share one interpreter, so that more of them make all slower; more processes don't."""
    waiting: Annotated[int, Meta(ge=0)] = 100
    """Requests that may wait for these threads at most; further ones are answered with 429 and `Retry-After`."""
    longest_wait: Annotated[float, Meta(gt=0)] = 1.0
    """Seconds that a request may wait for these threads: one that would wait longer, as requests took lately, gets 429 at once,
    and so does one that waited longer all the same."""
    connections: Annotated[int, Meta(ge=1)] = 1000
    """Open connections of one process; further ones are answered with 503."""
    max_body: Annotated[int, Meta(ge=1000)] = 10_000_000
    """Bytes of a request's body."""
    body_seconds: Annotated[float, Meta(gt=0)] = 30.0
    """Time that a request's body may take to arrive, in seconds."""
    max_batch: Annotated[int, Meta(ge=1)] = 10_000
    """Events or items in one request."""
    max_rank: Annotated[int, Meta(ge=1)] = 10_000
    """Items in one request to rank."""
    refresh_seconds: Annotated[float, Meta(gt=0, le=60)] = 0.5
    """How often a process looks for a new snapshot and for new items, in seconds."""
    drain_seconds: Annotated[float, Meta(ge=0, le=4)] = 0.0
    """How long a process that was told to stop goes on while `/readyz` is 503 already, for a balancer to take notice, in seconds.
    What it has begun it answers in any case."""
    access_log: bool = True
    """Whether each request leaves a line in the log."""


class ServingParams(msgspec.Struct, frozen=True, kw_only=True):
    """The Params of every part that serving steers."""

    store: str | None = None
    """Where other machines publish snapshots; None: only this one does."""
    server: ServerParams = ServerParams()
    feed: FeedParams = FeedParams()
    events: EventParams = EventParams()
    interactions: InteractionParams = InteractionParams()
    ingest: IngestParams = IngestParams()
    stories: StoryParams = StoryParams()
    labels: LabelParams = LabelParams()
    fetch: FetchParams = FetchParams()
    joining: JoiningParams = JoiningParams()
    gorse: GorseParams = GorseParams()
    rules: RuleParams = RuleParams()
    surfaces: dict[str, SurfaceParams] = {}
    quality: QualityParams = QualityParams()
    experiments: ExperimentParams = ExperimentParams()
    heavy: HeavyParams = HeavyParams()


@dataclass(frozen=True)
class Play:
    """The Telegram that the demo plays on this machine."""

    address: str
    """Of the stand-in for the Bot API, which shows its chats and lets people write."""
    clock: Callable[[], datetime]
    """The moment that is played now."""
    speed: float
    """Seconds played in one of ours, until the present is reached."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One installation while it is served. `secret` signs its cookies; `sample` marks the demo's own content; `play` is
    the Telegram that it is played on, None for the real one; `other` is the prefix of an installation that is served beside it,
    None when it is alone."""

    engine: sa.Engine
    data: Path
    params: ServingParams
    live: Live
    commits: GroupCommit
    secret: bytes
    metrics: Metrics
    keys: KeyCache
    threads: Threads
    readiness: Readiness
    varying: Varying
    ranks: Ranks
    sample: bool = False
    play: Play | None = None
    other: str | None = None


class Readiness:
    """Whether a write becomes durable now, tried at most once a second however often it is asked."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._until = 0.0
        self.stopping = False
        """Whether this process was told to stop."""
        self._failure: PalateError | None = None

    def check(self) -> None:
        """Raises DatabaseError when no write can be made durable."""
        with self._lock:
            if self._clock() >= self._until:
                self._failure = self._try()
                self._until = self._clock() + READY_SECONDS
        if self._failure is not None:
            raise self._failure

    def _try(self) -> PalateError | None:
        try:
            with writing(self._engine) as connection:
                insert = insert_new(connection, database.meta).values(name="written", value="")
                changed = insert.on_conflict_do_update(index_elements=["name"], set_={"value": utc_now().isoformat()})
                connection.execute(changed)
        except DatabaseError as error:
            return error
        return None


@contextmanager
def open_serving(
    data: Path,
    database_url: str | None,
    params: ServingParams,
    *,
    sample: bool = False,
    play: Play | None = None,
    worker: Worker | None = None,
) -> Iterator[Serving]:
    """An installation, migrated and kept fresh by a thread of its own for as long as the block runs. `worker` is which of several
    processes this is; None: the only one.

    Raises DataFolderError, DatabaseError.
    """
    engine = connect(database_url, data, params.store)
    try:
        migrate(engine)
        with writing(engine) as connection:
            secret = people.secret(connection)
        ranking, surfaces = params.heavy.enabled and trees.installed(), params.surfaces
        served = params.interactions, params.feed.model, secret, params.rules, surfaces, ranking
        live = Live(engine, data, *served, feed.prepare)
        varying = Varying(engine, live, Varied(feed=params.feed, surfaces=surfaces))
        varying.refresh()
        live.refresh(utc_now())
        metrics = Metrics(worker)
        commits = GroupCommit(engine, params.events, metrics.commits.observe, live.known_items, live.tail)
        stop = threading.Event()
        serving = Serving(
            engine=engine,
            data=data,
            params=params,
            live=live,
            commits=commits,
            secret=secret,
            metrics=metrics,
            keys=KeyCache(),
            threads=Threads(params.server.threads, params.server.waiting, params.server.longest_wait),
            readiness=Readiness(engine),
            varying=varying,
            ranks=Ranks(live),
            sample=sample,
            play=play,
        )
        refresher = threading.Thread(target=_keep_fresh, args=(serving, stop), name="refresh", daemon=True)
        refresher.start()
        try:
            with replica.following(engine, data):
                yield serving
        finally:
            stop.set()
            refresher.join()
            commits.close()
            serving.ranks.close()
            metrics.shared.write()
    finally:
        engine.dispose()


def utc_now() -> datetime:
    """The time at which a request came: serving takes it once and hands it down."""
    return datetime.now(UTC)


async def in_thread(serving: Serving, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what would block the event loop in one of the installation's threads. Raises Overloaded when too many wait for them."""
    return await serving.threads.run(lambda: function(*args, **kwargs))


async def beside(serving: Serving, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what is short in a thread that doesn't wait for those of `in_thread`: so who watches this process, or sends it events
    with a key, isn't refused because feeds are slow."""
    return await serving.threads.beside(lambda: function(*args, **kwargs))


def _keep_fresh(serving: Serving, stop: threading.Event) -> None:
    failing = False
    while not stop.wait(serving.params.server.refresh_seconds):
        serving.metrics.shared.write()
        try:
            serving.varying.refresh()
            serving.live.refresh(utc_now())
            gorse_feedback.write_back_due(serving.engine, utc_now())
            failing = False
        except Exception:  # serving goes on with what it has, whatever is wrong with the new
            if not failing:
                log.exception("What is new could not be read; serving goes on with what was read before.")
            failing = True
