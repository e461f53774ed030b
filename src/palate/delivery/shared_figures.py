"""Figures of several processes behind one address, told as one's: each writes its own down, whoever is asked adds them up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

SUMMED = (
    "palate_requests",
    "palate_request_seconds",
    "palate_events_accepted",
    "palate_commit_events",
    "palate_items_accepted",
)
"""What each process counts for itself; all else is read from what they share."""

Labels = tuple[tuple[str, str], ...]
Sums = dict[tuple[str, Labels], float]
"""By the name and the labels of a sample."""


@dataclass(frozen=True)
class Worker:
    """One of several processes: its place among them, and the folder where they write down what they count."""

    place: int
    folder: Path


class SharedFigures:
    """The figures of a process (`registry`) among those of others; None: there are no others.

    A process that takes the place of one that died goes on from its figures, so that no sum falls.
    """

    def __init__(self, registry: CollectorRegistry, worker: Worker | None) -> None:
        self._registry = registry
        self._worker = worker
        self._before: Sums = _read(self._file(worker)) if worker is not None else {}

    def write(self) -> None:
        """Let the others know, who are then at most as late as this is called."""
        if self._worker is None:
            return
        file = self._file(self._worker)
        new = file.with_suffix(".new")
        with suppress(OSError):  # a full disk is told elsewhere
            new.write_bytes(
                msgspec.msgpack.encode([(name, labels, value) for (name, labels), value in self._own().items()])
            )
            os.replace(new, file)

    def render(self) -> bytes:
        """The figures of all in the text format that Prometheus reads."""
        if self._worker is None:
            return generate_latest(self._registry)
        own = self._file(self._worker)
        others = [_read(file) for file in self._worker.folder.glob("*.figures") if file != own]
        sums = _added([self._own(), *others])
        registry = CollectorRegistry()
        registry.register(_Collected(self._registry, sums))
        return generate_latest(registry)

    @staticmethod
    def _file(worker: Worker) -> Path:
        return worker.folder / f"{worker.place}.figures"

    def _own(self) -> Sums:
        families = [family for family in self._registry.collect() if family.name in SUMMED]
        counted = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in _counts(family)}
        return _added([counted, self._before])


@dataclass(frozen=True, eq=False)
class _Collected:
    registry: CollectorRegistry
    sums: Sums

    def collect(self) -> Iterable[Metric]:
        for family in self.registry.collect():
            if family.name in SUMMED:
                family.samples = _samples(family, self.sums)
            yield family


def _counts(family: Metric) -> list[Sample]:
    """Without the moments at which counting began, of which there is no sum."""
    return [sample for sample in family.samples if not sample.name.endswith("_created")]


def _samples(family: Metric, sums: Mapping[tuple[str, Labels], float]) -> list[Sample]:
    names = {f"{family.name}{ending}" for ending in ("", "_total", "_bucket", "_count", "_sum")}
    return [Sample(name, dict(labels), value) for (name, labels), value in sums.items() if name in names]


def _added(several: Iterable[Sums]) -> Sums:
    total: Sums = {}
    for sums in several:
        for key, value in sums.items():
            total[key] = total.get(key, 0.0) + value
    return total


def _read(file: Path) -> Sums:
    """What a process wrote down last; nothing where none did."""
    try:
        rows = msgspec.msgpack.decode(file.read_bytes(), type=list[tuple[str, Labels, float]])
    except (OSError, msgspec.DecodeError):
        return {}
    return {(name, labels): value for name, labels, value in rows}
