"""What is found out about a text before anybody has judged it: its language, what kind of news it is, and its vectors.

language → eight classes → vectors
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from palate.domain import Understanding
from palate.text import category, embedding, language
from palate.text.category import Weights

VERSION = 1000 * embedding.VERSION + 3
"""Of what `understand` says: raised with the models of languages and classes, and with that of vectors."""

TEXT_LIMIT = 20_000
"""Characters of a text that are looked at."""

LEAST_CONFIDENCE = 0.5
"""In a language, below which it counts as not known."""


def understand(
    texts: Sequence[tuple[str, str]], said: Sequence[str | None], own: Mapping[str, Weights] | None = None
) -> list[Understanding]:
    """What is known of each (title, plain text); `said` are their languages, None where no source names it.

    `own`: models of classes by language, to take instead of the shipped ones.
    """
    texts = [(title, text[:TEXT_LIMIT]) for title, text in texts]
    told = [language.detect(*text) if code is None else None for text, code in zip(texts, said, strict=True)]
    languages = [code if one is None else _likely(one) for code, one in zip(said, told, strict=True)]
    classes = _classes(texts, languages, own or {})
    vectors, leads = embedding.embed(texts, embedding.WHOLE), embedding.leads(texts)
    return [_understanding(*parts) for parts in zip(languages, told, classes, vectors, _packed(leads), strict=True)]


def _understanding(
    code: str | None,
    told: language.Language | None,
    classes: NDArray[np.float32] | None,
    vector: NDArray[np.float16],
    lead: bytes | None,
) -> Understanding:
    return Understanding(
        language=code,
        detected=told and told.code,
        confidence=1.0 if told is None else told.confidence,
        category=None if classes is None else _news(classes),
        probabilities=classes,
        vector=vector,
        lead=lead,
    )


def _packed(leads: embedding.Leads) -> list[bytes | None]:
    rows = zip(embedding.packed(leads), leads.vectors, strict=True)
    return [packed if vector.any() else None for packed, vector in rows]


def _news(classes: NDArray[np.float32]) -> str | None:
    likeliest = category.CLASSES[int(classes.argmax())]
    return None if likeliest == category.NOT_NEWS else likeliest


def _likely(found: language.Language) -> str | None:
    return found.code if found.confidence >= LEAST_CONFIDENCE else None


def _classes(
    texts: Sequence[tuple[str, str]], languages: Sequence[str | None], own: Mapping[str, Weights]
) -> list[NDArray[np.float32] | None]:
    found: list[NDArray[np.float32] | None] = [None] * len(texts)
    for code in category.LANGUAGES:
        rows = [row for row, own in enumerate(languages) if own == code]
        if rows:
            for row, likely in zip(
                rows, category.classify([texts[row] for row in rows], code, own.get(code)), strict=True
            ):
                found[row] = likely
    return found
