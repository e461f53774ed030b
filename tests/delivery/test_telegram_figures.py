from __future__ import annotations

from datetime import UTC, datetime

import httpx

from palate import accounts, alerts, memberships, subscriptions
from palate.database import writing
from palate.delivery.context import Serving
from palate.domain import Fetched

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_other_processes_did_with_telegram_is_measured_and_shown(client: httpx.Client, serving: Serving) -> None:
    with writing(serving.engine) as connection:
        anna = accounts.add(connection, "anna", None, NOW)
        for outcome, wait in (("joined", None), ("wait", 77.5), ("joined", None)):
            key = memberships.begin_attempt(connection, anna.key, 5, resolves=False, pause=600, now=NOW)
            memberships.end_attempt(connection, key, outcome, NOW, wait=wait)
        for channel in (5, 6, 7):
            memberships.join(connection, channel, anna.key, None, NOW)
        source = subscriptions.add(connection, "telegram_preview", "https://t.me/news", NOW)
        subscriptions.record_success(connection, source.key, Fetched(state={"posts": 8, "empty": 2}), NOW, NOW)
        alerts.start(connection, "account_banned", "anna", "The account anna is banned.", NOW)
    text = client.get("/metrics").text
    for line in (
        'palate_tg_joins_total{result="joined"} 2.0',
        'palate_tg_joins_total{result="wait"} 1.0',
        'palate_tg_channels_joined{account="anna"} 3.0',
        "palate_tg_flood_wait_seconds_total 77.5",
        "palate_preview_drift_ratio 0.25",
        'palate_alerts{kind="account_banned"} 1.0',
    ):
        assert line in text.splitlines()
    assert "The account anna is banned." in client.get("/sources").text
    with writing(serving.engine) as connection:
        alerts.end_all_of(connection, "anna", NOW)
    assert "palate_alerts{" not in client.get("/metrics").text
    assert "is banned" not in client.get("/sources").text
