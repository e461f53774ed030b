"""A factorization machine with fields while it is learned: all rows in one table.

Users and items are in blocks that no two threads share, but a label (a source, a language) is met by all. So each block has a
copy of the labels' rows, and after each round their mean takes their place, each weighed by how often it was met. That depends on
the blocks alone, not on threads; with one block, or where threads race, there is one copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.models import fm_learning
from palate.models.fields import NO_TAGS, Tags
from palate.models.fm_learning import LOSSES, Counts, Examples, Floats, Plan, Side, Task


@dataclass(frozen=True, eq=False)
class Stack:
    """U users, I items and R labels in one table, then a further copy of the labels for each block."""

    all: Side
    users: int
    items: int
    labels: int
    copies: int
    """Of the labels: 1, or as many as there are blocks, beside the one that holds after each round."""
    user_tags: Tags
    item_tags: Tags
    touched: Floats
    """(rows,) how often each was met since the last round."""


def stack(users: Side, items: Side, labels: Side, user_tags: Tags, item_tags: Tags, plan: Plan) -> Stack:
    """The table of these rows, copied."""
    copies = 0 if plan.blocks == 1 or plan.racing or not len(labels.rows) else plan.blocks
    parts = [users, items, *[labels] * (1 + copies)]
    table = Side(
        rows=np.concatenate([part.rows for part in parts]),
        here=np.concatenate([part.here for part in parts]),
        shaped=np.concatenate([part.shaped for part in parts]),
        l2_bias=np.concatenate([_each(part.l2_bias, part) for part in parts]),
        l2=np.concatenate([_each(part.l2, part) for part in parts]),
        steps=np.concatenate([part.steps for part in parts]),
    )
    sizes = len(users.rows), len(items.rows), len(labels.rows)
    return Stack(table, *sizes, copies, user_tags, item_tags, np.zeros(len(table.rows), np.float32))


def _each(l2: float | Floats, part: Side) -> NDArray[Any]:
    return np.broadcast_to(np.asarray(l2, np.float32), len(part.rows))


def unstack(stack: Stack, users: Side, items: Side, labels: Side) -> None:
    """Bring the learned rows back to where they came from."""
    ends = np.cumsum([stack.users, stack.items, stack.labels])
    for part, rows in zip((users, items, labels), np.split(stack.all.rows, ends)[:3], strict=True):
        part.rows[...] = rows


def machine(stack: Stack, examples: list[Examples], base: float, plan: Plan) -> Task:
    """The task of a machine with fields, or of one that compares items."""
    from palate.models import fm_kernels  # here: most processes only score

    rows, steps, width = stack.all.rows, stack.all.steps, stack.all.rows.shape[1]
    loss = LOSSES.index(plan.loss)
    room = 2 + sum(_most(tags) for tags in (stack.user_tags, stack.item_tags))
    room += max(_most(one.events) for one in examples)
    learn = fm_learning.compiled(lambda keep: fm_kernels.fields(width, plan.adagrad, keep), _nothing(width))

    def task(
        examples: Examples,
        visit: Counts,
        bounds: tuple[int, int],
        turn: tuple[int, int],
        block: int,
        only_look: bool = False,
    ) -> Floats:
        labels, copy = examples.labels, block + 1 if stack.copies and not only_look else 0
        starts = stack.users, stack.users + stack.items + copy * stack.labels
        losses = fm_learning.room_for_losses(labels, visit)
        tags = [_plain(tags) for tags in (stack.user_tags, stack.item_tags, examples.events)]
        touched = np.zeros_like(stack.touched) if only_look else stack.touched
        # fmt: off
        count = learn(
            visit, labels.offsets, labels.columns, labels.values, examples.weights, bounds, turn, np.float32(base),
            rows, fm_learning.still(len(rows)) if only_look else steps, starts, *tags, room, touched, loss, losses,
        )
        # fmt: on
        return losses[:count]

    return task


def _plain(tags: Tags) -> tuple[Any, Any, Any]:
    return tags.offsets, tags.rows, tags.shares


def _most(tags: Tags) -> int:
    return int(np.diff(tags.offsets).max(initial=0))


def _nothing(width: int) -> tuple[Any, ...]:
    whole, numbers, rows = np.zeros(1, np.int64), np.zeros(0, np.float32), np.zeros((0, width), np.float32)
    short, steps, none, tags = np.zeros(0, np.int32), np.zeros((0, 4), np.float32), (0, 0), _plain(NO_TAGS)
    inputs = (short, whole, short, numbers, numbers, none, none, np.float32(0))
    return *inputs, rows, steps, none, tags, tags, tags, 2, numbers, 0, numbers


def meet(stack: Stack) -> None:
    """Take the mean of the blocks' copies of the labels; what Adagrad has summed up is added."""
    if not stack.copies:
        return
    first = stack.users + stack.items
    shape = (1 + stack.copies, stack.labels)
    rows, steps = (part[first:].reshape(*shape, part.shape[1]) for part in (stack.all.rows, stack.all.steps))
    met = stack.touched[first:].reshape(shape)[1:]
    share = (met / np.maximum(met.sum(axis=0), 1))[:, :, np.newaxis]
    rows[0] += (share * (rows[1:] - rows[0])).sum(axis=0)
    steps[0, :, 3] += (steps[1:, :, 3] - steps[0, :, 3]).sum(axis=0)
    rows[1:], steps[1:] = rows[0], steps[0]
    stack.touched[:] = 0
