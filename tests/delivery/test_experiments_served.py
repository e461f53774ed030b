"""People are served by their variants, through whatever door they come, and whatever is wrong with an experiment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import lxml.html
import pytest
import sqlalchemy as sa
from starlette.types import ASGIApp

from palate import database, experiment_judging, experiments, ingest
from palate.database import reading, writing
from palate.delivery import surfaces
from palate.delivery.application import create_app
from palate.delivery.context import Serving, ServingParams, open_serving, utc_now
from palate.domain import FeedRequest, Item
from palate.errors import InvalidInput
from palate.experiment_judging import Judging
from palate.experiments import Experiment, Step, Stored, Variant, Varied
from palate.surface_params import SurfaceParams

CONTROL = Variant(name="control")
SHORT = Variant(name="short", settings={"feed.limit_max": 1})
PLAIN = Varied()


def begin(serving: Serving, *variants: Variant, name: str = "try", ramp: tuple[Step, ...] = (Step(0, 1),)) -> Stored:
    with writing(serving.engine) as connection:
        stored = experiments.start(
            connection, Experiment(name=name, variants=(CONTROL, *variants), ramp=ramp), utc_now()
        )
    serving.varying.refresh()
    return stored


def people(stored: Stored, variant: str, count: int = 1) -> list[str]:
    ids = (f"person-{number}" for number in range(1000))
    return [id for id in ids if experiments.variant_of(stored.experiment, id).name == variant][:count]


def shown(serving: Serving) -> list[tuple[str | None, ...]]:
    table = database.events.c
    with reading(serving.engine) as connection:
        query = sa.select(table.type, table.variant).where(table.type == "shown").order_by(table.seq)
        return [tuple(row) for row in connection.execute(query)]


@pytest.fixture
def stocked(serving: Serving) -> Serving:
    ingest.store_items(
        serving.engine, [Item(id=f"i{number}", title="x") for number in range(6)], utc_now(), understand=False
    )
    serving.live.refresh(utc_now())
    return serving


def test_each_door_serves_a_person_by_their_variant(stocked: Serving, client: httpx.Client) -> None:
    stored = begin(stocked, SHORT)
    [short], [plain] = people(stored, "short"), people(stored, "control")
    for user, label, count in ((short, "try:short", 1), (plain, "try:control", 3)):
        answer = client.get("/v1/feed", params={"user": user, "limit": 3}).json()
        assert (len(answer["items"]), answer["variant"]) == (count, label)
        ranked = client.post("/v1/rank", json={"user": user, "items": ["i1", "i2"]}).json()
        assert ranked["variant"] == label
    assert shown(stocked) == [("shown", "try:short"), *[("shown", "try:control")] * 3]
    asked = {"n": "3", "write-back-type": "read"}
    assert len(client.get(f"/api/recommend/{short}", params=asked).json()) == 3  # pages of one, until there are enough
    assert shown(stocked)[4:] == [("shown", "try:short")] * 3


def test_the_web_page_logs_the_variant(stocked: Serving, client: httpx.Client) -> None:
    begin(stocked, SHORT)
    client.get("/start")
    page = client.get("/")
    [variant] = {variant for _, variant in shown(stocked)}
    assert variant in ("try:short", "try:control")
    assert page.text.count("<article") == (1 if variant == "try:short" else 6)
    client.post("/seen", json=[{"item": "i1", "type": "shown"}, {"item": "i1", "type": "viewed"}])
    assert shown(stocked)[-1] == ("shown", variant)


def test_only_those_who_take_part_are_varied(stocked: Serving) -> None:
    stored = begin(stocked, SHORT, ramp=(Step(1, 1.0),))
    request = FeedRequest(user=people(stored, "short")[0], limit=3, now=utc_now())
    assert surfaces.varied(stocked, request) == (request, PLAIN)
    later, by = surfaces.varied(stocked, FeedRequest(user=request.user, limit=3, now=utc_now() + timedelta(hours=2)))
    assert (later.variant, by.feed.limit_max) == ("try:short", 1)


def test_a_started_and_a_stopped_experiment_are_known_within_moments(stocked: Serving) -> None:
    with writing(stocked.engine) as connection:
        stored = experiments.start(connection, Experiment(name="try", variants=(CONTROL, SHORT)), utc_now())
    [short] = people(stored, "short")
    assert stocked.varying.of(short, utc_now())[1] in (
        None,
        "try:short",
    )  # the thread that refreshes may have been there
    stocked.varying.refresh()
    assert stocked.varying.of(short, utc_now())[1] == "try:short"
    with writing(stocked.engine) as connection:
        experiments.stop(connection, "try", "enough", utc_now())
    stocked.varying.refresh()
    assert stocked.varying.of(short, utc_now()) == (PLAIN, None)


def test_several_at_once_are_all_in_force_and_all_named(stocked: Serving) -> None:
    begin(stocked, SHORT)
    begin(stocked, Variant(name="b", settings={"feed.exploration": 0.4}), name="other")
    found = {stocked.varying.of(f"p{number}", utc_now())[1] for number in range(40)}
    assert found == {f"try:{one};other:{two}" for one in ("control", "short") for two in ("control", "b")}
    served = [stocked.varying.of(f"p{number}", utc_now()) for number in range(40)]
    both = next(by.feed for by, variant in served if variant == "try:short;other:b")
    assert (both.limit_max, both.exploration) == (1, 0.4)


def test_an_experiment_that_this_server_cannot_serve_rests_for_all_its_variants(
    stocked: Serving, client: httpx.Client
) -> None:
    definition = (
        '{"name":"odd","variants":[{"name":"control"},{"name":"b","settings":{"feed.of_the_future":1}}],"salt":"s"}'
    )
    with writing(stocked.engine) as connection:
        for name, text in (("odd", definition), ("broken", "{")):
            connection.execute(sa.insert(database.experiments).values(name=name, definition=text, started=0))
    stocked.varying.refresh()
    assert client.get("/v1/feed", params={"user": "ann"}).json()["variant"] is None
    with writing(stocked.engine) as connection:
        connection.execute(sa.delete(database.experiments))
    stocked.varying.refresh()
    assert client.get("/v1/feed", params={"user": "ann"}).status_code == 200


def test_a_surface_is_served_by_the_variant_where_its_settings_are_varied(
    data: Path, migrated_url: str | None, serve: Callable[[ASGIApp], AbstractContextManager[httpx.Client]]
) -> None:
    params = ServingParams(surfaces={"shop": SurfaceParams()})
    with open_serving(data, migrated_url, params) as serving, serve(create_app({"": serving})) as client:
        items = [Item(id=f"i{number}", title="x") for number in range(6)]
        ingest.store_items(serving.engine, items, utc_now(), understand=False)
        serving.live.refresh(utc_now())
        stored = begin(serving, Variant(name="brief", settings={"surfaces.shop.limit": 2}))
        asked = {"limit": 4, "log": False}
        found = {
            (name, surface): len(
                client.get("/v1/feed", params={**asked, "user": user, "surface": surface}).json()["items"]
            )
            for name in ("brief", "control")
            for user in people(stored, name)
            for surface in ("shop", "elsewhere")
        }
    assert found == {
        ("brief", "shop"): 2, ("brief", "elsewhere"): 4, ("control", "shop"): 4, ("control", "elsewhere"): 4
    }  # fmt: skip


@pytest.mark.parametrize("settings", [{"feed.model": "ials"}, {"feed.ranker": "score"}])
def test_a_variant_whose_model_or_ranker_is_not_served_rests(stocked: Serving, settings: dict[str, str]) -> None:
    begin(stocked, Variant(name="b", settings=settings))
    assert [stocked.varying.of(f"p{number}", utc_now()) for number in range(9)] == [(PLAIN, None)] * 9


def test_an_id_that_can_be_none_is_refused_as_ever(stocked: Serving, client: httpx.Client) -> None:
    begin(stocked, SHORT)
    with pytest.raises(InvalidInput):
        stocked.varying.of("a\x00b", utc_now())
    assert client.post("/v1/rank", json={"user": "a\x00b", "items": []}).status_code == 400


def test_the_page_shows_what_runs_and_stops_it(stocked: Serving, client: httpx.Client) -> None:
    assert "Nothing is tried yet" in client.get("/experiments").text
    begin(stocked, SHORT, ramp=(Step(0, 0.5),))
    page = lxml.html.fromstring(client.get("/experiments").text)
    [section] = page.xpath("//section[@class='experiment']")
    text = " ".join(section.text_content().split())
    assert "try runs, on 50 % of all people" in text
    assert "feed.limit_max = 1" in text
    assert "Nobody has been served by it yet." in text
    response = client.post("/experiments", data={"name": "try"}, follow_redirects=True)
    assert "on its page" in response.text
    assert not lxml.html.fromstring(response.text).xpath("//form[@action='/experiments']")
    assert client.post("/experiments", data={"name": "nonsense"}).status_code == 404


def test_the_page_draws_the_looks_of_the_days(stocked: Serving, client: httpx.Client) -> None:
    stored = begin(stocked, SHORT)
    for user in people(stored, "short", 2) + people(stored, "control", 2):
        client.get("/v1/feed", params={"user": user})
    experiment_judging.judge(stocked.engine, stocked.data, Judging(), datetime.now(UTC) + timedelta(days=1))
    page = lxml.html.fromstring(client.get("/experiments").text)
    assert len(page.xpath("//section[@class='experiment']//figure")) == 10
    assert len(page.xpath("//figure[contains(., 'people so far')]//circle")) == 1
