from __future__ import annotations

import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palate.errors import FetchFailed, InvalidItem
from palate.sources import articles

PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"/>
<meta property="og:url" content="https://n.example/a/1"/><meta property="og:site_name" content="The Néws"/>
<meta property="article:published_time" content="2019-11-15T03:00:00+03:00"/><meta property="og:title" content="Fire &amp; rain"/>
</head><body>menu<article><h1>Fire &amp; rain</h1><address><time datetime="2019-11-14T00:00:00+00:00">14 Nov</time> by
<a rel="author">Ann</a></address><p>First <b>bold</b></p><related><blockquote><p>nested <a href="../x">deep</a></p></blockquote>
</related><figure><img src="/p.jpg"/></figure><p>last</p></article>footer</body></html>"""


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_an_article_gives_its_fields_and_the_whole_of_its_text(tmp_path: Path) -> None:
    write(tmp_path, "20191115/00/1.html", PAGE)
    (item,) = articles.fetch(tmp_path, {}).items
    assert (item.id, item.title, item.url) == ("20191115/00/1.html", "Fire & rain", "https://n.example/a/1")
    assert (item.source, item.author, item.kind) == ("The Néws", "Ann", "article")
    assert item.published == datetime(2019, 11, 15, tzinfo=UTC)
    assert [one.url for one in item.media] == ["https://n.example/p.jpg"]
    assert item.text is not None
    for part in ("First <b>bold</b>", 'nested <a href="https://n.example/x">deep</a>', "<p>last</p>"):
        assert part in item.text
    for part in ("menu", "footer", "Fire", "Ann", "Nov"):
        assert part not in item.text


def test_only_new_and_changed_files_come_again_and_gone_ones_are_named(tmp_path: Path) -> None:
    one, two = write(tmp_path, "1.html", PAGE), write(tmp_path, "b/2.HTML", PAGE)
    write(tmp_path, "notes.txt", "no article")
    first = articles.fetch(tmp_path, {})
    assert [item.id for item in first.items] == ["1.html", "b/2.HTML"]
    assert articles.fetch(tmp_path, first.state).items == ()
    write(tmp_path, "1.html", PAGE.replace("rain", "snow"))
    os.utime(one, ns=(1, 1))
    two.unlink()
    second = articles.fetch(tmp_path, first.state)
    assert [(item.id, item.title) for item in second.items] == [("1.html", "Fire & snow")]
    assert second.deleted == ("b/2.HTML",)
    assert articles.fetch(tmp_path, second.state).deleted == ()


def test_bad_files_are_skipped_with_their_reason_and_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(articles, "MAX_BYTES", 5000)
    write(tmp_path, "empty.html", b"")
    write(tmp_path, "hollow.html", "<html><body><article> </article></body></html>")
    write(tmp_path, "huge.html", PAGE + "x" * 5000)
    write(tmp_path, "list.html", "<html><p>x</p></html>")
    write(tmp_path, "right.html", PAGE)
    (tmp_path / "link.html").symlink_to(tmp_path / "right.html")
    os.mkfifo(tmp_path / "pipe.html")
    found = articles.fetch(tmp_path, {})
    assert [item.id for item in found.items] == ["right.html"]
    assert articles.skipped(found.state) == {
        "empty.html": "the file holds no <article>",
        "hollow.html": "the file's article is empty",
        "huge.html": "the file has more than 5,000 bytes",
        "list.html": "the file holds no <article>",
    }
    again = articles.fetch(tmp_path, found.state)
    assert (again.items, again.state) == ((), found.state)


def test_a_large_folder_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(articles, "MAX_FILES", 2)
    for number in range(3):
        write(tmp_path, f"{number}.html", PAGE)
    first = articles.fetch(tmp_path, {})
    second = articles.fetch(tmp_path, first.state)
    assert [item.id for item in first.items + second.items] == ["0.html", "1.html", "2.html"]
    assert (first.state["every"], "every" in second.state) == (1.0, False)


def test_a_folder_that_is_not_there_deletes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="No such file"):
        articles.fetch(tmp_path / "missing", {"files": {"1.html": [1, 1]}})


def test_paths_that_are_no_ids_get_a_digest() -> None:
    odd = ["a" * 201 + ".html", "a\nb.html", "a\udcff.html"]
    ids = [articles.article_id(path) for path in odd]
    assert len(set(ids)) == 3
    assert all(len(id) == 24 and id.isalnum() for id in ids)


@given(st.binary(max_size=300))
def test_any_bytes_give_an_article_or_a_reason(body: bytes) -> None:
    for page in (
        body,
        b"<article>" + body + b"</article>",
        b"<meta property='og:title' content='" + body + b"'><article>",
    ):
        try:
            item = articles.parse(page, "1.html")
            assert item.title or item.text
        except InvalidItem:
            pass


@pytest.mark.skipif("PALATE_DATA" not in os.environ, reason="PALATE_DATA is unset: the contest's articles are not here")
def test_real_articles_are_read_whole(tmp_path: Path) -> None:
    with tarfile.open(Path(os.environ["PALATE_DATA"]) / "news" / "contest-articles.tar.xz") as archive:
        taken = []
        for member in archive:
            taken.append(member)
            if sum(one.isfile() for one in taken) == 200:
                break
        archive.extractall(tmp_path, members=taken, filter="data")
    found = articles.fetch(tmp_path, {})
    assert len(found.items) == 200
    assert articles.skipped(found.state) == {}
    assert all(item.title and item.text and item.url and item.source and item.published for item in found.items)
