"""Which language a text is in: fastText's model of 176 languages (Joulin et al. 2017) and what alphabets tell for certain.

The model reads the beginning only, and not at all when it is plainly English or Russian by its most frequent words. What it
says is then corrected: a language is ruled out by letters that it doesn't have, and a short title is more likely to be in a
language that much is written in.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

TITLE_LENGTH = 200
TEXT_LENGTH = 300
"""Characters that are read of a title and of a text."""

MODEL_LENGTH = 120
"""Characters that the model gets: its time grows with them."""

SHORT = 100
"""Letters; in shorter texts it counts how much is written in a language, and which frequent words are there."""

CERTAIN = 0.995
"""Confidence in a text that its frequent words and letters give away."""


class Language(NamedTuple):
    """`code`: ISO 639-1, for a language without one ISO 639-3; None when there is nothing to tell from (confidence 0).

    `confidence`: the probability that `code` is right, 0 to 1.
    """

    code: str | None
    confidence: float


_NOT_PROSE = re.compile(r"https?://\S+|www\.\S+|[\w.]*[@#][\w.]+")
_NO_WORDS = re.compile(r"[\d\0\ufffd]+")
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+")
_OTHER_LETTER = re.compile(r"[^\W\d_A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_WORD = re.compile(r"[^\W\d_]+")
_CYRILLIC_WORD = re.compile(r"[\u0400-\u052f]+")
_NOT_RUSSIAN = re.compile(r"[\u0400-\u042f\u0450\u0452-\u052f]")  # in small letters
_NOT_ENGLISH = re.compile(r"[^\x00-\x7f\xa0\u2010-\u2027£€°®™]")

_HANGUL = re.compile(r"[\u1100-\u11ff\uac00-\ud7af]")
_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
_EAST_ASIAN = re.compile(f"{_HANGUL.pattern}|{_KANA.pattern}|[\u3400-\u9fff]")

_VIETNAMESE = re.compile("[ơưƠƯ\u1ea4-\u1ead\u1ebe-\u1ec7\u1ed0-\u1ee3\u1ee8-\u1ef1]")

_ENGLISH_WORDS = (
    "the of and to for that with by from has have are his its this their they been were which would will not after said "
    "who but it she what how you your our about than into when"
)
_RUSSIAN_WORDS = (
    "и в на не по с за из от у к же бы что для как это или его также был было были быть который которые она они при после "
    "чтобы только ещё еще уже если этого этом том года году из-за сообщает сообщил заявил об во со"
)
_OTHER_WORDS = {  # none that is an English word, or a name in English titles, as often
    "es": "el los las y del que por con una para se al su como más lo sus está qué cómo ser mayor",
    "pt": "e o os do da dos das em com para uma não ao à é são mais na nos pela pelo",
    "fr": "le la les des du et une dans pour que qui sur au aux est avec par à ce il ne pas son",
    "de": "der das und den von zu mit für im ein eine auf ist nicht dem zum wird",
    "it": "il di e che per del della una con alla al nel gli dei è dal le non tra",
    "nl": "het een van en voor op met bij niet naar uit",
    "id": "di dan yang ini untuk dari dengan jadi akan mau tak ada lewat bayar bisa ke pada",
    "pl": "w na z do się i jest nie po od dla",
    "tr": "ve bir bu için ile da de mi",
    "no": "og i på til av med som ikke inn er",
}
_ENGLISH, _RUSSIAN = frozenset(_ENGLISH_WORDS.split()), frozenset(_RUSSIAN_WORDS.split())
_OTHERS = {code: frozenset(listed.split()) for code, listed in _OTHER_WORDS.items()}
_NOT_ENGLISH_WORDS = frozenset().union(*_OTHERS.values())
_ENOUGH_ENGLISH, _ENOUGH_RUSSIAN = 4, 2

_RUSSIAN_LETTERS = frozenset("абвгдеёжзийклмнопрстуфхцчшщъыьэюя")
_ALPHABETS = {
    "ru": _RUSSIAN_LETTERS,
    "uk": _RUSSIAN_LETTERS - set("ёъыэ") | set("іїєґ"),
    "be": _RUSSIAN_LETTERS - set("ищъ") | set("іў"),
    "bg": _RUSSIAN_LETTERS - set("ёыэ"),
    "mk": _RUSSIAN_LETTERS - set("ёйщъыьэюя") | set("ѓѕјљњќџѐѝ"),
    "sr": _RUSSIAN_LETTERS - set("ёйщъыьэюя") | set("ђјљњћџ"),
    "kk": _RUSSIAN_LETTERS | set("әғқңөұүһі"),
    "ky": _RUSSIAN_LETTERS | set("ңөү"),
    "tt": _RUSSIAN_LETTERS | set("әөүҗңһ"),
    "ba": _RUSSIAN_LETTERS | set("әөүғҡңһҙҫ"),
    "tg": _RUSSIAN_LETTERS | set("ғӣқӯҳҷ"),
    "mn": _RUSSIAN_LETTERS | set("өү"),
    "cv": _RUSSIAN_LETTERS | set("ӑӗҫӳăĕçÿ"),
    "ce": _RUSSIAN_LETTERS | set("ӏ"),
    "os": _RUSSIAN_LETTERS | set("ӕæ"),
    "sah": _RUSSIAN_LETTERS | set("ҕҥөһү"),
}
_ALSO_LATIN = ("sr", "kk", "tt")
_OWN_LETTERS = {  # letters by which a language is known among these, when the model gives nothing that fits
    "uk": frozenset("їєґ"),
    "be": frozenset("ў"),
    "mk": frozenset("ѓќѕ"),
    "sr": frozenset("ђћ"),
    "kk": frozenset("ұқғә"),
}
_FOREIGN = 0.03
"""By so much a language loses for each of eight words that its alphabet can't write: a name or a quotation may be one."""

_WIDESPREAD = "es fr de pt it uk ar fa tr pl id vi nl hi"
_MUCH_WRITTEN = {"en": 4.0} | dict.fromkeys(_WIDESPREAD.split(), 2.0)
_ENGLISH_WORD, _OTHER_WORD = 2.0, 3.0
"""By so much a language gains in a short text for each of its frequent words."""
_WORD_AGAINST_ENGLISH, _MOST_AGAINST = 0.3, 3
"""By so much English loses for each frequent word of others, where it has none of its own; so many count."""

_CODES = {  # of the model's labels: those of a macrolanguage or without a code of two letters that means the same in print
    "arz": "ar",
    "azb": "az",
    "ckb": "ku",
    "pnb": "pa",
    "wuu": "zh",
    "yue": "zh",
    "als": "de",
    "bar": "de",
    "rue": "uk",
    "simple": "en",
}


def detect(title: str, text: str) -> Language:
    """The language of a document by its title (may be empty) and the beginning of its plain text (may be empty)."""
    read = _prose(title, text)
    if not any(map(str.isalpha, read)):
        return Language(None, 0.0)
    if plain := _plain(read):
        return Language(plain, CERTAIN)
    sample = read if read.isascii() else _in_one_script(read)
    if certain := _by_script(sample):
        return Language(certain, CERTAIN)
    return _likeliest(_corrected(_model_says(sample), sample))


def _prose(title: str, text: str) -> str:
    read = f"{_sober(title[:TITLE_LENGTH])} {text[:TEXT_LENGTH]}"
    return _NOT_PROSE.sub(" ", read) if "@" in read or "#" in read or "www." in read or "://" in read else read


def _in_one_script(read: str) -> str:
    """In the script that tells: Latin names stand in texts of every script, the reverse is rare."""
    sample = unicodedata.normalize("NFC", read)
    if not _OTHER_LETTER.search(sample) or not _LATIN_WORD.search(sample):
        return sample
    latin = sum(map(len, _LATIN_WORD.findall(sample)))
    letters = sum(map(str.isalpha, sample))
    return _LATIN_WORD.sub(" ", sample) if 0 < latin < 0.7 * letters else sample


def _sober(title: str) -> str:
    """A shouted title, or one with a capital at every word, in small letters: capitals speak for German else."""
    words = title.replace("’", "'").split()
    capital = sum(word[0].isupper() for word in words)
    return " ".join(words).lower() if capital > 0.6 * len(words) else " ".join(words)


def _plain(read: str) -> str | None:
    """English or Russian, when frequent words of it alone and no others' letters are there."""
    lower = read.lower()
    if not _NOT_ENGLISH.search(lower):
        return "en" if len(_ENGLISH.intersection(_WORD.findall(lower))) >= _ENOUGH_ENGLISH else None
    if ("ы" not in lower and "э" not in lower) or _NOT_RUSSIAN.search(lower):
        return None
    return "ru" if len(_RUSSIAN.intersection(_WORD.findall(lower))) >= _ENOUGH_RUSSIAN else None


def _by_script(sample: str) -> str | None:
    """Vietnamese, Chinese, Japanese or Korean, by letters that only one of them has."""
    if sample.isascii() or _CYRILLIC_WORD.search(sample):
        return None
    if not _EAST_ASIAN.search(sample):
        return "vi" if _VIETNAMESE.search(sample) else None
    return "ko" if _HANGUL.search(sample) else "ja" if _KANA.search(sample) else "zh"


def _model_says(sample: str) -> dict[str, float]:
    """The likeliest languages and their probabilities."""
    line = (
        " ".join(_NO_WORDS.sub(" ", sample[: 2 * MODEL_LENGTH]).split())[:MODEL_LENGTH]
        .encode("utf-8", "ignore")
        .decode()
        + "\n"
    )
    found: dict[str, float] = {}
    for probability, label in _model().predict(line, 8, 0.0, "replace"):
        code = label.removeprefix("__label__")
        code = _CODES.get(code, code)
        found[code] = found.get(code, 0.0) + probability
    return found


def _corrected(likely: dict[str, float], sample: str) -> dict[str, float]:
    words = [set(word) for word in _CYRILLIC_WORD.findall(sample.lower())]
    likely = {code: share * _writable(code, words) for code, share in likely.items()}
    if max(likely.values(), default=0.0) < _FOREIGN:
        likely = _by_letters(words) or likely
    if len(sample) < SHORT:
        found = frozenset(_WORD.findall(sample.lower()))
        likely = {code: share * _of_short(code, found) for code, share in likely.items()}
    return likely


def _of_short(code: str, found: frozenset[str]) -> float:
    """What the words of a short text make of a language's probability."""
    much = _MUCH_WRITTEN.get(code, 1.0)
    if code != "en":
        return much * _OTHER_WORD ** len(_OTHERS.get(code, frozenset()) & found)
    if own := len(_ENGLISH & found):
        return much * _ENGLISH_WORD**own
    return float(much * _WORD_AGAINST_ENGLISH ** min(len(_NOT_ENGLISH_WORDS & found), _MOST_AGAINST))


def _writable(code: str, words: list[set[str]]) -> float:
    """What is left of a language's probability, by the words that its alphabet can't write."""
    if code not in _ALPHABETS:
        return 1.0
    if not words:
        return 1.0 if code in _ALSO_LATIN else 0.0
    foreign = sum(not word <= _ALPHABETS[code] for word in words)
    return float(_FOREIGN ** (foreign * min(1.0, 8 / len(words))))


def _by_letters(words: list[set[str]]) -> dict[str, float]:
    counts = {code: sum(bool(word & own) for word in words) for code, own in _OWN_LETTERS.items()}
    return {code: 0.9 for code, count in counts.items() if count and count == max(counts.values())}


def _likeliest(likely: dict[str, float]) -> Language:
    if not likely:
        return Language(None, 0.0)
    best = max(likely, key=lambda code: (likely[code], code))
    return Language(best, min(likely[best] / max(sum(likely.values()), 1e-9), 1.0))


@cache
def _model() -> Any:
    """The binding itself: its Python wrapper costs as much again."""
    import fasttext_pybind

    model = fasttext_pybind.fasttext()
    with resources.as_file(resources.files("palate.text") / "lid.176.ftz") as path:
        model.loadModel(str(path))
    return model
