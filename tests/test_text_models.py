"""The command that makes the shipped models of categories: what it takes from an installation."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa

from palate import ingest, label_transfer, labels, people
from palate.database import reading, writing
from palate.domain import Item
from palate.identities import item_keys
from palate.labels import Answer, LabelParams, Question

SCRIPT = Path(__file__).parent.parent / "training" / "text_models.py"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SPORTS = ("society", "economy", "technology", "sports", "entertainment", "science", "other")


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("text_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["text_models"] = module  # its dataclasses look there for their types
    spec.loader.exec_module(module)
    return module


def test_exported_labels_are_learned_from_as_they_count(
    training: ModuleType, engine: sa.Engine, tmp_path: Path
) -> None:
    """`a`: two against one; `b`: a certain owner against two; `c`: no agreement; `d`: news, of a category unknown."""
    items = [Item(id=name, title=f"Title {name}", text=f"Words of {name}.", language="en") for name in "abcd"]
    ingest.store_items(engine, items, NOW, understand=False)
    said = {
        "a": ("sports", "sports", "science"),
        "b": ("economy", "economy", "not_news"),
        "c": ("sports", "science", "other"),
    }
    with writing(engine) as connection:
        keys = item_keys(connection, list("abcd"), NOW)
        persons = [people.upsert_user(connection, f"p{place}", {}, NOW).key for place in range(3)]
        answers = [
            Answer(person, Question("category", keys[item]), value, gold=(item, person) == ("b", persons[2]))
            for item, values in said.items()
            for person, value in zip(persons, values, strict=True)
        ]
        answers += [Answer(persons[0], Question("news", keys[item]), "yes") for item in "ad"]
        answers.append(Answer(persons[0], Question("story", keys["a"], keys["b"]), "same"))
        labels.put(connection, answers, LabelParams(), NOW)
    label_transfer.export_labels(engine, tmp_path / "labels.jsonl")
    found = {one.title: one for one in training.labelled_by_annotators(tmp_path / "labels.jsonl")}
    assert {title: one.allowed for title, one in found.items()} == {
        "Title a": ("sports",),
        "Title b": ("not_news",),
        "Title d": SPORTS,
    }
    assert {(one.origin, one.language, one.text) for one in found.values()} >= {("own", "en", "Words of d.")}
    with reading(engine) as connection:
        agreed = labels.allowed(connection, keys.values())
    assert {f"Title {name}": agreed[key] for name, key in keys.items() if key in agreed} == {
        title: one.allowed for title, one in found.items()
    }


@pytest.mark.parametrize("line", ["{", '{"annotator":"a","task":"category","item":"i","value":"gossip"}'])
def test_a_line_that_is_no_label_is_named(training: ModuleType, tmp_path: Path, line: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(f'{{"annotator":"a","task":"category","item":"i","value":"sports","title":"T"}}\n{line}\n')
    with pytest.raises(ValueError, match="line 2 is no exported label"):
        list(training.labelled_by_annotators(path))
