"""One `Settings`, composed of every part's Params: `palate.toml`, then `PALATE_*` variables over it.

A section of the file is a field of `Settings`, a key in it a field of that part's Params. A variable names both, with two
underscores between: `PALATE_FEED__WINDOW_DAYS=3`. Unknown names are refused. Only `cli` reads settings.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import textwrap
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from palate.accounts import TelegramParams
from palate.delivery.bot_params import BotParams
from palate.delivery.context import ServerParams
from palate.errors import SettingsError
from palate.events import EventParams
from palate.feed import FeedParams
from palate.hub_params import HubParams
from palate.ingest import IngestParams
from palate.interactions import InteractionParams
from palate.labels import LabelParams
from palate.models.blend import BlendParams
from palate.models.content import ContentParams
from palate.models.ease import EaseParams
from palate.models.factorization_machine import FactorizationMachineParams
from palate.models.implicit_als import ImplicitALSParams
from palate.models.item_knn import ItemKnnParams
from palate.models.popularity import PopularityParams
from palate.models.svd import SvdParams
from palate.sources.fetching import FetchParams
from palate.sources.joining import JoiningParams
from palate.story_window import StoryParams
from palate.text.correction import CorrectionParams
from palate.train import TrainParams
from palate.watching.rules import WatchParams

RESERVED = {"PALATE_DATA", "PALATE_LEASH"}
"""Variables that begin like ours and are no settings: where tests find real data, and the supervisor's pipe."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    database_url: str | None = None
    """PostgreSQL address, such as postgresql://user:password@host/name. None: SQLite in the data folder."""
    server: ServerParams = ServerParams()
    """The HTTP server: API and web pages."""
    events: EventParams = EventParams()
    """The durable log."""
    interactions: InteractionParams = InteractionParams()
    """What each type of event means to the models."""
    fetch: FetchParams = FetchParams()
    """How sources are asked over HTTP."""
    ingest: IngestParams = IngestParams()
    """The loop that reads sources."""
    telegram: TelegramParams = TelegramParams()
    """How Telegram is read."""
    joining: JoiningParams = JoiningParams()
    """How carefully channels are joined."""
    hub: HubParams = HubParams()
    """How channels are listened to."""
    bot: BotParams = BotParams()
    """The bot that delivers on Telegram."""
    stories: StoryParams = StoryParams()
    """What makes stories of items, and their order."""
    labels: LabelParams = LabelParams()
    """How people label texts."""
    train_text: CorrectionParams = CorrectionParams()
    """What `palate train-text` learns from their labels."""
    popularity: PopularityParams = PopularityParams()
    """What everybody likes."""
    factorization_machine: FactorizationMachineParams = FactorizationMachineParams()
    """The model of who likes what (`fm`)."""
    implicit_als: ImplicitALSParams = ImplicitALSParams()
    """The model of who takes to what among all there is (`ials`)."""
    item_knn: ItemKnnParams = ItemKnnParams()
    """What people take to beside what they took to (`itemknn`)."""
    ease: EaseParams = EaseParams()
    """The same by a linear model of all items at once (`ease`)."""
    svd: SvdParams = SvdParams()
    """By the few directions in which tastes differ most (`svd`)."""
    blend: BlendParams = BlendParams()
    """Several of these, and the same over several stretches of history, mixed (`blend`)."""
    content: ContentParams = ContentParams()
    """What an item's text, source and labels say of it before anybody has seen it."""
    train: TrainParams = TrainParams()
    """The loop that learns."""
    feed: FeedParams = FeedParams()
    """What a person is served."""
    watch: WatchParams = WatchParams()
    """How a player's sessions and ticks become views (`palate watch-etl`)."""


@dataclass(frozen=True)
class Setting:
    """One field, for documentation: where it stands, its type in words, its default, its meaning."""

    section: str | None
    name: str
    type: str
    default: object
    meaning: str


def load(file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a file (None: all defaults) under those of the environment.

    Raises SettingsError that names the field.
    """
    values = _read(file) if file is not None else {}
    where = str(file) if file is not None else "the defaults"
    _convert(values, where, strict=True)  # so that a fault in the file is blamed on the file
    for name, text in environment.items():
        if name.startswith("PALATE_") and name not in RESERVED and text:
            _put(values, name.removeprefix("PALATE_").lower().split("__"), text, name)
    return _convert(values, "the PALATE_* variables", strict=False)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {file} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {file} is no valid TOML: {error}.") from error


def _put(values: dict[str, Any], path: list[str], text: str, variable: str) -> None:
    *sections, name = path
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError(f"{variable} names a section inside a plain value.")
    try:
        values[name] = msgspec.json.decode(text)  # numbers, true, lists; any other text stays text
    except (msgspec.DecodeError, UnicodeError):
        values[name] = text


def _convert(values: dict[str, Any], where: str, strict: bool) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=strict)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), where)) from error


def _explain(message: str, where: str) -> str:
    reason, _, place = message.partition(" - at `$")
    path = place.rstrip("`").strip(".").removeprefix("[...]")
    unknown = re.search(r"unknown field `(.*)`", reason)
    if unknown is None:
        return f"Setting {path or '(top level)'} in {where}: {reason[0].lower()}{reason[1:]}."
    name = ".".join(part for part in (path, unknown[1]) if part)
    known = [f"{setting.section}.{setting.name}" if setting.section else setting.name for setting in describe()]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; docs/settings.md lists all."
    return f"There is no setting {name} (in {where}){hint}"


def describe() -> Iterator[Setting]:
    """Every field that can be set, in order."""
    defaults = Settings()
    for name, type_, meaning in _fields(Settings):
        if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
            part = getattr(defaults, name)
            yield from (Setting(name, f, _words(t), getattr(part, f), m) for f, t, m in _fields(type_))
        else:
            yield Setting(None, name, _words(type_), defaults.database_url, meaning)


def _fields(struct: type[msgspec.Struct]) -> Iterator[tuple[str, Any, str]]:
    """Name, type and docstring of each field; the docstring is the string that follows it in the source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(body, ast.ClassDef), "the source of a class begins with it"
    meanings: dict[str, str] = {}
    for statement, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            assert isinstance(text, str), f"{struct.__name__}.{statement.target.id} needs a docstring"
            meanings[statement.target.id] = " ".join(text.split())
    for field in msgspec.structs.fields(struct):
        yield field.name, field.type, meanings[field.name]


def _words(type_: Any) -> str:
    if get_origin(type_) is Annotated:
        base, *marks = get_args(type_)
        bounds = [text for mark in marks if isinstance(mark, msgspec.Meta) for text in _bounds(mark)]
        return " ".join([_words(base), *bounds])
    if isinstance(type_, types.UnionType) or str(get_origin(type_)) == "typing.Union":
        return " or ".join(_words(part) for part in get_args(type_))
    if str(get_origin(type_)) == "typing.Literal":
        return " or ".join(f'"{value}"' for value in get_args(type_))
    if type_ is type(None):
        return "none"
    return type_.__name__ if isinstance(type_, type) and not get_args(type_) else str(type_).replace("palate.", "")


def _bounds(meta: msgspec.Meta) -> Iterator[str]:
    for sign, bound in ((">", meta.gt), ("≥", meta.ge), ("<", meta.lt), ("≤", meta.le)):
        if bound is not None:
            yield f"{sign} {bound}"


def to_markdown() -> str:
    """docs/settings.md: every setting with its type, default and meaning."""
    lines = [_HEAD]
    section: str | None = ""
    for setting in describe():
        if setting.section != section:
            section = setting.section
            lines.append(f"\n## {f'[{section}]' if section else 'Top level'}\n")
        default = msgspec.json.encode(setting.default).decode()
        shown = "none" if default == "null" else default if len(default) < 60 else "see below"
        lines.append(f"- **`{setting.name}`** ({setting.type}; default `{shown}`): {setting.meaning}")
    return "\n".join(lines) + "\n"


_HEAD = """# Settings

Palate runs without any. What you want otherwise goes into a TOML file that you name with `--config FILE`:

```toml
[feed]
window_days = 3
```

or into the environment, with two underscores between section and name: `PALATE_FEED__WINDOW_DAYS=3`. The environment wins.
Unknown names and impossible values are refused at the start, in one sentence that names them."""


if __name__ == "__main__":
    print(to_markdown(), end="")
