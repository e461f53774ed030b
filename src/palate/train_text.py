"""Learns from this installation's labels what its texts are about: labels → texts by language → correction → one file.

The loop that reads sources finds the file, and understands the items of its stories' window anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from palate import database, labels, own_categories
from palate.database import reading
from palate.errors import NotFound
from palate.text import category, tokens
from palate.text.category import CLASSES, LANGUAGES, Weights
from palate.text.cleaning import to_plain
from palate.text.correction import CorrectionParams, Labelled, corrected, learn

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Learned:
    """What one language's model learned."""

    language: str
    labels: int
    others: int
    """Texts without a label that hold it."""
    right_before: int
    """Labels that the shipped model has right."""
    right: int
    """That the new one has right. It has seen them: this says what it took in, not how good it is."""
    moved: int
    """Texts without a label whose class is another now."""


def run(engine: sa.Engine, data: Path, params: CorrectionParams, progress: Progress = lambda _: None) -> list[Learned]:
    """Learn, and put the model in its place. Raises NotFound without labels to learn from, DatabaseError, DataFolderError."""
    progress("Reading labels …")
    labelled = _labelled(engine)
    if not labelled:
        names = " and ".join(LANGUAGES)
        raise NotFound(f"There are no labels of texts in {names} to learn from: give some at /labels, or import them.")
    corrections, report = {}, []
    for language, own in sorted(labelled.items()):
        progress(f"Learning from {len(own)} labels in {language} …")
        others = _others(engine, language, params.held)
        shipped = category.shipped(language)
        corrections[language] = learn(shipped, own, others, params)
        report.append(_learned(language, own, others, shipped, corrected(shipped, corrections[language])))
    own_categories.write(data, corrections)
    return report


def _labelled(engine: sa.Engine) -> dict[str, list[Labelled]]:
    """By language, in the order of the items; without labels of texts in languages for which there is no model."""
    found: dict[str, list[Labelled]] = {}
    with reading(engine) as connection:
        keys = {asked.item for task in ("category", "news") for asked in labels.agreed(connection, task)}
        may, texts = labels.allowed(connection, keys), labels.texts(connection, keys)
    for key in sorted(keys & texts.keys()):
        text = texts[key]
        if text.language in LANGUAGES and (text.title or text.text):
            found.setdefault(text.language, []).append(Labelled(text.title, text.text, may[key]))
    return found


def _others(engine: sa.Engine, language: str, limit: int) -> list[tuple[str, str]]:
    """The newest texts of that language without a label."""
    items, labelled = database.items, database.labelled_items
    query = sa.select(items.c.title, items.c.text).where(
        items.c.language == language,
        items.c.state == "live",
        items.c.title.is_not(None) | items.c.text.is_not(None),
        ~sa.exists().where(labelled.c.item == items.c.key),
    )
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(items.c.key.desc()).limit(limit)).all()
    return [(row.title or "", to_plain(row.text or "")) for row in rows]


def _learned(
    language: str, own: list[Labelled], others: list[tuple[str, str]], before: Weights, after: Weights
) -> Learned:
    documents = tokens.features([(one.title, one.text) for one in own] + others)
    was, now = (category.probabilities(documents, weights).argmax(axis=1) for weights in (before, after))
    right = [
        sum(CLASSES[found] in one.allowed for one, found in zip(own, classes, strict=False)) for classes in (was, now)
    ]
    moved = int(np.count_nonzero(was[len(own) :] != now[len(own) :]))
    return Learned(language, len(own), len(others), right[0], right[1], moved)
