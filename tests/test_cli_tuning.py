"""`palate tune` as it is typed, on a small file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import palate
from test_cli_evaluation import files as files

LINE = ("--model", "itemknn", "--metric", "ndcg@5", "--show", "hr@5,coverage@5")


def tuned(files: Path, *arguments: str) -> dict[str, Any]:
    result = palate(
        "tune", "--events", str(files / "log.csv"), *LINE, "--study", str(files / "study"), *arguments, "--json"
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_search_with_its_report(files: Path) -> None:
    page = files / "report.html"
    found = tuned(files, "--trials", "4", "--items", str(files / "items.csv"), "--report", str(page))
    assert found["trials"] == {"complete": 4, "pruned": 0, "failed": 0}
    assert set(found["best"]["values"]) == {
        "weighting", "neighbours", "source_exponent", "target_exponent", "shrinkage",
    }  # fmt: skip
    assert list(found["test"]["metrics"]) == ["ndcg@5", "hr@5", "coverage@5"]
    assert found["test"]["difference"]["ndcg@5"]["low"] is not None
    assert "Item 3" in page.read_text()
    again = palate("tune", "--events", str(files / "log.csv"), *LINE, "--study", str(files / "study"))
    assert again.returncode == 1
    assert "--resume" in again.stderr
    more = tuned(files, "--trials", "5", "--resume")
    assert sum(more["trials"].values()) == 5


def test_what_is_fixed_is_not_searched_and_a_space_can_be_given(files: Path) -> None:
    found = tuned(
        files, "--trials", "2", "--fix", "weighting=bm25", "--fix", "shrinkage=0", "--search", "neighbours=5..9",
        "--search", "bm25_b=0.5,0.75", "--second", "coverage@5",
    )  # fmt: skip
    assert set(found["best"]["values"]) == {"neighbours", "source_exponent", "target_exponent", "bm25_b"}
    assert 5 <= found["best"]["values"]["neighbours"] <= 9
    assert found["best"]["settings"]["weighting"] == "bm25"
    assert found["second"] == "coverage@5"
    assert found["front"]


def test_a_sweep_with_its_report(files: Path) -> None:
    page = files / "sweep.html"
    found = tuned(files, "--sweep", "neighbours=1,5,20", "--fix", "weighting=count", "--report", str(page))
    assert [point["values"]["neighbours"] for point in found["points"]] == [1, 5, 20]
    assert found["settings"]["weighting"] == "count"
    assert set(found["overfitting"]) == {"ndcg@5", "hr@5", "coverage@5"}
    assert page.read_text().count("<svg") == 6
    assert not (files / "study").exists()


def test_without_json_there_are_tables(files: Path) -> None:
    line = ("tune", "--events", str(files / "log.csv"), *LINE, "--study", str(files / "study"))
    searched = palate(*line, "--trials", "2", "--second", "coverage@5").stdout
    assert "Best of 2 trials: --model itemknn --set weighting=" in searched
    assert "On the front" in searched
    assert "20" in palate(*line, "--sweep", "neighbours=5,20").stdout


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--sweep", "neighbours"), "two values or more"),
        (("--sweep", "neighbour=1,2"), "did you mean neighbours?"),
        (("--sweep", "neighbours=1,many"), "Parameter neighbours"),
        (("--search", "neighbours=9..5"), "from a smaller number"),
        (("--search", "neighbours=9"), "must be a range"),
        (("--metric", "good@5"), "no metric good@5"),
        (("--metric", "ndcg@5,hr@5"), "Name one metric"),
        (("--metric", "rmse", "--trials", "1"), "rmse has no answer"),
        (("--model", "popularity", "--fix", "half_life_days=3"), "Nothing of popularity is left"),
        (("--trials", "1", "--study", "log.csv/below"), "can't be kept"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    more: tuple[str, ...], words: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    result = palate("tune", "--events", "log.csv", *LINE, *more)
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
