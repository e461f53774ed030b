from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from palate import news
from palate.news import Understood, is_news, understand

ENGLISH = (
    "The prime minister said on Monday that the government would raise taxes after talks with the opposition failed"
)


def page(title: str, body: str, url: str = "https://n.example/1", time: str = "2020-05-02T12:00:00+00:00") -> str:
    return (
        f'<html><head><meta property="og:title" content="{title}"/><meta property="og:url" content="{url}"/>'
        f'<meta property="article:published_time" content="{time}"/></head><body><article>{body}</article></body></html>'
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """More articles than one batch holds, in three languages, one without an article."""
    texts = [
        ENGLISH,
        "Президент подписал закон о бюджете на следующий год, сообщила пресс-служба Кремля",
        "Le président est mort",
    ]
    for number in range(news.FIRST + 2 * news.BATCH + 5):
        text = f"<p>{texts[number % 3]} {number}</p>" if number != 7 else ""
        (tmp_path / f"{number:03}.html").write_text(page(f"{texts[number % 3][:30]}", text) if text else "none")
    return tmp_path


def shared(place: Path, depth: news.Depth, processes: int, monkeypatch: pytest.MonkeyPatch) -> Understood:
    """As so many processes would do it, but one after the other in this one."""
    monkeypatch.setattr(news, "forked", lambda work, count: [work(number) for number in range(count)])
    return understand(str(place), depth, processes)


def test_any_number_of_processes_gives_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (shared(folder, "vector", count, monkeypatch) for count in (1, 2))
    assert one.documents == two.documents
    assert one.skipped == two.skipped == [("007.html", "the file holds no <article>")]
    np.testing.assert_array_equal(one.leads.vectors, two.leads.vectors)


def test_each_depth_knows_what_it_asks_for(folder: Path) -> None:
    told, classed, embedded = (understand(str(folder), depth, 1) for depth in ("language", "category", "vector"))
    assert len(told.documents) == len(classed.documents) == news.FIRST + 2 * news.BATCH + 4
    assert {one.probabilities for one in told.documents} == {None}
    assert {one.language for one in classed.documents if one.probabilities is None} == {"fr"}
    assert [one.name for one in embedded.documents] == [one.name for one in classed.documents if is_news(one)]
    assert len(embedded.leads.vectors) == len(embedded.documents) > 0
    assert len(told.leads.vectors) == len(classed.leads.vectors) == 0


def test_probabilities_are_of_eight_classes(folder: Path) -> None:
    for document in understand(str(folder), "category", 1).documents:
        if document.probabilities is not None:
            assert len(document.probabilities) == 8
            assert sum(document.probabilities) == pytest.approx(1, abs=1e-5)


def test_text_in_nested_tags_counts(tmp_path: Path) -> None:
    (tmp_path / "1.html").write_text(
        page("1915", f"<section><div><blockquote><p>{ENGLISH}</p></blockquote></div></section>")
    )
    (document,) = understand(str(tmp_path), "language", 1).documents
    assert document.language == "en"


def test_a_document_without_a_title_goes_by_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "1.html").write_text(page("", f"<p>{ENGLISH}. {ENGLISH}</p>"))
    (document,) = understand(str(tmp_path), "language", 1).documents
    assert ENGLISH.startswith(document.title.removesuffix("…").rstrip())
    assert len(document.title) <= 100


def test_a_source_is_the_host_or_else_the_site(tmp_path: Path) -> None:
    (tmp_path / "1.html").write_text(page("One", ENGLISH, "https://www.n.example/1"))
    (tmp_path / "2.html").write_text(
        page("Two", ENGLISH, "").replace("<head>", '<head><meta property="og:site_name" content="N"/>')
    )
    (tmp_path / "3.html").write_text(page("Three", ENGLISH, ""))
    assert [one.source for one in understand(str(tmp_path), "language", 1).documents] == ["n.example", "N", ""]


def test_documents_survive_the_way_between_processes() -> None:
    document = news.Document("1.html", "T", "s", None, ("a", "b"), "en", 0.5, (0.25, 0.75))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(document), type=news.Document) == document
