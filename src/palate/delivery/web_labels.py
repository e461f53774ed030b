"""The page on which owners and the annotators they named label texts, and how an owner corrects one item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import numpy as np
import sqlalchemy as sa
from starlette.responses import Response

from palate import catalog, database, labelling, labels, people
from palate.catalog import StoredItem
from palate.database import reading, writing
from palate.delivery.refusals import Refusal
from palate.delivery.web_cards import TITLE, web_address
from palate.delivery.web_page import Visit, draw, needs_owner, see_other
from palate.errors import NotFound
from palate.labelling import Standing
from palate.labels import ALONE, SKIPPED, VALUES, Answer, Question, Task
from palate.text.category import CLASSES
from palate.text.cleaning import plain_line, to_plain

BEGINNING = 900
"""Characters of a text that are shown."""
NOBODY = 0
"""Stands for the key of a person who has done nothing yet."""
NEAREST = 8
"""Items that are offered as of the same story."""
_ASKED: dict[Task, str] = {
    "category": "What is it about?",
    "news": "Is it news?",
    "story": "Do both tell of the same event?",
    "importance": "How important is it?",
}
_NAMES = {
    "not_news": "not news",
    "yes": "news",
    "no": "not news",
    "same": "the same event",
    "different": "different events",
    "0.5": "less than it seems",
    "1": "as it seems",
    "2": "more than it seems",
}
_OTHER_KEYS = {"not_news": "n", "no": "n", "different": "n", "yes": "y", "same": "y"}


@dataclass(frozen=True)
class Shown:
    """A text in a question."""

    id: str
    title: str
    beginning: str
    source: str
    language: str | None
    href: str | None
    time: str


@dataclass(frozen=True)
class Button:
    """An answer that can be given."""

    value: str
    name: str
    keys: str
    """Those that press it, blank-separated."""
    was: bool = False
    """Whether the person said so before."""


def labels_page(visit: Visit) -> Response:
    """One question, and how far its task is."""
    task, guessing = _task(visit.query.get("task", "")), visit.query.get("guess") == "1"
    with reading(visit.serving.engine) as connection:
        needs_annotator(visit, connection)
        person = visit.person(connection) or NOBODY
        asked = _again(visit, task) or _next(visit, connection, person, task)
        stored = catalog.get_many(connection, [key for key in asked[1:] if key]) if asked else {}
        before = _before(connection, person, asked)
        last = _last(visit, connection, person, task)
        guess = _guess(connection, asked) if asked and guessing else None
        standing = labelling.standing(connection, task, visit.serving.params.labels)
        is_owner = visit.may_change(connection)
    return draw(
        visit,
        "labels.html",
        here="/labels",
        tasks=[(name, name == task) for name in labels.TASKS],
        task=task,
        asked=_ASKED[task],
        question=asked,
        texts=[_shown(visit, stored[key]) for key in asked[1:] if key in stored] if asked else [],
        buttons=_buttons(task, before),
        guessing=guessing,
        guess=guess,
        last=last,
        is_owner=is_owner,
        standing=_words(standing),
    )


def answer(visit: Visit) -> Response:
    """Keep an answer, which counts at once, and go on to the next question."""
    task, guessing = _task(visit.given("task")), visit.given("guess") == "1"
    asked = labels.question(task, _key(visit.given("item")), _key(visit.given("other")))
    with writing(visit.serving.engine) as connection:
        needs_annotator(visit, connection)
        gold = visit.given("gold") == "1" and visit.may_change(connection)
        said = Answer(visit.make_person(connection), asked, visit.given("value"), gold)
        labels.put(connection, [said], visit.serving.params.labels, visit.now)
    visit.serving.live.refresh(visit.now)
    query = {"task": task, "last": f"{asked.item}.{asked.other}"} | ({"guess": "1"} if guessing else {})
    return see_other(visit, f"/labels?{urlencode(query)}")


def correct(visit: Visit) -> Response:
    """Take an owner's correction of one item for certain; then its page, as it is now."""
    needs_owner(visit)
    task, id = _task(visit.given("task")), visit.given("item")
    with writing(visit.serving.engine) as connection:
        stored = catalog.get(connection, id)
        other = catalog.get(connection, visit.given("other")) if task == "story" else None
        if stored is None or (task == "story" and other is None):
            raise NotFound("This item is no longer there.")
        asked = labels.question(task, stored.key, other.key if other else ALONE)
        said = Answer(visit.make_person(connection), asked, visit.given("value"), gold=True)
        labels.put(connection, [said], visit.serving.params.labels, visit.now)
    visit.serving.live.refresh(visit.now)
    return see_other(visit, f"/item/{quote(id, safe='')}#correct")


def needs_annotator(visit: Visit, connection: sa.Connection) -> None:
    """Raises Refusal when this person may not label."""
    if visit.may_change(connection):
        return
    person = visit.person(connection)
    if person is None or not people.choices(connection, person).annotator:
        raise Refusal(403, "forbidden", "Only an owner of this server, and whom they named an annotator, can label.")


@dataclass(frozen=True)
class Correction:
    """What an owner may correct of one item."""

    category: str
    """As it counts now: one of CLASSES, or unknown."""
    classes: tuple[str, ...]
    mark: str
    marks: tuple[tuple[str, str], ...]
    others: tuple[tuple[str, str], ...]
    """Id and title of the others of its story."""
    near: tuple[tuple[str, str], ...]
    """Those that are most like it, of other stories."""


def correction(visit: Visit, connection: sa.Connection, stored: StoredItem) -> Correction:
    """What stands beside an item for its owner."""
    items = database.items
    row = connection.execute(
        sa.select(items.c.category, items.c.story, items.c.mark).where(items.c.key == stored.key)
    ).one()
    told = connection.scalar(sa.select(sa.func.count()).where(database.understandings.c.item == stored.key))
    category = row.category or ("not_news" if told else "unknown")
    of_story = (items.c.story == row.story) & (items.c.key != stored.key) & (items.c.state == "live")
    others = (
        [] if row.story is None else connection.scalars(sa.select(items.c.key).where(of_story).limit(NEAREST)).all()
    )
    near = labelling.nearest(connection, stored.key, NEAREST, visit.serving.params.stories.window)
    named = catalog.get_many(connection, [*others, *near])
    return Correction(
        category=category,
        classes=CLASSES,
        mark=f"{1.0 if row.mark is None else row.mark:g}",
        marks=(("0.5", "× ½"), ("1", "× 1"), ("2", "× 2")),
        others=_ids(named, others),
        near=_ids(named, [key for key in near if key not in others]),
    )


def _ids(named: dict[int, StoredItem], keys: Sequence[int]) -> tuple[tuple[str, str], ...]:
    found = [named[key] for key in keys if key in named]
    return tuple((one.item.id, f"{one.item.title or 'Untitled'} · {_source(one)}") for one in found)


# The parts of the page


def _task(name: str) -> Task:
    return next((task for task in labels.TASKS if task == name), "category")


def _key(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else ALONE


def _again(visit: Visit, task: Task) -> Question | None:
    """A question that was answered before, to be answered anew."""
    item, _, other = visit.query.get("again", "").partition(".")
    return labels.question(task, _key(item), _key(other)) if _key(item) else None


def _next(visit: Visit, connection: sa.Connection, person: int, task: Task) -> Question | None:
    params = visit.serving.params
    threshold = params.stories.clustering.similarity
    return labelling.next_question(connection, person, task, params.labels, threshold, np.random.default_rng())


def _before(connection: sa.Connection, person: int, asked: Question | None) -> str | None:
    if asked is None:
        return None
    said = labels.answers(connection, asked.task)
    return next((one.value for one in said if (one.annotator, one.question) == (person, asked)), None)


@dataclass(frozen=True)
class Last:
    """The answer that was just given."""

    title: str
    value: str
    again: str


def _last(visit: Visit, connection: sa.Connection, person: int, task: Task) -> Last | None:
    item, _, other = visit.query.get("last", "").partition(".")
    if not _key(item):
        return None
    asked = Question(task, _key(item), _key(other))
    value = _before(connection, person, asked)
    kept = labels.texts(connection, [asked.item]).get(asked.item)
    if value is None or kept is None:
        return None
    title = plain_line(kept.title, TITLE) or "Untitled"
    return Last(title, "skipped" if value == SKIPPED else _NAMES.get(value, value), f"{asked.item}.{asked.other}")


def _buttons(task: Task, before: str | None) -> list[Button]:
    return [
        Button(value, _NAMES.get(value, value), f"{number} {_OTHER_KEYS.get(value, '')}".strip(), value == before)
        for number, value in enumerate(VALUES[task], 1)
    ]


def _shown(visit: Visit, stored: StoredItem) -> Shown:
    text = to_plain(stored.item.text or "")
    time = stored.item.published or stored.received
    return Shown(
        id=stored.item.id,
        title=stored.item.title or "Untitled",
        beginning=text[:BEGINNING] + ("…" if len(text) > BEGINNING else ""),
        source=_source(stored),
        language=stored.item.language,
        href=web_address(stored.item.url),
        time=f"{time.day} {time:%b %Y, %H:%M}",
    )


def _source(stored: StoredItem) -> str:
    return stored.source_title or plain_line(stored.item.source, TITLE) or "no source"


def _guess(connection: sa.Connection, asked: Question) -> str:
    """What the models say of it, in words."""
    found = labelling.guessed(connection, asked)
    if asked.task == "importance":
        return "there is none"
    if found is None:
        return "nothing"
    value, number = found
    return f"similarity {number:.2f}" if asked.task == "story" else f"{_NAMES.get(value, value)}, {100 * number:.0f} %"


def _words(standing: Standing) -> dict[str, object]:
    values = VALUES[standing.task]
    used = np.flatnonzero(standing.table.any(axis=1))
    names = [_NAMES.get(value, value) for value in values]
    agreed = [(name, standing.agreed.get(value, 0)) for name, value in zip(names, values, strict=True)]
    return {
        "answers": standing.answers,
        "questions": standing.questions,
        "agreed": [(name, count) for name, count in agreed if count],
        "total": sum(standing.agreed.values()),
        "shared": standing.shared,
        "alpha": _figure(standing.alpha),
        "kappa": _figure(standing.kappa),
        "names": [names[place] for place in used],
        "rows": [(names[row], [f"{round(standing.table[row, column], 1):g}" for column in used]) for row in used],
        "annotators": standing.annotators,
    }


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
