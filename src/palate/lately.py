"""A bounded memory of what was asked for lately."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Lately(Generic[Key, Value]):
    """At most `size` values by their keys: those asked for least lately are dropped, half at a time. Threads may share it.

    For a moment it holds what one `add` brought beside them.
    """

    def __init__(self, size: int) -> None:
        self._half = max(1, size // 2)
        self._new: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def get(self, key: Key) -> Value | None:
        """The value of a key, None when it isn't remembered."""
        found = self._new.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self.add({key: found})
        return found

    def find(self, keys: Iterable[Key]) -> dict[Key, Value]:
        """The values of those keys that are remembered."""
        new, found = self._new, dict[Key, Value]()
        for key in keys:
            value = new.get(key)
            if value is None:
                value = self.get(key)
            if value is not None:
                found[key] = value
        return found

    def all_of(self, keys: Sequence[Key]) -> list[Value] | None:
        """The values of these keys, in their order; None when one of them isn't remembered."""
        try:
            return list(map(self._new.__getitem__, keys))
        except KeyError:
            found = self.find(keys)
        return [found[key] for key in keys] if all(key in found for key in keys) else None

    def add(self, values: Mapping[Key, Value]) -> None:
        """Remember these."""
        with self._lock:
            self._new.update(values)
            if len(self._new) >= self._half:
                self._old, self._new = self._new, {}

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._old, self._new = {}, {}
