"""The feed loop: one request for a feed, or for the order of given items, answered from the live state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import catalog, cursors, identities, lists
from palate.candidates import exploration, filters, fresh, personal, popular, stories
from palate.cursors import Session
from palate.database import reading
from palate.domain import Also, Event, EventColumns, Feed, FeedRequest, Item, RankedItem, to_milliseconds
from palate.errors import InvalidInput
from palate.live import Live, Person, State
from palate.models.registry import Name
from palate.pool import Pool, of_keys, take
from palate.ranking import arranging, asking, explanation, scoring
from palate.ranking.arranging import Place, Spread
from palate.ranking.scoring import Judgement
from palate.ranking.taste import TasteParams
from palate.surface_params import SurfaceParams

Append = Callable[[Sequence[Event]], None]

DAY = 86_400_000
"""Milliseconds."""

ALSO = 5
"""Others of its story that are named with an item at most."""

ANYWHERE = SurfaceParams()
"""A surface that the settings don't name."""

UNKNOWN = -1
"""Stands for the key of an item that nobody has named; no key is negative."""


class FeedParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person is served."""

    model: Name = "fm"
    """By which people's items are scored; training learns it besides those of `train.models`. Where a snapshot lacks it, or found
    it worse than popularity, it is `fm`, and where that is missing popularity, with each person's own sources and labels."""
    window_days: Annotated[float, msgspec.Meta(gt=0, le=36_500)] = 7.0
    """Items published longer ago than so many days are not served, unless a person or a request wants another window.
    Items without a date never go stale."""
    limit_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200
    """Items in one answer at most."""
    first_items: Annotated[int, msgspec.Meta(ge=0)] = 30
    """So many items a new person gets by what everybody likes, until their first vote."""
    questions: Annotated[int, msgspec.Meta(ge=0, le=100)] = 10
    """Until somebody has given so many votes, one item in three is chosen for what a vote on it would tell about all others,
    among those that they may well like; 0 asks nothing. It takes a snapshot."""
    exploration: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    """Share of places that go to items of which little is known."""
    exploration_evidence: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    """Little is known of an item with fewer (recent) examples than this."""
    exploration_pool: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    """The newest items of which little is known: one of these is drawn."""
    candidates: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 300
    """Items with the best scores that are looked at when the list is arranged."""
    source_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    """Part of its value that an item loses for each of the ten places before it that its own source has."""
    label_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    """The same for each with the same first label: one like doesn't fill the whole page with its kind."""
    first_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3
    """The same for a new person, by source and by chosen topic."""
    freshness: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3
    """Part of its value that an item loses with age at most."""
    half_life_days: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """Days after which half of that part is lost."""
    bring_back_minutes: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """Items shown so long ago and neither viewed nor acted on come back when nothing new is left."""
    taste: TasteParams = TasteParams()
    """How fast a person's own votes move their feed."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a person's model thinks of every item of the pool (n), and what it would serve now."""

    keys: NDArray[np.int64]
    scores: NDArray[np.float32]
    """Estimated probability, 0..1, that the person likes the item."""
    served: NDArray[np.bool_]
    """True for what the next call would bring, exploration aside."""
    threshold: float | None
    """The lowest score among the served; None when nothing is."""


@dataclass(frozen=True, eq=False)
class _Scored:
    """A person's view of the whole pool (n)."""

    pool: Pool
    person: Person
    judgement: Judgement
    scores: NDArray[np.float32]
    """Probabilities."""
    values: NDArray[np.float32]
    """What the order goes by: scores, less for old items."""


def serve(
    live: Live,
    request: FeedRequest,
    params: FeedParams,
    rng: np.random.Generator,
    append: Append,
    within: sa.Connection | None = None,
) -> Feed:
    """The next items for a person: from their list, if the surface has lists and enough is left of theirs, else found, scored and
    explained now; what was shown is logged.

    `append` makes the events of what was shown durable before it returns. `within` is a transaction to read in, which sees what
    it wrote itself; None: one of its own. The list is empty when nothing is left. Raises InvalidCursor, InvalidInput for a user
    id that can't be one, and whatever `append` raises.
    """
    surface, secret, id = live.surfaces.get(request.surface, ANYWHERE), live.secret, rng.bytes(16).hex()
    state = live.state.by(surface.model)
    with nullcontext(within) if within is not None else reading(live.engine) as connection:
        person = _person(connection, live, request.user, state)
        session = _session(request, person, secret, id)
        limit = min(request.limit, surface.limit or params.limit_max, params.limit_max, session.room(request.log))
        asked = _Asked(request, person, session, surface, limit)
        listed = _from_list(connection, state.pool, asked, params)
        items, version = listed or _scored_now(connection, live, state, asked, params, rng)
    if request.log and items:
        append(shown(items, id, request, version))
    session = session.after([item.key for item in items], request.log, person.key, request.now)
    return Feed(id, items, cursors.write(session, secret), version)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Who asks for what, where."""

    request: FeedRequest
    person: Person
    session: Session
    surface: SurfaceParams
    limit: int


_Answer = tuple[tuple[RankedItem, ...], str | None]
"""Items, and the version of the model that scored them."""


def _scored_now(
    connection: sa.Connection, live: Live, state: State, asked: _Asked, params: FeedParams, rng: np.random.Generator
) -> _Answer:
    """Find candidates, filter, score, arrange, explain."""
    request, session = asked.request, asked.session
    scored = _score(state, asked.person, request.now, params)
    allowed = _allowed(connection, state.pool, asked, params)
    unseen = _unseen(scored, allowed)
    places = _arrange(scored, unseen, asked.limit, params.exploration, params, rng)
    places = _with_questions(scored, unseen, places, session.places, params)
    if len(places) < asked.limit:
        again = _again(connection, live, scored, places, allowed, session, request.now, params)
        places += _arrange(scored, again, asked.limit - len(places), 0.0, params, rng)
    return _explain(connection, scored, places, session.places, request.now), state.pool.model.version


def visit(
    live: Live, history: EventColumns, request: FeedRequest, params: FeedParams, rng: np.random.Generator
) -> tuple[RankedItem, ...]:
    """The items for somebody of whom nothing is known but these events (`user` is of no meaning); nothing is logged."""
    state = live.state
    with reading(live.engine) as connection:
        person = live.visitor(history, state.snapshot)
        scored = _score(state, person, request.now, params)
        allowed = _fitting(state.pool, person, request.now, _window(request.window, person, params))
        if request.labels:
            allowed = allowed & filters.with_all_labels(state.pool, request.labels)
        limit = min(request.limit, params.limit_max)
        places = _arrange(scored, _unseen(scored, allowed), limit, 0.0, params, rng)
        return _explain(connection, scored, places, 0, request.now)


def generator(request: FeedRequest) -> np.random.Generator:
    """Chance that depends on the request alone: the same request at the same moment explores the same."""
    said = msgspec.json.encode((request.user, request.now, request.cursor, request.limit, request.surface))
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(said, digest_size=16).digest()))


def rank(
    live: Live, user_id: str, item_ids: Sequence[str], now: datetime, params: FeedParams
) -> tuple[list[tuple[str, float]], str | None]:
    """The items with their scores, best first, and the version of the model; an id that comes twice is given once.

    Scored as in the feed, but an item's age doesn't count. An id that nobody knows stands where the prior puts it, and equals
    keep the order in which they came. Raises InvalidInput for a user id that can't be one.
    """
    state, ids = live.state, list(dict.fromkeys(item_ids))
    with reading(live.engine) as connection:
        person = _person(connection, live, user_id, state)
        known = identities.item_keys(connection, _possible(ids), None)
    keys = np.array([known.get(id, UNKNOWN) for id in ids], np.int64)
    judgement = _judge(state, person, now, params)
    scores, values = scoring.order_values(judgement, of_keys(state.pool, keys, state.snapshot))
    best = np.argsort(-values, kind="stable")
    return [(ids[place], float(scores[place])) for place in best], state.pool.model.version


def explained(
    live: Live, user_id: str, keys: Collection[int], now: datetime, params: FeedParams
) -> dict[int, RankedItem]:
    """Score and reasons of items (by key) for a person, as if they were served now; those outside the pool are left out.

    Raises InvalidInput for a user id that can't be one.
    """
    state = live.state
    rows = state.pool.rows(np.array(list(keys), np.int64))
    places = [Place(int(row), probability=1.0, explored=False) for row in rows[rows >= 0]]
    if not places:
        return {}
    with reading(live.engine) as connection:
        scored = _score(state, _person(connection, live, user_id, state), now, params)
        return {item.key: item for item in _explain(connection, scored, places, 0, now)}


def predicted(live: Live, user_id: str, now: datetime, params: FeedParams, limit: int = 20) -> Prediction:
    """The score of every item in the pool for a person, and which `limit` of them they would be served now.

    Raises InvalidInput for a user id that can't be one.
    """
    state = live.state
    with reading(live.engine) as connection:
        person = _person(connection, live, user_id, state)
    scored = _score(state, person, now, params)
    allowed = _fitting(state.pool, person, now, _window(None, person, params))
    places = _arrange(
        scored, _unseen(scored, allowed), limit, 0.0, params, np.random.default_rng(0)
    )  # nothing is drawn without exploration
    served = np.zeros(len(state.pool), bool)
    served[[place.row for place in places]] = True
    threshold = float(scored.scores[served].min()) if places else None
    return Prediction(state.pool.keys, scored.scores, served, threshold)


def _person(connection: sa.Connection, live: Live, user_id: str, state: State) -> Person:
    return live.person(connection, identities.check_id(user_id, "the user id"), state.snapshot)


def _session(request: FeedRequest, person: Person, secret: bytes, id: str) -> Session:
    if request.cursor is None:
        return cursors.start(request.user, id, request.now)
    return cursors.read(request.cursor, secret, request.user, person.keys, request.now)


def _judge(state: State, person: Person, now: datetime, params: FeedParams) -> Judgement:
    return scoring.judge(state.pool, state.snapshot, person, now, params.first_items, params.taste)


def _score(state: State, person: Person, now: datetime, params: FeedParams) -> _Scored:
    judgement = _judge(state, person, now, params)
    scores, values = scoring.order_values(judgement, state.pool)
    return _Scored(state.pool, person, judgement, scores, values * _freshness(state.pool, now, params))


def _freshness(pool: Pool, now: datetime, params: FeedParams) -> NDArray[np.float32]:
    """(n,) the part of its value that an item keeps: from 1 when it is new or undated down to 1 − `freshness`."""
    age = np.maximum(to_milliseconds(now) - pool.published, 0).astype(np.float32)  # undated lies beyond any now
    kept: NDArray[np.float32] = np.exp2(-age / np.float32(params.half_life_days * DAY))
    return 1 - np.float32(params.freshness) * (1 - kept)


def _possible(ids: Collection[str]) -> list[str]:
    """Those that could be ids at all: databases refuse to be asked for others."""
    possible = []
    for id in ids:
        with suppress(InvalidInput):
            possible.append(identities.check_id(id, "the item id"))
    return possible


def _window(asked: timedelta | None, person: Person, params: FeedParams) -> timedelta:
    return asked or person.window or timedelta(days=params.window_days)


def _fitting(pool: Pool, person: Person, now: datetime, window: timedelta) -> filters.Mask:
    """What fits the person's choices, without the stories that they have refused."""
    mask = filters.allowed(pool, person, now, window)
    return stories.without(pool, mask, stories.refused(pool, person.history))


def _allowed(connection: sa.Connection, pool: Pool, asked: _Asked, params: FeedParams) -> filters.Mask:
    """What may be served in this call, whether seen before or not."""
    request, person = asked.request, asked.person
    mask = _fitting(pool, person, request.now, _window(request.window, person, params))
    mask = _narrowed(pool, mask, asked)
    mask = stories.without(pool, mask, np.array(asked.session.keys, np.int64))
    return filters.without(pool, mask, _given(connection, asked))


def _narrowed(pool: Pool, mask: filters.Mask, asked: _Asked) -> filters.Mask:
    """To what the surface shows, and to what is asked for."""
    request = asked.request
    if asked.surface is not ANYWHERE:
        mask = mask & filters.of_surface(pool, asked.surface)
    if request.language is not None or request.category is not None:
        mask = mask & filters.about(pool, request.language, request.category)
    if request.labels:
        mask = mask & filters.with_all_labels(pool, request.labels)
    return mask


def _given(connection: sa.Connection, asked: _Asked) -> NDArray[np.int64]:
    """Keys of items that this session had, or that are to be left out."""
    excluded = identities.item_keys(connection, _possible(asked.request.exclude), None).values()
    return np.array([*excluded, *asked.session.keys], np.int64)


def _from_list(connection: sa.Connection, pool: Pool, asked: _Asked, params: FeedParams) -> _Answer | None:
    """From the person's list what they haven't met and may still be shown; None where there is none, or too little of it left."""
    request, person, name = asked.request, asked.person, asked.surface.lists
    if name is None or person.key is None or asked.limit <= 0:
        return None
    found = lists.read(connection, name, person.key, person.keys)
    if found is None:
        return None
    rows = pool.rows(found.items)
    part = take(pool, rows[rows >= 0])
    mask = filters.allowed(part, person, request.now, _window(request.window, person, params))
    mask = _narrowed(part, mask, asked)
    met = np.concatenate((person.history.items, _given(connection, asked)))
    mask &= ~np.isin(part.keys, met) & ~_told_before(part, pool, met)
    chosen = np.flatnonzero(mask)[: asked.limit]
    if len(chosen) < asked.limit:
        return None
    scores = found.scores[rows >= 0][chosen]
    return _unexplained(connection, part, chosen, scores, asked.session.places), found.snapshot


def _told_before(part: Pool, pool: Pool, met: NDArray[np.int64]) -> filters.Mask:
    """(n,) items of stories that the person has met, or that an item before them tells."""
    rows = pool.rows(met)
    told = part.story >= 0
    mask = told & np.isin(part.story, pool.story[rows[rows >= 0]])
    first = np.zeros(len(part), bool)
    first[np.unique(part.story, return_index=True)[1]] = True
    return mask | (told & ~first)


def _unexplained(
    connection: sa.Connection, pool: Pool, rows: NDArray[np.int64], scores: NDArray[np.float32], first: int
) -> tuple[RankedItem, ...]:
    """The items of these rows as they lie in a list, whose making knew no reasons."""
    keys = pool.keys[rows].tolist()
    stored = catalog.get_many(connection, keys)
    there = [place for place, key in enumerate(keys) if key in stored and stored[key].state == "live"]
    return tuple(
        RankedItem(
            key=keys[place],
            item=stored[keys[place]].item,
            source_title=stored[keys[place]].source_title,
            score=float(scores[place]),
            probability=1.0,
            position=first + number,
            reasons=(),
            story=_story_id(pool, int(rows[place])),
        )
        for number, place in enumerate(there)
    )


def _unseen(scored: _Scored, allowed: filters.Mask) -> filters.Mask:
    """One item of each story of which the person has met none."""
    pool, met = scored.pool, scored.person.history.items
    mask = stories.without(pool, filters.without(pool, allowed, met), met)
    return stories.one_of_each(pool, mask, scored.values, scored.judgement.by_popularity)


def _again(
    connection: sa.Connection,
    live: Live,
    scored: _Scored,
    places: Sequence[Place],
    allowed: filters.Mask,
    session: Session,
    now: datetime,
    params: FeedParams,
) -> filters.Mask:
    """What comes when nothing new is left: items shown without an answer, and others of stories that were met, one of each story.

    All of it long enough ago and before this session: within one, nothing comes twice.
    """
    pool, person = scored.pool, scored.person
    before = min(now - timedelta(minutes=params.bring_back_minutes), session.started)
    mask = filters.only(pool, live.unanswered(connection, person, before))
    mask |= filters.without(pool, stories.of(pool, person.history.items), person.history.items)
    late = live.shown_since(connection, person, before)
    chosen = pool.keys[[place.row for place in places]]
    mask = stories.without(pool, allowed & mask, np.concatenate((late, chosen)))
    return stories.one_of_each(pool, mask, scored.values, scored.judgement.by_popularity)


def _with_questions(
    scored: _Scored, allowed: filters.Mask, places: list[Place], first: int, params: FeedParams
) -> list[Place]:
    """The same list, beginning at place `first` of a session, with questions in it for somebody who hasn't voted much yet.

    What stands at its head stays there.
    """
    left = params.questions - len(scored.judgement.labels)
    count = min(left, sum(map(arranging.asks, range(first, first + len(places)))))
    if count <= 0 or scored.pool.model.version is None:
        return places
    allowed = filters.without(scored.pool, allowed, scored.pool.keys[[place.row for place in places[:1]]])
    asked = asking.find(scored.pool, scored.judgement, allowed, scored.values, params.exploration_evidence, count)
    return arranging.with_questions(places, asked, first)


def _arrange(
    scored: _Scored, allowed: filters.Mask, limit: int, share: float, params: FeedParams, rng: np.random.Generator
) -> list[Place]:
    """The best of what is allowed and, for the share that explores, what little is known of, as a list."""
    if limit <= 0:
        return []
    pool, new = scored.pool, scored.judgement.by_popularity
    topics = pool.label_names.find(scored.person.topics) if new else np.zeros(0, np.int32)
    found, values = _find(scored, allowed, topics, limit, max(params.candidates, limit))
    learnable = np.zeros(0, np.int64)
    if share:
        learnable = exploration.find(pool, allowed, params.exploration_pool, params.exploration_evidence)
    spread = params.first_spread if new else params.source_spread
    rows = np.union1d(found, learnable)[::-1]  # of equal values the newest wins
    by_label = Spread(filters.main_label(pool, rows), params.label_spread)
    if len(topics):
        by_label = Spread(filters.first_label(pool, rows, topics), spread)
    spreads = [Spread(pool.source[rows], spread), by_label]
    return arranging.arrange(rows, values[rows], np.isin(rows, learnable), spreads, share, limit, rng)


def _find(
    scored: _Scored, allowed: filters.Mask, topics: NDArray[np.int32], limit: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """At most `size` candidates for `limit` places, and the values (n,) of the pool to order them by."""
    pool = scored.pool
    if not scored.judgement.by_popularity:
        rows = np.flatnonzero(allowed)
        return personal.find(scored.values[rows], rows, size), scored.values
    if len(topics):
        on_topic = allowed & filters.with_labels(pool, topics)
        allowed = on_topic if np.count_nonzero(on_topic) >= limit else allowed
    if pool.model.version is not None:
        return popular.find(pool, allowed, size), scored.values
    rows = fresh.find(pool, allowed, size)
    values = np.zeros(len(pool), np.float32)
    values[rows] = np.linspace(1, 0.5, len(rows))
    return rows, values


def _explain(
    connection: sa.Connection, scored: _Scored, places: list[Place], first: int, now: datetime
) -> tuple[RankedItem, ...]:
    """The places with their items and reasons; an item that was deleted a moment ago is left out."""
    rows = np.array([place.row for place in places], np.int64)
    grounds = explanation.grounds(scored.judgement, scored.pool, rows)
    keys, liked = scored.pool.keys[rows].tolist(), explanation.liked_keys(grounds)
    stored = catalog.get_many(connection, {*keys, *liked})
    also = _also(connection, scored, rows)
    titles = {item.source_key: item.source_title or item.item.source for item in stored.values()}
    named = {key: (stored[key].item.id, _name(stored[key].item)) for key in liked if key in stored}
    items: list[RankedItem] = []
    for place, (key, chosen) in enumerate(zip(keys, places, strict=True)):
        if key not in stored or stored[key].state != "live":
            continue
        ranked = RankedItem(
            key=key,
            item=stored[key].item,
            source_title=stored[key].source_title,
            score=float(scored.scores[chosen.row]),
            probability=chosen.probability,
            position=first + len(items),
            reasons=explanation.reasons(grounds, place, chosen, now, named, titles.get),
            story=_story_id(scored.pool, chosen.row),
            also=also[place],
        )
        items.append(ranked)
    return tuple(items)


def _story_id(pool: Pool, row: int) -> str | None:
    return str(pool.story[row]) if pool.story[row] >= 0 else None


def _also(connection: sa.Connection, scored: _Scored, rows: NDArray[np.int64]) -> list[tuple[Also, ...]]:
    """For each row the best others of its story, those from sources that the person hides left out."""
    pool = scored.pool
    told = pool.stories.of_row[rows] >= 0
    best = [_beside(scored, row) if several else [] for row, several in zip(rows.tolist(), told.tolist(), strict=True)]
    named = catalog.others(connection, {key for keys in best for key in keys})
    return [tuple(named[key] for key in keys if key in named) for keys in best]


def _beside(scored: _Scored, row: int) -> list[int]:
    pool = scored.pool
    rows = pool.stories.beside(row)
    if scored.person.hidden:
        rows = rows[~np.isin(pool.source[rows], pool.sources.find(scored.person.hidden))]
    rows = rows[pool.rules.allows(scored.person.viewer, scored.judgement.now)[pool.rule[rows]]]
    best: list[int] = pool.keys[rows[np.argsort(-scored.values[rows], kind="stable")][:ALSO]].tolist()
    return best


def _name(item: Item) -> str:
    """What to call an item in a sentence."""
    return item.title or item.url or item.id


def shown(items: Sequence[RankedItem], id: str, request: FeedRequest, snapshot: str | None) -> list[Event]:
    """The events that log these items of an answer as shown; `id` is the answer's."""
    return [
        Event(
            user=request.user,
            item=ranked.item.id,
            type="shown",
            time=to_milliseconds(request.now),
            request=id,
            surface=request.surface,
            position=ranked.position,
            snapshot=snapshot,
            probability=ranked.probability,
        )
        for ranked in items
    ]
