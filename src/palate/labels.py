"""What people say of items' texts: their category, news or not, the same story or not, how important; and what follows from it.

    answers → those of reliable annotators → what is agreed → the items themselves, at once

An annotator's answers to questions whose answer is known (an owner is certain of it, or all others say the same) tell how
reliable they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities
from palate.domain import Understanding, to_milliseconds
from palate.errors import InvalidInput, NotFound
from palate.stories.ties import Ties
from palate.text.category import CATEGORIES, CLASSES, NOT_NEWS
from palate.text.cleaning import to_plain
from palate.text.understanding import TEXT_LIMIT

Task = Literal["category", "news", "story", "importance"]
TASKS: tuple[Task, ...] = get_args(Task)
VALUES: Mapping[Task, tuple[str, ...]] = {
    "category": CLASSES,
    "news": ("yes", "no"),
    "story": ("same", "different"),
    "importance": ("0.5", "1", "2"),
}
"""The answers that each question takes."""
SKIPPED = ""
"""Stands for an answer of somebody who couldn't tell: the question isn't asked again, and the answer doesn't count."""
ALONE = 0
"""Stands for the other item in a question about one."""


class LabelParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How texts are labelled by several people."""

    overlap: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Annotators who are asked the same question, where there are so many: by that their agreement is known."""
    honeypots: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    """Share of questions whose answer is known, by which annotators are tested."""
    unanimous: Annotated[int, msgspec.Meta(ge=2, le=100)] = 2
    """Others who must all have said the same before an answer counts as known."""
    least_known: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 5
    """Such questions that somebody must have answered before they are judged."""
    least_accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.7
    """Share of them that must be right, or else the annotator's answers don't count."""


class Question(NamedTuple):
    """What is asked: of one item, or whether two are of one story."""

    task: Task
    item: int
    """Key of the item."""
    other: int = ALONE
    """Key of a second item, higher than the first."""


class Answer(NamedTuple):
    """What one annotator said."""

    annotator: int
    """Key of the person."""
    question: Question
    value: str
    """One of VALUES, or SKIPPED."""
    gold: bool = False
    """Whether an owner is certain of it: it holds whatever others say, and tests them."""


class Text(NamedTuple):
    """An item's text as it was when it was labelled."""

    title: str
    text: str
    """Plain."""
    language: str | None


def question(task: Task, item: int, other: int = ALONE) -> Question:
    """The question, the same whichever of two items stands first. Raises InvalidInput for a pair of one item, or half a pair."""
    if (task == "story") != (other != ALONE) or item == other:
        raise InvalidInput("only for the same story are two items compared, and they must be two")
    return Question(task, item) if other == ALONE else Question(task, min(item, other), max(item, other))


def put(connection: sa.Connection, answers: Sequence[Answer], params: LabelParams, now: datetime) -> None:
    """Keep answers, each in the place of what its annotator said before, and let what follows from them count at once.

    The texts are kept with them. Raises InvalidInput for an answer that the question doesn't take, NotFound when an item is gone.
    """
    for one in answers:
        check_value(one.question.task, one.value)
    _keep_texts(connection, {key for one in answers for key in one.question[1:] if key != ALONE})
    for one in answers:
        _upsert(connection, one, to_milliseconds(now))
    for task in dict.fromkeys(one.question.task for one in answers):
        settle(connection, task, params, now)


def check_value(task: Task, value: str) -> None:
    """Raises InvalidInput for an answer that this question doesn't take."""
    if value not in (*VALUES[task], SKIPPED):
        raise InvalidInput(f"to this question only {', '.join(VALUES[task])} are answers")


def keep_texts(connection: sa.Connection, given: Mapping[int, Text]) -> None:
    """Keep texts of items that are to be labelled, by the item's key, where none is kept yet."""
    if given:
        insert = identities.insert_new(connection, database.labelled_items)
        rows = [{"item": key, **text._asdict()} for key, text in sorted(given.items())]
        connection.execute(insert.on_conflict_do_nothing(index_elements=["item"]), rows)


def settle(connection: sa.Connection, task: Task, params: LabelParams, now: datetime) -> None:
    """Let the items say what is agreed of them by now."""
    wanted, table = agreed_of(answers(connection, task), params), database.agreed_labels
    before = agreed(connection, task)
    for gone in before.keys() - wanted.keys():
        this = (table.c.task == task) & (table.c.item == gone.item) & (table.c.other == gone.other)
        connection.execute(sa.delete(table).where(this))
    changed = {asked: value for asked, value in wanted.items() if before.get(asked) != value}
    if changed:
        insert = identities.insert_new(connection, table)
        put_in = insert.on_conflict_do_update(
            index_elements=["task", "item", "other"], set_={"value": insert.excluded["value"]}
        )
        connection.execute(put_in, [asked._asdict() | {"value": value} for asked, value in sorted(changed.items())])
    _take_effect(
        connection, task, {asked: wanted.get(asked) for asked in changed.keys() | before.keys() - wanted.keys()}, now
    )


def answers(connection: sa.Connection, task: Task) -> list[Answer]:
    """All that was said, the oldest first, by persons: of one person who answered twice under two ids the newer answer."""
    table, users = database.label_answers, database.users
    person = sa.func.coalesce(users.c.person, users.c.key)
    query = sa.select(person, table.c.item, table.c.other, table.c.value, table.c.gold)
    query = query.select_from(table.join(users, users.c.key == table.c.annotator)).where(table.c.task == task)
    found: dict[tuple[int, Question], Answer] = {}
    for annotator, item, other, value, gold in connection.execute(query.order_by(table.c.time, table.c.item)):
        asked = Question(task, item, other)
        found.pop((annotator, asked), None)
        found[annotator, asked] = Answer(annotator, asked, value, bool(gold))
    return list(found.values())


def agreed(connection: sa.Connection, task: Task) -> dict[Question, str]:
    """What is agreed on, by question."""
    table = database.agreed_labels
    rows = connection.execute(sa.select(table.c.item, table.c.other, table.c.value).where(table.c.task == task))
    return {Question(task, row.item, row.other): row.value for row in rows}


# Who is believed


def agreed_of(said: Sequence[Answer], params: LabelParams) -> dict[Question, str]:
    """What follows from these answers: the newest that an owner is certain of, else what more than half of the reliable say."""
    heard_of = {name for name, (right, known) in tested(said, params).items() if is_heard(right, known, params)}
    found = {}
    for asked, own in by_question(said).items():
        certain = [one.value for one in own if one.gold]
        heard = Counter(one.value for one in own if one.annotator in heard_of)
        most = heard.most_common(1)
        if certain:
            found[asked] = certain[-1]
        elif most and 2 * most[0][1] > heard.total():
            found[asked] = most[0][0]
    return found


def tested(said: Sequence[Answer], params: LabelParams) -> dict[int, tuple[int, int]]:
    """Of each annotator how many questions whose answer is known they answered right, and how many in all.

    What an owner is certain of is a test, and isn't tested.
    """
    found: dict[int, tuple[int, int]] = {one.annotator: (0, 0) for one in said}
    for own in by_question(said).values():
        for one in [one for one in own if not one.gold]:
            right = known_answer([other for other in own if other.annotator != one.annotator], params)
            if right is not None:
                hits, total = found[one.annotator]
                found[one.annotator] = (hits + (one.value == right), total + 1)
    return found


def is_heard(right: int, known: int, params: LabelParams) -> bool:
    """Whether the answers of somebody count who answered so many of the questions with known answers right."""
    return known < params.least_known or right >= params.least_accuracy * known


def known_answer(said: Sequence[Answer], params: LabelParams) -> str | None:
    """What the answer to one question is for sure, as far as these say; None when they don't."""
    certain = [one.value for one in said if one.gold]
    if certain:
        return certain[-1]
    values = {one.value for one in said}
    return values.pop() if len(said) >= params.unanimous and len(values) == 1 else None


def by_question(said: Iterable[Answer]) -> dict[Question, list[Answer]]:
    """The answers to each question, without those that were skipped."""
    found: dict[Question, list[Answer]] = {}
    for one in said:
        if one.value != SKIPPED:
            found.setdefault(one.question, []).append(one)
    return found


# What counts for others


def marks(connection: sa.Connection, keys: Iterable[int] | None = None) -> dict[int, float]:
    """What the importance of its story is taken times, by the item's key (None: of all items); those not in it count 1."""
    items = database.items
    query = sa.select(items.c.key, items.c.mark).where(items.c.mark.is_not(None))
    if keys is None:
        return {row.key: row.mark for row in connection.execute(query)}
    chunks = identities.chunks(sorted(set(keys)))
    return {row.key: row.mark for chunk in chunks for row in connection.execute(query.where(items.c.key.in_(chunk)))}


def ties(connection: sa.Connection) -> Ties:
    """The pairs of items that are of one story, and those that aren't, whatever their texts say."""
    pairs = {(asked.item, asked.other): value for asked, value in sorted(agreed(connection, "story").items())}
    same, different = (tuple(pair for pair, value in pairs.items() if value == told) for told in VALUES["story"])
    return Ties(same, different)


def allowed(connection: sa.Connection, keys: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """The classes of `text.category.CLASSES` that an item may have by what is agreed; without those of which nothing is."""
    table, found = database.agreed_labels, dict[int, dict[str, str]]()
    query = sa.select(table.c.task, table.c.item, table.c.value).where(table.c.task.in_(("category", "news")))
    for chunk in identities.chunks(sorted(set(keys))):
        for row in connection.execute(query.where(table.c.item.in_(chunk))):
            found.setdefault(row.item, {})[row.task] = row.value
    return {key: classes_of(own.get("category"), own.get("news")) for key, own in found.items()}


def classes_of(category: str | None, news: str | None) -> tuple[str, ...]:
    """The classes that a text may have by what is agreed of it: a category says more than that it is news; () of nothing."""
    if category is not None:
        return (category,)
    return {None: (), "yes": CATEGORIES, "no": (NOT_NEWS,)}[news]


def corrected(connection: sa.Connection, keys: Sequence[int], found: Sequence[Understanding]) -> list[Understanding]:
    """What was found out about these items, with the category that people agreed on where they did."""
    may = allowed(connection, keys)
    return [
        replace(one, category=_category(one.probabilities, may[key])) if key in may else one
        for key, one in zip(keys, found, strict=True)
    ]


def texts(connection: sa.Connection, keys: Iterable[int]) -> dict[int, Text]:
    """The texts of labelled items as they were."""
    table, found = database.labelled_items, dict[int, Text]()
    for chunk in identities.chunks(sorted(set(keys))):
        rows = connection.execute(sa.select(table).where(table.c.item.in_(chunk)))
        found |= {row.item: Text(row.title, row.text, row.language) for row in rows}
    return found


def _category(probabilities: NDArray[np.float32] | None, may: Collection[str]) -> str | None:
    """The likeliest of the classes that it may have; None for what is no news, and where that can't be told."""
    if len(may) > 1 and probabilities is None:
        return None
    likely = np.ones(len(CLASSES)) if probabilities is None else probabilities
    best = CLASSES[int(np.where(np.isin(CLASSES, list(may)), likely, -1).argmax())]
    return None if best == NOT_NEWS else best


# Writing


def _keep_texts(connection: sa.Connection, keys: Collection[int]) -> None:
    items, kept = database.items, database.labelled_items
    known = set(texts(connection, keys))
    fresh = []
    for chunk in identities.chunks(sorted(set(keys))):
        rows = connection.execute(
            sa.select(items.c.key, items.c.title, items.c.text, items.c.language).where(
                items.c.key.in_(chunk), items.c.state.in_(("live", "hidden"))
            )
        )
        for row in rows:
            text = to_plain(row.text or "")[:TEXT_LIMIT]
            fresh.append({"item": row.key, "title": row.title or "", "text": text, "language": row.language})
    if set(keys) - known - {row["item"] for row in fresh}:
        raise NotFound("This item is no longer there.")
    if fresh:
        insert = identities.insert_new(connection, kept)
        new = {name: insert.excluded[name] for name in Text._fields}
        connection.execute(insert.on_conflict_do_update(index_elements=["item"], set_=new), fresh)


def _upsert(connection: sa.Connection, answer: Answer, time: int) -> None:
    """In the place of what the person said under any of their ids."""
    table, asked = database.label_answers, answer.question
    mine = table.c.annotator.in_(identities.aliases(connection, answer.annotator))
    this = (table.c.task == asked.task) & (table.c.item == asked.item) & (table.c.other == asked.other)
    connection.execute(sa.delete(table).where(mine & this))
    row = {"annotator": answer.annotator, "value": answer.value, "gold": int(answer.gold), "time": time}
    connection.execute(sa.insert(table).values(**asked._asdict(), **row))


def _take_effect(connection: sa.Connection, task: Task, changed: Mapping[Question, str | None], now: datetime) -> None:
    """`changed`: what is agreed now; None where nothing is any more."""
    time = to_milliseconds(now)
    if task in ("category", "news"):
        _reclassify(connection, [asked.item for asked in changed], time)
    elif task == "importance":
        for asked, value in sorted(changed.items()):
            _update(connection, [asked.item], {"mark": None if value in (None, "1") else float(value)}, time)
    else:
        for asked, value in sorted(changed.items()):
            _retell(connection, asked, value, time)


def _reclassify(connection: sa.Connection, keys: Sequence[int], time: int) -> None:
    may, table = allowed(connection, keys), database.understandings
    for chunk in identities.chunks(sorted(keys)):
        rows = connection.execute(sa.select(table.c.item, table.c.probabilities).where(table.c.item.in_(chunk)))
        likely = {row.item: np.frombuffer(row.probabilities, "<f4") for row in rows if row.probabilities is not None}
        for key in chunk:
            found = likely.get(key)
            category = _category(found, may.get(key, CLASSES))
            _update(connection, [key], {"category": category}, time)


def _retell(connection: sa.Connection, asked: Question, value: str | None, time: int) -> None:
    """Join or part two items' stories for the moment. `story_window` does it exactly: it sees that both have changed."""
    items = database.items
    rows = connection.execute(
        sa.select(items.c.key, items.c.story, items.c.leads).where(items.c.key.in_(asked[1:]))
    ).all()
    stories = {row.key: row.key if row.story is None else int(row.story) for row in rows}
    if value == "same" and len(set(stories.values())) == 2:
        first, second = sorted(stories.values())
        joined = {key: {"story": first, "leads": None} for key in _members(connection, second)}
        joined |= {key: {"story": first} for key in _members(connection, first) if key == first}
        for key, values in joined.items():
            _update(connection, [key], values, time)
    elif value == "different" and len(rows) == 2 and len(set(stories.values())) == 1:
        leaves = max(rows, key=lambda row: (not row.leads, row.key)).key
        others = [key for key in _members(connection, stories[leaves]) if key != leaves]
        _update(connection, others, {"story": min(others)}, time)
        _update(connection, [leaves], {"story": None, "leads": None}, time)
    _update(connection, asked[1:], {}, time)


def _members(connection: sa.Connection, story: int) -> list[int]:
    items = database.items
    return list(connection.scalars(sa.select(items.c.key).where((items.c.story == story) | (items.c.key == story))))


def _update(connection: sa.Connection, keys: Sequence[int], values: Mapping[str, Any], time: int) -> None:
    """Followers of the catalog see these items changed."""
    items = database.items
    change = sa.update(items).where(items.c.key.in_(keys), items.c.state == "live")
    connection.execute(change.values(**values, updated=time))
