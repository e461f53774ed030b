from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from palate import alerts, catalog, channels, counters, ingest, previews, subscriptions
from palate.accounts import TelegramParams
from palate.database import reading, writing
from palate.errors import InvalidInput
from palate.ingest import IngestParams
from palate.sources import telegram_preview
from palate.sources.fetching import FetchParams

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARAMS = IngestParams()

CHANNEL_PAGE = (
    '<html><body><section class="tgme_channel_history">'
    '<div class="tgme_widget_message" data-post="news/5" data-view="eyJjIjotMTIzNCwicCI6NX0">'
    '<div class="tgme_widget_message_text">The parliament voted on the budget, says @elsewhere and @news.</div>'
    '<span class="tgme_widget_message_views">1.5K</span></div>{}</section></body></html>'
)


def read_channel(engine: sa.Engine, telegram: TelegramParams, more: str = "") -> subscriptions.Source:
    """The source of a channel's page after one reading."""
    with writing(engine) as connection:
        source = subscriptions.add(
            connection, "telegram_preview", "https://t.me/News", NOW, options={"labels": ["politics"]}
        )
        subscriptions.resume(connection, source.id, NOW)
    pages = {"telegram_preview": lambda *_: telegram_preview.fetched(CHANNEL_PAGE.format(more).encode(), "news")}
    ingest.run_once(engine, PARAMS, FetchParams(), NOW, readers=pages, telegram=telegram)
    with reading(engine) as connection:
        return subscriptions.get(connection, source.id)


def test_public_pages_of_channels_are_off_with_the_reason(engine: sa.Engine) -> None:
    source = read_channel(engine, TelegramParams())
    assert source.last_error is not None
    assert "preview = true" in source.last_error


def test_a_post_of_a_public_page_is_understood_and_its_text_not_kept(engine: sa.Engine) -> None:
    source = read_channel(engine, TelegramParams(preview=True))
    assert (source.last_error, source.state["posts"], source.address) == (None, 1, "https://t.me/news")
    assert source.next_fetch is not None
    assert source.next_fetch >= NOW + timedelta(minutes=10)
    with reading(engine) as connection:
        stored = catalog.get(connection, "tg:1234:5")
        assert stored is not None
        assert (stored.item.text, stored.item.url, stored.item.labels) == (None, "https://t.me/news/5", ("politics",))
        assert stored.item.language == "en"
        assert counters.of_item(connection, stored.key) == {"views": 1500.0}
        assert [one.channel.username for one in channels.candidates(connection, 5)] == ["elsewhere"]
    read_channel(engine, TelegramParams(preview=True))
    with reading(engine) as connection:
        assert [one.mentions for one in channels.candidates(connection, 5)] == [1]


def test_text_of_a_public_page_is_kept_where_that_is_wanted(engine: sa.Engine) -> None:
    read_channel(engine, TelegramParams(preview=True, keep_text=True))
    with reading(engine) as connection:
        stored = catalog.get(connection, "tg:1234:5")
    assert stored is not None
    assert (stored.item.text or "").startswith("The parliament")


def test_pages_that_have_changed_raise_an_alert_until_they_are_read_again(engine: sa.Engine) -> None:
    changed = '<div class="tgme_widget_message" data-post="news/{}"><p class="new_text">x</p></div>'
    read_channel(engine, TelegramParams(preview=True), "".join(changed.format(n) for n in range(10, 30)))
    with reading(engine) as connection:
        assert previews.drift(connection) == pytest.approx(20 / 21)
        assert ["20 of 21 posts" in one.text for one in alerts.list_alerts(connection)] == [True]
    read_channel(engine, TelegramParams(preview=True))
    with reading(engine) as connection:
        assert previews.drift(connection) == 0
        assert alerts.list_alerts(connection) == []


@pytest.mark.parametrize("address", ["https://t.me/", "https://t.me/+AbCdEf", "https://example.org/news", "@news"])
def test_a_public_page_has_the_address_of_a_public_channel(engine: sa.Engine, address: str) -> None:
    with writing(engine) as connection, pytest.raises(InvalidInput, match=r"https://t\.me/ and its name"):
        subscriptions.add(connection, "telegram_preview", address, NOW)
