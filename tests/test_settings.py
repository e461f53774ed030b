import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

import palate
from palate import cli, settings, settings_file
from palate.errors import SettingsError
from palate.models.implicit_als import ImplicitALSParams
from palate.news import NewsParams


def write(path: Path, text: str) -> Path:
    (path / "palate.toml").write_text(text)
    return path / "palate.toml"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[feed]\nwindow_days = 3\n[server]\nport = 9000\n")
    loaded = settings.load(file, {"PALATE_FEED__WINDOW_DAYS": "2", "HOME": "/root", "PALATE_DATA": "/elsewhere"})
    assert loaded.feed.window_days == 2
    assert loaded.server.port == 9000


def test_without_anything_the_defaults_hold() -> None:
    assert settings.load(None, {}) == settings.Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[feed]\nwindw_days = 3", "did you mean feed.window_days?"),
        ("[news.clustering]\nsimilarty = 3", "did you mean news.clustering.similarity?"),
        ("[news.headline]\nfault = 3", "news.headline.fault"),
        ("[feeed]\nwindow_days = 3", "feeed"),
        ("[server]\nport = 99999", "server.port"),
        ("[server]\nport = 'many'", "server.port"),
        ("[server\n", "no valid TOML"),
        ("[interactions]\nrating_range = [5, 1]", "lower first"),
    ],
)
def test_a_fault_in_the_file_is_named(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=words.replace("?", r"\?")) as caught:
        settings.load(write(tmp_path, text), {})
    assert "palate.toml" in str(caught.value)
    assert "\n" not in str(caught.value)[:-1]


@pytest.mark.parametrize(
    "file", sorted((Path(palate.__file__).parent / "presets").glob("*.toml")), ids=lambda file: file.stem
)
def test_a_preset_is_a_file_of_settings_that_the_command_prints(file: Path) -> None:
    found = settings.load(file, {})
    assert found != settings.load(None, {})
    msgspec.convert(found.blend.settings["ials"], ImplicitALSParams)
    said = CliRunner().invoke(cli.app, ["settings", "--preset", file.stem])
    assert said.stdout == file.read_text()
    assert CliRunner().invoke(cli.app, ["settings", "--preset", "radio"]).exit_code == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml can't be read"):
        settings.load(tmp_path / "none.toml", {})


@pytest.mark.parametrize("name", ["PALATE_FEED__NOTHING", "PALATE_NOTHING", "PALATE_DATABASE_URL__X__Y"])
def test_an_unknown_variable_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        settings.load(None, {"PALATE_DATABASE_URL": "postgresql://x/y", name: "1"})


def test_no_secret_is_shown() -> None:
    secrets = {
        "PALATE_BOT__TOKEN": "1:TOKEN",
        "PALATE_TELEGRAM__API_HASH": "hush",
        "PALATE_TELEGRAM__SESSION_KEY": "kept",
    }
    loaded = settings.load(
        None, secrets | {"PALATE_DATABASE_URL": "postgresql://ann:pass@w/rd@host/name?password=pass"}
    )
    shown = settings_file.without_secrets(loaded)
    assert not [word for word in ("TOKEN", "hush", "kept", "pass@", "w/rd", "=pass") if word in str(shown)]
    assert shown["database_url"] == "postgresql://ann:(hidden)@host/name?password=(hidden)"
    assert settings_file.without_secrets(settings.Settings())["bot"]["token"] is None
    assert {one.name for one in settings.describe() if one.is_secret} == {"token", "api_hash", "session_key"}


def test_every_setting_is_documented() -> None:
    described = list(settings.describe())
    assert len(described) > 40
    assert all(len(setting.meaning) > 15 for setting in described)
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings.to_markdown(), "run: python -m palate.settings > docs/settings.md"


def test_sections_within_sections_are_documented_by_their_fields() -> None:
    described = {(setting.section, setting.name): setting for setting in settings.describe()}
    assert described["news.clustering", "similarity"].default == settings.Settings().news.clustering.similarity
    assert described["news.clustering", "similarity"].about == "Which documents make one story."
    assert not any(isinstance(setting.default, msgspec.Struct) for setting in described.values())


def test_a_section_alone_takes_no_notice_of_others(tmp_path: Path) -> None:
    file = write(tmp_path, "[feeed]\nwindow_days = 3\n[news.clustering]\nsimilarity = 0.4\nspan_hours = 50\n")
    environment = {"PALATE_NEWS__CLUSTERING__SIMILARITY": "0.5", "PALATE_FEEED": "1", "PALATE_DATA": "/elsewhere"}
    read = settings_file.read_section("news", NewsParams, file, environment)
    assert (read.clustering.similarity, read.clustering.span_hours) == (0.5, 50)
    assert settings_file.read_section("news", NewsParams, None, {}) == NewsParams()
    with pytest.raises(SettingsError, match=r"did you mean news\.clustering\.similarity\?"):
        settings_file.read_section("news", NewsParams, None, {"PALATE_NEWS__CLUSTERING__SIMILAR": "1"})
    with pytest.raises(SettingsError, match=r"palate\.toml"):
        settings_file.read_section("news", NewsParams, write(tmp_path, "[news]\nclusterin = 1"), {})


def test_loading_the_settings_is_light() -> None:
    heavy = "numba", "pyarrow", "trafilatura", "feedparser"
    code = f"import palate.settings, sys; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
