"""What one installation's server counts and measures, in Prometheus' terms."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCHES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)


class Metrics:
    """The figures of one installation, in a registry of their own: two installations in one process stay apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
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
        self.source_errors = Gauge("palate_sources_failing", "Sources whose last reading failed.", registry=registry)

    def render(self) -> bytes:
        """All figures in the text format that Prometheus reads."""
        return generate_latest(self.registry)
