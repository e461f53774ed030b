"""Ranks given items for callers: the part of the API that is asked most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from palate import feed
from palate.delivery.context import Serving, in_thread
from palate.delivery.messages import RankAnswer, RankQuestion, Score
from palate.delivery.operations import Asked
from palate.delivery.refusals import Refusal
from palate.delivery.surfaces import WRITE_PATIENCE
from palate.domain import Event

QUICK = 1000
"""Items that are ranked without a thread at most."""


async def post_rank(serving: Serving, asked: Asked) -> RankAnswer:
    """Items in this user's order."""
    question: RankQuestion = asked.body
    limit = serving.params.server.max_rank
    if len(question.items) > limit:
        raise Refusal(400, "too_many", f"At most {limit} items can be ranked at once.")
    answer = quick(serving, question, asked.now)
    if answer is not None:
        return answer
    if "\0" in "".join(question.items):
        raise Refusal(400, "invalid_request", "items: an id holds the character NUL, which no text may hold.")
    known = serving.live.known_items.find(question.items)
    rank = partial(_rank, serving, question, asked.now, known)
    return rank() if _is_quick(serving, question, known) else await in_thread(serving, rank)


def quick(serving: Serving, question: RankQuestion, now: datetime) -> RankAnswer | None:
    """The answer, from the thread of the event loop; None where it takes more than about a millisecond.

    Raises InvalidInput for a user id that can't be one, DatabaseError.
    """
    if question.log or len(question.items) > min(QUICK, serving.params.server.max_rank):
        return None
    by, variant = serving.varying.of(question.user, now)
    found = serving.ranks.find(question.user, question.items, now, by.feed)
    if found is None:
        return None
    return RankAnswer(items=list(map(Score, found.ids, found.scores)), model=found.model, variant=variant)


def _rank(serving: Serving, question: RankQuestion, now: datetime, known: Mapping[str, int]) -> RankAnswer:
    by, variant = serving.varying.of(question.user, now)

    def append(shown: Sequence[Event]) -> None:
        told = [replace(event, variant=variant) for event in shown]
        serving.commits.submit(told, now).result(WRITE_PATIENCE)

    logging = append if question.log else None
    ranked, version = feed.rank(serving.live, question.user, question.items, now, by.feed, known, logging)
    return RankAnswer(items=[Score(item, score) for item, score in ranked], model=version, variant=variant)


def _is_quick(serving: Serving, question: RankQuestion, known: Mapping[str, int]) -> bool:
    """Whether to rank takes about a millisecond, as where nothing but a look at the person waits for a file on this machine: to
    hand that to a thread and back takes as long, and threads that take turns make each wait for all."""
    short = len(question.items) <= QUICK and len(known) == len(question.items)
    by_plain_score = serving.live.state.rankers is None and not question.log
    return short and by_plain_score and serving.engine.dialect.name == "sqlite"
