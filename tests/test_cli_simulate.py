from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from palate import cli_simulate
from palate.cli import app
from palate.errors import PalateError
from palate.settings import Settings


def test_policies_are_settings_models_or_orders() -> None:
    found = cli_simulate.policy_of(
        Settings(), 'bold=feed.exploration=0.3,train.models=["fm","ials"],content.l2_text=1e9'
    )
    assert (found.name, found.order, found.feed.exploration) == ("bold", "served", 0.3)
    assert found.training.train.models == ("fm", "ials")
    assert found.training.content.l2_text == 1e9
    ials = cli_simulate.policy_of(Settings(), "ials")
    assert (ials.feed.model, ials.training.served, ials.training.train.models) == ("ials", "ials", ("fm", "ials"))
    assert cli_simulate.policy_of(Settings(), "oracle").order == "oracle"
    assert cli_simulate.policy_of(Settings(), "served").feed == Settings().feed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nobody", "no policy nobody"),
        ("../up=feed.exploration=0.1", "no name of a policy"),
        ("p=feed.exploration=7", "feed.exploration"),
        ("p=feed.nothing=7", "no setting feed.nothing"),
        ("p=feed", "no section.setting=value"),
    ],
)
def test_what_is_no_policy_is_refused_in_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(PalateError, match=reason):
        cli_simulate.policy_of(Settings(), text)


def test_the_command_compares_and_reports(tmp_path: Path) -> None:
    report, kept = tmp_path / "report.html", tmp_path / "kept"
    options = ["--days", "0.1", "--readers", "6", "--items-per-hour", "3", "--set", "backlog_hours=3,visits_per_day=20"]
    options += ["--policy", "oracle", "--policy", "served", "--report", str(report), "--data", str(kept), "--json"]
    answer = CliRunner().invoke(app, ["simulate", *options])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["policies"]["oracle"]["metrics"]["regret"]["value"] == 0
    assert found["policies"]["served"]["difference"]["regret"]["value"] > 0
    assert found["world"]["visits_per_day"] == 20
    assert (kept / "served-1" / "palate.sqlite").exists()
    assert "<svg" in report.read_text()


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    answer = CliRunner().invoke(app, ["simulate", "--policy", "oracle", "--data", str(tmp_path)])
    assert answer.exit_code != 0
    assert isinstance(answer.exception, PalateError)
    assert "not empty" in str(answer.exception)


def test_figures_are_shown_as_tables() -> None:
    options = ["--days", "2", "--readers", "5", "--policy", "random", "--policy", "oracle"]
    answer = CliRunner().invoke(app, ["simulate", *options])
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert any(line.startswith("oracle") and "0.000 [0.000, 0.000]" in line for line in lines)
    assert "Beside random:" in lines
    assert "Liked, day by day, and the last day beside the first:" in lines
