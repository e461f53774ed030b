"""What is known of items without anybody's judgement, as the catalog has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog, contents, ingest, understandings
from palate.database import reading, writing
from palate.domain import Item
from palate.models.content import Contents, label_keys
from palate.text import embedding

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("many", [0, 1000], ids=["all rows", "those asked for"])
def test_contents_come_in_the_order_asked_for(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    monkeypatch.setattr(contents, "MANY", many)
    items = [
        Item(id="a", title="Storm", source="sea", labels=("wind", "rain")),
        Item(id="b", title="Calm"),
        Item(id="c", source="sky", labels=("sun",)),
    ]
    a, b, c = (one.key for one in ingest.store_items(engine, items, NOW))
    with reading(engine) as connection:
        found = contents.read(connection, np.array([c, 999_999, a]))
        only = contents.read(connection, np.array([b]))
    np.testing.assert_array_equal(found.text[2], embedding.embed([("Storm", "")])[0])
    assert not found.text[:2].any()
    assert found.source[1] == -1
    assert len(set(found.source.tolist())) == 3
    assert found.label_offsets.tolist() == [0, 1, 1, 3]
    assert found.labels.tolist() == label_keys(["sun", "wind", "rain"]).tolist()
    assert only.source.tolist() == [-1]
    assert only.text[0].any()


def test_of_no_items_there_is_nothing(engine: sa.Engine) -> None:
    with reading(engine) as connection:
        found = contents.read(connection, np.zeros(0, np.int64))
    assert (len(found), found.text.shape, found.label_offsets.tolist()) == (0, (0, embedding.LENGTH), [0])


def same(one: Contents, other: Contents) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("text", "source", "label_offsets", "labels")]
    pairs += [(one.others[name], other.others[name]) for name in contents.OTHERS]
    return all(np.array_equal(*pair) for pair in pairs)


def test_what_changed_is_read_alone_and_the_same_comes_of_it(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [
        Item(id="a", title="Storm", source="sea", labels=("wind", "rain")),
        Item(id="b", title="Calm", source="sky", author="Beaufort"),
        Item(id="c", title="Fog", labels=("grey",)),
        Item(id="d", title="Dew"),
    ]
    a, b, c, d = (one.key for one in ingest.store_items(engine, first, NOW))
    with reading(engine) as connection:
        before = contents.known(connection, NOW + timedelta(minutes=30))
    later = NOW + timedelta(hours=1)
    changed = [Item(id="e", title="Hail", labels=("ice",)), Item(id="b", title="Calm at last", source="sky")]
    e, _ = (one.key for one in ingest.store_items(engine, changed, later))
    with writing(engine) as connection:
        catalog.delete(connection, "c", later)
        understandings.drop(connection, [d], later)
    asked, plain = list[list[int]](), contents.read

    def noted(connection: sa.Connection, keys: NDArray[np.int64]) -> Contents:
        asked.append(keys.tolist())
        return plain(connection, keys)

    monkeypatch.setattr(contents, "read", noted)
    with reading(engine) as connection:
        found, anew = contents.known(connection, later, before), contents.known(connection, later)
        direct = plain(connection, np.array([e, 999_999, a]))
        hour_later = contents.known(connection, later + timedelta(hours=1), found)
        unmoved = contents.known(connection, later + timedelta(hours=2), hour_later)
    assert asked == [[b, c, d, e], [a, b, c, d, e], [b, c, d, e]]
    assert same(found.contents, anew.contents)
    assert found.items.keys.tolist() == [a, b, c, d, e]
    assert not found.contents.text[[2, 3]].any()
    assert same(found.of(np.array([e, 999_999, a])), direct)
    assert unmoved.contents is hour_later.contents
    assert found.sources()[0].tolist() == [a, b]


def test_all_is_read_anew_when_the_clock_went_back_or_more_items_are_there_than_came(engine: sa.Engine) -> None:
    ingest.store_items(engine, [Item(id="a", title="Storm")], NOW)
    with reading(engine) as connection:
        before = contents.known(connection, NOW + timedelta(hours=3))
    ingest.store_items(engine, [Item(id="b", title="Calm")], NOW + timedelta(hours=1))
    with reading(engine) as connection:
        for hours in (2, 4):
            assert len(contents.known(connection, NOW + timedelta(hours=hours), before).items) == 2
