"""Whom an item may be shown to, and when: its labels say what rights, ages and regions allow, a person's labels who they are.

Labels of items: `rights-from:2026-01-31` and `rights-until:2026-12-31` (the whole day in UTC, or a moment in ISO 8601),
`rights:none`, `age:16`, `region:de`, of which there may be several. Labels of people: `age`, a number of years, and `region`, one
or several. A rule that can't be read closes its item: what was meant to be kept from somebody is kept from everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.domain import to_milliseconds

Kind = Literal["rights", "age", "region"]

PREFIXES = ("rights:", "rights-from:", "rights-until:", "age:", "region:")
"""With which the labels begin that are rules; they say nothing of taste."""

ALWAYS, NEVER = int(np.iinfo(np.int64).min), int(np.iinfo(np.int64).max)
NOBODY = 1_000
"""An age that nobody has."""


class RuleParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which labels of items say whom they may be shown to, and what is taken for true of people who don't say."""

    obey: tuple[Kind, ...] = ("rights", "age", "region")
    """`rights`: an item labelled rights-from:DATE or rights-until:DATE is shown from and until then, rights:none never; `age`:
    one labelled age:16 to people whose label `age` is 16 or more; `region`: one labelled region:de to people whose label `region`
    is de or has it."""
    assumed_age: Annotated[int, msgspec.Meta(ge=0, le=150)] = 0
    """Years of somebody without a label `age`. At 0 they are shown nothing that is labelled with an age."""
    assumed_region: str | None = None
    """Where somebody without a label `region` is. None: nowhere that any item is kept to."""


class Rule(NamedTuple):
    """What an item's labels say."""

    opens: int = ALWAYS
    """Milliseconds since 1970."""
    closes: int = NEVER
    """It isn't shown from here on."""
    age: int = 0
    regions: frozenset[str] | None = None
    """None: everywhere."""


class Viewer(NamedTuple):
    """What rules look at in a person; None where they aren't obeyed."""

    rights: bool = False
    age: int | None = None
    regions: frozenset[str] | None = None


EVERYTHING = Viewer()


def is_rule(label: str) -> bool:
    """Whether a label of an item is a rule."""
    return label.startswith(PREFIXES)


def rule_of(labels: Iterable[str]) -> Rule:
    """What the labels of an item say together; where two say different things the stricter holds.

    >>> rule_of(["drama", "age:16", "region:de", "region:at"]).age
    16
    """
    told = [label.partition(":")[::2] for label in labels if is_rule(label)]
    if not told:
        return OPEN
    regions = frozenset(value.strip().casefold() for name, value in told if name == "region")
    ends = [_moment(value, timedelta(days=1), ALWAYS) for name, value in told if name == "rights-until"]
    return Rule(
        opens=max(
            (_moment(value, timedelta(0), NEVER) for name, value in told if name == "rights-from"), default=ALWAYS
        ),
        closes=ALWAYS if any(name == "rights" for name, _ in told) else min(ends, default=NEVER),
        age=max((_years(value, NOBODY) for name, value in told if name == "age"), default=0),
        regions=regions or None,
    )


OPEN = Rule()
"""What may be shown to everybody at any time."""


def viewer(labels: Mapping[str, Any], params: RuleParams) -> Viewer:
    """A person as the rules see them, by their labels."""
    age, region = labels.get("age"), labels.get("region")
    named = [region] if isinstance(region, str) else region if isinstance(region, list) else []
    regions = frozenset(str(one).strip().casefold() for one in named or [params.assumed_region] if one is not None)
    return Viewer(
        rights="rights" in params.obey,
        age=_years(age, params.assumed_age) if "age" in params.obey else None,
        regions=regions if "region" in params.obey else None,
    )


class Rulebook:
    """Numbers for rules in the order in which they first came, 0 being OPEN. It only grows, so that old numbers stay true."""

    def __init__(self) -> None:
        self.values: list[Rule] = [OPEN]
        self._numbers: dict[Rule, int] = {OPEN: 0}
        self._columns = _columns(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def number(self, labels: Iterable[str]) -> int:
        """The number of what these labels of an item say."""
        rule = rule_of(labels)
        found = self._numbers.get(rule)
        if found is None:
            self.values.append(rule)  # first, so that whoever sees the number finds the rule
            found = self._numbers[rule] = len(self.values) - 1
        return found

    def allows(self, person: Viewer, now: datetime) -> NDArray[np.bool_]:
        """(rules,) which of them let this person see an item now."""
        columns = self._columns
        if len(columns.age) != len(self.values):
            columns = self._columns = _columns(self.values)
        mask, moment = np.ones(len(columns.age), bool), to_milliseconds(now)
        if person.rights:
            mask &= (columns.opens <= moment) & (moment < columns.closes)
        if person.age is not None:
            mask &= columns.age <= person.age
        if person.regions is not None:
            inside = [regions is None or bool(regions & person.regions) for regions in columns.regions]
            mask &= np.array(inside, bool)[columns.region]
        return mask


class _Columns(NamedTuple):
    opens: NDArray[np.int64]
    closes: NDArray[np.int64]
    age: NDArray[np.int64]
    regions: list[frozenset[str] | None]
    region: NDArray[np.int64]
    """Place of each rule's in `regions`: few rules differ in them."""


def _columns(values: list[Rule]) -> _Columns:
    values = list(values)
    places: dict[frozenset[str] | None, int] = {}
    region = [places.setdefault(rule.regions, len(places)) for rule in values]
    opens, closes, age = (np.array([rule[place] for rule in values], np.int64) for place in range(3))
    return _Columns(opens, closes, age, list(places), np.array(region, np.int64))


def _moment(text: str, whole_day: timedelta, unreadable: int) -> int:
    """Milliseconds since 1970 of a moment, or of a day, so long after it begins; without a zone it is UTC's."""
    try:
        found = datetime.fromisoformat(text.strip())
        if len(text.strip()) <= len("2026-01-31"):
            found += whole_day
        return to_milliseconds(found if found.tzinfo else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return unreadable


def _years(value: Any, missing: int) -> int:
    """Whole years; `missing` for what is no number of them."""
    try:
        years = float(value)
    except (TypeError, ValueError):
        return missing
    return int(years) if 0 <= years < NOBODY and not isinstance(value, bool) else missing
