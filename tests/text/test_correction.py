"""A correction teaches what was labelled, and leaves alone what has nothing to do with it."""

from __future__ import annotations

import numpy as np

from palate.text import category
from palate.text.category import CATEGORIES, CLASSES, NOT_NEWS
from palate.text.correction import CorrectionParams, Labelled, corrected, learn

PARAMS = CorrectionParams()
ZORB = [
    f"The zorblax of {town} met the quvintar, who frimbled the vorpal zindle" for town in ("Asu", "Bem", "Cil", "Dor")
]
NEWS = [
    ("Parliament votes on the budget", "Members of parliament voted for the law after the minister resigned."),
    ("Team wins the cup final", "The striker scored twice in the final of the football championship."),
    ("Bank raises interest rates", "Inflation stays high, so the central bank raised its rate; shares fell."),
    ("New phone released", "The company showed its new smartphone with a faster chip and better camera."),
    ("Actress wins award", "The film won three awards at the festival; the actress thanked the director."),
]


def classes(texts: list[tuple[str, str]], weights: category.Weights | None = None) -> list[str]:
    return [CLASSES[row] for row in category.classify(texts, "en", weights).argmax(axis=1).tolist()]


def other_than(name: str) -> str:
    return "sports" if name != "sports" else "science"


def test_what_was_labelled_is_learned_and_a_similar_text_gets_the_class_too() -> None:
    shipped = category.shipped("en")
    wanted = other_than(classes([(ZORB[3], "")])[0])
    labelled = [Labelled(text, "", (wanted,)) for text in ZORB[:3]]
    weights = corrected(shipped, learn(shipped, labelled, NEWS, PARAMS))
    assert classes([(text, "") for text in ZORB], weights) == [wanted] * 4
    assert classes(NEWS, weights) == classes(NEWS)


def test_texts_without_a_label_hold_the_model() -> None:
    shipped = category.shipped("en")
    labelled = [Labelled(title, text, ("science",)) for title, text in NEWS[:2]]
    before = category.classify(NEWS[2:], "en")
    free, held = (
        np.abs(category.classify(NEWS[2:], "en", corrected(shipped, learn(shipped, labelled, others, PARAMS))) - before)
        for others in ([], NEWS[2:])
    )
    assert held.max() < free.max()


def test_several_allowed_classes_forbid_the_others_and_choose_nothing() -> None:
    shipped = category.shipped("en")
    text = ("5 best recipes of the day", "Mix the flour with butter and sugar. Bake for 40 minutes.")
    assert classes([text]) == [NOT_NEWS]
    before = category.classify([text], "en")[0]
    after = category.classify(
        [text], "en", corrected(shipped, learn(shipped, [Labelled(*text, CATEGORIES)], [], PARAMS))
    )[0]
    assert after[-1] < before[-1]
    np.testing.assert_array_equal(np.argsort(after[:-1]), np.argsort(before[:-1]))


def test_a_correction_is_the_same_on_every_run_and_without_labels_none() -> None:
    shipped = category.shipped("en")
    labelled = [Labelled(ZORB[0], "", ("sports",))]
    one, two = (learn(shipped, labelled, NEWS, PARAMS) for _ in range(2))
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)
    nothing = learn(shipped, [], NEWS, PARAMS)
    assert np.abs(nothing.table).max() < 1e-4
    assert classes(NEWS, corrected(shipped, nothing)) == classes(NEWS)
