"""Categories: the contest's names in its order, probabilities, clear cases of each class, and whatever comes in is survived."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palate.text.category import CATEGORIES, CLASSES, LANGUAGES, NOT_NEWS, classify, from_bytes, probabilities, to_bytes
from palate.text.learning import calibrated, calibration, fit, minimise, readable_product, stored
from palate.text.learning_kernels import product
from palate.text.tokens import SIZE, features

CLEAR = {
    "en": {
        "society": (
            "Police arrest two men after fatal shooting",
            "Officers said the suspects were detained on Sunday.",
        ),
        "economy": (
            "Wall Street stocks hit record highs",
            "Shares rose on Friday as investors hoped for a trade deal.",
        ),
        "technology": (
            "Samsung Galaxy S10 gets Android update",
            "The new firmware brings a security patch to smartphones.",
        ),
        "sports": ("Lakers beat Bulls 118-112", "LeBron James scored 30 points as the team won its sixth game."),
        "entertainment": (
            "Actress to star in new Netflix series",
            "The show will premiere with an album by the singer.",
        ),
        "science": (
            "Scientists discover new species of dinosaur",
            "Researchers published the study in the journal Nature.",
        ),
        NOT_NEWS: (
            "10 Best Gifts For Women This Holiday Season",
            "Here are our tips on how to choose the perfect present.",
        ),
    },
    "ru": {
        "society": ("Полиция задержала подозреваемого в убийстве", "Возбуждено уголовное дело, сообщили в МВД."),
        "economy": ("ЦБ повысил ключевую ставку", "Банк России сообщил об инфляции; рубль подорожал к доллару."),
        "technology": ("Samsung представила новый смартфон", "Устройство получило процессор Snapdragon и экран OLED."),
        "sports": ("«Зенит» обыграл «Спартак» в матче чемпионата", "Нападающий забил два гола, тренер доволен игрой."),
        "entertainment": ("Певица показала новый клип", "Актриса и певица рассказала о премьере фильма."),
        "science": ("Ученые открыли новый вид бактерий", "Исследование опубликовано в журнале Nature."),
        "other": ("Синоптики рассказали о погоде на выходные", "Ожидается снег, температура воздуха до -5 градусов."),
        NOT_NEWS: ("5 рецептов вкусного пирога", "Как приготовить тесто: советы, которые нужно знать каждой хозяйке."),
    },
}


def test_the_names_are_those_of_the_contest_in_its_order() -> None:
    assert CATEGORIES == ("society", "economy", "technology", "sports", "entertainment", "science", "other")
    assert (*CATEGORIES, "not_news") == CLASSES


@pytest.mark.parametrize("language", LANGUAGES)
def test_clear_cases_of_every_class_are_told_apart(language: str) -> None:
    likely = classify(list(CLEAR[language].values()), language)
    assert [CLASSES[column] for column in likely.argmax(axis=1)] == list(CLEAR[language])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_row_does_not_depend_on_the_others(language: str) -> None:
    documents = [*CLEAR[language].values(), ("", "")]
    together = classify(documents, language)
    for place, document in enumerate(documents):
        np.testing.assert_array_equal(classify([document], language)[0], together[place])


def test_no_documents_give_no_rows() -> None:
    assert classify([], "en").shape == (0, len(CLASSES))


def test_other_languages_have_no_model() -> None:
    with pytest.raises(AssertionError, match="no model"):
        classify([("Titel", "Text")], "de")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "document",
    [
        ("", ""),
        ("😀🎉", "👍" * 50),
        ("\ud800", "\udfff\x00\x1b"),
        ("a" * 1_000_000, "б " * 25_000_000),
        ("\n", "\t  \n"),
    ],
)
def test_hostile_text_gets_probabilities(document: tuple[str, str], language: str) -> None:
    likely = classify([document], language)
    assert np.isclose(likely.sum(), 1, atol=1e-5)
    assert (likely >= 0).all()


@given(st.text(max_size=100), st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_gets_probabilities_that_sum_to_one(title: str, text: str) -> None:
    likely = classify([(title, text)], "ru")
    assert np.isfinite(likely).all()
    assert np.isclose(likely.sum(), 1, atol=1e-5)


def test_only_the_beginning_of_a_text_counts() -> None:
    title, text = CLEAR["en"]["sports"]
    filler = text + " word" * 400
    np.testing.assert_array_equal(
        classify([(title, filler)], "en"), classify([(title, filler + " stocks" * 9999)], "en")
    )


def test_the_model_learns_what_it_is_shown() -> None:
    shown = [("мяч", ""), ("гол", ""), ("банк", ""), ("рубль", "")]
    targets = np.zeros((4, len(CLASSES)), np.float32)
    targets[:2, CLASSES.index("sports")] = targets[2:, CLASSES.index("economy")] = 1
    bias, table = fit(features(shown), targets, np.ones(4, np.float32), l2=0.01, rounds=30)
    weights = stored(bias, table)
    again = from_bytes(to_bytes(weights))
    np.testing.assert_array_equal(again.table, weights.table)
    assert weights.table.shape == (SIZE, len(CLASSES))

    likely = probabilities(features([("мяч", ""), ("рубль", "")]), again)
    assert [CLASSES[column] for column in likely.argmax(axis=1)] == ["sports", "economy"]
    assert (likely.max(axis=1) > 0.8).all()


def test_a_document_counts_by_its_importance() -> None:
    shown = features([("слово", ""), ("слово", "")])
    targets = np.zeros((2, len(CLASSES)), np.float32)
    targets[0, 0] = targets[1, 3] = 1
    bias, _ = fit(shown, targets, np.array([1, 9], np.float32), l2=1.0, rounds=50)
    assert bias.argmax() == 3


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    likely = np.exp(logits)
    return np.asarray(likely / likely.sum(axis=1, keepdims=True), np.float32)


def test_calibration_undoes_overconfidence() -> None:
    drawn = np.random.default_rng(5)
    logits = drawn.normal(size=(4000, len(CLASSES)))
    truth = [drawn.choice(len(CLASSES), p=row / row.sum()) for row in softmax(logits).astype(np.float64)]
    right = np.eye(len(CLASSES), dtype=bool)[truth]
    assert calibration(softmax(3 * logits), right, np.ones(4000)) == pytest.approx(1 / 3, rel=0.1)
    assert calibration(softmax(logits / 2), right, np.ones(4000)) == pytest.approx(2, rel=0.1)


def test_calibration_learns_from_what_a_text_is_not() -> None:
    sure = softmax(np.tile([0.0, 0, 0, 0, 0, 0, 0, 4], (200, 1)))
    is_news = np.array([label != NOT_NEWS for label in CLASSES])
    assert calibration(sure, np.tile(is_news, (200, 1)), np.ones(200)) < 0.1


def test_a_calibrated_model_says_the_scaled_probabilities() -> None:
    shown = features([("мяч", "гол"), ("рубль", "")])
    table = np.random.default_rng(2).normal(size=(SIZE, len(CLASSES))).astype(np.float32)
    model = stored(np.linspace(0, 1, len(CLASSES), dtype=np.float32), table)
    expected = softmax(0.4 * np.log(probabilities(shown, model)).astype(np.float64))
    np.testing.assert_allclose(probabilities(shown, calibrated(model, 0.4)), expected, atol=1e-5)


def test_machine_code_agrees_with_its_readable_twin() -> None:
    drawn = np.random.default_rng(3)
    found = features([(f"слово {number}", "ещё слова " * number) for number in range(7)])
    table = drawn.normal(size=(SIZE, 3)).astype(np.float32)
    np.testing.assert_allclose(product(*found, table), readable_product(found, table), rtol=1e-5)


def test_the_smallest_place_of_a_bowl_is_found() -> None:
    steep = np.array([1.0, 100.0, 0.01])

    def bowl(place: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        away = place - [3, -2, 5]
        return float((steep * away**2).sum()), 2 * steep * away

    np.testing.assert_allclose(minimise(bowl, np.zeros(3), 60), [3, -2, 5], atol=1e-3)


def test_neither_training_code_nor_machine_code_is_loaded_to_classify() -> None:
    program = (
        "import sys\nfrom palate.text import category\ncategory.classify([('a', 'b')], 'en')\n"
        "print(sorted({'numba', 'scipy', 'sklearn', 'palate.text.learning'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
