"""The vectors of greatest inner product with one vector, out of millions: an index of the library faiss, and the exact answer.

For an inverted file vectors are first turned so that what people's vectors are long in weighs much: lying near then means scoring
alike for people. Its lists are by distance, and those looked into are the ones whose centres have the greatest products: lists by
product, as the library makes them itself, hold far less of what is best.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from palate.errors import SnapshotBroken

Floats = NDArray[np.float32]
Bits = NDArray[np.uint8]

PREFIX = "index_"
"""With which the names of indexes in a snapshot begin; a model's name follows."""
TURN = "turn_"
"""Likewise of what turns a vector to ask with."""
PER_LIST = 64
"""Vectors per list that are looked at when the lists are found."""
SAMPLE = 262_144
"""Vectors from which lists are learned at most."""
LEAST_SPREAD = 0.02
"""Of the mean of all directions."""
BLOCK = 65_536
LINKS = 16
"""Of each vector in a graph."""


class IndexParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The indexes that training makes for finding candidates."""

    kind: Literal["ivf", "hnsw", "flat", "none"] = "ivf"
    """`ivf`: vectors in lists by the nearest of so many centres, a byte a number (an inverted file); `hnsw`: a graph, which takes
    far longer to make and several times the memory; `flat`: every vector is compared; `none`: no index is made."""
    least: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    """Items from which on there is an index: as long as there are fewer all are looked at."""
    flat_below: Annotated[int, msgspec.Meta(ge=1)] = 50_000
    """Items below which all vectors are compared."""
    lists: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None
    """Lists of an inverted file; None: twice the root of the number of items."""


class Asked(NamedTuple):
    """What a vector asks an inverted file: the product of one of its vectors with it is near[list] + start + step · bytes."""

    lists: NDArray[np.int64]
    """Those whose centres have the greatest products, the greatest first."""
    near: Floats
    """(all lists,) what the vectors of each have in common."""
    step: Floats
    """(d,)"""
    start: float


@dataclass(frozen=True, eq=False)
class Index:
    """An index of n vectors of d numbers. Its vectors stay in the memory that it was read from."""

    found: Any
    """Of faiss."""
    memory: Bits
    turn: Floats
    """(d, d) that turns a vector to ask with."""

    def __len__(self) -> int:
        return int(self.found.ntotal)

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.found.d)

    @property
    def cluster_count(self) -> int:
        """Lists of an inverted file; 0 for another kind."""
        return int(self.found.nlist) if hasattr(self.found, "nlist") else 0

    def clusters(self) -> NDArray[np.int32]:
        """(n,) the list in which each vector is, −1 for all where there are none."""
        faiss = _faiss()
        result = np.full(len(self), -1, np.int32)
        for number in range(self.cluster_count):
            size = self.found.invlists.list_size(number)
            if size:
                result[faiss.rev_swig_ptr(self.found.invlists.get_ids(number), size)] = number
        return result

    @cached_property
    def centres(self) -> Floats:
        """(lists, d)"""
        return np.asarray(self.found.quantizer.reconstruct_n(0, self.cluster_count), np.float32)

    def nearest_clusters(self, query: Floats, count: int) -> NDArray[np.int64]:
        """The at most `count` lists whose centres have the greatest products with a vector (d,)."""
        if not self.cluster_count or not count:
            return np.zeros(0, np.int64)
        products = self.centres @ (query @ self.turn)
        count = min(count, len(products))
        return np.argpartition(-products, count - 1)[:count].astype(np.int64)

    @cached_property
    def _unturned(self) -> Floats:
        """(lists, d) the centres as they were before vectors were turned."""
        return self.centres @ self.turn

    def alike(self, vector: Floats, probes: int) -> NDArray[np.int64]:
        """All vectors in those lists of an inverted file whose centres point most as this vector does; where it is shorter than
        d, by its numbers alone."""
        centres = self._unturned[:, : len(vector)]
        cosines = centres @ vector / np.maximum(np.linalg.norm(centres, axis=1), 1e-12)
        probes = min(probes, len(cosines))
        lists = np.argpartition(-cosines, probes - 1)[:probes]
        return np.concatenate([self._members[number][0] for number in lists.tolist()])

    @cached_property
    def _members(self) -> list[tuple[NDArray[np.int64], Bits]]:
        """Of each list the numbers of its vectors, and (m, d) their bytes; both stay where they were read from."""
        faiss, lists, found = _faiss(), self.found.invlists, []
        for number in range(self.cluster_count):
            size = lists.list_size(number)
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size) if size else np.zeros(0, np.int64)
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * self.width) if size else np.zeros(0, np.uint8)
            found.append((ids, codes.reshape(size, self.width)))
        return found

    @cached_property
    def _places(self) -> NDArray[np.int32]:
        """(n,) of each vector its place in the order of `members`."""
        places = np.empty(len(self), np.int32)
        places[self.members[1]] = np.arange(len(self), dtype=np.int32)
        return places

    def vectors(self, numbers: NDArray[np.int64]) -> Floats:
        """(m, d) these of its vectors, as precise as they are kept."""
        if not self.cluster_count:
            each = [self.found.reconstruct(number) for number in numbers.tolist()]
            return np.array(each, np.float32).reshape(len(numbers), self.width) @ self.turn
        (least, wide), (flat, starts), (offsets, _) = self._scale, self.codes, self.members
        places = self._places[numbers]
        lists = np.searchsorted(offsets, places, side="right") - 1
        begins = starts[lists] + (places - offsets[lists]) * self.width
        codes = flat[begins[:, np.newaxis] + np.arange(self.width)].astype(np.float32)
        found = least + (codes + np.float32(0.5)) * (wide / 255)
        return np.asarray((found + self.centres[lists] if self.found.by_residual else found) @ self.turn, np.float32)

    @cached_property
    def _scale(self) -> tuple[Floats, Floats]:
        """(d,) least number, and how far the greatest lies from it, by which faiss puts numbers into bytes."""
        least, wide = _faiss().vector_to_array(self.found.sq.trained).reshape(2, self.width)
        return least, wide

    @cached_property
    def members(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(lists + 1,) where in an order list by list each list begins, and (n,) the numbers of the vectors in that order."""
        sizes = [len(ids) for ids, _ in self._members]
        return np.append(0, np.cumsum(sizes)).astype(np.int64), np.concatenate([ids for ids, _ in self._members])

    @cached_property
    def codes(self) -> tuple[Bits, NDArray[np.int64]]:
        """The bytes of all vectors, and (lists,) where in them those of each list begin: in the memory that was read from,
        unless the library has put them elsewhere."""
        parts = [codes for _, codes in self._members]
        starts = np.array([codes.ctypes.data - self.memory.ctypes.data for codes in parts], np.int64)
        sizes = np.array([codes.size for codes in parts], np.int64)
        if ((starts >= 0) & (starts + sizes <= self.memory.nbytes))[sizes > 0].all():
            return self.memory.view(np.uint8), starts
        return np.concatenate(parts).reshape(-1), np.cumsum(sizes) - sizes

    def asked(self, query: Floats, probes: int) -> Asked:
        """What a vector (d,) asks so many lists of an inverted file."""
        turned, (least, wide) = query @ self.turn, self._scale
        near = self.centres @ turned
        step, count = (turned * wide / 255).astype(np.float32), min(probes, len(near))
        lists = np.argsort(-near)[:count].astype(np.int64)
        start = float(turned @ least + step.sum() / 2)
        return Asked(lists, near if self.found.by_residual else np.zeros_like(near), step, start)

    def _searched(self, queries: Floats, limit: int, selector: Any, probes: int) -> tuple[NDArray[np.int64], Floats]:
        """(q, limit) for each of several vectors the numbers of those of greatest product, −1 where there are no more."""
        faiss, turned = _faiss(), np.ascontiguousarray(queries @ self.turn, np.float32)
        near = turned @ self.centres.T
        count = min(probes, near.shape[1])
        lists = np.argpartition(-near, count - 1)[:, :count].astype(np.int64)
        near = np.take_along_axis(near, lists, axis=1)
        found, products = np.full((len(queries), limit), -1, np.int64), np.empty((len(queries), limit), np.float32)
        params = faiss.SearchParametersIVF(sel=selector, nprobe=count)
        given = [faiss.swig_ptr(array) for array in (lists, near, products, found)]
        self.found.search_preassigned_c(len(queries), faiss.swig_ptr(turned), limit, *given, False, params)
        return found, products

    def searches(
        self, queries: Floats, limit: int, selector: Any, probes: int
    ) -> list[tuple[NDArray[np.int64], Floats]]:
        """For each of several vectors (q, d) at most `limit` vectors of those that a selector of faiss lets pass, that of the
        greatest product first, and the products."""
        if not self.cluster_count:
            return [self.greatest(query, limit, selector, probes) for query in queries]
        found, products = self._searched(queries, limit, selector, probes)
        return [(own[own >= 0], by[own >= 0]) for own, by in zip(found, products, strict=True)]

    def greatest(self, query: Floats, limit: int, selector: Any, wide: int) -> tuple[NDArray[np.int64], Floats]:
        """The same for one vector (d,), of an index without lists."""
        faiss, turned = _faiss(), np.ascontiguousarray(query @ self.turn, np.float32)
        how = {"efSearch": max(2 * limit, 4 * wide)} if hasattr(self.found, "hnsw") else {}
        kind = faiss.SearchParametersHNSW if how else faiss.SearchParameters
        products, found = self.found.search(turned[np.newaxis], limit, params=kind(sel=selector, **how))
        return np.asarray(found[0][found[0] >= 0], np.int64), products[0][found[0] >= 0]


@dataclass(frozen=True, eq=False)
class Located:
    """An index whose vectors have rows in a pool."""

    index: Index
    rows: NDArray[np.int64]
    """(n,) of each vector, −1 for one that isn't in the pool."""

    @cached_property
    def _map(self) -> Any:
        """None where vectors lie as rows do."""
        if np.array_equal(self.rows, np.arange(len(self.rows))):
            return None
        faiss = _faiss()
        vector = faiss.Int64Vector()
        faiss.copy_array_to_vector(self.rows, vector)
        return vector

    def search(self, query: Floats, limit: int, bits: Bits, probes: int) -> NDArray[np.int64]:
        """The at most `limit` rows of greatest inner product with a vector (d,), the greatest first, of those whose bits are set.

        `probes` is how many lists of an inverted file are looked into, or how wide a graph is searched.
        """
        return self.searches(query[np.newaxis], limit, bits, probes)[0][0]

    def searches(self, queries: Floats, limit: int, bits: Bits, probes: int) -> list[tuple[NDArray[np.int64], Floats]]:
        """What `search` finds for each of several vectors (q, d), and the products."""
        if not limit:
            return [(self.rows[:0], np.zeros(0, np.float32)) for _ in queries]
        found = self.index.searches(queries, limit, self._selector(bits), probes)
        return [(self.rows[ids], products) for ids, products in found]

    def _selector(self, bits: Bits) -> Any:
        """Which vectors have the bits of their rows set; as long as the bits are held."""
        faiss = _faiss()
        selector = faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        if self._map is None:
            return selector
        translated = faiss.IDSelectorTranslated(self._map, selector)
        translated.own = selector  # it looks into it
        return translated


def exact(vectors: Floats, query: Floats, limit: int, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What `Located.search` comes near, for vectors (n, d) that lie as rows do and a mask (n,)."""
    rows = np.flatnonzero(mask)
    products = vectors[rows] @ query
    return np.asarray(rows[np.argsort(-products, kind="stable")[:limit]])


def turns(people: Floats) -> tuple[Floats, Floats]:
    """(d, d) by which items' vectors are turned, and the one for vectors to ask with, such that products stay as they are: the
    roots of the mean square of people's vectors (u, d), and of its inverse. Empty directions count a little."""
    values, directions = np.linalg.eigh(people.T.astype(np.float64) @ people / max(len(people), 1))
    roots = np.sqrt(np.maximum(values, LEAST_SPREAD * values.mean() + 1e-12))
    forth, back = (directions * roots) @ directions.T, (directions / roots) @ directions.T
    return forth.astype(np.float32), back.astype(np.float32)


def build(vectors: NDArray[np.floating], people: Floats, params: IndexParams) -> tuple[Bits, Floats] | None:
    """The bytes of an index of vectors (n, d) that vectors like those of these people (u, d) will ask, and what turns these; None
    where no index is wanted. The same vectors give the same bytes."""
    if params.kind == "none" or len(vectors) < params.least:
        return None
    index = _empty(len(vectors), vectors.shape[1], params)
    turned = len(people) and hasattr(index, "nlist")
    forth, back = turns(people) if turned else (np.eye(vectors.shape[1], dtype=np.float32),) * 2
    index.train(np.ascontiguousarray(vectors[:: max(len(vectors) // SAMPLE, 1)] @ forth, np.float32))
    for start in range(0, len(vectors), BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + BLOCK] @ forth, np.float32))
    return np.asarray(_faiss().serialize_index(index)), back


def read(memory: NDArray[Any], turn: NDArray[Any]) -> Index:
    """The index of these bytes, on them. Raises SnapshotBroken when they are none that this version of the library can read."""
    faiss = _faiss()
    bits = np.asarray(memory)
    try:
        found = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(bits), bits.nbytes))
    except RuntimeError as error:
        raise SnapshotBroken(f"an index can't be read: {str(error)[:200]}") from error
    return Index(found, bits, np.asarray(turn, np.float32))


def _faiss() -> Any:
    """Imported when it is needed; its own hints of types don't tell all it has."""
    faiss: Any = import_module("faiss")
    faiss.omp_set_num_threads(1)  # a search takes less than waking another thread; one also makes the same lists always
    return faiss


def _empty(vectors: int, width: int, params: IndexParams) -> Any:
    """An index for so many vectors."""
    faiss = _faiss()
    if params.kind == "flat" or vectors < params.flat_below:
        return faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    if params.kind == "hnsw":
        return faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
    lists = params.lists or 2 * int(np.sqrt(vectors))
    byte, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    centres = faiss.IndexFlatL2(width)
    index = faiss.IndexIVFScalarQuantizer(centres, width, lists, byte, product)
    centres.this.disown()  # the index deletes it
    index.own_fields = True
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid, index.cp.spherical = 1, 10, PER_LIST, False
    return index
