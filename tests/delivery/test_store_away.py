"""A server whose object store is away serves what it has, and says once what is wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from palate.delivery.application import create_app
from palate.delivery.context import ServingParams, open_serving, utc_now
from palate.feed_params import FeedParams

Serve = Callable[[Any], AbstractContextManager[httpx.Client]]


def test_a_server_starts_and_serves_without_the_store(
    data: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    params = ServingParams(store="s3://bucket/prefix?endpoint=http://127.0.0.1:1", feed=FeedParams(model="popularity"))
    with (
        caplog.at_level(logging.ERROR, "palate.replica"),
        open_serving(data, None, params) as serving,
        serve(create_app({"": serving})) as client,
    ):
        assert client.get("/readyz").status_code == 200
        client.post("/v1/items", json={"id": "a", "title": "A"}).raise_for_status()
        serving.live.refresh(utc_now())
        assert [item["item"] for item in client.get("/v1/feed?user=ann").json()["items"]] == ["a"]
        for _ in range(600):
            if caplog.messages:
                break
            time.sleep(0.05)
        assert client.get("/readyz").status_code == 200
    (said,) = caplog.messages
    assert said == (
        "The store s3://bucket/prefix can't be reached: check its endpoint and the network; what is here is served."
    )
