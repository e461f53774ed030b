"""Draws of logs as small as a new installation's, each with what is asked of a model that has learned it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from bench_factorization_machine import DESKDROP, MOVIELENS, interactions, read_deskdrop, read_movielens
from numpy.typing import NDArray

from palate import metrics, splits
from palate.domain import Interactions
from palate.evaluation import world as worlds
from palate.evaluation.world import HOUR, Truths, World, WorldParams
from palate.models import factorization_machine as fm
from palate.models.factorization_machine import NO_SOURCES, FactorizationMachine, ItemSources
from palate.models.fields import Field
from palate.vocabulary import vocabulary

EACH, NEXT, OUT = 12, 100, 48
"""Votes of a person in the mean, votes of theirs that are asked about at most, hours of which a simulated reader is offered items."""

Judged = tuple[float, float, float]
"""Mean loss, mean AUC within people, and nDCG@10 within people or, where the truth is known, how much of the first ten is liked."""


@dataclass(frozen=True, eq=False)
class Draw:
    """A log, and the judge of a model."""

    log: Interactions
    judge: Callable[[FactorizationMachine], Judged]
    fields: tuple[Field, ...] = ()
    sources: ItemSources = NO_SOURCES


def draws(data: Path) -> dict[str, Callable[[int, np.random.Generator], Draw]]:
    """By name what draws a log of so many votes."""
    films, genres = read_movielens(data / MOVIELENS), _genres(data / MOVIELENS)
    read = read_deskdrop(data / DESKDROP)
    return {
        "MovieLens, genres": lambda votes, random: _people(films, genres, votes, random),
        "MovieLens, 200 films, genres": lambda votes, random: _people(_some(films, 200, random), genres, votes, random),
        "Deskdrop": lambda votes, random: _people(read, (), votes, random),
        "two tastes, votes without noise": _two_tastes,
        "simulated readers, by chance": lambda votes, random: _simulated(votes, random, WorldParams(readers=40)),
        "simulated, 12 readers, 4 topics": lambda votes, random: _simulated(
            votes, random, WorldParams(readers=12, items_per_hour=2, topics=4)
        ),
        "simulated, no tastes": lambda votes, random: _simulated(
            votes, random, WorldParams(readers=40, items_per_hour=3, taste_spread=0, loyalty_spread=0)
        ),
    }


def _some(found: Interactions, items: int, random: np.random.Generator) -> Interactions:
    """Of so many of the items that most have voted on, drawn among three times as many."""
    keys, counts = np.unique(found.item, return_counts=True)
    wanted = random.choice(keys[np.argsort(-counts, kind="stable")[: 3 * items]], items, replace=False)
    return splits.rows(found, np.isin(found.item, wanted))


def _people(found: Interactions, fields: tuple[Field, ...], votes: int, random: np.random.Generator) -> Draw:
    """The earliest votes of some people; asked is about their next."""
    users, counts = np.unique(found.user, return_counts=True)
    able = users[counts >= EACH + 4]
    early, late = [], []
    for person in random.choice(able, min(len(able), max(2, round(votes / EACH))), replace=False):
        own = np.flatnonzero(found.user == person)
        own = own[np.argsort(found.time[own], kind="stable")]
        count = int(np.clip(random.poisson(EACH), 3, len(own) - 2))
        early.append(own[:count])
        late.append(own[count : count + NEXT])
    test = splits.rows(found, np.sort(np.concatenate(late)))
    return Draw(splits.rows(found, np.sort(np.concatenate(early))), lambda model: _on(model, test), fields)


def _on(model: FactorizationMachine, test: Interactions) -> Judged:
    scores, found = fm.score(model, test.user, test.item), []
    for person in np.unique(test.user):
        own = test.user == person
        liked = test.label[own] > np.median(test.label[own])
        if liked.any():  # those of one opinion alone aren't asked
            order = np.argsort(-scores[own], kind="stable")
            ndcg = float(metrics.ndcg_at(liked[order][np.newaxis].astype(np.float64), 10)[0])
            found.append((metrics.auc(liked.astype(np.float64), scores[own]), ndcg))
    loss = float(fm.losses(model, test.label, test.user, test.item).mean())
    auc, ndcg = np.mean(found, axis=0) if found else (np.nan, np.nan)
    return loss, float(auc), float(ndcg)


def _two_tastes(votes: int, random: np.random.Generator) -> Draw:
    """Everybody likes nine of the sixteen items of their kind and dislikes five of the other: asked is about all."""
    people, likes, dislikes = max(2, round(votes / 14)), 9, 5
    said = []
    for person in range(people):
        chosen = random.permutation(16)[:likes]
        said += [(person, 2 * item + person % 2, 1.0) for item in chosen]
        said += [(person, 2 * item + 1 - person % 2, 0.0) for item in chosen[:dislikes]]
    user, item, label = np.array(said).T
    all_users, all_items = np.divmod(np.arange(people * 32), 32)
    test = interactions(all_users, all_items, all_users % 2 == all_items % 2, np.zeros(people * 32))
    sources = np.arange(32) // 2 % 3
    field = Field("source", "item", np.arange(32), sources)
    log = interactions(user, item, label, random.permutation(len(user)))
    return Draw(log, lambda model: _on(model, test), (field,), ItemSources(np.arange(32), sources))


def _simulated(votes: int, random: np.random.Generator, params: WorldParams) -> Draw:
    """Votes of simulated readers on what they are shown by chance; asked is what they truly like of what is out at the end."""
    world = worlds.create(params, int(random.integers(1 << 30)), datetime(2024, 1, 1, tzinfo=UTC))
    truths, tastes = worlds.joined([worlds.published(world, hour)[1] for hour in range(-OUT, 0)]), worlds.tastes(world)
    said: list[tuple[int, int, float, int]] = []
    hour = 0
    while len(said) < votes:
        if hour:
            truths = worlds.joined([truths, worlds.published(world, hour - 1)[1]])
            tastes = worlds.drifted(world, tastes, hour)
        for visit in worlds.visits(world, hour):
            said += _visit(world, truths, tastes, visit)
        hour += 1
    user, item, label, time = np.array(said[:votes], np.float64).T
    once = np.unique(user * len(truths) + item, return_index=True)[1]
    log = interactions(user[once], item[once], label[once], time[once])
    items = np.arange(len(truths))
    labelled = items[world.labels[truths.source]]
    fields = (
        Field("source", "item", items, truths.source),
        Field("label", "item", labelled, truths.topics.argmax(axis=1)[labelled]),
    )
    out = items[truths.published >= log.time.max() - OUT * HOUR]
    people = np.unique(log.user)
    liked = np.array(
        [worlds.liking(world, tastes, person, truths.of(out), int(log.time.max())) for person in people.tolist()]
    )
    known = np.zeros((len(people), len(truths)), bool)
    known[np.searchsorted(people, log.user), log.item] = True
    judge = lambda model: _on_truth(model, people, out, np.where(known[:, out], np.nan, liked), fields)  # noqa: E731
    return Draw(log, judge, fields, ItemSources(items, truths.source))


def _visit(
    world: World, truths: Truths, tastes: NDArray[np.float64], visit: worlds.Visit
) -> list[tuple[int, int, float, int]]:
    """Reader, item, label and time of the votes on one page."""
    random = worlds.chance(world, visit, 0)
    shown = random.permutation(len(truths))[: world.params.page]
    liked = worlds.liking(world, tastes, visit.reader, truths, visit.time)[shown]
    looked_at = worlds.examination(world.params, np.arange(len(shown)))
    page = worlds.Page("", "", "", visit.time, tuple(map(str, shown)))
    done = worlds.deeds(page, looked_at, worlds.attraction(liked, truths.of(shown)), liked, world.params, random)
    votes = [event for event in done if event.type in ("like", "dislike")]
    return [(visit.reader, int(event.item), float(event.type == "like"), event.time or 0) for event in votes]


def _on_truth(
    model: FactorizationMachine,
    people: NDArray[np.int64],
    items: NDArray[np.int64],
    liked: NDArray[np.float64],
    fields: tuple[Field, ...],
) -> Judged:
    """`liked` (people, items) is NaN for what isn't asked."""
    new = vocabulary(items[model.items.rows(items) < 0])
    bias, vectors = fm.start_of_items(model, fields, new)
    rows = model.users.rows(people)
    raw = model.base + model.user_bias[rows, np.newaxis] + bias + model.user_vectors[rows] @ vectors.T
    scores = fm.score(model, people[:, np.newaxis], items).copy()
    scores[:, np.searchsorted(items, new.keys)] = fm.link(raw, model.loss)
    aucs, tops = [], []
    for own, truth in zip(scores, liked, strict=True):
        asked = ~np.isnan(truth)
        better = truth[asked] > np.median(truth[asked])
        aucs.append(metrics.auc(better.astype(np.float64), own[asked]))
        tops.append(truth[asked][np.argsort(-own[asked], kind="stable")[:10]].mean())
    return float(np.nanmean((scores - liked) ** 2)), float(np.mean(aucs)), float(np.mean(tops))


@cache
def _genres(path: Path) -> tuple[Field, ...]:
    names: dict[str, int] = {}
    with open(path.with_name("movies.csv"), encoding="utf-8", newline="") as file:
        pairs = [
            (int(film["movieId"]), names.setdefault(genre, len(names)))
            for film in csv.DictReader(file)
            for genre in film["genres"].split("|")
        ]
    owners, labels = np.array(pairs).T
    return (Field("label", "item", owners, labels),)
