from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from palate import alerts
from palate.database import writing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_an_alert_is_there_once_until_it_ends(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        assert alerts.start(connection, "account_banned", "anna", "Anna is banned.", NOW)
        assert not alerts.start(connection, "account_banned", "anna", "Still banned.", NOW + timedelta(hours=1))
        alerts.start(connection, "account_banned", "berta", "Berta is banned.", NOW)
        found = alerts.list_alerts(connection)
        assert [(one.subject, one.text, one.time) for one in found] == [
            ("berta", "Berta is banned.", NOW),
            ("anna", "Still banned.", NOW),
        ]
        alerts.end(connection, "account_banned", "anna", NOW)
        alerts.end(connection, "account_frozen", "berta", NOW)
        assert [one.subject for one in alerts.list_alerts(connection)] == ["berta"]


def test_an_alert_can_come_back(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        alerts.start(connection, "drift", "a", "One.", NOW)
        alerts.end(connection, "drift", "a", NOW)
        assert alerts.start(connection, "drift", "a", "Two.", NOW + timedelta(days=1))
        assert [one.text for one in alerts.list_alerts(connection)] == ["Two."]


def test_all_alerts_about_one_subject_end_together(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        for kind, subject in (("frozen", "anna"), ("full", "anna"), ("full", "berta")):
            alerts.start(connection, kind, subject, "x", NOW)
        alerts.end_all_of(connection, "anna", NOW)
        assert [one.subject for one in alerts.list_alerts(connection)] == ["berta"]
