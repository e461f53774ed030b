"""What one installation's server counts and measures, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from palate.delivery.shared_figures import SharedFigures, Worker

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


class TelegramFigures(Collector):
    """Figures of reading Telegram, which other processes keep in the database; none before the first `set`."""

    def __init__(self) -> None:
        self._figures: list[Metric] = []

    def set(self, outcomes: Mapping[str, int], waited: float, joined: Mapping[str, int], drift: float | None) -> None:
        """The figures from now on: attempts to join by outcome, seconds that Telegram asked for in them, channels by account,
        and the share of posts on public pages in which nothing was found (None: no pages)."""
        joins = CounterMetricFamily("palate_tg_joins", "Attempts to join a channel.", labels=["result"])
        for result, number in sorted(outcomes.items()):
            joins.add_metric([result], number)
        inside = GaugeMetricFamily("palate_tg_channels_joined", "Channels that accounts are in.", labels=["account"])
        for account, number in sorted(joined.items()):
            inside.add_metric([account], number)
        waits = CounterMetricFamily("palate_tg_flood_wait_seconds", "That Telegram asked to wait.", value=waited)
        self._figures = [joins, inside, waits]
        if drift is not None:
            meaning = "Share of posts on Telegram's public pages in which nothing was found."
            self._figures.append(GaugeMetricFamily("palate_preview_drift_ratio", meaning, value=drift))

    def collect(self) -> Iterable[Metric]:
        """All figures, as they are."""
        return self._figures


class Metrics:
    """The figures of one installation, in a registry of their own: two installations in one process stay apart."""

    def __init__(self, worker: Worker | None = None) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.shared = SharedFigures(registry, worker)
        self.requests = Counter(
            "palate_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "palate_request_seconds", "Time to answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self.events = Counter("palate_events_accepted", "Events made durable through the API.", registry=registry)
        self.commits = Histogram(
            "palate_commit_events", "Events made durable by one commit.", buckets=BATCHES, registry=registry
        )
        self.items = Counter("palate_items_accepted", "Items stored through the API.", registry=registry)
        self.snapshot_age = Gauge(
            "palate_snapshot_age_seconds", "Age of the served snapshot, NaN before the first.", registry=registry
        )
        self.pool = Gauge("palate_pool_items", "Items that may be served now.", registry=registry)
        self.alerts = Gauge("palate_alerts", "What somebody should look at.", ["kind"], registry=registry)
        self.daily = Gauge(
            "palate_daily", "Figures of the last whole day.", ["origin", "name", "subject"], registry=registry
        )
        self.telegram = TelegramFigures()
        registry.register(self.telegram)
        self.source_errors = Gauge("palate_sources_failing", "Sources whose last reading failed.", registry=registry)
        self.bot_queue = Gauge("palate_bot_queue_depth", "Messages that wait to be sent.", registry=registry)
        self.bot_sends = Counter("palate_bot_sends", "What became of what the bot sent.", ["result"], registry=registry)
        self._bot_sends: dict[str, int] = {}
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        figures = self._answered.get((method, route, status))
        if figures is None:  # to look them up by their labels takes longer than to count
            figures = self.requests.labels(method, route, status), self.seconds.labels(route)
            self._answered[method, route, status] = figures
        figures[0].inc()
        figures[1].observe(seconds)

    def count_bot_sends(self, counts: Mapping[str, int]) -> None:
        """Take the bot's own figures, by result, of which it keeps sums since the installation began."""
        for result, count in counts.items():
            self.bot_sends.labels(result).inc(max(0, count - self._bot_sends.get(result, 0)))
            self._bot_sends[result] = count

    def render(self) -> bytes:
        """All figures, those of other workers too, in the text format that Prometheus reads."""
        return self.shared.render()
