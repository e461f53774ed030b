"""The feed loop: one request for a feed, or for the order of given items, answered from the live state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from palate import (
    cursors,
    editions,
    feature_log,
    filling,
    finding,
    greedy,
    identities,
    returning,
    serving_lists,
    telling,
)
from palate.candidates import walking
from palate.candidates import wanted as of_wanted
from palate.candidates.filters import Mask
from palate.candidates.wanted import ANYWHERE, Wanted
from palate.cursors import Session
from palate.database import reading
from palate.domain import Event, EventColumns, Feed, FeedRequest, RankedItem, to_milliseconds
from palate.errors import InvalidInput
from palate.feed_params import FeedParams
from palate.finding import Found
from palate.live import Live, Person, State
from palate.ranking import considered, feature_kernels, features, heavy, judged, light, scoring, taste
from palate.ranking.arranging import Place
from palate.ranking.considered import Age, Considered
from palate.ranking.features import Scene
from palate.ranking.heavy import Ranked
from palate.ranking.scoring import Judgement
from palate.stock import SPLIT
from palate.surface_params import SurfaceParams

Append = Callable[[Sequence[Event]], None]

FOR_EVER = timedelta(days=36_500)
"""The window of what was in an edition: it waits until it is read."""

UNKNOWN = -1
"""Stands for the key of an item that nobody has named; no key is negative."""


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


def prepare(state: State) -> None:
    """Make the machine code that calls on this state would else wait for."""
    if len(state.stock.base) > SPLIT:
        walking.prepare()
        taste.prepare()
    if _has_machine_code(state):
        feature_kernels.prepare()
        greedy.prepare()
    if state.rankers is not None:
        light.prepare()


def _has_machine_code(state: State) -> bool:
    """Whether calls run what takes a process the memory of a compiler: with few items and no rankers it does without."""
    return state.rankers is not None or len(state.stock.base) > SPLIT


def serve(
    live: Live,
    request: FeedRequest,
    params: FeedParams,
    rng: np.random.Generator,
    append: Append,
    within: sa.Connection | None = None,
    surface: SurfaceParams | None = None,
) -> Feed:
    """The next items for a person: from their list, if the surface has lists and enough is left of theirs, else found, scored and
    explained now; what was shown is logged.

    `append` makes the events of what was shown durable before it returns. `within` is a transaction to read in, which sees what
    it wrote itself; None: one of its own. `surface` is how the request's is served; None: as the settings say. The list is empty
    when nothing is left. Raises InvalidCursor, InvalidInput for a user id that can't be one, and whatever `append` raises.
    """
    surface = surface or live.surfaces.get(request.surface, ANYWHERE)
    secret, id = live.secret, rng.bytes(16).hex()
    state = _state(live, surface.model, params)
    with nullcontext(within) if within is not None else reading(live.engine) as connection:
        person = _person(connection, live, request.user, state)
        session = _session(request, person, secret, id)
        limit = min(request.limit, surface.limit or params.limit_max, params.limit_max, session.room(request.log))
        wanted = _wanted(connection, request, person, session, surface, params)
        listed = serving_lists.find(connection, state.stock, wanted, limit, session.places, live.cards)
        asked = _Asked(wanted, session, limit, request.explain)
        items, version = listed or _scored_now(connection, live, state, asked, params, rng)
    if request.log and items:
        # whoever writes the events needn't look them up
        live.known_items.add({place.item.id: place.key for place in items})
        append(shown(items, id, request, version))
    session = session.after([item.key for item in items], request.log, person.key, request.now)
    return Feed(id, items, cursors.write(session, secret), version, request.variant)


def _state(live: Live, model: str | None, params: FeedParams) -> State:
    """The state by this model (None: that of the feed) and the ranker that are wanted."""
    state = live.state.by(model or params.model)
    if state.rankers is None or (params.ranker == "heavy" and params.keep is None):
        return state
    if params.ranker == "score":
        return replace(state, rankers=None)
    return _of_all(replace(state, rankers=replace(state.rankers, keep=params.keep or state.rankers.keep)))


def _of_all(state: State) -> State:
    """With as many items before the heavy ranker as it ever takes, where somebody has chosen which."""
    return state if state.rankers is None else replace(state, rankers=replace(state.rankers, share=1.0))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is asked for, as part of which session."""

    wanted: Wanted
    session: Session
    limit: int
    explain: bool


_Answer = tuple[tuple[RankedItem, ...], str | None]
"""Items, and the version of the model that scored them."""


def _scored_now(
    connection: sa.Connection, live: Live, state: State, asked: _Asked, params: FeedParams, rng: np.random.Generator
) -> _Answer:
    """Find candidates, filter, rank, arrange, explain; and what was shown without an answer where that is too little."""
    wanted, session = asked.wanted, asked.session
    stock, judgement = state.stock, _judge_again(live, state, wanted.person, wanted.now, params)
    found = returning.find(live.candidates, stock, wanted, judgement, params)
    plain = _considered(found, wanted.person, judgement, params)
    unseen, order = filling.unseen(plain, of_wanted.allowed(plain.pool, wanted)), wanted.surface.order or params.order
    ranked = _ranked(state, plain, unseen, wanted.now)
    looked = ranked.looked
    compiled = _has_machine_code(state)
    places = filling.fill(looked, unseen, asked.limit, session.places, order, params, rng, state.happenings, compiled)
    places = filling.with_hits(looked, wanted, places, session.places, asked.limit)
    told = telling.explained(connection, live.cards, stock, looked, places, session.places)
    items = _with_features(live, state, ranked, told, asked)
    if len(places) < asked.limit:
        chosen = looked.pool.keys[[place.row for place in places]]
        back = filling.brought_back(connection, live, stock, wanted, session, chosen, params)
        plain = _considered(finding.everything(back), wanted.person, judgement, params)
        unseen = filling.one_of_each_story(plain)
        ranked = _ranked(state, plain, unseen, wanted.now)
        places = filling.arrange(ranked.looked, unseen, asked.limit - len(places), 0.0, params, rng)
        more = telling.explained(connection, live.cards, stock, ranked.looked, places, session.places + len(items))
        items += _with_features(live, state, ranked, more, asked)
    return items, stock.base.model.version


def _ranked(state: State, plain: Considered, wanted: Mask, now: datetime) -> Ranked:
    """What is wanted of the candidates in the order of the snapshot's rankers; as it was, where it holds none."""
    scene = Scene(plain, state.happenings, state.stock.base, state.snapshot, now)
    return heavy.ranked(scene, wanted, state.rankers)


def _with_features(
    live: Live, state: State, ranked: Ranked, items: tuple[RankedItem, ...], asked: _Asked
) -> tuple[RankedItem, ...]:
    """The items with what the rankers know of them at this moment, whether there are rankers yet or not."""
    if not live.ranking or not items:
        return items
    told = ranked.features_of(ranked.looked.pool.rows(np.array([item.key for item in items], np.int64)))
    again = msgspec.structs.replace
    items = tuple(again(item, features=text) for item, text in zip(items, feature_log.written(told), strict=True))
    if not asked.explain or state.rankers is None:
        return items
    return tuple(again(item, parts=parts) for item, parts in zip(items, state.rankers.parts(told), strict=True))


def visit(
    live: Live, history: EventColumns, request: FeedRequest, params: FeedParams, rng: np.random.Generator
) -> tuple[RankedItem, ...]:
    """The items for somebody of whom nothing is known but these events (`user` is of no meaning); nothing is logged."""
    state = live.state
    with reading(live.engine) as connection:
        person = live.visitor(history, state.snapshot)
        wanted = Wanted(person, request.now, _window(request.window, person, params), labels=request.labels)
        judgement = _judge(state, person, request.now, params)
        found = finding.find(state.stock, wanted, judgement, params)
        looked = _considered(found, person, judgement, params)
        unseen = filling.unseen(looked, of_wanted.allowed(looked.pool, wanted))
        places = filling.arrange(looked, unseen, min(request.limit, params.limit_max), 0.0, params, rng)
        return telling.explained(connection, live.cards, state.stock, looked, places, 0)


def generator(request: FeedRequest) -> np.random.Generator:
    """Chance that depends on the request alone: the same request at the same moment explores the same."""
    said = msgspec.json.encode((request.user, request.now, request.cursor, request.limit, request.surface))
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(said, digest_size=16).digest()))


def rank(
    live: Live,
    user_id: str,
    item_ids: Sequence[str],
    now: datetime,
    params: FeedParams,
    known: Mapping[str, int] | None = None,
    append: Append | None = None,
) -> tuple[list[tuple[str, float]], str | None]:
    """The items with their scores, best first, and the version of the model; an id that comes twice is given once.

    `known` are keys that the caller has found among `live.known_items`; None: they are looked for here.

    Scored as in the feed, but an item's age doesn't count. An id that nobody knows stands where the prior puts it, and equals
    keep the order in which they came. With `append` the answer is what is shown, in its order, and its first `limit_max` items
    are logged so. Raises InvalidInput for a user id that can't be one, and whatever `append` raises.
    """
    state, known = _of_all(_state(live, None, params)), live.known_items.find(item_ids) if known is None else known
    all_known = len(known) == len(item_ids)  # then each came once, and in this order
    ids = item_ids if all_known else list(dict.fromkeys(item_ids))
    with reading(live.engine) as connection:
        person = _person(connection, live, user_id, state)
        keys = list(known.values()) if all_known else _item_keys(connection, live, ids, known)
    judgement = _judge_again(live, state, person, now, params)
    plain = _of_items(state, judgement, person, np.array(keys, np.int64), params)
    looked = _ranked(state, plain, np.ones(len(plain), bool), now).looked
    best = np.argsort(-looked.values, kind="stable")
    if append is not None and ids:
        append(_as_shown(live, user_id, plain, ids, best[: params.limit_max], now))
    ordered = zip(best.tolist(), looked.scores[best].tolist(), strict=True)
    return [(ids[place], score) for place, score in ordered], state.stock.base.model.version


def _item_keys(connection: sa.Connection, live: Live, ids: Sequence[str], known: Mapping[str, int]) -> list[int]:
    """Keys of items, of which some are known already; UNKNOWN for ids that nobody has named."""
    asked = _possible([id for id in ids if id not in known])
    found = {**known, **identities.known_item_keys(connection, asked, live.known_items)}
    return [found.get(id, UNKNOWN) for id in ids]


def _of_items(
    state: State, judgement: Judgement, person: Person, keys: NDArray[np.int64], params: FeedParams
) -> Considered:
    """These items, in this order, their age aside."""
    pool = state.stock.of_keys(keys, state.snapshot)
    scores, values = scoring.order_values(judgement, pool)
    return considered.scored(pool, np.zeros(len(keys), np.uint16), person, judgement, scores, values, _age(params))


def _as_shown(
    live: Live, user_id: str, plain: Considered, ids: Sequence[str], places: NDArray[np.int64], now: datetime
) -> list[Event]:
    """The events that log these places of the items as shown, in this order."""
    state = live.state
    scene = Scene(plain.take(places), state.happenings, state.stock.base, state.snapshot, now)
    texts = features.written(scene) if live.ranking else [None] * len(places)
    named = msgspec.json.encode((user_id, to_milliseconds(now), [ids[place] for place in places]))
    return [
        Event(
            user=user_id,
            item=ids[place],
            type="shown",
            time=to_milliseconds(now),
            request=hashlib.blake2b(named, digest_size=16).hexdigest(),
            surface="rank",
            position=position,
            snapshot=state.stock.base.model.version,
            probability=1.0,
            features=text,
        )
        for position, (place, text) in enumerate(zip(places.tolist(), texts, strict=True))
    ]


def explained(
    live: Live, user_id: str, keys: Collection[int], now: datetime, params: FeedParams
) -> dict[int, RankedItem]:
    """Score and reasons of items (by key) for a person, as if they were served now; those outside the pool are left out.

    Raises InvalidInput for a user id that can't be one.
    """
    state = _state(live, None, params)
    rows = state.stock.rows(np.array(list(keys), np.int64))
    pool = state.stock.take(np.unique(rows[rows >= 0]))
    places = [Place(row, probability=1.0, explored=False) for row in range(len(pool))]
    if not places:
        return {}
    with reading(live.engine) as connection:
        person = _person(connection, live, user_id, state)
        judgement = _judge(state, person, now, params)
        looked = _considered(finding.everything(pool), person, judgement, params)
        return {item.key: item for item in telling.explained(connection, live.cards, state.stock, looked, places, 0)}


def predicted(live: Live, user_id: str, now: datetime, params: FeedParams, limit: int = 20) -> Prediction:
    """The score of every item in the pool for a person, and which `limit` of them they would be served now.

    Raises InvalidInput for a user id that can't be one.
    """
    state = _state(live, None, params)
    with reading(live.engine) as connection:
        person = _person(connection, live, user_id, state)
    looked = _considered(finding.everything(state.pool), person, _judge(state, person, now, params), params)
    allowed = of_wanted.fitting(looked.pool, Wanted(person, now, _window(None, person, params)))
    unseen, nothing_drawn = filling.unseen(looked, allowed), np.random.default_rng(0)
    looked = _ranked(state, looked, unseen, now).looked
    places = filling.arrange(looked, unseen, limit, 0.0, params, nothing_drawn)
    served = np.zeros(len(looked.pool), bool)
    served[[place.row for place in places]] = True
    threshold = float(looked.scores[served].min()) if places else None
    return Prediction(looked.pool.keys, looked.scores, served, threshold)


def _person(connection: sa.Connection, live: Live, user_id: str, state: State) -> Person:
    return live.person(connection, identities.check_id(user_id, "the user id"), state.snapshot)


def _session(request: FeedRequest, person: Person, secret: bytes, id: str) -> Session:
    if request.cursor is None:
        return cursors.start(request.user, id, request.now)
    return cursors.read(request.cursor, secret, request.user, person.keys, request.now)


def _wanted(
    connection: sa.Connection,
    request: FeedRequest,
    person: Person,
    session: Session,
    surface: SurfaceParams,
    params: FeedParams,
) -> Wanted:
    excluded = identities.item_keys(connection, _possible(request.exclude), None).values()
    edition = surface.edition
    return Wanted(
        person,
        request.now,
        FOR_EVER if edition is not None else _window(request.window, person, params),
        surface=surface,
        among=None if edition is None else editions.backlog(connection, edition, surface.backlog),
        language=request.language,
        category=request.category,
        labels=request.labels,
        given=np.array(session.keys, np.int64),
        excluded=np.array([*excluded], np.int64),
    )


def _window(asked: timedelta | None, person: Person, params: FeedParams) -> timedelta:
    return asked or person.window or timedelta(days=params.window_days)


def _judge(state: State, person: Person, now: datetime, params: FeedParams) -> Judgement:
    return scoring.judge_in(state, person, now, params.first_items, params.taste)


def _judge_again(live: Live, state: State, person: Person, now: datetime, params: FeedParams) -> Judgement:
    """As before, where nothing has happened that it depends on."""
    return judged.find(live.judged, state, person, now, params.first_items, params.taste, live.tastes)


def _considered(found: Found, person: Person, judgement: Judgement, params: FeedParams) -> Considered:
    """The candidates as the person's own taste sees them."""
    return considered.considered(found.pool, found.by, person, judgement, _age(params))


def _age(params: FeedParams) -> Age:
    return Age(params.freshness, params.half_life_days)


def _possible(ids: Collection[str]) -> list[str]:
    """Those that could be ids at all: databases refuse to be asked for others."""
    possible = []
    for id in ids:
        with suppress(InvalidInput):
            possible.append(identities.check_id(id, "the item id"))
    return possible


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
            variant=request.variant,
            probability=ranked.probability,
            features=ranked.features,
        )
        for ranked in items
    ]
