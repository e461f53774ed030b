from __future__ import annotations

import numpy as np
import pytest

from palate.text import category, embedding, language
from palate.text.understanding import understand

SPORTS = (
    "United beat City 3-1 in the cup final",
    "The team won the match after two goals in the second half. The coach praised the players and the fans.",
)
RUSSIAN = (
    "Сборная выиграла матч чемпионата",
    "Футбольная команда победила со счётом 3:1, тренер похвалил игроков после матча чемпионата мира.",
)
GERMAN = ("Der Rat hat entschieden", "Die Stadt wird die alte Brücke nicht mehr reparieren, sagte der Bürgermeister.")


def test_a_text_gets_its_language_its_classes_and_its_vector() -> None:
    english, russian, german, nothing = understand([SPORTS, RUSSIAN, GERMAN, ("", "…")], [None] * 4)
    assert [one.language for one in (english, russian, german, nothing)] == ["en", "ru", "de", None]
    assert english.detected == "en"
    assert english.confidence == language.detect(*SPORTS).confidence
    assert english.category == russian.category == "sports"
    assert english.probabilities is not None
    np.testing.assert_array_equal(english.probabilities, category.classify([SPORTS], "en")[0])
    np.testing.assert_array_equal(english.vector, embedding.embed([SPORTS])[0])
    assert english.lead == embedding.packed(embedding.leads([SPORTS]))[0]
    assert german.probabilities is None  # there is no model of it
    assert german.category is None
    assert german.vector.any()
    assert not nothing.vector.any()


def test_what_the_source_says_of_the_language_holds() -> None:
    [told] = understand([GERMAN], ["nl"])
    assert (told.language, told.detected, told.confidence) == ("nl", None, 1.0)


def test_what_is_no_news_has_no_category() -> None:
    recipe = (
        "How to bake a perfect apple pie",
        "Mix the flour with butter and sugar. Bake for 40 minutes. Enjoy it warm.",
    )
    [told] = understand([recipe], ["en"])
    assert told.probabilities is not None
    assert category.CLASSES[int(told.probabilities.argmax())] == category.NOT_NEWS
    assert told.category is None


def test_a_language_that_is_hardly_likely_counts_as_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "detect", lambda title, text: language.Language("es", 0.49))
    [told] = understand([("Lorem ipsum", "")], [None])
    assert (told.language, told.detected, told.confidence) == (None, "es", 0.49)
