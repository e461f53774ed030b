"""What was found out about items: made once, forgotten with the text, made again for a new version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import sqlalchemy as sa

from palate import catalog, database, ingest, understandings
from palate.database import reading, writing
from palate.domain import Item
from palate.text import category, embedding, understanding
from palate.understandings import Versions

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
VERSIONS = Versions(understanding.VERSION, embedding.VERSION)
ENGLISH = "The team won the match after two goals in the second half, and the coach was content with his players."
GERMAN = "Die Mannschaft hat das Spiel nach zwei Toren gewonnen, und der Trainer war mit seinen Spielern zufrieden."


def said(engine: sa.Engine, id: str) -> tuple[str | None, str | None]:
    """Language and category that count."""
    table = database.items
    with reading(engine) as connection:
        row = connection.execute(sa.select(table.c.language, table.c.category).where(table.c.id == id)).one()
    return row.language, row.category


def kept(engine: sa.Engine) -> list[sa.Row[tuple[object, ...]]]:
    with reading(engine) as connection:
        return list(connection.execute(sa.select(database.understandings).order_by(database.understandings.c.item)))


def test_storing_an_item_finds_out_what_it_is(engine: sa.Engine) -> None:
    ingest.store_items(engine, [Item(id="a", text=ENGLISH), Item(id="b", text=GERMAN), Item(id="c")], NOW)
    assert said(engine, "a") == ("en", "sports")
    assert said(engine, "b") == ("de", None)
    assert said(engine, "c") == (None, None)
    english, german, nothing = kept(engine)
    assert (english.language, english.version) == ("en", understanding.VERSION)
    assert 0.9 < english.confidence <= 1
    likely = np.frombuffer(english.probabilities, np.float32)
    np.testing.assert_array_equal(likely, category.classify([("", ENGLISH)], "en")[0])
    assert german.probabilities is None
    assert (nothing.language, nothing.confidence) == (None, 0)


def test_a_language_that_the_source_names_stays_and_a_detected_one_follows_the_text(engine: sa.Engine) -> None:
    ingest.store_items(engine, [Item(id="said", text=ENGLISH, language="nl"), Item(id="found", text=ENGLISH)], NOW)
    assert (said(engine, "said"), said(engine, "found")) == (("nl", None), ("en", "sports"))
    ingest.store_items(engine, [Item(id="said", text=GERMAN), Item(id="found", text=GERMAN)], LATER)
    assert (said(engine, "said"), said(engine, "found")) == (("nl", None), ("de", None))
    ingest.store_items(engine, [Item(id="found", text=ENGLISH, language="de")], LATER)
    assert said(engine, "found") == ("de", None)  # now its source has named it, though it is what we had found before
    ingest.store_items(engine, [Item(id="found", text=ENGLISH + " Indeed.")], LATER)
    assert said(engine, "found") == ("de", None)


def test_what_is_gone_leaves_nothing_behind(engine: sa.Engine) -> None:
    ingest.store_items(engine, [Item(id="a", text=ENGLISH)], NOW)
    with writing(engine) as connection:
        catalog.delete(connection, "a", LATER)
    assert kept(engine) == []
    assert said(engine, "a") == (None, None)


def test_items_that_were_left_are_understood_later_the_newest_first(engine: sa.Engine) -> None:
    items = [Item(id=id, text=ENGLISH) for id in "abc"]
    keys = [one.key for one in ingest.store_items(engine, items, NOW, understand=False)]
    with reading(engine) as connection:
        assert [one.key for one in understandings.unread(connection, VERSIONS, 2)] == [keys[2], keys[1]]
        since = int(LATER.timestamp() * 1000)
        assert understandings.unread(connection, VERSIONS, 9, since=since) == []
    assert ingest.understand_some(engine, LATER) == 3
    assert ingest.understand_some(engine, LATER) == 0
    assert said(engine, "b") == ("en", "sports")


@pytest.mark.parametrize("newer", [VERSIONS._replace(understanding=99), VERSIONS._replace(vector=99)])
def test_a_new_version_of_either_model_reads_again(engine: sa.Engine, newer: Versions) -> None:
    ingest.store_items(engine, [Item(id="a", text=ENGLISH)], NOW)
    with reading(engine) as connection:
        assert understandings.unread(connection, VERSIONS, 9) == []
        [one] = understandings.unread(connection, newer, 9)
    assert one.language is None  # what was detected is not taken for what the source says


def test_an_item_that_changed_while_it_was_read_stays_without(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        catalog.upsert(connection, [Item(id="a", text=ENGLISH)], NOW)
        unread = understandings.unread(connection, VERSIONS, 10)
        catalog.upsert(connection, [Item(id="a", text=GERMAN)], LATER)
        found = understanding.understand([("", ENGLISH)], [None])
        understandings.put(connection, unread, found, VERSIONS, LATER)
    assert kept(engine) == []
    ingest.understand_some(engine, LATER)
    assert said(engine, "a") == ("de", None)


def test_without_its_text_an_item_is_understood_before_the_text_is_gone(engine: sa.Engine) -> None:
    with_text = Item(id="kept", text=ENGLISH)
    without = Item(id="bare", title="A title", text=ENGLISH, author="Somebody")
    ingest.store_items(engine, [with_text], NOW)
    ingest.store_items(engine, [without], NOW, keep_text=False)
    assert said(engine, "bare") == said(engine, "kept") == ("en", "sports")
    with reading(engine) as connection:
        stored = catalog.get(connection, "bare")
        assert understandings.unread(connection, VERSIONS, 9) == []
        newer = Versions(VERSIONS.understanding + 1, VERSIONS.vector + 1)
        assert [one.text for one in understandings.unread(connection, newer, 9)] == [
            ENGLISH
        ]  # nothing is left to read of the other
    assert stored is not None
    assert (stored.item.title, stored.item.text, stored.item.author) == (None, None, None)
    kept_of, bare_of = kept(engine)
    assert (bare_of.lead, bare_of.probabilities) != (None, None)
    assert bare_of.confidence == kept_of.confidence


def test_an_edit_of_a_text_that_is_not_kept_is_understood_anew_and_a_repeat_changes_nothing(engine: sa.Engine) -> None:
    ingest.store_items(engine, [Item(id="a", text=ENGLISH)], NOW, keep_text=False)
    ingest.store_items(engine, [Item(id="a", text=ENGLISH)], LATER, keep_text=False)
    with reading(engine) as connection:
        assert catalog.changed_since(connection, int(LATER.timestamp() * 1000)) == []
    [one] = ingest.store_items(engine, [Item(id="a", text=GERMAN)], LATER, keep_text=False)
    assert said(engine, "a") == ("de", None)
    with reading(engine) as connection:
        assert [change.key for change in catalog.changed_since(connection, int(LATER.timestamp() * 1000))] == [one.key]


def test_what_is_merged_into_another_item_leaves_what_is_known_of_that(engine: sa.Engine) -> None:
    address = "https://example.org/a"
    ingest.store_items(engine, [Item(id="a", url=address, text=ENGLISH)], NOW)
    [one] = ingest.store_items(engine, [Item(id="b", url=address, text=GERMAN)], LATER, keep_text=False)
    assert one.outcome == "merged"
    assert said(engine, "a") == ("en", "sports")
    with writing(engine) as connection:
        catalog.withdraw(connection, ["a"], LATER)
    ingest.store_items(engine, [Item(id="b", url=address, text=GERMAN)], LATER, keep_text=False)
    assert said(engine, "a") == ("de", None)  # nothing was known any more
