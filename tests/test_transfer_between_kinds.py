"""People from one kind of item, vectors of another kind from its watches alone: from events to a feed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from feed_world import NOW, World, item

from palate import database, snapshots
from palate.examples import Params, TrainParams
from palate.feed_params import FeedParams
from palate.live import Live
from palate.models.implicit_als import ImplicitALSParams
from palate.surface_params import SurfaceParams
from palate.train import run_cycle

PLAIN = FeedParams(exploration=0, questions=0, source_spread=0, label_spread=0, freshness=0)
ALS = ImplicitALSParams(factors=4, epochs=8, threads=1)
TASTES = ("tea", "rum")


class Portal(World):
    """Everybody reads of their own taste; some also watch, and always what they read of."""

    def __init__(
        self, engine: sa.Engine, data: Path, watched: bool, people_from: tuple[str, ...] = ("article",)
    ) -> None:
        surfaces = {"cinema": SurfaceParams(kinds=("video",))}
        super().__init__(engine, data, Live(engine, data, model="ials", surfaces=surfaces))
        kinds = [(taste, n) for n in range(12) for taste in TASTES]
        self.add(*(item(f"{taste}-{n}", kind="article") for taste, n in kinds))
        self.add(*(item(f"{taste}-film-{n}", kind="video") for taste, n in kinds))
        for person in range(24):
            own, chosen = TASTES[person % 2], self.rng.permutation(12)[:7]
            self.act(f"u{person}", "like", *(f"{own}-{n}" for n in chosen))
            if watched and person < 16:
                self.act(f"u{person}", "watch", *(f"{own}-film-{n}" for n in chosen[:5]), value=0.9)
        train = TrainParams(models=("ials",), people_from=people_from)  # type: ignore[arg-type]
        run_cycle(engine, data, Params(train=train, served="ials", implicit_als=ALS), NOW)
        self.live.refresh(NOW)

    def vectors(self, *ids: str) -> np.ndarray:
        arrays = snapshots.load(self.data / "snapshots").arrays
        rows = np.searchsorted(arrays["items"], self.keys(*ids))
        return np.asarray(arrays["ials_item_vectors"][rows], np.float32)


@pytest.fixture
def portal(sqlite_engine: sa.Engine, data: Path) -> Portal:
    return Portal(sqlite_engine, data, watched=True)


def test_who_only_reads_is_recommended_the_films_that_fit(portal: Portal) -> None:
    for user, taste in (("u22", "tea"), ("u23", "rum")):
        films = portal.ids(user, 5, params=PLAIN, log=False, surface="cinema")
        assert [id.split("-")[0] for id in films] == [taste] * 5
        assert all("film" in id for id in films)


def test_what_is_watched_moves_no_article(portal: Portal, tmp_path: Path) -> None:
    engine = database.connect(None, tmp_path / "without")
    database.migrate(engine)
    without = Portal(engine, tmp_path / "without", watched=False)
    articles = [f"{taste}-{n}" for n in range(12) for taste in TASTES]
    np.testing.assert_array_equal(portal.vectors(*articles), without.vectors(*articles))
    assert not np.allclose(portal.vectors("tea-film-0"), without.vectors("tea-film-0"), atol=0.05)
    engine.dispose()
