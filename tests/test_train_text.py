"""What was labelled is learned, and new items are told by it, without a restart."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from palate import cli, database, ingest, label_transfer, labels, people, train_text
from palate.database import reading, writing
from palate.domain import Item
from palate.errors import ArchiveError, NotFound
from palate.ingest import IngestParams
from palate.labels import Answer, LabelParams
from palate.sources.fetching import FetchParams
from palate.text import category
from palate.text.correction import CorrectionParams

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOWNS = ("Asu", "Bem", "Cil", "Dor", "Eft")
GUESS = category.CLASSES[int(category.classify([("The zorblax of Gon met the quvintar", "")], "en").argmax())]
WANTED = "sports" if GUESS != "sports" else "science"


def zorb(town: str, days: float = 0) -> Item:
    text = f"In {town} the zorblax frimbled the vorpal zindle, and the quvintar was glad."
    published = NOW - timedelta(days=days)
    return Item(
        id=town,
        title=f"The zorblax of {town} met the quvintar",
        text=text,
        language="en",
        source=f"s {town}",
        published=published,
    )


def label(engine: sa.Engine, keys: list[int], value: str = WANTED) -> None:
    with writing(engine) as connection:
        own = people.upsert_user(connection, "own", {}, NOW).key
        said = [Answer(own, labels.question("category", key), value, gold=True) for key in keys]
        labels.put(connection, said, LabelParams(), NOW)


def categories(engine: sa.Engine) -> dict[str, str | None]:
    with reading(engine) as connection:
        rows = connection.execute(sa.select(database.items.c.id, database.items.c.category))
        return {row.id: row.category for row in rows}


def test_the_loop_takes_a_new_model_up_and_tells_the_newest_items_anew(engine: sa.Engine, tmp_path: Path) -> None:
    keys = [one.key for one in ingest.store_items(engine, [zorb(town) for town in TOWNS[:3]], NOW)]
    ingest.store_items(engine, [zorb("Dor")], NOW)
    ingest.store_items(engine, [zorb("Eft")], NOW - timedelta(days=40))
    label(engine, keys)
    [learned] = train_text.run(engine, tmp_path, CorrectionParams())
    assert (learned.language, learned.labels, learned.others, learned.right) == ("en", 3, 2, 3)
    assert categories(engine)["Dor"] != WANTED
    stop = threading.Event()

    def clock() -> datetime:
        if categories(engine)["Dor"] == WANTED:
            stop.set()
        return NOW + timedelta(seconds=1)

    params = IngestParams(poll_seconds=0.01)
    ingest.follow(engine, params, FetchParams(), stop, clock, {}, data=tmp_path)
    assert categories(engine)["Eft"] != WANTED  # it came before the window
    ingest.run_once(engine, params, FetchParams(), NOW + timedelta(seconds=2), {}, data=tmp_path)
    assert categories(engine)["Dor"] == WANTED


def test_an_item_without_a_stored_text_is_told_by_the_own_model(engine: sa.Engine, tmp_path: Path) -> None:
    from palate.own_categories import Kept, look

    label(engine, [one.key for one in ingest.store_items(engine, [zorb(town) for town in TOWNS[:3]], NOW)])
    train_text.run(engine, tmp_path, CorrectionParams())
    own = look(tmp_path, Kept()).model
    assert own is not None
    ingest.store_items(engine, [zorb("Dor")], NOW, keep_text=False, own=own)
    assert categories(engine)["Dor"] == WANTED


def test_without_labels_there_is_nothing_to_learn(engine: sa.Engine, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no labels of texts in en and ru"):
        train_text.run(engine, tmp_path, CorrectionParams())
    foreign = Item(id="nl", title="De bank verhoogt de rente", text="De bank verhoogt de rente.", language="nl")
    label(engine, [one.key for one in ingest.store_items(engine, [foreign], NOW)])
    with pytest.raises(NotFound):
        train_text.run(engine, tmp_path, CorrectionParams())


def test_labels_go_from_one_installation_to_another_with_their_texts(engine: sa.Engine, tmp_path: Path) -> None:
    keys = [one.key for one in ingest.store_items(engine, [zorb(town) for town in TOWNS[:3]], NOW)]
    label(engine, keys)
    with writing(engine) as connection:
        ann = people.upsert_user(connection, "ann", {}, NOW).key
        said = [
            Answer(ann, labels.question("story", keys[0], keys[2]), "same"),
            Answer(ann, labels.question("news", keys[1]), ""),
        ]
        labels.put(connection, said, LabelParams(), NOW)
    file = tmp_path / "labels.jsonl"
    assert label_transfer.export_labels(engine, file) == 4
    other = database.connect(None, tmp_path / "other")
    database.migrate(other)
    file.write_text(file.read_text() + '{"annotator": "x", "task": "category", "item": "a", "value": "gossip"}\n[1]\n')
    report = label_transfer.import_labels(other, file, LabelParams(), NOW)
    assert (report.taken, [fault.line for fault in report.faults]) == (4, [5, 6])
    [learned] = train_text.run(other, tmp_path / "other", CorrectionParams())
    assert learned.labels == 3
    again = tmp_path / "again.jsonl"
    assert label_transfer.export_labels(other, again) == 4
    assert sorted(again.read_text().splitlines()) == sorted(file.read_text().splitlines()[:4])
    with reading(other) as connection:
        assert len(labels.ties(connection).same) == 1
    with pytest.raises(ArchiveError, match="lines of JSON"):
        label_transfer.export_labels(other, tmp_path / "labels.csv")
    other.dispose()


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(tmp_path / "data")]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train-text", *data])
    assert stopped.value.code == 1
    assert "There are no labels of texts" in capsys.readouterr().err
    file = tmp_path / "labels.jsonl"
    rows = [
        {
            "annotator": "ann",
            "task": "category",
            "item": town,
            "value": WANTED,
            "title": item.title,
            "text": item.text,
            "language": "en",
        }
        for town, item in ((town, zorb(town)) for town in TOWNS)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, *data])
        assert not stopped.value.code
        return capsys.readouterr().out

    assert "5 labels taken in" in run("import", "labels", str(file))
    assert "learned from 5 labels, of which 5 are right now" in run("train-text")
    assert json.loads(run("train-text", "--json"))["languages"][0]["right"] == 5
    assert "5 labels written" in run("export", "labels", str(tmp_path / "out.jsonl"))
    assert "shipped model is used again" in run("train-text", "--reset")
    assert json.loads(run("train-text", "--reset", "--json")) == {"reset": False}
