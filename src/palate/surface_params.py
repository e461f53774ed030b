"""What a surface is: a place where lists are shown, such as a row of a page, by the name that requests give."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from palate.domain import Kind
from palate.models.registry import Name

Order = Literal["own", "time", "rate"]
"""By what a list is ordered: what this person would like, what is newest, what everybody likes."""


class SurfaceParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one surface is served, where it isn't as `[feed]` says."""

    model: Name | None = None
    """By which people's items are scored; None: that of the feed."""
    lists: str | None = None
    """Name of the precomputed lists that are served (`palate recommend --all`); None: all is scored at the request."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    """Items in one answer at most; None: as many as are asked for."""
    languages: tuple[str, ...] = ()
    """Only items in these languages (ISO 639-1); empty: all."""
    categories: tuple[str, ...] = ()
    """Only news of these categories."""
    kinds: tuple[Kind, ...] = ()
    """Only items of these kinds."""
    labels: tuple[str, ...] = ()
    """Only items with at least one of these labels: the theme."""
    hits: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of places that go to what everybody likes most, whatever its language, category, kind and labels, so that who follows
    a theme doesn't miss what all others talk about."""
    order: Order | None = None
    """By what the list is ordered; None: as that of the feed."""
    edition: str | None = None
    """Only what was in the newest editions of this name, as long ago as that may be; None: all there is."""
    backlog: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000
    """Items of the newest editions that somebody may find waiting at most."""
