from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from news_texts import MATCH, QUAKE, RATE

from palate import tgnews

CATEGORIES = ["society", "economy", "technology", "sports", "entertainment", "science", "other"]
NOON = datetime(2020, 5, 2, 12, tzinfo=UTC)


def article(title: str, text: str, site: str, time: datetime = NOON) -> str:
    return f"""<!DOCTYPE html><html><head><meta charset="utf-8"/><meta property="og:title" content="{title}"/>
<meta property="og:url" content="https://{site}/{len(title)}"/><meta property="og:site_name" content="{site}"/>
<meta property="article:published_time" content="{time.isoformat()}"/></head>
<body><article><h1>{title}</h1><p>{text}</p></article></body></html>"""


def write(folder: Path, name: str, *of: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(article(*of), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two reports of an earthquake, two of a match, one of a bank in Russian, and one text in German."""
    place = tmp_path / "articles"
    write(place, "b/1.html", "Earthquake kills 12 in Chile", QUAKE, "one.example", NOON - timedelta(hours=1))
    write(place, "b/2.html", "At least 12 dead after quake hits Chile coast", QUAKE + " More follows.", "two.example")
    write(place, "3.html", "Salah scores twice as Liverpool beat Arsenal", MATCH, "one.example")
    write(place, "a/4.html", "Liverpool 3-1 Arsenal: Salah double", MATCH + " Arsenal stay ninth.", "three.example")
    write(place, "5.html", "Центробанк снизил ключевую ставку до 5,5%", RATE, "bank.example")
    write(
        place,
        "6.html",
        "Der Bundestag stimmt ab",
        "Der Bundestag hat am Samstag über das neue Gesetz abgestimmt.",
        "d.example",
    )
    return place


@pytest.fixture
def answer(capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Runs a command in this process and gives what it answered."""

    def ask(command: str, place: Path, *options: str) -> Any:
        assert tgnews.run([command, str(place), "--workers", "1", *options]) == 0
        return json.loads(capfdbinary.readouterr().out)

    return ask


def test_languages_are_listed_with_ours_first(folder: Path, answer: Any) -> None:
    assert answer("languages", folder) == [
        {"lang_code": "en", "articles": ["3.html", "4.html", "1.html", "2.html"]},
        {"lang_code": "ru", "articles": ["5.html"]},
        {"lang_code": "de", "articles": ["6.html"]},
    ]


def test_what_has_no_language_is_other(tmp_path: Path, answer: Any) -> None:
    write(tmp_path, "1.html", "12345", "67890", "n.example")
    assert answer("languages", tmp_path)[-1] == {"lang_code": "other", "articles": ["1.html"]}


def test_news_are_those_of_our_languages(folder: Path, answer: Any) -> None:
    assert answer("news", folder) == {"articles": ["3.html", "5.html", "4.html", "1.html", "2.html"]}


def test_all_seven_categories_are_listed_by_their_right_names(folder: Path, answer: Any, tmp_path: Path) -> None:
    found = answer("categories", folder)
    assert [list(one) for one in found] == [["category", "articles"]] * 7
    assert [one["category"] for one in found] == CATEGORIES
    by_name = {one["category"]: one["articles"] for one in found}
    assert by_name["sports"] == ["3.html", "4.html"]
    assert by_name["economy"] == ["5.html"]
    (tmp_path / "empty").mkdir()
    assert answer("categories", tmp_path / "empty") == [{"category": name, "articles": []} for name in CATEGORIES]


def test_threads_hold_each_news_once_and_singletons_too(folder: Path, answer: Any) -> None:
    found = answer("threads", folder)
    assert [list(one) for one in found] == [["title", "articles"]] * 3
    assert sorted(sorted(one["articles"]) for one in found) == [["1.html", "2.html"], ["3.html", "4.html"], ["5.html"]]
    (bank,) = [one for one in found if one["articles"] == ["5.html"]]
    assert bank["title"] == "Центробанк снизил ключевую ставку до 5,5%"


def test_top_has_a_block_of_all_and_one_of_each_category(folder: Path, answer: Any) -> None:
    found = answer("top", folder)
    assert [one["category"] for one in found] == ["any", *CATEGORIES]
    every = found[0]["threads"]
    assert [list(one) for one in every] == [["title", "category", "articles"]] * 3
    assert [one["articles"] for one in every] == [one["articles"] for one in answer("threads", folder)]
    for block in found[1:]:
        own = [one for one in every if one["category"] == block["category"]]
        assert block["threads"] == [{"title": one["title"], "articles": one["articles"]} for one in own]


def test_more_sources_make_a_story_come_first(folder: Path, answer: Any) -> None:
    assert len(answer("threads", folder)[-1]["articles"]) == 1


def test_documents_from_the_future_do_not_come_first(tmp_path: Path, answer: Any) -> None:
    for number in range(120):
        title, text = (
            f"Mayor of town {number} opens school number {number}",
            f"{number} " + QUAKE.replace("Chile", "X" * (number % 9 + 2)),
        )
        write(tmp_path, f"{number}.html", title, text, f"s{number}.example", NOON - timedelta(minutes=number))
    write(
        tmp_path,
        "future.html",
        "Salah scores twice as Liverpool beat Arsenal",
        MATCH,
        "late.example",
        NOON + timedelta(days=900),
    )
    first = answer("threads", tmp_path)[0]
    assert "future.html" not in first["articles"]


def test_bytes_are_the_same_however_it_is_run(folder: Path) -> None:
    for number in range(300):  # enough for more than one process
        name = f"{number % 7}/{number}.html"
        write(
            folder,
            name,
            f"Town {number % 40} opens a school",
            f"{QUAKE} {number % 40} {MATCH}",
            f"s{number % 11}.example",
        )
    runs = {
        subprocess.run(
            [sys.executable, "-m", "palate.tgnews", "top", str(folder), "--workers", workers],
            env={**os.environ, "PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for workers, seed, threads in (("1", "1", "1"), ("2", "2", "1"), ("3", "3", "2"))
    }
    assert len(runs) == 1
    assert len(json.loads(runs.pop())) == 8


def test_explanations_go_to_stderr_and_change_no_answer(
    folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (folder / "0.html").write_text("no article")
    for command in ("languages", "news", "categories", "threads", "top"):
        assert tgnews.run([command, str(folder), "--workers", "1"]) == 0
        plain = capfdbinary.readouterr()
        assert tgnews.run([command, str(folder), "--workers", "1", "--explain"]) == 0
        explained = capfdbinary.readouterr()
        assert explained.out == plain.out
        assert b"1 article was left out" in plain.err
        assert b"0.html is left out: the file holds no <article>." in explained.err
        assert explained.err.count(b"1.html") >= 1


def test_every_factor_of_stories_and_of_their_articles_is_explained(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tgnews.run(["top", str(folder), "--workers", "1", "--explain"]) == 0
    table = [line.split("\t") for line in capfd.readouterr().err.splitlines()]
    second = next(row for row, cells in enumerate(table) if cells[0] == "article")
    stories = [dict(zip(table[0], cells, strict=True)) for cells in table[1:second]]
    articles = [dict(zip(table[second], cells, strict=True)) for cells in table[second + 1 :]]
    assert [len(stories), len(articles)] == [3, 5]
    for one in stories:
        factors = [float(one[name]) for name in ("coverage", "freshness", "readers", "mark")]
        assert float(one["score"]) == pytest.approx(math.prod(factors), rel=0.01)
    for one in articles:
        value = float(one["closeness"]) + float(one["source weight"])
        value *= math.prod(float(one[name]) for name in ("freshness", "clarity", "mark"))
        assert float(one["score"]) == pytest.approx(value, rel=0.01)


def test_settings_say_what_a_story_is(folder: Path, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "palate.toml"
    file.write_text("[news.clustering]\nsimilarity = 0.999\n[feed]\nwindow_days = 1")
    assert len(answer("threads", folder)) == 3
    assert len(answer("threads", folder, "--config", str(file))) == 5
    monkeypatch.setenv("PALATE_NEWS__CLUSTERING__SIMILARITY", "0.2")
    assert len(answer("threads", folder, "--config", str(file))) == 3


def test_a_wrong_setting_gives_one_sentence(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = folder / "palate.toml"
    file.write_text("[news.clustering]\nsimilarty = 0.9")
    assert tgnews.run(["top", str(folder), "--config", str(file)]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "did you mean news.clustering.similarity?" in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["thread", "."], "There is no command `thread`. Did you mean `threads`?"),
        (["zzz"], "There is no command `zzz`."),
        (["threads", "missing"], "missing is not there."),
    ],
)
def test_a_typo_gives_one_sentence(arguments: list[str], sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert tgnews.run(arguments) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"tgnews: {sentence}")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["threads"], ["threads", ".", "--workers", "0"], ["threads", ".", "--explian"]]
)
def test_a_wrong_call_ends_with_two(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tgnews.run(arguments)
    assert ended.value.code == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_importing_the_command_loads_nothing_heavy() -> None:
    program = """
import sys
import palate.tgnews, palate.news
heavy = "numba llvmlite pyarrow sqlalchemy faiss catboost polars trafilatura httpx nh3 typer rich scipy optuna asyncio"
print(sorted(sys.modules.keys() & set(heavy.split())))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_any_folder_is_survived(tmp_path: Path, answer: Any) -> None:
    whole = article("Earthquake kills 12 in Chile", QUAKE, "one.example").encode()
    bodies = {
        "empty.html": b"",
        "bytes.html": bytes(range(256)) * 20,
        "text.html": QUAKE.encode(),
        "hollow.html": b"<html><body><article></article>",
        "untitled.html": whole.replace(b"Earthquake kills 12 in Chile", b""),
        "undated.html": whole.replace(b"2020-05-02T12:00:00+00:00", b"0000-99-99"),
        "early.html": whole.replace(b"2020-05-02T12:00:00+00:00", b"0001-01-01T00:00:00+00:00"),
        "late.html": whole.replace(b"2020-05-02T12:00:00+00:00", b"9999-12-31T23:59:59+00:00"),
        "nowhere.html": whole.replace(b"https://one.example", b"").replace(b"one.example", b""),
        "huge.html": whole.replace(b"</p>", b" quake" * 500_000 + b"</p>"),
        "deep.html": whole.replace(b"<p>", b"<div>" * 100_000 + b"<p>"),
        "twin.html": whole,
        "again/twin.html": whole,
        os.fsdecode(b"\xff\xfe.html"): whole,
    }
    for name, body in bodies.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(body)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.html").symlink_to("nothing")
    read = sorted(name for language in answer("languages", tmp_path) for name in language["articles"])
    whole_ones = ["untitled.html", "undated.html", "early.html", "late.html", "nowhere.html", "huge.html", "deep.html"]
    assert read == sorted([*whole_ones, "twin.html", "twin.html", "\ufffd\ufffd.html"])
    news = sorted(answer("news", tmp_path)["articles"])
    assert {"undated.html", "late.html", "twin.html"} <= set(news)
    assert sorted(name for one in answer("categories", tmp_path) for name in one["articles"]) == news
    assert sorted(name for thread in answer("threads", tmp_path) for name in thread["articles"]) == news
    assert sorted(name for thread in answer("top", tmp_path)[0]["threads"] for name in thread["articles"]) == news
