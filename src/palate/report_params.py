"""What the business's figures are: the settings of `palate report`, without what adds them up."""

from __future__ import annotations

from typing import Annotated

import msgspec


class LifetimeParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person is worth. Without a value of a week or an hour it is counted in active weeks."""

    value_per_week: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """What a week in which a person is active is worth, in money."""
    value_per_hour: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """What an hour watched or read is worth, in money."""
    currency: str = ""
    """Shown behind the value."""
    yearly_discount: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.1
    """By how much what comes a year later counts less."""
    horizon_weeks: Annotated[int, msgspec.Meta(ge=1, le=1040)] = 104
    """What comes later than this counts nothing."""

    @property
    def priced(self) -> bool:
        """Whether values are money."""
        return self.value_per_week is not None or self.value_per_hour is not None

    @property
    def unit(self) -> str:
        """What values are counted in."""
        return (self.currency or "money") if self.priced else "active weeks"


class ReportParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the business's figures are."""

    visit_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 30
    """A visit ends with a pause of more than this."""
    liked: tuple[str, ...] = ("like",)
    """Types of events that are likes. Views are the types that `interactions.types` calls `viewed`."""
    fractions: tuple[str, ...] = ("watch",)
    """Types whose value is the part of the item's duration that was watched."""
    dwells: tuple[str, ...] = ("viewed", "opened")
    """Types whose value, where they have one, is the seconds that a person stayed."""
    longest_dwell_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 60
    """What one such event can say at most: a page that stays open is not read all night."""
    unasked_surfaces: tuple[str, ...] = ("bot",)
    """Surfaces that show people things unasked: there `shown` alone doesn't mean that they were active."""
    personal_items: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Who has viewed so many different items has a list of their own, others the one for everybody."""
    lifetime: LifetimeParams = LifetimeParams()
    """What people are worth."""
    memory_mb: Annotated[int, msgspec.Meta(ge=256)] = 2048
    """What adding up may take before it goes on on the disk."""
