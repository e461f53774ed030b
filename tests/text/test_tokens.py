"""What a document's features are: known words, one norm, nothing that depends on the neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.text.tokens import SIZE, STEM, TEXT_LENGTH, features, titled, words


def numbers(title: str, text: str) -> set[int]:
    return set(features([(title, text)]).numbers.tolist())


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("В Госдуме (Москва), раскритиковали: «продажи».", "в\nгосдуме москва раскритиковали продажи"),
        ("Don’t stop: covid19 is_here", "DON t Stop covid 55 is here"),
        ("ЁЛКА 2019", "елка 1234"),
        ("Как?? 50%", "как ? ? 99 %"),
        ("ab😀cd\ud800ef", "ab cd ef"),
    ],
)
def test_words_end_at_punctuation_and_have_no_case_and_numbers_no_digits(text: str, same: str) -> None:
    np.testing.assert_array_equal(words([text]).whole, words([same]).whole)


def test_different_words_have_different_numbers() -> None:
    text = "дом дома dom dоm ? ! 1 22 a ab immediate immediately президент президиум"
    assert len(set(words([text]).whole.tolist())) == len(text.split())
    assert len(words(["", "…", "-"]).whole) == 0


def test_words_know_their_text_and_do_not_run_into_the_next() -> None:
    found = words(["ab", "", "cd?", "ab"])
    assert found.places.tolist() == [0, 2, 2, 3]
    assert found.whole[0] == found.whole[3]
    assert found.stems[0] != found.stems[1]


def test_forms_of_a_russian_word_share_their_beginning() -> None:
    assert len("правительство"[:STEM]) == STEM
    alone = numbers("правительство", "") & numbers("правительством", "")
    other = numbers("правительство", "") & numbers("футболист", "")
    assert len(alone) > len(other)


def test_a_word_of_the_title_is_more_than_the_same_word_in_the_text() -> None:
    only_text = numbers("зенит", "футбол") - numbers("зенит", "")
    assert only_text
    assert numbers("футбол", "зенит") != numbers("зенит", "футбол")


def test_order_of_words_matters_to_pairs_alone() -> None:
    one, other = numbers("", "дом. белый дом стоит"), numbers("", "дом. дом белый стоит")
    assert one & other
    assert one != other


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Title", "Text", ("Title", "Text")),
        ("", "First line\nand the rest", ("First line", "\nand the rest")),
        ("  ", "A sentence. Another one.", ("A sentence.", " Another one.")),
        ("", "Header  02 May 2020", ("Header", "  02 May 2020")),
        ("", "all there is", ("all there is", "")),
    ],
)
def test_a_text_without_a_title_lends_it_its_beginning(title: str, text: str, expected: tuple[str, str]) -> None:
    assert titled(title, text) == expected


def test_a_document_has_the_same_features_alone_and_among_others() -> None:
    documents = [("Первый", "текст о погоде"), ("", ""), ("Second", "text about money")]
    together = features(documents)
    for place, document in enumerate(documents):
        alone = features([document])
        part = slice(together.offsets[place], together.offsets[place + 1])
        np.testing.assert_array_equal(together.numbers[part], alone.numbers)
        np.testing.assert_array_equal(together.values[part], alone.values)


def test_fifty_megabytes_are_cut_before_they_are_read() -> None:
    long, short = features([("т" * 25_000_000, "слово " * 4_000_000)]), features([("т" * 300, "слово " * TEXT_LENGTH)])
    np.testing.assert_array_equal(long.numbers, short.numbers)


def test_no_documents_have_no_features() -> None:
    none = features([])
    assert none.offsets.tolist() == [0]
    assert len(none.numbers) == len(none.values) == 0


@given(st.lists(st.tuples(st.text(max_size=80), st.text(max_size=300)), max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_text_has_distinct_numbers_of_the_table_and_length_one(documents: list[tuple[str, str]]) -> None:
    found = features(documents)
    assert len(found.offsets) == len(documents) + 1
    for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True):
        of_one = found.numbers[start:end].tolist()
        assert of_one == sorted(set(of_one))
        assert all(0 <= number < SIZE for number in of_one)
        assert np.isclose((found.values[start:end] ** 2).sum(), 1, atol=1e-4)
