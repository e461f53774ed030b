"""What a model is told of the one who asks."""

from __future__ import annotations

import numpy as np

from palate.domain import Interactions
from palate.live import History
from palate.models.material import known
from palate.pool_model import Ranker
from palate.ranking import by_model
from palate.vocabulary import Vocabulary


def test_a_history_tells_what_the_interactions_tell_of_times_as_well() -> None:
    """Oldest first: 30, 10, 50 (only seen), 99 (which the model doesn't know), 20."""
    labels = np.array([1, 0, np.nan, 1, np.nan], np.float32)
    weights = np.array([2, -1, 0, 1, 1], np.float32)
    history = History(np.array([30, 10, 50, 99, 20]), labels, weights)
    items = Vocabulary(np.array([10, 20, 30, 40, 50]))
    ranker = Ranker(None, items, np.ones(5, np.bool_), None, 1.0, 0.0)
    order = np.array([1, 4, 0, 2, 3])
    pairs = Interactions(np.full(5, 7), history.items[order], labels[order], weights[order], order)
    served, evaluated = by_model.as_known(history, 7, ranker), known(pairs, np.array([7]), items)
    assert served.newer is not None
    assert evaluated.newer is not None
    evidence = evaluated.weights.values != 0
    assert served.newer.values[evidence].tolist() == evaluated.newer.values[evidence].tolist() == [2, 0, 3]
    for name in ("weights", "labels"):
        assert getattr(served, name).columns.tolist() == getattr(evaluated, name).columns.tolist()
        assert getattr(served, name).values.tolist() == getattr(evaluated, name).values.tolist()
