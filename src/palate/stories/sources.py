"""How much a source weighs: PageRank over the links that texts hold, from what is known of news hosts before.

Brin and Page, "The anatomy of a large-scale hypertextual Web search engine" (1998); the jump goes by known ranks instead of to
all alike (Page et al., "The PageRank citation ranking", 1999, on personalised ranks).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Annotated

import msgspec
import numpy as np


class SourceParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the weight of a source follows from links."""

    following: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.7
    """Share of a host's rank that goes to those it links to; the rest goes by what was known before."""
    rounds: Annotated[int, msgspec.Meta(ge=1, le=200)] = 20
    """How often ranks are handed on along links: with each round what is missing shrinks by `following`."""
    unknown: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.000015
    """Rank of a host of which nothing is known: about the least of those that are."""


def page_rank(
    links: Mapping[tuple[str, str], float], params: SourceParams, known: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The rank of each host that is known or linked, all together 1.

    `links`: how often texts of the first host link to the second; those to itself don't count. `known`: ranks from before (None:
    those that come with Palate). The same for the same links in any order.
    """
    known = known_ranks() if known is None else known
    ends = {end for link in links for end in link}
    hosts = sorted(ends | known.keys())
    if not hosts:
        return {}
    rows = {host: row for row, host in enumerate(hosts)}
    jump = np.array([known.get(host, params.unknown) for host in hosts], np.float64)
    jump /= jump.sum()
    counted = sorted((rows[one], rows[other], count) for (one, other), count in links.items() if one != other)
    origin = np.array([one for one, _, _ in counted], np.int64)
    target = np.array([other for _, other, _ in counted], np.int64)
    weight = np.array([count for _, _, count in counted], np.float64)
    leaving = np.bincount(origin, weight, len(hosts))
    share = weight / leaving[origin]
    rank = jump
    for _ in range(params.rounds):
        followed = np.bincount(target, rank[origin] * share, len(hosts))
        followed = followed + rank[leaving == 0].sum() * jump  # who links to nobody is left by a jump
        rank = params.following * followed + (1 - params.following) * jump
    return dict(zip(hosts, rank.tolist(), strict=True))


def weights(hosts: Iterable[str], ranks: Mapping[str, float], params: SourceParams) -> dict[str, float]:
    """Of each host: 0 where nothing is known of it, 1 for the highest rank, equal steps for equal ratios.

    A host without a rank has that of the domain above it: news.example.com that of example.com.
    """
    highest = math.log(max(max(ranks.values(), default=0.0), params.unknown) / params.unknown)
    return {host: _weight(_rank(host, ranks, params), highest, params) for host in hosts}


def _rank(host: str, ranks: Mapping[str, float], params: SourceParams) -> float:
    parts = host.split(".")
    names = [".".join(parts[start:]) for start in range(max(len(parts) - 1, 1))]
    return next((ranks[name] for name in names if name in ranks), params.unknown)


def _weight(rank: float, highest: float, params: SourceParams) -> float:
    return max(0.0, min(1.0, math.log(rank / params.unknown) / highest)) if rank > 0 and highest > 0 else 0.0


@cache
def known_ranks() -> Mapping[str, float]:
    """PageRank of 1,156 news hosts over the articles of 2019 and 2020, by the winner of Telegram's contest (see NOTICE)."""
    lines = (resources.files("palate.stories") / "host_pagerank.txt").read_text(encoding="utf-8").splitlines()
    return {host: float(rank) for rank, host in (line.split("\t") for line in lines if line)}
