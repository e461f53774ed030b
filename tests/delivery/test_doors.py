"""What comes by one door of an installation is known at all others: the API, Gorse's surface, the player's archives."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from palate.cli import app
from palate.delivery.context import Serving, utc_now

FILMS = [f"film-{number}" for number in range(6)]
SESSION = "session,user,video,start,device,duration\ns{day},ann,film-{day},2024-05-0{day}T10:00:00Z,tv,600\n"
TICKS = "session,time\ns{day},2024-05-0{day}T10:01:00Z\ns{day},2024-05-0{day}T10:02:00Z\n"


def feed_of(client: httpx.Client, user: str) -> set[str]:
    answer = client.get("/v1/feed", params={"user": user, "log": "false"}).json()
    return {place["item"] for place in answer["items"]}


def gorses_list_of(client: httpx.Client, user: str) -> set[str]:
    return set(client.get(f"/api/recommend/{user}", params={"n": 9}).json())


def watched(archives: Path, data: Path) -> None:
    """What ann watched on a day that has settled, and on two that haven't."""
    archives.mkdir()
    for day in (1, 2, 3):
        for kind, text in (("sessions", SESSION), ("ticks", TICKS)):
            (archives / f"{kind}-2024-05-0{day}.csv.gz").write_bytes(gzip.compress(text.format(day=day).encode()))
    told = CliRunner().invoke(app, ["watch-etl", str(archives), "--data", str(data), "--threads", "1", "--json"])
    assert json.loads(told.stdout)["entered"] == 1


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_what_a_person_does_at_one_door_changes_what_every_other_serves_them(
    serving: Serving, client: httpx.Client, data: Path, tmp_path: Path
) -> None:
    client.post("/v1/items", json=[{"id": film, "title": film} for film in FILMS])
    assert feed_of(client, "ann") == gorses_list_of(client, "ann") == set(FILMS)
    watched(tmp_path / "in", data)
    serving.live.refresh(utc_now())
    left = set(FILMS) - {"film-1"}
    assert feed_of(client, "ann") == gorses_list_of(client, "ann") == left
    assert client.get("/v1/items/film-1").json()["events"] == {"watch": 1}
    said = {"FeedbackType": "like", "UserId": "ann", "ItemId": "film-2", "Timestamp": "2024-05-01T10:00:00Z"}
    assert client.put("/api/feedback", json=[said]).status_code == 200
    client.post("/v1/events", json={"user": "ann", "item": "film-3", "type": "dislike"})
    left -= {"film-2", "film-3"}
    assert feed_of(client, "ann") == gorses_list_of(client, "ann") == left
    assert client.delete("/api/item/film-4").status_code == 200
    assert feed_of(client, "ann") == gorses_list_of(client, "ann") == left - {"film-4"}
    assert feed_of(client, "bob") == set(FILMS) - {"film-4"}
    told = CliRunner().invoke(app, ["recommend", "--user", "ann", "--data", str(data), "--json"])
    assert {place["item"] for place in json.loads(told.stdout)["items"]} == left - {"film-4"}
