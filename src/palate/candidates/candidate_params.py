"""What steers the search for candidates."""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=20_000)]


class CandidateParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many items each way finds, where there are too many to look at all. What all find is scored exactly."""

    exact: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    """As long as no more items may be served to somebody, all of them are looked at."""
    behaviour: Count = 300
    """Those that the person's own score puts first, age included."""
    near: Count = 300
    """The same among the items that the person's own weights for sources and labels lift."""
    probes: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 128
    """Lists of the model's index that are looked into; for who has met much, one more for every three items, up to
    eight times as many."""
    popular: Count = 300
    """Those that everybody likes most."""
    trending: Count = 200
    """Those that many liked lately."""
    fresh: Count = 300
    """The newest of all items."""
    followed: Count = 300
    """The newest of the sources that the person follows."""
    new: Count = 1_000
    """The newest that came after the model's index was made."""
    text: Count = 150
    """Those nearest to the texts of what the person took to lately; of what came after the index was made as many again."""
    sources: Count = 10
    """Sources nearest to the person."""
    labels: Count = 10
    """Labels nearest to the person."""
    categories: Count = 3
    """Categories nearest to the person."""
    clusters: Count = 8
    """Clusters of the model's vectors nearest to the person."""
    of_group: Count = 100
    """The most popular items of each of these groups."""
