"""Several models, and the same model over several stretches of history, mixed by weights learned on a held-out slice.

A slice of the material is held out, and another before it; members learn what came before each, weights are sought that order
the held-out positives best, and the members that have any weight learn everything. The mix is by rank (a weighted sum of
−log(place + offset), so that a product of places decides) or by score (standardised over the items of each person).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate import splits
from palate.domain import Interactions, from_milliseconds
from palate.errors import SettingsError
from palate.matrix import Sparse
from palate.models import blend_weights, popularity
from palate.models.blend_weights import Floats, Mix, Stack, Way, comparable, comparable_of, padded, weights_of
from palate.models.material import Known, Material, known
from palate.vocabulary import Vocabulary

if TYPE_CHECKING:
    from palate.models.registry import Entry

Lookup = Callable[[str], "Entry"]
"""From the name of a model to its entry in the table of models."""

MEMBER = re.compile(r"([a-z]+)(?:([@~])(\d{1,6}(?:\.\d{1,3})?)([dh])|~(\d{1,6})i)?(?:#(\d{1,3}))?")
"""A model, a window or how fast it fades, and which of several fits."""
SETTINGS: dict[str, dict[str, Any]] = {
    "ease": {"max_items": 4000},
    "popularity": {"half_life_days": 30.0},  # what fades faster has members of its own
}
DAYS = {"d": 1.0, "h": 1 / 24}
NOBODY = -1
"""The key of somebody whom no member has learned of; no key is negative."""


class BlendParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is mixed, and how the weights are learned."""

    members: tuple[str, ...] = (
        "popularity~1h",
        "popularity~3h",
        "popularity~12h",
        "popularity~2d",
        "popularity~14d",
        "popularity",
        "itemknn",
        "itemknn~6h",
        "itemknn~30d",
        "ease",
        "ials",
    )
    """Names of models; with `@90d` the last 90 days alone are learned from, with `~90d` older weights fade by half in so many,
    `h` for hours. Days pass as for popularity: the fewer things happen, the slower. With `~10i` an item of a person counts
    half for every ten of theirs that are newer: `recent_items` of that model. With `#2` behind all this it is the same once more,
    by another seed; such fits have one weight together, and their mean owes less to chance."""
    settings: dict[str, dict[str, Any]] = {}
    """The parameters of members that aren't the defaults: by the member, or by its model for all members that have none.
    `ease` has max_items = 4000 here, where there is nothing else: it is solved twice."""
    by: Literal["auto", "rank", "score"] = "auto"
    """Whether ranks are mixed or standardised scores; `auto` does what orders the held-out slice better."""
    held_out_share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.15
    """Of the interactions, a slice on which weights are learned; by chance where all have one time."""
    slices: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3
    """How many such slices, from the newest backwards, each asked of members that learned what came before it. One moment alone
    has its own few items that decide; every slice is a fit more of every member. By chance there is one."""
    held_out_users: Annotated[int, msgspec.Meta(ge=1)] = 1_500
    """At most so many people of a slice, drawn by chance."""
    k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    """Length of the list whose nDCG is made great."""
    halfway: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    """With so many known items a person's weights lie half way from those for people of whom nothing is known to those for
    people of whom much is; none means learned, from people of whom only their newest few items are told."""
    offset: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 5.0
    """Added to places, counted from 1, before the logarithm: how little the first places differ."""

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members must name at least one model")
        for name in self.members:
            found = MEMBER.fullmatch(name)
            if not found or found[1] == "blend":
                raise ValueError(f"members: {name!r} is no model, nor one with @90d, ~6h or #2 behind it")
        if self.held_out_share * self.slices > 0.9:
            raise ValueError("held_out_share times slices must leave a tenth to learn from")


@dataclass(frozen=True, eq=False)
class Member:
    """One fitted model of the mix."""

    name: str
    """As in `BlendParams.members`."""
    entry: Entry
    model: Any


@dataclass(frozen=True, eq=False)
class Blend:
    """A learned mix of M members; no function changes its arrays."""

    members: tuple[Member, ...]
    weights: Floats
    """(2, M): none below 0; for people of whom nothing is known, and for those of whom everything would be."""
    way: Way
    halfway: float
    """Number of known items with which a person's weights lie in the middle of the two."""
    offset: float
    users: Vocabulary
    """Of the members' arrays."""
    quality: float
    """nDCG of the mix on the held-out slices; NaN where nothing could be held out."""


def fit(material: Material, params: BlendParams, seed: int, lookup: Lookup) -> Blend:
    """Learn the weights on the newest slices, then the members on everything.

    The same material, parameters and seed give the same bytes. Raises NotFound for a member that is no model and SettingsError
    for settings that aren't its own.
    """
    names = _different(params.members, material)
    mix = _mix(names, material, params, seed, lookup)
    used = np.flatnonzero(mix.weights.any(axis=0))
    members = tuple(_member(names[place], material, params, seed, lookup) for place in used)
    return Blend(members, mix.weights[:, used], mix.way, mix.halfway, params.offset, material.users, mix.quality)


def score_all(model: Blend, known: Known) -> Floats:
    """(n, I): the weighted sum of what the members say."""
    result = np.zeros((len(known.users), known.weights.width), np.float32)
    for _, people, weights, scores in _speeches(model, known):
        for person, weight, said in zip(people, weights, comparable(scores, model.way, model.offset), strict=True):
            result[person] += weight * said
    return result


def scored(model: Blend, known: Known) -> tuple[Floats, Floats]:
    """(n, I) twice: what `score_all` gives, and what content is to explain of it, where items are placed that nobody has met.

    These have no readers yet, so that the popularities leave them at the mean; and what other members say is taken by score, with
    the mean and spread that it has in the mix: of places of the known items content tells less. People of whom the popularities
    alone are asked are left as they are.
    """
    mixed = np.zeros((len(known.users), known.weights.width), np.float32)
    explained, personal = np.zeros_like(mixed), np.zeros(len(mixed), bool)
    for member, people, weights, scores in _speeches(model, known):
        said = comparable(scores, model.way, model.offset)
        of_person = not _is_impersonal(member.name)
        personal[people] |= of_person
        for row, person in enumerate(people):
            mixed[person] += weights[row] * said[row]
            explained[person] += weights[row] * (_as_scored(said[row], scores[row]) if of_person else said[row].mean())
    explained[~personal] = mixed[~personal]
    return mixed, explained


def _speeches(model: Blend, known: Known) -> Iterator[tuple[Member, NDArray[np.int64], Floats, Floats]]:
    """Each member with whom it is asked about, its weights with these (p,), and what it says of them (p, I)."""
    weights = weights_of(model.weights, _told(known), model.halfway)
    for place, member in enumerate(model.members):
        people = np.flatnonzero(weights[:, place])
        yield member, people, weights[people, place], member.entry.score_all(member.model, known.of(people))


def _as_scored(said: Floats, scores: Floats) -> Floats:
    """The scores with the mean and spread of what was said."""
    spread = max(float(scores.std()), 1e-12)
    return np.asarray(said.mean() + (scores - scores.mean()) * (said.std() / spread), np.float32)


def _is_impersonal(name: str) -> bool:
    """Whether a member says the same to everybody."""
    return name.startswith("popularity")


def contributions(model: Blend, known: Known, wanted: NDArray[np.integer[Any]]) -> Floats:
    """(w, n): how much each of the n items of one person adds to the score of each of the w wanted ones, by the member of the
    greatest weight whose scores split: the mix itself doesn't, where it is of ranks. Zero without such a member.
    """
    own = weights_of(model.weights, _told(known), model.halfway)[0]
    for place in np.argsort(-own, kind="stable"):
        member = model.members[place]
        if own[place] > 0 and member.entry.contributions is not None:
            added: Floats = member.entry.contributions(member.model, known, wanted)
            return added
    return np.zeros((len(wanted), int(known.weights.offsets[-1])), np.float32)


def _told(known: Known) -> NDArray[np.int64]:
    """(n,) how many items are known of each person."""
    row = np.repeat(np.arange(len(known.users)), known.weights.counts)
    return np.bincount(row[known.weights.values != 0], minlength=len(known.users))


# --- members --------------------------------------------------------------------------------------------------------------


def _different(members: Sequence[str], material: Material) -> list[str]:
    """Each member once; where all interactions have one time, windows and fading change nothing."""
    times = material.interactions.time
    timeless = not len(times) or times.min() == times.max()
    return list(dict.fromkeys(re.sub("[@~][^#]*", "", name) if timeless else name for name in members))


def _member(name: str, material: Material, params: BlendParams, seed: int, lookup: Lookup) -> Member:
    found = MEMBER.fullmatch(name)
    assert found, "BlendParams has looked at the names."
    entry = lookup(found[1])
    settings = SETTINGS | params.settings
    own = settings.get(name, settings.get(found[1], {}))
    try:
        steered = msgspec.convert(own, entry.params)
    except (msgspec.ValidationError, TypeError) as error:
        raise SettingsError(f"The settings of {name} in the blend are wrong: {error}.") from error
    if found[5]:
        steered = _by_recency(name, steered, float(found[5]))
    if found[2]:
        material = _shortened(material, found[2] == "@", float(found[3]) * DAYS[found[4]])
    return Member(name, entry, entry.fit(material, steered, _seed(seed, found[6])))


def _seed(seed: int, fit: str | None) -> int:
    """Of one of several fits; far from the seeds of other blends."""
    return seed if fit is None else int(np.random.SeedSequence([seed, int(fit)]).generate_state(1)[0])


def _model_of(name: str) -> str:
    return re.split("[@~#]", name)[0]


def _by_recency(name: str, params: Any, items: float) -> Any:
    if not hasattr(params, "recent_items") or not items:
        raise SettingsError(f"The blend has no {name}: choose ials, itemknn, ease or svd, and one item or more.")
    return msgspec.structs.replace(params, recent_items=items)


def _shortened(material: Material, window: bool, days: float) -> Material:
    """With weights that fade by half in so many days; or, with a window, nothing told that is older.

    All interactions stay, so that rows belong to the same users and items in all members.
    """
    pairs = material.interactions
    ages = popularity.ages(pairs.time, material.now)
    if not window:
        fading = np.exp2(-ages / days)
        return replace(material, interactions=replace(pairs, weight=(pairs.weight * fading).astype(np.float32)))
    inside = ages <= days
    weight = np.where(inside, pairs.weight, np.float32(0))
    label = np.where(inside, pairs.label, np.float32(np.nan))
    return replace(material, interactions=replace(pairs, weight=weight, label=label))


# --- what is held out -----------------------------------------------------------------------------------------------------


def _slices(material: Material, params: BlendParams, seed: int) -> Iterator[tuple[Material, Interactions]]:
    """What may be learned and what is asked about it, from the newest slice backwards; none where either would be empty."""
    pairs, share = material.interactions, params.held_out_share
    if len(pairs) and pairs.time.min() == pairs.time.max():
        late = np.random.default_rng(seed).random(len(pairs)) < share
        masks = [(~late, late)]
    else:
        ends = [splits.newest(pairs.time, share * n) for n in range(params.slices + 1)]
        masks = [(~outer, outer & ~inner) for inner, outer in itertools.pairwise(ends)]
    for older, newer in masks:
        if older.any() and newer.any():
            now = from_milliseconds(int(pairs.time[older].max()))
            yield replace(material, interactions=splits.rows(pairs, older), now=now), splits.rows(pairs, newer)


@dataclass(frozen=True, eq=False)
class _People:
    """Who is asked about on a held-out slice, and with what told of them."""

    known: Known
    met: Sparse
    """(n, I): all that is known of them, told or not: none of these items is asked about"""
    row: NDArray[np.int64]
    """(R,) person of each positive that is to be found, ascending"""
    column: NDArray[np.int64]
    """(R,) its item"""


def _asked(
    older: Interactions, newer: Interactions, items: Vocabulary, params: BlendParams, seed: int
) -> list[_People]:
    """People with all that is known of them, and the same ones as beginners if it has to be learned how these are served."""
    positive = splits.rows(newer, newer.weight > 0)
    users = np.unique(positive.user)
    if len(users) > params.held_out_users:
        users = np.sort(np.random.default_rng(seed).choice(users, params.held_out_users, replace=False))
    row = Vocabulary(users).rows(positive.user)
    everything = known(older, users, items)
    people = _People(everything, everything.weights, row[row >= 0], items.rows(positive.item[row >= 0]))
    rng = np.random.default_rng(seed)
    return [people] if params.halfway is not None else [people, _as_beginners(people, older, items, rng)]


def _as_beginners(people: _People, older: Interactions, items: Vocabulary, rng: np.random.Generator) -> _People:
    """The same people with only the newest few of their items told; few numbers are drawn as often as many."""
    rows = Vocabulary(people.known.users)
    own = splits.rows(older, (rows.rows(older.user) >= 0) & (older.weight != 0))
    person = rows.rows(own.user)
    counts = np.bincount(person, minlength=len(rows))
    order = np.lexsort((rng.random(len(own)), -own.time, person))
    place = np.empty(len(own), np.int64)
    place[order] = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
    told = np.floor((counts + 1.0) ** rng.random(len(rows))) - 1
    cut = known(splits.rows(own, place < told[person]), people.known.users, items)
    return replace(people, known=replace(cut, users=np.full(len(rows), NOBODY)))


# --- what members say to them ---------------------------------------------------------------------------------------------


TOP = 50
"""How many items of each member are candidates: what no member puts so high, the mix doesn't put first."""
BLOCK = 2**21
"""Scores of a member that are held at a time."""


def _mix(names: Sequence[str], material: Material, params: BlendParams, seed: int, lookup: Lookup) -> Mix:
    """What the held-out slices teach; all members alike where they teach nothing."""
    rehearsals = _rehearsals(names, material, params, seed, lookup)
    told = [parts for parts in rehearsals if all(len(stack.row) for stack in parts[0].values())]
    if not told:
        return Mix("rank", np.ones((2, len(names)), np.float32), params.halfway or 0.0, float("nan"))
    bare = [name.split("#")[0] for name in names]
    kinds = list(dict.fromkeys(bare))
    kind = np.array([kinds.index(name) for name in bare])
    impersonal = np.flatnonzero([_is_impersonal(name) for name in kinds])
    of_kinds = [[{way: _by_kind(stack, kind) for way, stack in part.items()} for part in parts] for parts in told]
    mix = blend_weights.learned(of_kinds, impersonal, params.k, params.halfway)
    return replace(mix, weights=(mix.weights[:, kind] / np.bincount(kind)[kind]).astype(np.float32))


def _by_kind(stack: Stack, kind: NDArray[np.int64]) -> Stack:
    """With the mean of what several fits of one kind say: chance alone would tell them apart. `kind` (M,) counts from 0."""
    return replace(stack, said=np.stack([stack.said[kind == one].mean(axis=0) for one in range(kind.max() + 1)]))


def _rehearsals(
    names: Sequence[str], material: Material, params: BlendParams, seed: int, lookup: Lookup
) -> Iterator[list[dict[Way, Stack]]]:
    """For each slice what members said to people as they are, then to beginners, for each way of mixing."""
    ways: tuple[Way, ...] = ("rank", "score") if params.by == "auto" else (params.by,)
    for early, newer in _slices(material, params, seed):
        members = [_member(name, early, params, seed, lookup) for name in names]
        asked = _asked(early.interactions, newer, material.items, params, seed)
        yield [_stacks(members, people, ways, params) for people in asked]


def _stacks(members: Sequence[Member], people: _People, ways: Sequence[Way], params: BlendParams) -> dict[Way, Stack]:
    """One for each way, of the same candidates."""
    own: dict[Way, list[Floats]] = {way: [] for way in ways}
    kept: list[int] = []
    places: list[NDArray[np.int64]] = []
    for person, scores in enumerate(_said(members, people.known)):
        cells = slice(*np.searchsorted(people.row, [person, person + 1]))
        candidates = _candidates(scores, people.met.row(person)[0])
        place = Vocabulary(candidates).rows(people.column[cells])
        if (place >= 0).any():
            kept.append(person)
            places.append(place[place >= 0])
            for way in ways:
                own[way].append(np.stack([comparable_of(part, candidates, way, params.offset) for part in scores]))
    told = _told(people.known)
    asked = np.bincount(told > 0, minlength=2)
    totals = np.bincount(people.row, minlength=len(told))[kept]
    row = np.repeat(np.arange(len(kept)), [len(place) for place in places])
    place = np.concatenate([*places, np.empty(0, np.int64)])
    return {way: Stack(padded(own[way], len(members)), row, place, totals, told[kept], asked) for way in ways}


def _said(members: Sequence[Member], known: Known) -> Iterator[list[Floats]]:
    """Of each person the (I,) scores of each member."""
    n = len(known.users)
    height = max(1, BLOCK // max(known.weights.width, 1))
    for first in range(0, n, height):
        block = known.of(np.arange(first, min(first + height, n)))
        scores = [member.entry.score_all(member.model, block) for member in members]
        yield from map(list, zip(*scores, strict=True))


def _candidates(said: Sequence[Floats], seen: NDArray[np.int32]) -> NDArray[np.int64]:
    """Items at the top of any member, ascending, without what the person has seen."""
    count = min(TOP + len(seen), len(said[0]))
    tops = [np.argpartition(-row, count - 1)[:count] for row in said]
    return np.setdiff1d(np.concatenate(tops), seen)


# --- snapshots ------------------------------------------------------------------------------------------------------------


def to_arrays(model: Blend) -> dict[str, NDArray[Any]]:
    """The arrays of a snapshot: those of each member with its number before their names, and the keys of users once."""
    arrays: dict[str, NDArray[Any]] = {"blend_users": model.users.keys, "blend_weights": model.weights}
    for place, member in enumerate(model.members):
        name = _model_of(member.name)
        for key, array in member.entry.to_arrays(member.model).items():
            if key not in ("users", "items", f"{name}_users"):
                arrays[f"blend_{place}_{key}"] = array
    return arrays


def header(model: Blend) -> dict[str, Any]:
    """The numbers beside the arrays, those of the members within."""
    return {
        "members": [member.name for member in model.members],
        "headers": [member.entry.header(member.model) for member in model.members],
        "way": model.way,
        "halfway": model.halfway,
        "offset": model.offset,
        "quality": None if np.isnan(model.quality) else model.quality,
    }


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any], items: Vocabulary, lookup: Lookup
) -> Blend:
    """The model that a snapshot holds, on its arrays."""
    users = arrays["blend_users"]
    members = []
    for place, (name, own) in enumerate(zip(header["members"], header["headers"], strict=True)):
        model = _model_of(name)
        prefix = f"blend_{place}_"
        found = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        found |= {"users": users, "items": items.keys, f"{model}_users": users}
        members.append(Member(name, lookup(model), lookup(model).from_arrays(found, own, items)))
    quality = float("nan") if header["quality"] is None else float(header["quality"])
    way: Way = "score" if header["way"] == "score" else "rank"
    ends = arrays["blend_weights"][[0, -1]]  # there were once more, for numbers of items between
    halfway, offset = float(header.get("halfway", 0)), float(header["offset"])
    return Blend(tuple(members), ends, way, halfway, offset, Vocabulary(users), quality)
