"""What a surface is: a place where lists are shown, such as a row of a page, by the name that requests give."""

from __future__ import annotations

from typing import Annotated

import msgspec

from palate.domain import Kind
from palate.models.registry import Name


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
