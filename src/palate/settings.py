"""One `Settings`, composed of every part's Params: `palate.toml`, then `PALATE_*` variables over it.

A section of the file is a field of `Settings`, a key in it a field of that part's Params. A variable names both, with two
underscores between: `PALATE_FEED__WINDOW_DAYS=3`. Unknown names are refused. Only `cli` reads settings; `tgnews` its own section.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from palate.accounts import TelegramParams
from palate.delivery.bot_params import BotParams
from palate.delivery.context import ServerParams
from palate.delivery.gorse_messages import GorseParams
from palate.editions import EditionParams
from palate.events import EventParams
from palate.experiments import ExperimentParams
from palate.feed_params import FeedParams
from palate.heavy_learning import HeavyParams
from palate.hub_params import HubParams
from palate.ingest import IngestParams
from palate.interactions import InteractionParams
from palate.labels import LabelParams
from palate.light_learning import LightParams
from palate.models.blend import BlendParams
from palate.models.content import ContentParams
from palate.models.ease import EaseParams
from palate.models.factorization_machine import FactorizationMachineParams
from palate.models.implicit_als import ImplicitALSParams
from palate.models.item_knn import ItemKnnParams
from palate.models.nearest import IndexParams
from palate.models.popularity import PopularityParams
from palate.models.svd import SvdParams
from palate.news import NewsParams
from palate.quality import QualityParams
from palate.recommending import ListParams
from palate.report_params import ReportParams
from palate.rules import RuleParams
from palate.settings_file import Setting, described, read
from palate.sources.fetching import FetchParams
from palate.sources.joining import JoiningParams
from palate.story_window import StoryParams
from palate.surface_params import SurfaceParams
from palate.text.correction import CorrectionParams
from palate.train import TrainParams
from palate.watching.rules import WatchParams


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    database_url: str | None = None
    """PostgreSQL address, such as postgresql://user:password@host/name. None: SQLite in the data folder."""
    store: str | None = None
    """Where machines that share the database find sealed events and snapshots: s3://bucket/prefix (with ?endpoint=http://host:port
    for a server that isn't Amazon's; credentials from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or file:///folder that all
    mount. None: the data folder, for one machine."""
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
    news: NewsParams = NewsParams()
    """What makes stories of articles, and their order, for `tgnews`."""
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
    index: IndexParams = IndexParams()
    """By what candidates are found among very many items."""
    train: TrainParams = TrainParams()
    """The loop that learns."""
    feed: FeedParams = FeedParams()
    """What a person is served."""
    light: LightParams = LightParams()
    """Which of many candidates come before the heavy ranker."""
    heavy: HeavyParams = HeavyParams()
    """In whose order they are served."""
    gorse: GorseParams = GorseParams()
    """The surface for clients of Gorse."""
    surfaces: dict[str, SurfaceParams] = {}
    """Places where lists are shown, by the name that requests give: a table [surfaces.NAME] each, with
    what docs/lists.md tells of."""
    editions: dict[str, EditionParams] = {}
    """The best of what came, every few hours, by the names that surfaces give: a table [editions.NAME] each, with what
    docs/editions.md tells of."""
    lists: ListParams = ListParams()
    """Lists that are computed for everybody beforehand (`palate recommend --all`)."""
    rules: RuleParams = RuleParams()
    """Whom items may be shown to, by their labels and people's."""
    quality: QualityParams = QualityParams()
    """When the figures of a day of incoming data call for somebody."""
    experiments: ExperimentParams = ExperimentParams()
    """How experiments are judged (`palate experiment`)."""
    watch: WatchParams = WatchParams()
    """How a player's sessions and ticks become views (`palate watch-etl`)."""
    report: ReportParams = ReportParams()
    """What the business's figures are (`palate report`)."""


def load(file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a file (None: all defaults) under those of the environment.

    Raises SettingsError that names the field.
    """
    return read(Settings, file, environment)


def describe() -> Iterator[Setting]:
    """Every field that can be set, in order."""
    return described(Settings())


def to_markdown() -> str:
    """docs/settings.md: every setting with its type, default and meaning."""
    lines = [_HEAD]
    section: str | None = ""
    for setting in describe():
        if setting.section != section:
            section = setting.section
            lines.append(f"\n## {f'[{section}]' if section else 'Top level'}\n")
            lines += [f"{setting.about}\n"] if setting.about else []
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
