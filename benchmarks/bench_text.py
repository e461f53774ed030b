"""Languages, categories and news or not: how often right, with 95 % intervals, and how fast.

    PALATE_DATA=… python benchmarks/bench_text.py [languages] [categories] [far] [speed] [--cache FILE] [--repeats N]

**categories**: cross-validation in five parts, grouped so that near-copies of a text are on one side (`training/text_models.py`
says what is used). For each part everything is trained anew without it: the teacher, what it says of texts without labels, and
the model; parts are of the gold categories, the early ones, titles that another program got wrong, and news or not. Never held out, as they
have no gold labels: the winner's threads, the contest's articles (some labelled for Palate) and free texts; of those, near-copies
of held-out texts are left out. Nothing else was tuned by these folds but the sizes of regularisation and the importance of each set, by hand on one split.
The baseline, TF-IDF and logistic regression of scikit-learn, has the same labelled texts and the same parts. `gold` are the contest's
own honeypots, exams and training items; `early` labels by fewer people, without those that are also in gold. **languages**: a site's language
is taken as certain when the whole text (at least 300 characters) and nine tenths of the site's articles agree by fastText's model; so it
judges short beginnings and titles, not the model itself. **far**: the BBC's news of 2004–2005 by the model as shipped, which never saw them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from palate.text import category, language, tokens
from palate.text.category import CLASSES, LANGUAGES, NOT_NEWS

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import text_models

DRAWS = 2000
FAR = {
    "business": "economy",
    "entertainment": "entertainment",
    "politics": "society",
    "sport": "sports",
    "tech": "technology",
}
SHOWN = ("en", "ru", "uk", "es", "ar", "fr", "bg", "sr", "fa", "pt", "de")
ALPHABETS = {
    "rus_Cyrl": "ru", "ukr_Cyrl": "uk", "bul_Cyrl": "bg", "srp_Cyrl": "sr", "mkd_Cyrl": "mk", "bel_Cyrl": "be", "kaz_Cyrl": "kk",
    "kir_Cyrl": "ky", "tat_Cyrl": "tt", "bak_Cyrl": "ba", "tgk_Cyrl": "tg", "khk_Cyrl": "mn", "eng_Latn": "en", "deu_Latn": "de",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["languages", "categories", "far", "speed"])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folds", type=int, default=text_models.FOLDS, help="how many of the five parts are held out")
    asked = parser.parse_args()
    folder = Path(os.environ["PALATE_DATA"])
    if "languages" in asked.parts:
        languages(folder)
    if "categories" in asked.parts:
        categories(folder, asked.cache, asked.repeats, asked.folds)
    if "far" in asked.parts:
        far(folder)
    if "speed" in asked.parts:
        speed(folder)


def categories(folder: Path, cache: Path | None, repeats: int, folds: int) -> None:
    everything = list(text_models.examples(folder))
    vectors = text_models.sentence_vectors(everything, cache)
    group = text_models.groups(everything)
    said = {name: np.zeros((repeats, len(everything), 8)) for name in ("raw", "ours", "baseline")}
    measured = np.ones(len(everything), bool)
    for repeat in range(repeats):
        part = text_models.parts(group, repeat)
        measured &= part < folds
        for fold in range(folds):
            print(f"repeat {repeat + 1}, part {fold + 1}", file=sys.stderr, flush=True)
            out, shown = text_models.split(everything, group, part == fold)
            _one_fold(everything, vectors, shown, out, said["raw"][repeat], said["baseline"][repeat])
        _calibrate(everything, part, said["raw"][repeat], said["ours"][repeat])
    for code in LANGUAGES:
        _category_tables(everything, group, said, code, measured)


def _one_fold(everything, vectors, shown, out, raw, baseline) -> None:
    known = text_models.of_teacher(everything, vectors, shown)
    for code in LANGUAGES:
        of_language = np.array([one.language == code for one in everything])
        rows, asked = np.flatnonzero(of_language & shown), np.flatnonzero(of_language & out)
        model = text_models.learned(everything, known, rows)
        documents = [(everything[row].title, everything[row].text) for row in asked]
        raw[asked] = category.probabilities(tokens.features(documents), model)
        baseline[asked] = _baseline([everything[row] for row in rows], [everything[row] for row in asked])


def _calibrate(everything, part, raw, ours) -> None:
    """Each part by what the models of the other parts say of these."""
    for code in LANGUAGES:
        of_language = np.array([one.language == code for one in everything])
        for fold in np.unique(part[raw.any(axis=1)]):
            others, own = np.flatnonzero(of_language & (part != fold)), of_language & (part == fold) & raw.any(axis=1)
            scaled = np.maximum(raw[own], 1e-9) ** text_models.calibration_of(everything, raw, others)
            ours[own] = scaled / scaled.sum(axis=1, keepdims=True)


def _baseline(shown, asked):
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        return np.full((len(asked), 8), np.nan)
    shown = [one for one in shown if len(one.allowed) == 1 and text_models.IMPORTANCE[one.origin] > 0]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, max_features=50_000)
    table = words.fit_transform([f"{one.title} {one.text[:3000]}" for one in shown])
    importance = [text_models.IMPORTANCE[one.origin] for one in shown]
    model = LogisticRegression(C=10, max_iter=60).fit(
        table, [CLASSES.index(one.allowed[0]) for one in shown], importance
    )
    likely = np.zeros((len(asked), 8))
    likely[:, model.classes_] = model.predict_proba(
        words.transform([f"{one.title} {one.text[:3000]}" for one in asked])
    )
    return likely


def _category_tables(everything, group, said, code, measured) -> None:
    in_gold = set(group[[one.origin == "gold" for one in everything]])
    sets = {
        "gold": [row for row, one in enumerate(everything) if one.origin == "gold" and one.language == code],
        "early": [
            row
            for row, one in enumerate(everything)
            if one.origin == "early" and one.language == code and group[row] not in in_gold
        ],
    }
    for name, every in sets.items():
        rows = [row for row in every if measured[row]]
        truth = np.array([CLASSES.index(everything[row].allowed[0]) for row in rows])
        ours, rival = (said[who][:, rows].argmax(axis=2) for who in ("ours", "baseline"))
        print(f"\n{code}, {name}: {len(rows)} texts")
        print(f"| accuracy | {_interval((ours == truth).mean(axis=0), group[rows])} |")
        if not np.isnan(said["baseline"][:, rows]).any():
            print(f"| of TF-IDF and logistic regression | {_interval((rival == truth).mean(axis=0), group[rows])} |")
            gain = ((ours == truth) * 1.0 - (rival == truth)).mean(axis=0)
            print(f"| gain, paired | {_interval(gain, group[rows])} |")
        likely = said["ours"][:, rows]
        print(f"| macro F1 | {np.mean([_macro_f1(truth, one) for one in ours]):.3f} |")
        before = _calibration(said["raw"][:, rows], truth)
        print(f"| expected calibration error | {_calibration(likely, truth):.3f}, before {before:.3f} |")
        for place, label in enumerate(CLASSES):
            of_class = truth == place
            recall = (ours[:, of_class] == place).mean()
            precision = np.mean([(truth[one == place] == place).mean() if (one == place).any() else 0 for one in ours])
            print(f"| {label} | recall {recall:.2f} | precision {precision:.2f} | n {of_class.sum()} |")
    for source in ("gusev_titles", "dzhiblavi"):
        rows = [
            row
            for row in np.flatnonzero(measured)
            if everything[row].source == source and everything[row].language == code
        ]
        if rows:
            truth = np.array([NOT_NEWS not in everything[row].allowed for row in rows])
            told = said["ours"][:, rows].argmax(axis=2) != CLASSES.index(NOT_NEWS)
            print(f"\n{code}, news or not ({source}): {len(rows)} texts, {truth.sum()} of them news")
            print(
                f"| F1 | {_f1_interval(told[0], truth)} | accuracy {(told == truth).mean():.3f} | all as news {_f1(truth | True, truth):.3f} |"
            )


def _macro_f1(truth, told) -> float:
    return float(np.mean([_f1(told == place, truth == place) for place in np.unique(np.r_[truth, told])]))


def _f1(told, truth) -> float:
    return float(2 * (told & truth).sum() / max(told.sum() + truth.sum(), 1))


def _interval(values, group) -> str:
    numbers = np.unique(group, return_inverse=True)[1]
    sums, sizes = np.bincount(numbers, values), np.bincount(numbers)
    drawn = np.random.default_rng(0).integers(len(sizes), size=(DRAWS, len(sizes)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return f"{values.mean():.3f} ({np.quantile(means, 0.025):.3f} to {np.quantile(means, 0.975):.3f})"


def _f1_interval(told, truth) -> str:
    drawn = np.random.default_rng(0).integers(len(truth), size=(DRAWS, len(truth)))
    low, high = np.quantile([_f1(told[rows], truth[rows]) for rows in drawn], [0.025, 0.975])
    return f"{_f1(told, truth):.3f} ({low:.3f} to {high:.3f})"


def _calibration(likely, truth) -> float:
    sure, right = likely.max(axis=2).ravel(), (likely.argmax(axis=2) == truth).ravel()
    bins = np.minimum((sure * 10).astype(int), 9)
    return float(
        sum(abs(sure[bins == one].mean() - right[bins == one].mean()) * (bins == one).mean() for one in np.unique(bins))
    )


def far(folder: Path) -> None:
    rows = list(text_models._rows(folder / "news/bbc/bbc.jsonl.gz"))
    told = category.classify([(row["title"], row["text"]) for row in rows], "en").argmax(axis=1)
    truth = np.array([CLASSES.index(FAR[row["category"]]) for row in rows])
    print(f"\nBBC 2004–2005, {len(rows)} texts: accuracy {_interval((told == truth) * 1.0, np.arange(len(rows)))}")
    for name, label in FAR.items():
        place = CLASSES.index(label)
        took = Counter(CLASSES[one] for one in told[truth == place]).most_common(3)
        print(f"| {name} | recall {(told[truth == place] == place).mean():.3f} | {took} |")


def languages(folder: Path) -> None:
    sites = defaultdict(list)
    for site, title, text in _pages(folder):
        whole = " ".join(f"{title} {text[:2000]}".split())
        found = language._model().predict(whole.encode("utf-8", "ignore").decode() + "\n", 1, 0.0, "replace")
        code = found[0][1].removeprefix("__label__") if found else None
        sites[site].append((language._CODES.get(code, code), found[0][0] if found else 0.0, title, text))
    certain = []
    for pages in sites.values():
        counts = Counter(code for code, *_ in pages)
        certain += [
            (code, title, text)
            for code, sure, title, text in pages
            if len(pages) >= 3 and sure >= 0.6 and len(text) >= 300 and counts[code] >= 0.9 * len(pages)
        ]
    _language_table("title and beginning", [(code, language.detect(title, text)) for code, title, text in certain])
    titles = [(code, title) for code, title, _ in certain if code != "uk" or not _is_russian(title)]
    _language_table("title alone", [(code, language.detect(title, "")) for code, title in titles])
    for length in (None, 40):
        counts = defaultdict(Counter)
        for row in text_models._rows(folder / "free/sib200/langid_test_all.jsonl.gz"):
            if row["lang"] in ALPHABETS:
                counts[row["lang"]][language.detect(row["text"][:length], "").code] += 1
        shares = (f"{ALPHABETS[name]} {count[ALPHABETS[name]] / count.total():.3f}" for name, count in counts.items())
        print(f"SIB-200, {'whole sentences' if length is None else f'first {length} characters'}: {', '.join(shares)}")


def _is_russian(title: str) -> bool:
    """One site gives its Ukrainian texts Russian titles: only those with a Ukrainian letter count as certain."""
    return bool(set("ыэёъ") & set(title.lower())) or not set("іїєґ") & set(title.lower())


def _language_table(name: str, pairs) -> None:
    right = np.array([truth == told.code for truth, told in pairs])
    print(f"\n{name}: {len(pairs)} articles, {right.mean():.4f} right")
    for code in SHOWN:
        recall = [told.code == code for truth, told in pairs if truth == code]
        precision = [truth == code for truth, told in pairs if told.code == code]
        if recall:
            print(
                f"| {code} | recall {np.mean(recall):.4f} | precision {np.mean(precision or [0]):.4f} | n {len(recall)} |"
            )
    sure = np.array([told.confidence for _, told in pairs])
    for low, high in ((0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 0.99), (0.99, 1.01)):
        inside = (sure >= low) & (sure < high)
        print(
            f"| confidence {low} to {min(high, 1)} | mean {sure[inside].mean():.3f} | right {right[inside].mean():.3f} | n {inside.sum()} |"
        )


def _pages(folder: Path):
    import tarfile

    from lxml import html

    with tarfile.open(folder / "news/contest-articles.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".html"):
                content = archive.extractfile(member).read()
                title, text = text_models._article(content)
                root = html.document_fromstring(content, html.HTMLParser(encoding="utf-8"))
                yield urlsplit(root.xpath("string(//meta[@property='og:url']/@content)")).hostname, title, text


def speed(folder: Path) -> None:
    pages = [(title, text) for _, title, text in _pages(folder)][:3000]
    started = time.perf_counter()
    language.detect("A title", "in English")
    category.classify([pages[0]], "en")
    category.classify([pages[0]], "ru")
    print(f"\nloading all models: {time.perf_counter() - started:.3f} s")
    codes: list[str | None] = []
    seconds = []
    for _ in range(3):
        started = time.process_time()
        codes = [language.detect(title, text).code for title, text in pages]
        seconds.append((time.process_time() - started) / len(pages))
    print(f"language: {1e6 * np.median(seconds):.0f} µs a document")
    for code in LANGUAGES:
        own = [page for page, told in zip(pages, codes, strict=True) if told == code]
        seconds = []
        for _ in range(3):
            started = time.process_time()
            for first in range(0, len(own), 64):
                category.classify(own[first : first + 64], code)
            seconds.append((time.process_time() - started) / len(own))
        print(f"category, {code}: {1e6 * np.median(seconds):.0f} µs a document, {len(own)} documents by 64")


if __name__ == "__main__":
    main()
