"""What the events of a window mean, as small numbers for its kernels; the rules are those of `interactions.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palate.errors import InvalidInput
from palate.interactions import KEPT_BY_RETRACT, EventType, InteractionParams
from palate.window.kernels import Rules

MOST_TYPES = 63
"""With a meaning: each has a code of its own, as has its retraction, in 7 bits."""


def codes_of(params: InteractionParams) -> dict[str, int]:
    """Code of each type and retraction that means something; 0 is any other."""
    names = meaningful(params)
    if len(names) > MOST_TYPES:
        raise InvalidInput(
            f"interactions.types gives a meaning to {len(names)} types; the window of training tells {MOST_TYPES} apart"
        )
    return {name: place for place, name in enumerate([*names, *(f"retract:{name}" for name in names), "retract"], 1)}


def meaningful(params: InteractionParams) -> list[str]:
    return [name for name, type in params.types.items() if name == "shown" or type != EventType()]


def rules_of(params: InteractionParams) -> Rules:
    codes = codes_of(params)
    types = [EventType(), *(params.types.get(name, EventType()) for name in codes)]
    bits = {name: 1 << place for place, name in enumerate(meaningful(params))}
    undone = {f"retract:{name}": bit for name, bit in bits.items()}
    undone["retract"] = sum(bit for name, bit in bits.items() if name not in KEPT_BY_RETRACT)
    signs = {True: 1, False: -1}
    votes = params.rule == "votes"
    weight = np.array([type.weight if isinstance(type.weight, float | int) else 0 for type in types], np.float32)
    return Rules(
        label=np.array([type.label if isinstance(type.label, float | int) else np.nan for type in types], np.float32),
        label_is_value=np.array([type.label == "value" for type in types]),
        weight=weight,
        weight_is_value=np.array([type.weight == "value" for type in types]),
        sign=np.array([signs[type.positive] if isinstance(type.positive, bool) else 0 for type in types], np.int8),
        sign_is_value=np.array([type.positive == "value" for type in types]),
        refused=np.array([type.positive is False for type in types]),
        viewed=np.array([type.viewed for type in types]),
        bit=np.array([bits.get(name, 0) for name in ("", *codes)], np.uint64),
        undoes=np.array([undone.get(name, 0) for name in ("", *codes)], np.uint64),
        acts=np.array([name != "shown" for name in ("", *codes)]),
        by_value=np.array(["value" in (type.label, type.weight, type.positive) for type in types]),
        alone_label=np.array([_alone(type, votes) for type in types], np.float32),
        alone_weight=np.minimum(weight, [0 if type.positive is False else np.inf for type in types]).astype(np.float32),
    )


def _alone(type: EventType, votes: bool) -> float:
    """The label of a pair with one event of this type, which has nothing to do with its value; NaN: none."""
    if votes:
        return type.label if isinstance(type.label, float | int) else np.nan
    return 1.0 if type.positive is True else 0.0 if type.positive is False or type.viewed else np.nan


def halves() -> NDArray[np.float32]:
    """The float16 of each 16 bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
