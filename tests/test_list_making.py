"""Lists for everybody: from a trained model to Parquet, to the database, and to a surface."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import lxml.html
import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, World, item
from pyarrow import parquet
from typer.testing import CliRunner

from palate import catalog, cli, database, identities, list_making, lists, people, recommending, train
from palate.candidates import wanted
from palate.database import reading, writing
from palate.delivery import forgetting
from palate.delivery.application import create_app
from palate.delivery.context import Serving, ServingParams, open_serving
from palate.domain import Event
from palate.errors import InvalidInput, NotFound
from palate.examples import Params, TrainParams
from palate.feed_params import FeedParams
from palate.list_making import ListMaking, Made
from palate.live import Live
from palate.models.blend import BlendParams
from palate.models.factorization_machine import FactorizationMachineParams
from palate.models.implicit_als import ImplicitALSParams
from palate.models.registry import Name
from palate.ranking import side_by_side
from palate.ranking.side_by_side import Looked
from palate.ranking.taste import TasteParams
from palate.recommending import ListParams
from palate.surface_params import SurfaceParams

LATER = NOW + timedelta(minutes=5)
ALS = ImplicitALSParams(factors=2, epochs=8, threads=1)
PLAIN = FeedParams(exploration=0, questions=0, source_spread=0, label_spread=0, freshness=0)
SURFACES = {"home": SurfaceParams(lists="home"), "row": SurfaceParams(lists="home", limit=2, kinds=("video",))}
LABELS = {"rum-14": ("age:18",), "rum-15": ("rights-until:2024-11-21",), "rum-13": ("region:de",)}


def training(model: Name) -> Params:
    return Params(
        train=TrainParams(models=("fm",) if model == "popularity" else (model,)),
        served=model,
        implicit_als=ALS,
        factorization_machine=FactorizationMachineParams(factors=2, epochs=8, threads=1),
        blend=BlendParams(members=("itemknn", "ials"), settings={"ials": msgspec.to_builtins(ALS)}),
    )


class Cinema(World):
    """Even people like tea, odd ones rum; of rum some is for grown-ups, some for Germany, and of one the rights are gone."""

    def __init__(self, engine: sa.Engine, data: Path, model: Name) -> None:
        self.making = ListMaking(model=model, surfaces=SURFACES, lists=ListParams(limit=5, threads=1))
        super().__init__(engine, data, list_making.opened(engine, data, self.making, NOW))
        if not len(self.live.pool):
            self.learn(model)

    def learn(self, model: Name) -> None:
        named = [(kind, n) for n in range(16) for kind in ("tea", "rum")]
        self.add(
            *(
                item(f"{kind}-{n}", f"s{n % 3}", *LABELS.get(f"{kind}-{n}", ()), kind="video" if n % 2 else "post")
                for kind, n in named
            )
        )
        for person in range(24):
            own, other = ("tea", "rum")[person % 2], ("rum", "tea")[person % 2]
            chosen = self.rng.permutation(16)[:9]
            self.act(f"u{person}", "like", *(f"{own}-{n}" for n in chosen))
            self.act(f"u{person}", "dislike", *(f"{other}-{n}" for n in chosen[:5]))
        self.label("u1", age=30, region="de")
        train.learn(self.engine, self.data, training(model), NOW, self.making)
        self.live.refresh(NOW)

    def label(self, user: str, **labels: object) -> None:
        with writing(self.engine) as connection:
            people.upsert_user(connection, user, labels, NOW)

    def make(self, name: str = "home", surface: SurfaceParams = SURFACES["home"], **more: Any) -> Made:
        wanted = list_making.wanted_of(surface, self.making, more.pop("limit", None))
        folder = more.pop("folder", self.data / "lists" / name)
        return list_making.make(self.live, name, wanted, folder, more.pop("now", LATER), lambda done, of: None)

    def listed(self, user: str, name: str = "home") -> list[str]:
        with reading(self.engine) as connection:
            person = people.get(connection, user)
            found = lists.read(connection, name, person.key, person.keys) if person else None
            assert found is not None
            stored = catalog.get_many(connection, found.items.tolist())
        return [stored[key].item.id for key in found.items.tolist()]

    def met(self, user: str) -> set[str]:
        return {event.item for event in self.logged if event.user == user}


def rows(folder: Path) -> dict[str, list[str]]:
    return {
        row["user"]: row["items"]
        for part in sorted(folder.glob("part-*.parquet"))
        for row in parquet.read_table(part).to_pylist()
    }


@pytest.fixture(scope="module")
def learned(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    folder = tmp_path_factory.mktemp("cinema")
    shutil.copy(sqlite_template, folder / "palate.sqlite")
    engine = database.connect(None, folder)
    happened = Cinema(engine, folder, "ials").logged
    engine.dispose()
    return folder, happened


@pytest.fixture
def small(learned: tuple[Path, list[Event]], data: Path) -> Iterator[Cinema]:
    shutil.copytree(learned[0], data)
    engine = database.connect(None, data)
    cinema = Cinema(engine, data, "ials")
    cinema.logged = list(learned[1])
    yield cinema
    engine.dispose()


def test_lists_are_written_to_files_and_served_from_the_database(engine: sa.Engine, data: Path) -> None:
    cinema = Cinema(engine, data, "ials")
    made = cinema.make()
    assert (made.people, made.model, made.limit) == (24, "ials", 5)
    header = json.loads((cinema.data / "lists/home/header.json").read_text())
    assert (header["people"], header["parts"], header["snapshot"]) == (24, 2, made.snapshot)
    assert rows(cinema.data / "lists/home")["u0"] == cinema.listed("u0")
    served = cinema.serve("u0", 3, params=PLAIN, surface="home", now=LATER)
    assert [place.item.id for place in served.items] == cinema.listed("u0")[:3]
    assert all(0 < place.score < 1 and place.reasons == () for place in served.items)
    assert cinema.logged[-1].snapshot == served.snapshot == made.snapshot


@pytest.mark.parametrize("model", ["fm", "blend", "popularity"])
def test_lists_say_what_the_feed_would_say(sqlite_engine: sa.Engine, data: Path, model: Name) -> None:
    """Where the model's own scores are apart; what is left out of one is left out of the other."""
    cinema = Cinema(sqlite_engine, data, model)
    assert cinema.make().model == cinema.live.pool.model.name == model
    for user in ("u0", "u1", "u2"):
        live = cinema.ids(user, 5, params=PLAIN, log=False, now=LATER)
        listed = cinema.listed(user)
        assert len(listed) == len(live) == 5
        assert not set(listed) & cinema.met(user)
        if model == "blend":
            kinds = [[id.split("-")[0] for id in ids] for ids in (listed, live)]
            assert kinds[0].count("tea") >= 4 if user != "u1" else kinds[0].count("rum") >= 4


def test_what_is_served_is_unseen_shown_and_allowed_when_it_is_served(small: Cinema) -> None:
    small.make()
    before = small.listed("u0")
    small.act("u0", "viewed", before[0], now=LATER)
    with writing(small.engine) as connection:
        key = identities.item_keys(connection, [before[1]], None)[before[1]]
        source = connection.scalar(sa.text(f"SELECT source FROM items WHERE key = {key}"))
        person = people.identify(connection, "u0")
        assert person is not None
        people.choose_source(connection, person.key, source, "hidden", NOW)
    after = small.ids("u0", 1, params=PLAIN, surface="home", now=LATER, log=False)
    sources = {f"s{int(id.split('-')[1]) % 3}": id for id in reversed(before)}
    assert after[0] in before[2:]
    assert after[0] != sources.get(f"s{int(before[1].split('-')[1]) % 3}")
    assert small.ids("u0", 1, params=PLAIN, surface="home", now=LATER, log=False, exclude=frozenset(after)) != after


def test_a_session_never_repeats_and_goes_on_live_where_the_list_runs_out(small: Cinema) -> None:
    small.make()
    first = small.serve("u0", 3, params=PLAIN, surface="home", now=LATER)
    second = small.serve("u0", 4, params=PLAIN, surface="home", now=LATER, cursor=first.cursor)
    ids = [place.item.id for feed_ in (first, second) for place in feed_.items]
    assert len(set(ids)) == 7
    assert ids[:3] == small.listed("u0")[:3]
    assert any(place.reasons for place in second.items)


def test_who_came_later_is_scored_live(small: Cinema) -> None:
    small.make()
    small.act("new", "like", "rum-0", "rum-1", now=LATER)
    assert len(small.ids("new", 3, params=PLAIN, surface="home", now=LATER)) == 3
    assert len(small.ids("nobody", 3, params=PLAIN, surface="home", now=LATER)) == 3


def test_rules_hold_within_the_search_and_in_the_feed(small: Cinema) -> None:
    small.make(limit=16)
    closed = {"rum-13", "rum-14", "rum-15"}
    grown_up = {"rum-13", "rum-14"} - small.met("u1")
    assert set(small.listed("u1")) & closed == grown_up
    for user in ("u3", "u5", "u7"):
        assert len(small.listed(user)) == min(16, 32 - len(small.met(user) | closed))
        assert not set(small.listed(user)) & closed
        assert not set(small.ids(user, 32, params=PLAIN, log=False, now=LATER)) & closed
    small.label("u1", age=12, region="fr")
    assert not set(small.ids("u1", 32, params=PLAIN, surface="home", now=LATER, log=False)) & closed


def test_a_surface_narrows_lists_and_what_is_scored_live(small: Cinema) -> None:
    small.make(surface=SURFACES["row"])
    assert all(int(id.split("-")[1]) % 2 for id in small.listed("u0"))
    served = small.ids("u0", 5, params=PLAIN, surface="row", now=LATER, log=False)
    assert served == small.listed("u0")[:2]
    assert all(int(id.split("-")[1]) % 2 for id in small.ids("nobody", 5, params=PLAIN, surface="row", log=False))
    assert len(small.ids("u0", 5, params=PLAIN, surface="elsewhere", log=False)) == 5


def test_a_surface_may_have_a_model_of_its_own(small: Cinema) -> None:
    surfaces = {"known": SurfaceParams(model="popularity")}
    small.live = Live(small.engine, small.data, model="ials", surfaces=surfaces)
    small.live.refresh(NOW)
    by_person = small.ids("u1", 6, params=PLAIN, log=False)
    assert by_person != small.ids("u1", 6, params=PLAIN, log=False, surface="known")
    assert small.live.state.by("popularity").pool.model.name == "popularity"
    small.add(item("new", "s0"), now=LATER)
    assert len(small.live.state.by("popularity").pool) == len(small.live.pool) == 33


def test_what_was_met_since_the_snapshot_is_left_out(small: Cinema) -> None:
    small.make()
    best = small.listed("u0")[0]
    small.act("u0", "viewed", best, now=LATER)
    small.make(now=LATER + timedelta(hours=1))
    assert best not in small.listed("u0")
    assert len(small.listed("u0")) == 5


def test_lists_are_made_anew_in_one_step_and_of_the_deleted_nothing_is_left(small: Cinema) -> None:
    small.make()
    assert forgetting.delete_person(small.engine, small.data, "u0")
    with reading(small.engine) as connection:
        assert lists.counts(connection) == {"home": 23}
    small.live.refresh(LATER)
    made = small.make(limit=3, now=LATER + timedelta(hours=1))
    assert made.people == 23
    assert {len(ids) for ids in rows(small.data / "lists/home").values()} == {3}
    assert sorted(path.name for path in (small.data / "lists").iterdir()) == ["home"]


def test_a_folder_of_something_else_is_left_alone(small: Cinema, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="holds something else"):
        small.make(folder=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_before_the_first_snapshot_there_are_no_lists(sqlite_engine: sa.Engine, data: Path) -> None:
    making = ListMaking()
    live = list_making.opened(sqlite_engine, data, making, NOW)
    with pytest.raises(NotFound, match="palate train --full"):
        list(
            recommending.for_everybody(live, list_making.wanted_of(SurfaceParams(), making), NOW, lambda done, of: None)
        )


def test_lists_are_renewed_after_a_full_cycle_if_that_is_wanted(small: Cinema) -> None:
    making = msgspec.structs.replace(small.making, lists=ListParams(limit=4, renew=True, threads=1))
    train.learn(small.engine, small.data, training("ials"), LATER, making)
    assert {len(ids) for ids in rows(small.data / "lists/home").values()} == {4}
    assert len(small.listed("u0")) == 4


def test_the_command_makes_them_and_says_what_came_of_it(small: Cinema, tmp_path: Path) -> None:
    config = tmp_path / "palate.toml"
    config.write_text('[feed]\nmodel = "ials"\nwindow_days = 3650\n[surfaces.home]\nlists = "best"\nlimit = 4\n')
    call = ["recommend", "--data", str(small.data), "--config", str(config), "--json"]
    out = CliRunner().invoke(
        cli.app, [*call, "--all", "--surface", "home", "--limit", "4", "--output", str(tmp_path / "out")]
    )
    assert out.exit_code == 0, out.output
    assert json.loads(out.stdout)["people"] == 24
    assert rows(tmp_path / "out")["u0"] == small.listed("u0", "best")
    one = CliRunner().invoke(cli.app, [*call, "--user", "u0", "--surface", "home"])
    assert [row["item"] for row in json.loads(one.stdout)["items"]] == small.listed("u0", "best")
    for wrong in (["--all", "--user", "u0"], [], ["--all", "--surface", "attic"], ["--all", "--engine", "steam"]):
        assert CliRunner().invoke(cli.app, [*call, *wrong]).exit_code == 1


def test_lists_do_not_depend_on_threads(small: Cinema) -> None:
    small.make()
    one = rows(small.data / "lists/home")
    small.making = msgspec.structs.replace(small.making, lists=ListParams(limit=5, threads=2))
    small.make()
    assert rows(small.data / "lists/home") == one
    assert np.unique([len(ids) for ids in one.values()]).tolist() == [5]
    assert wanted.ANYWHERE.lists is None


async def got(serving: Serving, path: str) -> str:
    transport = httpx.ASGITransport(create_app({"": serving}))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_a_page_shows_an_owner_what_a_person_met_beside_their_lists_by_each_model(small: Cinema) -> None:
    small.make()
    small.engine.dispose()
    params = ServingParams(feed=FeedParams(model="ials"), interactions=small.making.interactions)
    with open_serving(small.data, None, params) as serving:
        page = lxml.html.fromstring(asyncio.run(got(serving, "/look?person=u0")))
        assert "Nobody has used this id" in asyncio.run(got(serving, "/look?person=nobody"))
    shelves = {
        shelf.xpath("./h2")[0].text: shelf.xpath(".//li/a/text()") for shelf in page.xpath("//section[@class='shelf']")
    }
    assert list(shelves)[:2] == ["History", "List home"]
    assert {"ials", "popularity"} <= set(shelves)
    assert set(shelves["History"]) <= {f"Title of {id}" for id in small.met("u0")}
    assert shelves["List home"] == [f"Title of {id}" for id in small.listed("u0")]
    assert not set(shelves["ials"]) & {f"Title of {id}" for id in small.met("u0")}
    assert page.xpath("//section[@class='shelf'][1]//li/span/text()")[0] in ("vote 0", "vote 1")


def test_members_of_a_blend_have_lists_of_their_own(sqlite_engine: sa.Engine, data: Path) -> None:
    cinema = Cinema(sqlite_engine, data, "blend")
    with reading(sqlite_engine) as connection:
        person = cinema.live.person(connection, "u1", cinema.live.snapshot)
    looked = Looked(person, LATER, timedelta(days=7), 5, 30, TasteParams())
    assert cinema.live.snapshot is not None
    found = list(side_by_side.columns(cinema.live.pool, cinema.live.snapshot, looked))
    members = {column.member: column.picks for column in found if column.model == "blend"}
    assert None in members
    assert set(members) - {None} <= {"itemknn", "ials"}
    assert all(
        len(picks) == 5 and not {pick.key for pick in picks} & set(person.history.items.tolist())
        for picks in members.values()
    )
