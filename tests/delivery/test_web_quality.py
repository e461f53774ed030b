"""The page of what came in, and its figures in /metrics."""

from __future__ import annotations

from datetime import UTC, timedelta

import httpx
import lxml.html
import pytest

from palate import quality
from palate.daily_figures import LOG, Figure
from palate.database import writing
from palate.delivery.context import Serving, utc_now
from palate.quality import QualityParams
from palate.usual import Taken


@pytest.fixture
def collapsed(serving: Serving, client: httpx.Client) -> httpx.Client:
    """An installation whose likes collapsed yesterday."""
    yesterday = utc_now().astimezone(UTC).date() - timedelta(days=1)
    with writing(serving.engine) as connection:
        for back in range(20, -1, -1):
            figures = [
                Figure("likes", "", Taken(2 if back == 0 else 60 + back % 3, 1000)),
                Figure("events", "like", Taken(500 + back)),
            ]
            quality.enter(connection, LOG, yesterday - timedelta(days=back), figures, QualityParams(), utc_now())
    return client


def test_the_page_draws_each_figure_and_marks_the_unusual_one(collapsed: httpx.Client) -> None:
    page = lxml.html.fromstring(collapsed.get("/quality").text)
    assert [" ".join(caption.text_content().split()) for caption in page.findall(".//figcaption")] == [
        "Events: like 500, usually 285 to 736",
        "Likes, of views 0.2 %, usually 2.15 % to 10.1 %",
    ]
    [unusual] = page.xpath("//figure[@class='unusual']")
    assert len(unusual.xpath(".//circle[@class='dot unusual']")) == 1
    assert len(unusual.xpath(".//circle[@class='dot usual']")) == 20
    [alert] = page.xpath("//*[@role='alert']")
    assert alert.text_content().startswith("Likes, of views: 0.2 % on ")


def test_an_installation_without_a_day_says_so(client: httpx.Client) -> None:
    assert "No day has been counted yet" in client.get("/quality").text


def test_the_last_day_is_in_the_metrics(collapsed: httpx.Client) -> None:
    lines = collapsed.get("/metrics").text.splitlines()
    assert 'palate_daily{name="likes",origin="log",subject=""} 0.002' in lines
    assert 'palate_alerts{kind="figure_unusual"} 1.0' in lines
