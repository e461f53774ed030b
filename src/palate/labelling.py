"""Which question an annotator is asked next, how far annotators agree, and what the models would say.

Asked is what others disagree on, then what too few have answered, then what the models are least certain of, spread over sources
and languages (Lewis and Gale, "A sequential algorithm for training text classifiers", 1994: uncertainty sampling). Now and then a
question comes whose answer is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import database, identities, labels
from palate.agreement import Matrix, cohen_kappa, coincidences, krippendorff_alpha
from palate.labels import ALONE, SKIPPED, VALUES, Answer, LabelParams, Question, Task
from palate.text import embedding, understanding
from palate.text.category import CLASSES, NOT_NEWS

NEWEST = 2000
"""Live items that are looked at for new questions."""
PAIRED = 600
"""Of these so many are compared with one another."""
PAIRS = 200
"""Closest pairs of a language that are candidates."""
SPREAD = 0.5
"""A source or language with all the answers so far stands back by so much uncertainty."""
POSITIONS = {"importance": (-1.0, 0.0, 1.0)}
"""Where the answers of a task stand on a scale; those of others are equal or not."""
_DAY = 86_400_000


class Candidate(NamedTuple):
    """A question that may be asked."""

    question: Question
    certainty: float
    """How certain the models are of the answer, 0 to 1."""
    source: int | None
    language: str | None


@dataclass(frozen=True)
class Annotator:
    """What is known of one person's answers to one task."""

    name: str
    answers: int
    right: int
    """Of the questions whose answer is known."""
    known: int
    counts: bool
    """Whether their answers are heard."""


@dataclass(frozen=True)
class Standing:
    """How far one task is, and how well its annotators agree."""

    task: Task
    answers: int
    questions: int
    agreed: Mapping[str, int]
    """How many questions each answer holds for."""
    shared: int
    """Questions that several answered."""
    alpha: float | None
    """Krippendorff's; None where it has no meaning."""
    kappa: float | None
    """Cohen's, of the only two annotators; None where there are more or fewer."""
    table: Matrix
    """Coincidences of the answers, in the order of VALUES."""
    annotators: tuple[Annotator, ...]


def next_question(
    connection: sa.Connection,
    annotator: int,
    task: Task,
    params: LabelParams,
    similarity: float,
    generator: np.random.Generator,
) -> Question | None:
    """What this person is asked next, never the same twice; None when there is nothing left.

    `similarity`: from which on two items are one story by their texts.
    """
    said = labels.answers(connection, task)
    mine = {one.question for one in said if one.annotator == annotator}
    others = {asked: own for asked, own in _of_others(said, annotator).items() if asked not in mine}
    others = _still_there(connection, others)
    test = [asked for asked, own in others.items() if labels.known_answer(own, params) is not None]
    if test and generator.random() < params.honeypots:
        return test[int(generator.integers(len(test)))]
    waiting = _waiting(others, labels.agreed(connection, task), params)
    if waiting:
        return waiting
    asked_already = mine | {one.question for one in said}
    fresh = [one for one in _candidates(connection, task, similarity) if one.question not in asked_already]
    return _least_certain(connection, fresh, said)


def standing(connection: sa.Connection, task: Task, params: LabelParams) -> Standing:
    """How far a task is."""
    said = labels.answers(connection, task)
    given = labels.by_question(said)
    values = VALUES[task]
    table = coincidences([[values.index(one.value) for one in own] for own in given.values()], len(values))
    return Standing(
        task=task,
        answers=sum(map(len, given.values())),
        questions=len(given),
        agreed=Counter(labels.agreed(connection, task).values()),
        shared=sum(len(own) > 1 for own in given.values()),
        alpha=krippendorff_alpha(table, POSITIONS.get(task)),
        kappa=_kappa(given, values),
        table=table,
        annotators=_annotators(connection, said, params),
    )


def _kappa(given: Mapping[Question, Sequence[Answer]], values: Sequence[str]) -> float | None:
    names = sorted({one.annotator for own in given.values() for one in own})
    if len(names) != 2:
        return None
    confusion = np.zeros((len(values), len(values)))
    for own in given.values():
        if len(own) == 2:
            first, second = sorted(own, key=lambda one: one.annotator)
            confusion[values.index(first.value), values.index(second.value)] += 1
    return cohen_kappa(confusion)


def _annotators(connection: sa.Connection, said: Sequence[Answer], params: LabelParams) -> tuple[Annotator, ...]:
    users, found = database.users, []
    tested = labels.tested(said, params)
    counts = Counter(one.annotator for one in said if one.value != SKIPPED)
    rows = [
        row
        for chunk in identities.chunks(sorted(tested))
        for row in connection.execute(sa.select(users.c.key, users.c.id).where(users.c.key.in_(chunk)))
    ]
    for row in rows:
        right, known = tested[row.key]
        heard = labels.is_heard(right, known, params)
        found.append(Annotator(row.id, counts[row.key], right, known, heard))
    return tuple(sorted(found, key=lambda one: (-one.answers, one.name)))


# What is asked


def _of_others(said: Sequence[Answer], annotator: int) -> dict[Question, list[Answer]]:
    return labels.by_question(one for one in said if one.annotator != annotator)


def _still_there(connection: sa.Connection, found: dict[Question, list[Answer]]) -> dict[Question, list[Answer]]:
    items, wanted = database.items, sorted({key for asked in found for key in asked[1:] if key != ALONE})
    live: set[int] = set()
    for chunk in identities.chunks(wanted):
        live.update(connection.scalars(sa.select(items.c.key).where(items.c.key.in_(chunk), items.c.state == "live")))
    return {asked: own for asked, own in found.items() if {*asked[1:]} <= live | {ALONE}}


def _waiting(
    others: Mapping[Question, Sequence[Answer]], agreed: Collection[Question], params: LabelParams
) -> Question | None:
    """What others disagree on, or else what too few have answered; what an owner is certain of needs nobody more."""
    open_ = {asked: own for asked, own in others.items() if not any(one.gold for one in own)}
    disputed = sorted(asked for asked in open_ if asked not in agreed)
    few = sorted(asked for asked, own in open_.items() if len(own) < params.overlap)
    return next(iter(disputed + few), None)


def _least_certain(connection: sa.Connection, fresh: Sequence[Candidate], said: Sequence[Answer]) -> Question | None:
    if not fresh:
        return None
    items = database.items
    sources, languages = Counter[int | None](), Counter[str | None]()
    for chunk in identities.chunks(sorted({one.question.item for one in said})):
        rows = connection.execute(sa.select(items.c.source, items.c.language).where(items.c.key.in_(chunk)))
        for source, language in rows:
            sources[source] += 1
            languages[language] += 1
    total = max(sources.total(), 1)

    def cost(one: Candidate) -> tuple[float, Question]:
        held = (sources[one.source] + languages[one.language]) / (2 * total)
        return one.certainty + SPREAD * held, one.question

    return min(fresh, key=cost).question


def _candidates(connection: sa.Connection, task: Task, similarity: float) -> list[Candidate]:
    if task == "story":
        return _pairs(connection, similarity)
    return _stories(connection) if task == "importance" else _texts(connection, task)


_ITEMS, _FOUND = database.items, database.understandings
_LIVE = (
    sa.select(*(_ITEMS.c[name] for name in ("key", "source", "language", "category", "story", "published", "received")))
    .where(_ITEMS.c.state == "live")
    .order_by(_ITEMS.c.key.desc())
)

_HAS_LEAD = _FOUND.c.lead.is_not(None) & (_FOUND.c.version == understanding.VERSION)


def _texts(connection: sa.Connection, task: Task) -> list[Candidate]:
    """By the distance between the two likeliest answers."""
    found = []
    query = _LIVE.join(_FOUND, _FOUND.c.item == _ITEMS.c.key).add_columns(_FOUND.c.probabilities)
    for row in connection.execute(query.where(_FOUND.c.probabilities.is_not(None)).limit(NEWEST)):
        likely = np.frombuffer(row.probabilities, "<f4")
        if task == "news":
            certainty = abs(2 * float(likely[CLASSES.index(NOT_NEWS)]) - 1)
        else:
            second, first = np.sort(likely)[-2:]
            certainty = float(first - second)
        found.append(Candidate(Question(task, row.key), certainty, row.source, row.language))
    return found


def _stories(connection: sa.Connection) -> list[Candidate]:
    """The larger a story, the more its importance decides: of each the first item is asked about."""
    rows = connection.execute(_LIVE.where(_ITEMS.c.category.is_not(None)).limit(NEWEST)).all()
    sizes = Counter(row.key if row.story is None else row.story for row in rows)
    return [
        Candidate(Question("importance", row.key), 1 / sizes[row.key], row.source, row.language)
        for row in rows
        if row.story in (None, row.key)
    ]


def _pairs(connection: sa.Connection, similarity: float) -> list[Candidate]:
    """Pairs of one language within a day whose similarity is closest to the threshold."""
    query = _LIVE.join(_FOUND, _FOUND.c.item == _ITEMS.c.key).add_columns(_FOUND.c.lead)
    rows = connection.execute(query.where(_HAS_LEAD, _ITEMS.c.language.is_not(None)).limit(PAIRED))
    groups: dict[str, list[sa.Row[tuple[object, ...]]]] = {}
    for row in rows:
        groups.setdefault(row.language, []).append(row)
    return [one for language, own in sorted(groups.items()) for one in _borderline(own, language, similarity)]


def _borderline(rows: Sequence[sa.Row[tuple[object, ...]]], language: str, similarity: float) -> list[Candidate]:
    vectors = _vectors(rows)
    times = np.array([row.received if row.published is None else row.published for row in rows], np.int64)
    sources = np.array([-row.key if row.source is None else row.source for row in rows], np.int64)
    distance = np.abs(vectors @ vectors.T - similarity)
    apart = (np.abs(times[:, None] - times[None, :]) > _DAY) | (sources[:, None] == sources[None, :])
    distance[apart | np.tri(len(rows), dtype=np.bool_)] = np.inf
    found = []
    for place in np.argsort(distance, axis=None, kind="stable")[:PAIRS].tolist():
        one, other = divmod(place, len(rows))
        if np.isfinite(distance[one, other]):
            asked = labels.question("story", rows[one].key, rows[other].key)
            found.append(Candidate(asked, float(distance[one, other]), rows[one].source, language))
    return found


# What the models say


def guessed(connection: sa.Connection, asked: Question) -> tuple[str, float] | None:
    """What the models answer: the likeliest class with its probability, or of a pair its similarity. None: they don't know."""
    rows = {row.item: row for row in connection.execute(sa.select(_FOUND).where(_FOUND.c.item.in_(asked[1:])))}
    if asked.task == "story":
        told = [row for row in rows.values() if row.lead is not None and row.version == understanding.VERSION]
        return ("same", float(np.prod(_vectors(told), axis=0).sum())) if len(told) == 2 else None
    row = rows.get(asked.item)
    if asked.task == "importance" or row is None or row.probabilities is None:
        return None
    likely = np.frombuffer(row.probabilities, "<f4")
    if asked.task == "news":
        news = 1 - float(likely[CLASSES.index(NOT_NEWS)])
        return ("yes", news) if news >= 0.5 else ("no", 1 - news)
    return CLASSES[int(likely.argmax())], float(likely.max())


def nearest(connection: sa.Connection, item: int, limit: int, window: int) -> list[int]:
    """Keys of the live items whose beginnings are most like this one's, the most alike first; none without a known text.

    Of its language, and no further from it in time than `window` milliseconds.
    """
    query = _LIVE.join(_FOUND, _FOUND.c.item == _ITEMS.c.key).add_columns(_FOUND.c.lead)
    query = query.where(_HAS_LEAD)
    own = connection.execute(query.where(_ITEMS.c.key == item)).one_or_none()
    if own is None:
        return []
    time = sa.func.coalesce(_ITEMS.c.published, _ITEMS.c.received)
    at = own.received if own.published is None else own.published
    near = (_ITEMS.c.language == own.language) & (_ITEMS.c.key != item) & time.between(at - window, at + window)
    rows = connection.execute(query.where(near).limit(NEWEST)).all()
    if not rows:
        return []
    order = np.argsort(-(_vectors(rows) @ _vectors([own])[0]), kind="stable")
    return [rows[place].key for place in order[:limit].tolist()]


def _vectors(rows: Sequence[sa.Row[tuple[object, ...]]]) -> NDArray[np.float32]:
    """(n, embedding.LENGTH) of the items' beginnings."""
    return embedding.unpacked([row.lead for row in rows]).vectors.astype(np.float32)
