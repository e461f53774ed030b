"""What is known of items without anybody's judgement, as the catalog has it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import sqlalchemy as sa

from palate import contents, ingest
from palate.database import reading
from palate.domain import Item
from palate.models.content import label_keys
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
