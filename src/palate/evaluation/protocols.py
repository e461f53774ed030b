"""Who is asked for what: recorded events cut into what a model may learn, what it knows of each person, and what it must find.

Events are cut before they are merged, so that nothing of a pair that happened after the cut is in what is learned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import interactions, splits
from palate.domain import EventColumns, Interactions
from palate.errors import PalateError
from palate.evaluation.recordings import POSITIVE, Recording
from palate.interactions import EventType, InteractionParams

Kind = Literal["time", "user-time", "leave-last-out", "random", "strong"]

ALWAYS_POSITIVE = EventType(label=1.0, weight=1.0, positive=True)


class SplitParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one file of events becomes two parts."""

    kind: Kind = "time"
    """`time`: the newest events of all; `user-time`: the newest of each user; `leave-last-out`: the last item that each user
    took to; `random`: pairs by chance; `strong`: users by chance, of whom a part of their pairs is told."""
    test_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.2
    """Of events, pairs or users, by the kind; `leave-last-out` has no use for it."""
    told_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.8
    """Under `strong`, the part of a held-out user's pairs that the model is told when it is asked for the others."""


@dataclass(frozen=True, eq=False)
class Split:
    """What is learned, what is known of people when they are asked about, and what they are asked about."""

    train: Interactions
    known: Interactions
    """`train`, and of held-out users what the model is told."""
    test: Interactions
    gains: NDArray[np.float64]
    """What it is worth to find each pair of `test`: 1, or one over the probability with which it was shown."""
    name: str
    learned: NDArray[np.bool_]
    """Which events `train` is merged from."""
    stated: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Meaning:
    """How events are to be read."""

    events: EventColumns
    params: InteractionParams
    unit: float | None
    """How much of a rating's own unit a label of 0..1 spans; None where labels aren't all ratings."""
    stated: tuple[str, ...]


def meaning(recording: Recording, params: InteractionParams, positive: str | None) -> Meaning:
    """What the types of events of a recording mean: as set, or by `positive`, such as `like,rating>=4`.

    With it, these types alone are positives, each of weight 1. Raises PalateError for a type that isn't there, or when
    nothing is a positive.
    """
    events, stated = recording.events, list(recording.left_out)
    types = dict(params.types) | {POSITIVE: ALWAYS_POSITIVE}
    if positive is not None:
        events, types = _only(events, types, positive)
        stated.append(f"Positives are {positive} alone, each of weight 1.")
    elif not any(name in types for name in events.types):
        types |= dict.fromkeys(events.types, ALWAYS_POSITIVE)
        stated.append(f"No setting knows the types {', '.join(events.types)}: each counts as a positive of weight 1.")
    if unknown := [name for name in events.types if name not in types and not name.startswith("retract")]:
        stated.append(f"Events of the types {', '.join(unknown)} teach nothing: they are in no setting.")
    # where times are missing all is of one day: a limit on events a day would throw whole users away
    params = msgspec.structs.replace(params, types=types, max_events_per_day=None)
    bounds = interactions.rating_range(events, params)
    labelled = [types[name] for name in events.types if name in types and types[name].label is not None]
    rated = bounds is not None and all(type.label == "value" for type in labelled)
    return Meaning(
        events,
        msgspec.structs.replace(params, rating_range=bounds),
        bounds[1] - bounds[0] if bounds is not None and rated else None,
        tuple(stated),
    )


def given(meaning: Meaning, part: NDArray[np.uint8]) -> Split:
    """Training and test as two files (`part` 0 and 1) have them."""
    return _split(meaning, part == 1, "given")


def split(meaning: Meaning, params: SplitParams, random: np.random.Generator) -> Split:
    """The events cut in two. Raises PalateError when one of the parts is empty."""
    events, share = meaning.events, params.test_share
    if params.kind in ("time", "user-time"):
        late = _late(events, params)
        cut = _split(meaning, late, params.kind)
        return replace(cut, stated=(*cut.stated, *_about_time(events, late, params)))
    pairs, number = _pairs(meaning)
    if params.kind == "leave-last-out":
        taken = np.flatnonzero(pairs.weight > 0)
        asked = np.zeros(len(pairs), bool)
        asked[taken] = splits.last_of_each(pairs.user[taken], _moments(pairs, number)[taken])
        ties = splits.ties_of_last(pairs.user[taken], pairs.time[taken])
        about: tuple[str, ...] = (
            "Each user's last positive is asked for; what others did later is in the training.",
            f"{ties} users have several last positives of one millisecond: the last in the file is asked for.",
        )
    elif params.kind == "random":
        asked = splits.at_random(len(pairs), share, random)
        about = ("Pairs are held out by chance: the training knows what came after them.",)
    else:
        return _strong(meaning, pairs, number, params, random)
    cut = _split(meaning, asked[number], params.kind)
    return replace(cut, stated=(*cut.stated, *about))


def validation(meaning: Meaning, cut: Split, params: SplitParams, random: np.random.Generator) -> Split:
    """What a split learns, cut once more in the same way, without a look at its test.

    Two files are cut by time, or by chance where there are no times.
    """
    inner = replace(meaning, events=_rows(meaning.events, cut.learned), stated=())
    times = inner.events.time
    if cut.name == "given":
        timed = len(times) and times.min() < times.max()
        params = msgspec.structs.replace(params, kind="time" if timed else "random")
    return split(inner, params, random)


def of_training(cut: Split, people: int, random: np.random.Generator) -> Split:
    """Ask for what was learned itself, of so many users by chance: how well a model fits, not how good it is."""
    positive = cut.train.weight > 0
    users = np.unique(cut.train.user[positive])
    chosen = np.sort(random.permutation(users)[:people])
    test = splits.rows(cut.train, np.isin(cut.train.user, chosen))
    return replace(cut, known=cut.train, test=test, gains=np.ones(len(test)), stated=())


def before(meaning: Meaning, moment: int) -> Interactions:
    """What happened before a moment, in milliseconds since 1970."""
    return interactions.merge(_rows(meaning.events, meaning.events.time < moment), meaning.params)


def between(meaning: Meaning, train: Interactions, first: int, last: int) -> Split:
    """Ask a model of `train` for what happened from `first` on and before `last` (milliseconds since 1970)."""
    time = meaning.events.time
    test = interactions.merge(_rows(meaning.events, (time >= first) & (time < last)), meaning.params)
    return Split(train, train, test, np.ones(len(test)), "time", time < first, meaning.stated)


def explored(split: Split, recording: Recording) -> Split:
    """What exploration showed, alone: pairs of the test whose shows were all by chance, each worth one over its probability.

    Of several shows of one pair the likeliest counts. Yang et al., "Unbiased Offline Recommender Evaluation for
    Missing-Not-At-Random Implicit Feedback" (RecSys 2018). Raises PalateError when there are none.
    """
    events, known = recording.events, np.isfinite(recording.probability)
    width = max(len(recording.item_ids), 1)
    code = events.user[known] * width + events.item[known]
    pairs, place = np.unique(code, return_inverse=True)
    likeliest = np.zeros(len(pairs))
    np.maximum.at(likeliest, place, recording.probability[known])
    row = np.searchsorted(pairs, split.test.user * width + split.test.item)
    found = row < len(pairs)
    found[found] = pairs[row[found]] == (split.test.user * width + split.test.item)[found]
    chance = np.where(found, np.append(likeliest, 1.0)[row], 1.0)
    chosen = (chance > 0) & (chance < 1)
    if not chosen.any():
        raise PalateError("No event of the test has a probability below 1: there is no exploration to evaluate on.")
    return replace(
        split,
        test=splits.rows(split.test, chosen),
        gains=1 / chance[chosen],
        stated=(
            *split.stated,
            f"Only the {int(chosen.sum())} pairs that exploration showed are asked for; nDCG and recall weigh each by one over "
            "its probability, the other metrics count it once.",
        ),
    )


# --- the parts ------------------------------------------------------------------------------------------------------------


def _only(
    events: EventColumns, types: Mapping[str, EventType], positive: str
) -> tuple[EventColumns, dict[str, EventType]]:
    """Events and types under which what `positive` names is positive, and nothing else is."""
    changed = {name: msgspec.structs.replace(type, weight=None) for name, type in types.items()}
    for part in filter(None, (part.strip() for part in positive.split(","))):
        name, bound = _bound(part)
        if name not in events.types:
            raise PalateError(f"There is no event of the type {name}: the types are {', '.join(events.types)}.")
        if bound is None:
            label = types[name].label if name in types and types[name].label == "value" else 1.0
            changed[name] = EventType(label=label, weight=1.0, positive=True)
        else:
            reached = (events.type == events.types.index(name)) & (events.value >= bound)
            strong = f"{name}.enough"
            type_ = np.where(reached, len(events.types), events.type).astype(np.uint16)
            events = replace(events, type=type_, types=(*events.types, strong))
            old = types.get(name, EventType(label="value"))
            changed[name] = msgspec.structs.replace(old, weight=None)
            changed[strong] = msgspec.structs.replace(old, weight=1.0)
    return events, changed


def _bound(part: str) -> tuple[str, float | None]:
    match = re.fullmatch(r"([^<>=]+?)\s*(?:>=\s*(\S+))?", part)
    try:
        if match is None:
            raise ValueError
        return match[1], None if match[2] is None else float(match[2])
    except ValueError as error:
        raise PalateError(
            f"{part!r} names no positive: write a type, or a type and its least value as rating>=4."
        ) from error


def _split(meaning: Meaning, late: NDArray[np.bool_], name: str) -> Split:
    train = interactions.merge(_rows(meaning.events, ~late), meaning.params)
    test = interactions.merge(_rows(meaning.events, late), meaning.params)
    _check(train, test)
    return Split(train, train, test, np.ones(len(test)), name, ~late, meaning.stated)


def _check(train: Interactions, test: Interactions) -> None:
    for part, what in ((train, "training"), (test, "test")):
        if not len(part):
            raise PalateError(f"The {what} part is empty: give more events, another split, or another share.")
    if not (train.weight > 0).any() and not np.isfinite(train.label).any():
        raise PalateError(
            "The training part has neither a positive nor a vote: name the types that count with --positive."
        )


def _late(events: EventColumns, params: SplitParams) -> NDArray[np.bool_]:
    if len(events) and events.time.min() == events.time.max():
        raise PalateError("The events have no different times: split them by random, strong or leave-last-out.")
    if params.kind == "time":
        return splits.newest(events.time, params.test_share)
    return splits.newest_of_each(events.user, events.time, params.test_share)


def _about_time(events: EventColumns, late: NDArray[np.bool_], params: SplitParams) -> tuple[str, ...]:
    if params.kind == "user-time":
        return ("Each user's newest events are asked for; what others did later is in the training.",)
    return (f"The newest {late.mean():.1%} of the events are asked for; all that is learned happened before them.",)


def _pairs(meaning: Meaning) -> tuple[Interactions, NDArray[np.int64]]:
    """All events merged, and the number of each event's pair among them."""
    events = meaning.events
    pairs = interactions.merge(events, meaning.params)
    width = int(events.item.max(initial=0)) + 1
    return pairs, np.searchsorted(pairs.user * width + pairs.item, events.user * width + events.item)


def _moments(pairs: Interactions, number: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each pair in the order of times and, within one millisecond, of rows of the file."""
    row = np.zeros(len(pairs), np.int64)
    np.maximum.at(row, number, np.arange(len(number)))
    moments = np.empty(len(pairs), np.int64)
    moments[np.lexsort((row, pairs.time))] = np.arange(len(pairs))
    return moments


def _strong(
    meaning: Meaning,
    pairs: Interactions,
    number: NDArray[np.int64],
    params: SplitParams,
    random: np.random.Generator,
) -> Split:
    users = np.unique(pairs.user)
    held = np.isin(pairs.user, users[splits.at_random(len(users), params.test_share, random)])
    told = np.zeros(len(pairs), bool)
    told[held] = ~splits.share_of_each(pairs.user[held], 1 - params.told_share, random)
    cut = _split(meaning, held[number], "strong")
    all_known = interactions.merge(_rows(meaning.events, (~held | told)[number]), meaning.params)
    asked = interactions.merge(_rows(meaning.events, (held & ~told)[number]), meaning.params)
    _check(cut.train, asked)
    about = (
        f"{len(np.unique(pairs.user[held]))} users are held out of the training; {params.told_share:.0%} of each one's "
        "pairs, by chance, are folded in.",
    )
    return replace(cut, known=all_known, test=asked, gains=np.ones(len(asked)), stated=(*cut.stated, *about))


def _rows(events: EventColumns, chosen: NDArray[np.bool_]) -> EventColumns:
    columns = {name: getattr(events, name)[chosen] for name in ("seq", "user", "item", "type", "value", "time")}
    return EventColumns(**columns, types=events.types)
