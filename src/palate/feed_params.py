"""What steers a feed."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from palate.candidates.candidate_params import CandidateParams
from palate.models.registry import Name
from palate.ranking.taste import TasteParams
from palate.surface_params import Order


class FeedParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person is served."""

    model: Name = "fm"
    """By which people's items are scored; training learns it besides those of `train.models`. Where a snapshot lacks it, or found
    it worse than popularity, it is `fm`, and where that is missing popularity, with each person's own sources and labels."""
    window_days: Annotated[float, msgspec.Meta(gt=0, le=36_500)] = 7.0
    """Items published longer ago than so many days are not served, unless a person or a request wants another window.
    Items without a date never go stale."""
    order: Order = "own"
    """By what lists are ordered: "own" by what each person would like, "time" by what is newest, "rate" by what everybody likes.
    The last two are what an experiment compares the first with: they explore nothing, ask nothing and spread nothing."""
    ranker: Literal["heavy", "score"] = "heavy"
    """By what candidates are put into a person's own order: "heavy" by the snapshot's rankers, where it holds them, "score" by
    the model's score alone, as where it holds none."""
    keep: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    """Candidates that the light ranker lets through to the heavy one; None: as many as `light.keep` and `light.share`
    said when it was learned."""
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
    impressions_floor: Annotated[int, msgspec.Meta(ge=0)] = 20
    """Of the items of which little is known those that were shown fewer times than this are drawn first, so that each new item
    gets its chance; 0 promises nothing. Impressions are counted while `heavy.enabled` is on."""
    exploration_pool: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    """The newest items of which little is known: one of these is drawn."""
    candidates: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 300
    """Items with the best scores that are looked at when the list is arranged."""
    source_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    """Part of its value that an item loses for each of the ten places before it that its own source has."""
    label_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.05
    """The same for each with the same first label: one like doesn't fill the whole page with its kind."""
    category_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.02
    """The same for each of the same category of news."""
    likeness_spread: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Part of its value that an item loses beside the most similar of the ten places before it, at a cosine of 1 between what the
    factorization machine has learned of both."""
    source_cap: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Items of one source in one answer at most, as long as there are others; None: any number."""
    first_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3
    """The same for a new person, by source and by chosen topic."""
    freshness: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3
    """Part of its value that an item loses with age at most."""
    half_life_days: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    """Days after which half of that part is lost."""
    bring_back_minutes: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    """Items shown so long ago and neither viewed nor acted on come back when nothing new is left."""
    find: CandidateParams = CandidateParams()
    """How candidates are found where there are very many items."""
    taste: TasteParams = TasteParams()
    """How fast a person's own votes move their feed."""
