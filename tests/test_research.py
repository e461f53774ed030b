"""What a notebook does with an event log gives what the commands give, and the notebook of the documentation runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from palate import plots, research
from palate.errors import PalateError, SettingsError

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NOTEBOOK = Path(__file__).parent.parent / "docs" / "explore.ipynb"


def log(days: int = 6) -> pl.DataFrame:
    """People of two tastes: who is even likes the items 0 … 9, the others 10 … 19; each likes a new one every day."""
    rows = [
        (
            f"u{user}",
            f"i{10 * (user % 2) + (user // 2 + day) % 10}",
            "like",
            NOW - timedelta(days=days - day, hours=-9, seconds=user),
        )
        for user in range(20)
        for day in range(days)
    ]
    return pl.DataFrame(rows, schema=["user", "item", "type", "time"], orient="row")


def test_a_log_is_described_by_type_and_by_day() -> None:
    events = log().filter(pl.col("time").dt.date() != NOW.date() - timedelta(days=3))
    told = research.describe(events)
    assert told.select("type", "events", "users", "items").rows() == [("all", 100, 20, 20), ("like", 100, 20, 20)]
    daily = research.daily(events)
    assert daily["events"].to_list() == [20, 20, 20, 0, 20, 20]  # a day without events is a day
    assert research.describe(events.to_arrow()).equals(told)  # frames of other libraries are as good


def test_what_is_planted_in_a_log_is_found() -> None:
    robot = [("robot", f"i{n % 20}", "like", NOW - timedelta(days=2, minutes=n)) for n in range(50)]
    late = [("u1", "i1", "like", NOW + timedelta(hours=1))]
    planted = pl.DataFrame(robot + late, schema=["user", "item", "type", "time"], orient="row")
    told = pl.concat([log(), planted, log().head(7)])
    found = dict(research.anomalies(told, NOW).select("what", "events").rows())
    assert (found["told twice"], found["in the future"]) == (7, 1)
    assert found["by people who act like machines"] >= 49
    assert found["on days of unusually many or few"] > 49  # the robot's day
    assert sum(research.anomalies(log(), NOW)["events"]) == 0


def test_a_model_recommends_what_people_of_the_same_taste_like_and_they_havent_had() -> None:
    events = log(days=5)
    cut = research.split(events, "time", test_share=0.2)
    assert (len(cut.train), len(cut.test)) == (80, 20)
    model = research.fit(cut, research.plan("itemknn"))
    had = dict(cut.train.group_by("user").agg("item").rows())
    lists = research.recommend(model, limit=4)
    assert lists.height == 80
    for user, _, item, _ in lists.rows():
        assert (int(item[1:]) // 10, item in had[user]) == (int(user[1:]) % 2, False)
    again = research.recommend(model, ["u3"], limit=20, keep_seen=True)
    assert set(had["u3"]) <= set(again["item"])
    scores = research.score(model, ["u3"])
    assert scores.shape == (1, 20)
    assert again["score"][0] == np.max(scores)
    with pytest.raises(PalateError, match=r"^nobody is no user"):
        research.recommend(model, ["nobody"])


def test_figures_and_differences_are_those_of_the_commands(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from palate.cli import app

    file = tmp_path / "events.parquet"
    log().with_columns(pl.col("time").dt.timestamp("ms")).write_parquet(file)
    cut = research.split(research.read(file), test_share=0.2)
    plans = {"alike": research.plan("itemknn", neighbours=5), "popular": research.plan("popularity")}
    outcomes = research.evaluate(cut, plans, "ndcg@10,coverage@10")
    against = [
        "--model",
        "itemknn",
        "--set",
        "neighbours=5",
        "--against",
        "popularity",
        "--metrics",
        "ndcg@10,coverage@10",
    ]
    told = CliRunner().invoke(app, ["evaluate", "--events", str(file), *against, "--json", "--data", str(tmp_path)])
    answer = json.loads(told.stdout)
    found = {(row[0], row[1]): row[2:] for row in research.figures(outcomes).rows()}
    expected = answer["metrics"]["ndcg@10"]
    assert found["alike", "ndcg@10"] == (expected["value"], expected["low"], expected["high"])
    less = {row[1]: row[2:] for row in research.differences(outcomes).rows()}
    assert less["ndcg@10"][0] == pytest.approx(answer["difference"]["ndcg@10"]["value"])
    assert less["coverage@10"][1:] == (None, None)


def test_a_setting_is_swept_and_drawn() -> None:
    cut = research.split(log(), test_share=0.2)
    plan = research.plan("itemknn")
    trials = research.sweep(cut, plan, "neighbours", [1, 2, 19], "ndcg@10")
    told = research.told(trials)
    assert told.filter(pl.col("part") == "validation")["neighbours"].to_list() == [1, 2, 19]
    best = research.settled(plan, trials, "ndcg@10")
    values = told.filter(pl.col("part") == "validation")["value"].to_list()
    assert best.settings()["neighbours"] == [1, 2, 19][int(np.argmax(values))]
    drawn = research.plot_trials(trials, "neighbours", "ndcg@10")._repr_html_()
    assert (drawn.count("<svg"), drawn.count("<circle")) == (2, 6)
    with pytest.raises(SettingsError, match=r"^There is no setting neighbors"):
        research.plan("itemknn", neighbors=3)


def test_a_plot_shows_the_points_of_a_frame() -> None:
    table = pa.table({"x": ["b", "a"], "y": [1.0, 3.0], "low": [0.5, None], "high": [1.5, None]})
    drawn = research.plot(table, "x", "y")._repr_html_()
    assert (drawn.count("<circle"), drawn.count('class="whisker'), drawn.count('class="line')) == (2, 1, 0)
    days = pl.DataFrame({"day": [NOW, NOW + timedelta(days=1)] * 2, "n": [1, 2, 3, 4], "of": ["a", "a", "<b>", "<b>"]})
    both = research.plot(days, "day", "n", by="of").html
    assert (both.count('class="line'), "&lt;b&gt;" in both, "<b>" in both) == (2, True, False)


def test_a_histogram_counts_every_value_once() -> None:
    drawn = plots.histogram("sizes", [1, 1, 1, 10, 100, 0, float("nan")], log=True, bins=2).html
    assert ("3 from 1 to 10" in drawn, "2 from 10 to 100" in drawn, drawn.count("<rect")) == (True, True, 2)
    assert "nothing to count" in plots.histogram("sizes", [0], log=True).html
    assert "share: 0.9 at 0.5" in plots.curve("likes", [1, 9]).html


RUN = """
import sys, nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, km=KernelManager(transport="ipc", kernel_name="python3")).execute()
print(nbformat.writes(notebook))
"""
"""In a process of its own, since the client of a kernel leaves sockets open."""


def test_the_notebook_of_the_documentation_runs_and_is_kept_without_its_output() -> None:
    kept = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in kept)
    path = os.pathsep.join(filter(None, (str(Path(research.__file__).parent.parent), os.environ.get("PYTHONPATH"))))
    run = [sys.executable, "-W", "ignore", "-c", RUN, str(NOTEBOOK)]
    ended = subprocess.run(run, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert ended.returncode == 0, ended.stderr
    shown = [output for cell in json.loads(ended.stdout)["cells"] for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in shown} == {"execute_result"}  # neither warnings nor prints
    assert sum("<svg" in "".join(output["data"].get("text/html", "")) for output in shown) >= 4
