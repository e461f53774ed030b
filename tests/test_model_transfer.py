"""Vectors from and to other programs, served like our own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from palate import events, feed, model_transfer
from palate.database import writing
from palate.domain import Event
from palate.errors import ArchiveError, NotFound
from palate.feed_params import FeedParams
from palate.live import Live
from palate.model_transfer import Format
from palate.models import exchange
from palate.models.exchange import Factors
from palate.train import Params, run_cycle

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PARAMS = Params(served="ials")


def two_kinds(users: tuple[str, ...] = ("ann", "bob")) -> Factors:
    """Teas lie along one axis, coffees along the other; ann takes tea, bob coffee."""
    items = [f"{kind}-{n}" for kind in ("tea", "coffee") for n in range(6)]
    vectors = np.repeat(np.eye(2, dtype=np.float32), 6, axis=0)
    return Factors(users, np.eye(2, dtype=np.float32), items, vectors, {"l2": 0.1, "alpha": 1.0})


def write(path: Path, format: Format, factors: Factors) -> Path:
    if format == "implicit":
        exchange.write_implicit(path, factors)
    else:
        exchange.write_spark(path, factors, NOW)
    return path


def scores(engine: sa.Engine, data: Path, user: str) -> dict[str, float]:
    live = Live(engine, data, model="ials")
    live.refresh(NOW)
    return dict(feed.rank(live, user, ["tea-5", "coffee-5"], NOW, FeedParams())[0])


@pytest.mark.parametrize("format", ["implicit", "spark"])
def test_vectors_learned_elsewhere_are_served(engine: sa.Engine, data: Path, tmp_path: Path, format: Format) -> None:
    _, version = model_transfer.import_model(
        engine, data, write(tmp_path / "model.npz", format, two_kinds()), format, PARAMS, NOW
    )
    with writing(engine) as connection:
        events.append(connection, [Event(user="ann", item="tea-1", type="like")], NOW)
        events.append(connection, [Event(user="new", item="coffee-2", type="like")], NOW)
    assert scores(engine, data, "ann")["tea-5"] > scores(engine, data, "ann")["coffee-5"] + 0.1
    assert scores(engine, data, "new")["coffee-5"] > scores(engine, data, "new")["tea-5"] + 0.1
    live = Live(engine, data, model="ials")
    live.refresh(NOW)
    assert live.snapshot is not None
    assert live.snapshot.version == version


@pytest.mark.parametrize("format", ["implicit", "spark"])
def test_what_was_published_comes_back(engine: sa.Engine, data: Path, tmp_path: Path, format: Format) -> None:
    model_transfer.import_model(engine, data, write(tmp_path / "in", format, two_kinds()), format, PARAMS, NOW)
    model_transfer.export_model(engine, data, tmp_path / "out.npz", format, NOW)
    back = (
        exchange.read_implicit(tmp_path / "out.npz")
        if format == "implicit"
        else exchange.read_spark(tmp_path / "out.npz")
    )
    given = two_kinds()
    rows = [list(back.items).index(id) for id in given.items]
    np.testing.assert_allclose(back.item_vectors[rows], given.item_vectors, atol=1e-3)
    assert sorted(back.users) == sorted(given.users)


def test_training_takes_over_after_an_import(engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    model_transfer.import_model(engine, data, write(tmp_path / "in", "implicit", two_kinds()), "implicit", PARAMS, NOW)
    votes = [Event(user=f"u{n % 9}", item=f"tea-{n % 6}", type="like") for n in range(50)]
    with writing(engine) as connection:
        events.append(connection, votes, NOW)
    assert run_cycle(engine, data, Params(), NOW, kind="incremental").version is not None


def test_without_such_a_model_there_is_nothing_to_export(engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="ials"):
        model_transfer.export_model(engine, data, tmp_path / "out", "implicit", NOW)


def test_an_id_that_comes_twice_is_refused(engine: sa.Engine, data: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "in", "implicit", two_kinds(("ann", "ann")))
    with pytest.raises(ArchiveError, match=r"one id|twice"):
        model_transfer.import_model(engine, data, path, "implicit", PARAMS, NOW)
