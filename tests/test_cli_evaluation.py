"""`palate evaluate` as it is typed, on small files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import palate


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a log of two camps, its parts, candidates and items."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(40):
        camp = user % 2
        for step in range(12):
            item = int(random.integers(0, 15)) * 2 + (camp if random.random() < 0.9 else 1 - camp)
            rows.append((f"u{user}", f"i{item}", "like" if item % 2 == camp else "dislike", 1000 * (step * 40 + user)))
    header = "user,item,type,time\n"
    text = [f"{user},{item},{type_},{time}\n" for user, item, type_, time in sorted(rows, key=lambda row: row[3])]
    (tmp_path / "log.csv").write_text(header + "".join(text))
    (tmp_path / "train.csv").write_text(header + "".join(text[:400]))
    (tmp_path / "test.csv").write_text(header + "".join(text[400:]))
    (tmp_path / "negatives").write_text("".join(f"u{user} i1 i2 i3 i4 i5 i29\n" for user in range(40)))
    items = "".join(f"i{item},Item {item},source {item % 2},label {item % 2}\n" for item in range(30))
    (tmp_path / "items.csv").write_text("item,title,source,labels\n" + items)
    return tmp_path


def evaluated(*arguments: str) -> dict[str, Any]:
    result = palate("evaluate", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


ALL = "hr@10,ndcg@10,recall@20,map@10,rmse,auc"


def test_the_line_of_two_files_and_negatives(files: Path) -> None:
    found = evaluated(
        *("--train", str(files / "train.csv"), "--test", str(files / "test.csv")),
        *("--negatives", str(files / "negatives"), "--model", "fm", "--set", "factors=4", "--set", "epochs=5"),
        *("--metrics", ALL),
    )
    assert set(found) == {"model", "settings", "split", "metrics", "users", "seconds", "stated"}
    assert (found["model"], found["split"]) == ("fm", "given")
    assert (found["settings"]["factors"], found["settings"]["epochs"]) == (4, 5)
    assert list(found["metrics"]) == ALL.split(",")
    for figure in found["metrics"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert found["metrics"]["hr@10"]["value"] == 1  # there are at most eight candidates
    assert {"read", "fit", "measure"} == set(found["seconds"])
    assert any("given candidates" in sentence for sentence in found["stated"])


@pytest.mark.parametrize("split", ["time", "user-time", "leave-last-out", "random", "strong"])
def test_the_line_of_one_file_and_each_split(split: str, files: Path) -> None:
    found = evaluated(
        *("--events", str(files / "log.csv"), "--split", split, "--test-share", "0.2", "--model", "popularity"),
        *("--metrics", "hr@10,ndcg@10,coverage@10,novelty@5,diversity@5,popularity-bias@5,abandoned@5,visible"),
    )
    assert found["split"] == split
    assert 0 < found["users"] <= 40
    assert found["metrics"]["hr@10"]["value"] is not None


def test_a_model_that_learns_who_likes_what_beats_popularity(files: Path) -> None:
    found = evaluated(
        *("--events", str(files / "log.csv"), "--model", "fm", "--against", "popularity", "--metrics", "auc,rmse"),
        *("--set", "factors=4", "l2_users=0.5", "l2_items=0.5"),
    )
    assert found["difference"]["auc"]["low"] > 0
    assert found["difference"]["rmse"]["high"] < 0
    assert found["against"]["model"] == "popularity"


def test_without_json_there_is_a_table(files: Path) -> None:
    shown = palate(
        "evaluate", "--events", str(files / "log.csv"), "--model", "popularity", "--metrics", "hr@5,coverage@5"
    )
    assert "hr@5" in shown.stdout
    assert "stands behind all others of equal score" in shown.stdout


def test_the_same_seed_gives_the_same_answer(files: Path) -> None:
    line = (
        "--events",
        str(files / "log.csv"),
        "--model",
        "fm",
        "--split",
        "random",
        "--set",
        "epochs=3",
        "--seed",
        "7",
    )
    first, again = evaluated(*line), evaluated(*line, "--threads", "1")
    assert first["metrics"] == again["metrics"]
    seeds = evaluated(*line, "--seeds", "3")
    assert any("3 seeds" in sentence for sentence in seeds["stated"])


def test_pairs_are_enough(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2 3\n1 1 2\n2 1 4\n")
    (tmp_path / "test.txt").write_text("0 4\n1 3\n2 2\n")
    found = evaluated(
        "--train", str(tmp_path / "train.txt"), "--test", str(tmp_path / "test.txt"), "--model", "popularity",
        "--metrics", "recall@20",
    )  # fmt: skip
    assert found["metrics"]["recall@20"]["value"] == 1


def test_snapshots_over_time(files: Path) -> None:
    found = evaluated(
        *("--events", str(files / "log.csv"), "--model", "popularity", "--split", "time", "--every", "0.01"),
        *("--delay", "5", "--metrics", "hr@10"),
    )
    assert len(found["snapshots"]) > 1
    assert all(snapshot["ready"] < snapshot["until"] for snapshot in found["snapshots"])


def test_content_makes_items_alike(files: Path) -> None:
    found = evaluated(
        *("--events", str(files / "log.csv"), "--model", "popularity", "--similarity", "content"),
        *("--items", str(files / "items.csv"), "--metrics", "abandoned@10,diversity@10"),
    )
    assert 0 < found["metrics"]["abandoned@10"]["value"] < 1


def test_a_report_has_the_lists_of_both_models_by_title(files: Path) -> None:
    page = files / "report.html"
    evaluated(
        *("--events", str(files / "log.csv"), "--model", "popularity", "--against", "itemknn", "--metrics", "hr@5"),
        *("--items", str(files / "items.csv"), "--report", str(page)),
    )
    text = page.read_text()
    assert "itemknn (against)" in text
    assert "Item 3" in text


def test_the_log_of_the_installation_is_the_default(files: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    assert palate("import", "events", str(files / "log.csv"), "--data", data).returncode == 0
    own = evaluated("--data", data, "--model", "popularity", "--metrics", "hr@10")
    assert (
        own["metrics"]
        == evaluated("--events", str(files / "log.csv"), "--model", "popularity", "--metrics", "hr@10")["metrics"]
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--metrics", "hits@x"), "There is no metric hits@x: choose among hr@K"),
        (("--model", "slim"), "There is no model slim: choose among popularity, fm"),
        (("--model", "fm", "--set", "factor=3"), "did you mean factors?"),
        (("--model", "fm", "--set", "factors=many"), "Parameter factors"),
        (("--model", "fm", "--set", "factors"), "write name=value"),
        (("--model", "fm", "--set", "regularization=1"), "they are loss, "),
        (("--split", "zeit"), "There is no split zeit: choose among time"),
        (("--format", "xml"), "no format xml"),
        (("--positive", "lik"), "no event of the type lik: the types are"),
        (("--train", "train.csv"), "--train and --test go together"),
        (("--negatives", "none"), "No such file"),
        (("--exploration",), "no exploration"),
        (("--every", "1", "--split", "random"), "--every replays one file"),
        (("--every", "1", "--delay", "soon"), "must be seconds"),
        (("--similarity", "content"), "--items"),
        (("--config", "none.toml"), "none.toml"),
    ],
)
def test_what_goes_wrong_is_one_sentence(more: tuple[str, ...], words: str, files: Path) -> None:
    model = () if "--model" in more else ("--model", "popularity")
    result = palate("evaluate", "--events", str(files / "log.csv"), *model, *more)
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_names_of_other_libraries_are_understood() -> None:
    from palate.cli_evaluation import parameter
    from palate.models.factorization_machine import FactorizationMachineParams

    assert parameter("iterations", FactorizationMachineParams, "fm") == "epochs"
