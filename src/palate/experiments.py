"""Experiments: who is served by which variant of the settings.

A person's place is a salted hash of their own id, so that it stays the same everywhere and for ever, without anything being
stored of them. One hash says whether they take part, which grows with the ramp; another says by which variant, which never
changes. Every experiment has a salt of its own: several run at once on the same people, independently of one another, as
long as they don't change the same setting (the overlapping experiments of Tang et al., KDD 2010, with one layer for each).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from msgspec import Meta

from palate import alerts, database
from palate.domain import from_milliseconds, to_milliseconds
from palate.errors import InvalidInput, NotFound, SettingsError
from palate.feed_params import FeedParams
from palate.settings_file import changed
from palate.surface_params import SurfaceParams

CONTROL = "control"
"""The variant in which nothing is changed; every experiment has it."""

LEARNED = frozenset(
    (
        "blend",
        "content",
        "ease",
        "factorization_machine",
        "implicit_als",
        "index",
        "interactions",
        "item_knn",
        "popularity",
        "svd",
        "train",
    )
)
"""Sections that are read when models are learned, once for all people."""

RANKERS = frozenset(("heavy", "light"))
"""Those that are read when rankers are."""

MOST = 4
"""Experiments that run at once: their names have to fit into an event's `variant`."""

NAME = r"^[a-z0-9][a-z0-9_-]{0,30}$"

STOPPED = "experiment_stopped"
UNEVEN = "experiment_uneven"
"""Kinds of alerts."""

_TABLE = database.experiments


@dataclass(frozen=True)
class Metric:
    """A figure of a variant: one sum over its people over another."""

    numerator: str
    denominator: str
    """Names of `experiment_sums.SUMS`."""
    higher_is_better: bool
    meaning: str


METRICS = {
    "likes_per_view": Metric("likes", "views", True, "likes over views"),
    "views_per_visit": Metric("views", "visits", True, "items viewed in a visit: its depth"),
    "opens_per_shown": Metric("opens", "shown", True, "opened over shown"),
    "comments_per_view": Metric("comments", "views", True, "comments over views"),
    "visits_without_view": Metric("empty_visits", "visits", False, "share of the visits in which nothing was viewed"),
    "visits_per_person": Metric("visits", "people", True, "visits of a person so far"),
    "hours_per_person": Metric("hours", "people", True, "hours watched and read by a person so far"),
    "retention_by_day": Metric(
        "kept_days", "followed_days", True, "share of the active days followed by an active day"
    ),
    "retention_by_week": Metric("kept_weeks", "followed_weeks", True, "the same of weeks, counted from the start"),
}


class Variant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What some of the people get."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,14}$")]
    settings: dict[str, Any] = {}
    """Other values of settings, by their full names, such as feed.exploration."""
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    """How many people get it, beside the other variants' weights."""


class Varied(msgspec.Struct, frozen=True, kw_only=True):
    """What can be varied: the settings that are read anew at each request."""

    feed: FeedParams = FeedParams()
    surfaces: dict[str, SurfaceParams] = {}
    """By their names."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """From so many hours after the start on this share of all people takes part."""

    hours: Annotated[float, Meta(ge=0)]
    share: Annotated[float, Meta(gt=0, le=1)]


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A definition, as it is stored; it doesn't change once it runs."""

    name: Annotated[str, Meta(pattern=NAME)]
    variants: tuple[Variant, ...]
    """The control first."""
    ramp: tuple[Step, ...] = (Step(0, 1),)
    """Ascending in both."""
    metric: str = "likes_per_view"
    """The one by which it is decided."""
    lift: Annotated[float, Meta(gt=0.001, le=10)] = 0.05
    """The relative lift of it that is looked for: intervals are narrowest when such a one is found."""
    guards: tuple[str, ...] = ()
    """Metrics that stop it when a variant does worse than the control."""
    salt: str = ""


class ExperimentParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How experiments are judged. What can be tried, and what the figures mean: docs/experiments.md."""

    level: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95
    """Probability with which intervals hold, at all looks together. Guards share it among them."""
    power: Annotated[float, Meta(ge=0.5, lt=1)] = 0.8
    """With which the wanted lift is found at the number of people that a report asks for."""
    guards: tuple[str, ...] = ("likes_per_view", "views_per_visit", "visits_without_view", "retention_by_day")
    """Metrics that stop an experiment by itself, where it doesn't name its own."""
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """By how much, as a share of the control's, a guard may be worse before the experiment is stopped."""
    uneven: Annotated[float, Meta(gt=0, lt=0.5)] = 0.001
    """Chance below which people aren't split as they should be, and no figure is to be trusted."""
    opened: tuple[str, ...] = ("opened",)
    """Types of events that open an item."""
    commented: tuple[str, ...] = ("comment",)
    """Types of events that comment on one."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.guards if name not in METRICS]
        if unknown:
            raise ValueError(f"there is no metric {unknown[0]}: choose of {', '.join(METRICS)}")


@dataclass(frozen=True)
class Stored:
    """An experiment with what became of it."""

    key: int
    experiment: Experiment
    started: datetime
    stopped: datetime | None
    """None: it runs."""
    reason: str | None
    """Why it was stopped."""


# --- definitions ----------------------------------------------------------------------------------------------------------


def check(experiment: Experiment) -> Experiment:
    """The experiment, if all of it can be. Raises InvalidInput."""
    names = [one.name for one in experiment.variants]
    if len(names) < 2 or names[0] != CONTROL or experiment.variants[0].settings:
        raise InvalidInput("an experiment has the control, in which nothing is changed, and at least one variant")
    if len(set(names)) < len(names):
        raise InvalidInput("two variants have the same name")
    _check_metrics((experiment.metric, *experiment.guards))
    steps = experiment.ramp
    if not steps or any(a.hours >= b.hours or a.share > b.share for a, b in pairwise(steps)):
        raise InvalidInput("the ramp has to go on in time and never down, so that nobody leaves")
    for one in experiment.variants[1:]:
        if not one.settings:
            raise InvalidInput(f"variant {one.name} changes nothing; name a setting, such as feed.exploration=0.2")
    return experiment


def _check_metrics(names: Collection[str]) -> None:
    for name in names:
        if name not in METRICS:
            raise InvalidInput(f"there is no metric {name}: choose of {', '.join(METRICS)}")


def varied(served: Varied, settings: Mapping[str, Any], where: str) -> Varied:
    """What is served with a variant's values. Raises SettingsError that names the setting."""
    for path in settings:
        _check_path(path, served, where)
    return changed(served, settings, where)


def _check_path(path: str, served: Varied, where: str) -> None:
    section, _, rest = path.partition(".")
    if section in LEARNED:
        raise SettingsError(
            f"{path} (in {where}) is read when models are learned, once for all people. Learn a second model with it, such as a "
            "blend of one member (docs/experiments.md), and let feed.model name that."
        )
    if section in RANKERS:
        raise SettingsError(
            f"{path} (in {where}) is read when rankers are learned, once for all people. A variant can set feed.ranker, whether "
            "they are asked, and feed.keep, how much comes before the heavy one."
        )
    if section not in Varied.__struct_fields__:
        raise SettingsError(
            f"{path} (in {where}) can't be varied: only what is read at each request can, the settings of [feed] and of "
            "[surfaces.NAME]."
        )
    if section == "surfaces" and rest.partition(".")[0] not in served.surfaces:
        raise SettingsError(f"{path} (in {where}) is of no surface that the settings name.")


def models(experiment: Experiment) -> set[str]:
    """Names of the models that its variants are served by."""
    settings = (item for one in experiment.variants for item in one.settings.items())
    return {value for path, value in settings if _MODEL.fullmatch(path) and isinstance(value, str)}


_MODEL = re.compile(r"feed\.model|surfaces\..*\.model")


def needs_rankers(experiment: Experiment) -> bool:
    """Whether its variants are served differently only where the snapshot holds rankers."""
    return any(path in ("feed.ranker", "feed.keep") for one in experiment.variants for path in one.settings)


def parse_variant(text: str) -> Variant:
    """A variant as it is written on the command line: `bold feed.exploration=0.3 feed.model=ials weight=2`.

    A value is a number, true, false, a JSON list or plain text. Raises InvalidInput.
    """
    name, *parts = text.split() or [""]
    settings: dict[str, Any] = {}
    for part in parts:
        path, sign, value = part.partition("=")
        if not sign:
            raise InvalidInput(f"{part!r} in variant {name} is no SETTING=VALUE")
        settings[path] = _value(value)
    weight = settings.pop("weight", 1.0)
    try:
        return msgspec.convert({"name": name, "settings": settings, "weight": weight}, Variant)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"variant {text!r} can't be read: {error}") from None


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def parse_ramp(text: str) -> tuple[Step, ...]:
    """A ramp as it is written on the command line: `0:5,24:20,72:100`, hours and percent. Raises InvalidInput."""
    found = re.findall(r"([\d.]+):([\d.]+)", text)
    if not found or ",".join(f"{hours}:{percent}" for hours, percent in found) != text:
        raise InvalidInput(f"{text!r} is no ramp: write hours:percent, such as 0:5,24:20,72:100")
    try:
        return msgspec.convert([[float(hours), float(percent) / 100] for hours, percent in found], tuple[Step, ...])
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no ramp: {error}") from None


# --- assignment -----------------------------------------------------------------------------------------------------------


def assign(experiment: Experiment, started: datetime, id: str, now: datetime) -> Variant | None:
    """The variant of the person with this own id; None while they take no part."""
    if _place(experiment.salt, b"part", id) >= share(experiment, now - started):
        return None
    return variant_of(experiment, id)


def share(experiment: Experiment, age: timedelta) -> float:
    """Of all people, who take part so long after the start."""
    hours = age / timedelta(hours=1)
    return max((step.share for step in experiment.ramp if step.hours <= hours), default=0.0)


def variant_of(experiment: Experiment, id: str) -> Variant:
    """The variant of a person, if they take part: it depends on the id and the salt alone."""
    total = sum(one.weight for one in experiment.variants)
    left = _place(experiment.salt, b"variant", id) * total
    for one in experiment.variants[:-1]:
        left -= one.weight
        if left < 0:
            return one
    return experiment.variants[-1]


def _place(salt: str, purpose: bytes, id: str) -> float:
    """Where a person lies between 0 and 1."""
    said = id.encode("utf-8", "surrogatepass")
    found = hashlib.blake2b(said, digest_size=7, key=salt.encode(), person=purpose)  # 56 bits: a float holds 53
    return int.from_bytes(found.digest()) / 2**56


def label(experiment: str, variant: str) -> str:
    """What an event's `variant` says of one experiment; of several it is these with semicolons between."""
    return f"{experiment}:{variant}"


def variant_in(text: str | None, experiment: str) -> str | None:
    """The variant of this experiment that an event's `variant` names."""
    parts = (part.partition(":") for part in (text or "").split(";"))
    return next((variant for name, sign, variant in parts if sign and name == experiment), None)


def own_id(connection: sa.Connection, user: str) -> str:
    """The id by which a person is assigned, whichever of theirs they come with: that of the person whom the others joined."""
    found = connection.scalar(_OWN_ID, {"one": user})
    return user if found is None else str(found)


_USERS = database.users.alias("given")
_OWN_ID = (
    sa.select(database.users.c.id)
    .join_from(_USERS, database.users, database.users.c.key == sa.func.coalesce(_USERS.c.person, _USERS.c.key))
    .where(_USERS.c.id == sa.bindparam("one"))
)


# --- what is stored -------------------------------------------------------------------------------------------------------


def start(connection: sa.Connection, experiment: Experiment, now: datetime) -> Stored:
    """Let an experiment run from now on, with a salt of its own. Its variants' settings are checked by the caller, with `varied`.

    Raises InvalidInput for one that can't be, whose name was used before, or that changes what a running one changes.
    """
    experiment = check(msgspec.structs.replace(experiment, salt=secrets.token_hex(16)))
    if connection.scalar(sa.select(_TABLE.c.key).where(_TABLE.c.name == experiment.name)) is not None:
        raise InvalidInput(
            f"there was an experiment {experiment.name} before: its events keep that name, choose another"
        )
    others = running(connection)
    if len(others) >= MOST:
        raise InvalidInput(f"{MOST} experiments run already; stop one of them first")
    for other in others:
        both = _changed_by(experiment) & _changed_by(other.experiment)
        if both:
            raise InvalidInput(f"{other.experiment.name} varies {min(both)} already; stop it first")
    row = {"name": experiment.name, "definition": encode(experiment), "started": to_milliseconds(now)}
    connection.execute(sa.insert(_TABLE).values(row))
    return find(connection, experiment.name)


def _changed_by(experiment: Experiment) -> set[str]:
    return {path for one in experiment.variants for path in one.settings}


def encode(experiment: Experiment) -> str:
    """As JSON."""
    return msgspec.json.encode(experiment).decode()


def stop(connection: sa.Connection, name: str, reason: str, now: datetime) -> Stored:
    """Let nobody be served by it any more; of one that is stopped already only its alerts end. Raises NotFound."""
    found = find(connection, name)
    if found.stopped is None:
        values = {"stopped": to_milliseconds(now), "reason": reason}
        connection.execute(sa.update(_TABLE).where(_TABLE.c.key == found.key).values(values))
    alerts.end(connection, STOPPED, name, now)
    alerts.end(connection, UNEVEN, name, now)
    return find(connection, name)


def find(connection: sa.Connection, name: str) -> Stored:
    """The experiment of this name. Raises NotFound."""
    row = connection.execute(sa.select(_TABLE).where(_TABLE.c.name == name)).first()
    read = None if row is None else _read(row)
    if read is None:
        raise NotFound(f"There is no experiment {name}; `palate experiment list` names all.")
    return read


def everything(connection: sa.Connection) -> list[Stored]:
    """All experiments, the newest first; a definition that this Palate can't read is left out."""
    rows = connection.execute(sa.select(_TABLE).order_by(_TABLE.c.key.desc()))
    return [found for found in map(_read, rows) if found is not None]


def running(connection: sa.Connection) -> list[Stored]:
    """Those that run, in the order of their start."""
    rows = connection.execute(_RUNNING)
    return [found for found in map(_read, rows) if found is not None]


_RUNNING = sa.select(_TABLE).where(_TABLE.c.stopped.is_(None)).order_by(_TABLE.c.key)


def _read(row: sa.Row[Any]) -> Stored | None:
    try:
        experiment = check(msgspec.json.decode(row.definition, type=Experiment))
    except (msgspec.DecodeError, InvalidInput):  # written by another Palate, or by hand
        return None
    stopped = None if row.stopped is None else from_milliseconds(row.stopped)
    return Stored(row.key, experiment, from_milliseconds(row.started), stopped, row.reason)


def wanted_shares(experiment: Experiment) -> Sequence[float]:
    """Of the people who take part, those of each variant."""
    total = sum(one.weight for one in experiment.variants)
    return [one.weight / total for one in experiment.variants]
