"""Vectors of texts: near for what is about the same, whatever the language."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palate.text import embedding


def nearness(one: tuple[str, str], other: tuple[str, str]) -> float:
    first, second = embedding.embed([one, other]).astype(np.float32)
    return float(first @ second)


def test_texts_about_the_same_are_nearer_than_others() -> None:
    quake = ("Earthquake shakes Chile", "A strong earthquake of magnitude 7 shook the coast of Chile on Monday.")
    again = (
        "Chile hit by a strong quake",
        "The earthquake on Monday damaged houses on the coast, officials in Chile said.",
    )
    match = ("Late goal wins the cup", "A goal in the last minute won the cup for the visitors on Monday.")
    assert nearness(quake, again) > 0.4 > 0.2 > nearness(quake, match)


def test_russian_endings_do_not_part_words() -> None:
    assert nearness(("Землетрясение в Чили", ""), ("О землетрясениях Чили", "")) > 0.8
    assert nearness(("Землетрясение в Чили", ""), ("Кубок по футболу", "")) < 0.2


def test_scripts_without_spaces_are_read_by_pairs() -> None:
    assert list(embedding.words("地震です")) == ["地震", "震で", "です"]
    assert nearness(("地震がチリを襲う", ""), ("チリで地震", "")) > 0.25


def test_no_words_give_zero() -> None:
    assert not embedding.embed([("", ""), ("!?", "…")]).any()
    assert embedding.embed([]).shape == (0, embedding.LENGTH)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_gives_a_vector_of_length_1_or_0(title: str, text: str) -> None:
    (vector,) = embedding.embed([(title, text)]).astype(np.float32)
    assert abs(np.linalg.norm(vector) - 1) < 0.01 or not vector.any()


def test_a_word_of_many_texts_of_one_language_says_little() -> None:
    weights = embedding.rarity([["the cat", "the dog", "the the bird", "the"] * 25, ["кот", "пёс"]])
    assert weights[embedding.bucket("the")] == 0
    assert weights[embedding.bucket("кот")] == round(16 * np.log(2))
    assert weights[embedding.bucket("unseen")] == round(16 * np.log(100))


def test_vectors_stay_as_they_were_stored() -> None:
    """Stored vectors of this version have to compare with new ones."""
    (vector,) = embedding.embed([("Palate", "a feed engine")])
    assert vector[:4].tolist() == VECTOR
    assert embedding.VERSION == 1


VECTOR = [0.01396942138671875, 0.061553955078125, -0.04815673828125, -0.01396942138671875]
