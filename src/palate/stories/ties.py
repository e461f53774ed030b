"""What people said of pairs of documents, laid over the stories that were found: the same story, or not.

Whoever says that two documents are of one story joins their stories whole. Where two of a story are not of one, the one that is
closer to the whole stays and the other stands alone. Nothing else moves, so that stories stay the same however documents came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palate.stories.clustering import Stories, picked
from palate.stories.neighbours import Placed, in_order, products_of

Pairs = Sequence[tuple[int, int]]


class Ties(NamedTuple):
    """Pairs of documents by their keys."""

    same: tuple[tuple[int, int], ...] = ()
    different: tuple[tuple[int, int], ...] = ()


NO_TIES = Ties()


def tied(stories: Stories, ties: Ties) -> Stories:
    """The stories with the labels that follow from these pairs; pairs of documents that aren't there are left out.

    Of pairs that contradict each other `different` holds, and of the others those that stand first. It is laid over what was
    found and never goes back into it: `clustering.joined` and `removed` take the stories as they were.
    """
    rows = in_order(stories.documents, _concerned(stories, ties))
    part = picked(stories, rows)
    different = _rows(part, ties.different)
    atoms = _atoms(_rows(part, ties.same), different)
    if not different and not atoms:
        return stories
    labels = stories.labels.copy()
    labels[rows] = _tied(part, atoms, different)
    return replace(stories, labels=labels)


def _concerned(stories: Stories, ties: Ties) -> NDArray[np.int64]:
    """Rows of the stories of which somebody said something."""
    wanted = np.array(sorted({key for pair in (*ties.same, *ties.different) for key in pair}), np.int64)
    return np.flatnonzero(np.isin(stories.labels, stories.labels[np.isin(stories.documents.keys, wanted)]))


def _tied(stories: Stories, atoms: dict[int, int], different: Pairs) -> NDArray[np.int64]:
    labels = _united(stories, atoms)
    for one, other in different:
        if labels[one] == labels[other]:
            members = np.flatnonzero(labels == labels[one])
            labels[members] = _parted(stories.documents[members], members, atoms, different)
    return labels


def _rows(stories: Stories, pairs: Pairs) -> list[tuple[int, int]]:
    """The pairs by their rows."""
    wanted = np.array(sorted({key for pair in pairs for key in pair}), np.int64)
    there = np.flatnonzero(np.isin(stories.documents.keys, wanted))
    row_of = dict(zip(stories.documents.keys[there].tolist(), there.tolist(), strict=True))
    return [(row_of[one], row_of[other]) for one, other in pairs if one in row_of and other in row_of]


def _atoms(same: Pairs, different: Pairs) -> dict[int, int]:
    """Of each row that somebody tied to another the first row of all that are tied to it."""
    roots: dict[int, int] = {}
    for pair in same:
        low, high = sorted(roots.get(row, row) for row in pair)
        apart = any({roots.get(row, row) for row in two} == {low, high} for two in different)
        if not apart:
            roots |= {row: low for row, root in roots.items() if root == high} | {low: low, high: low}
    return roots


def _united(stories: Stories, atoms: dict[int, int]) -> NDArray[np.int64]:
    """The labels when stories of one atom are one story."""
    keys, labels = stories.documents.keys, stories.labels.copy()
    for row, root in sorted(atoms.items()):
        if labels[row] != labels[root]:
            members = np.flatnonzero((labels == labels[row]) | (labels == labels[root]))
            labels[members] = keys[members[0]]
    return labels


def _parted(story: Placed, rows: NDArray[np.int64], atoms: dict[int, int], different: Pairs) -> NDArray[np.int64]:
    """The labels of one story's documents, of which some mustn't share it."""
    near = products_of(story.codes, story.codes).sum(axis=1, dtype=np.float64)
    roots = np.array([atoms.get(row, row) for row in rows.tolist()])
    stays: set[int] = set()
    for root in sorted(set(roots.tolist()), key=lambda root: (-near[roots == root].mean(), root)):
        rivals = {atoms.get(end, end) for pair in different for end in pair if root in _roots(pair, atoms)} - {root}
        if not rivals & stays:
            stays.add(root)
    staying = np.isin(roots, sorted(stays))
    groups = np.where(staying, -1, roots)
    firsts = np.array([story.keys[np.flatnonzero(groups == group)[0]] for group in groups.tolist()])
    return firsts.astype(np.int64)


def _roots(pair: tuple[int, int], atoms: dict[int, int]) -> set[int]:
    return {atoms.get(row, row) for row in pair}
