"""Snapshots: what is published comes back, what is damaged is noticed, and a crash at any moment leaves what was served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from palate import snapshots
from palate.errors import DataFolderError, SnapshotBroken, SnapshotTooNew
from palate.snapshots import Snapshot

HEADER = {"created": 1_700_000_000_000, "seq": 17, "models": {"fm": {"base": 0.25}}}


def arrays(value: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "items": np.array([3, 5, 2**40], np.int64),
        "item_vectors": np.full((3, 13), value, np.float16),
        "item_bias": np.arange(3, dtype=np.float32),
    }


def people() -> dict[str, np.ndarray[Any, Any]]:
    """Three users with 2, 0 and 3 items of history."""
    return arrays() | {
        "users": np.array([10, 20, 30], np.int64),
        "user_vectors": np.arange(6, dtype=np.float16).reshape(3, 2),
        "user_bias": np.array([1, 2, 3], np.float32),
        "history_offsets": np.array([0, 2, 2, 5], np.int64),
        "history_items": np.array([0, 1, 0, 1, 2], np.int32),
        "history_labels": np.array([1, np.nan, 0, 1, 1], np.float16),
    }


def listed(snapshot: Snapshot) -> dict[str, Any]:
    return {name: array.tolist() for name, array in snapshot.arrays.items()}


def test_what_is_published_is_loaded(tmp_path: Path) -> None:
    version = snapshots.publish(tmp_path, HEADER, arrays())
    snapshot = snapshots.load(tmp_path)
    assert snapshot.version == version == snapshots.current(tmp_path) == "1700000000000"
    assert {name: snapshot.header[name] for name in HEADER} == HEADER
    assert listed(snapshot) == {name: array.tolist() for name, array in arrays().items()}
    assert {name: array.dtype for name, array in snapshot.arrays.items()} == {n: a.dtype for n, a in arrays().items()}
    with pytest.raises(ValueError, match="read-only"):
        snapshot.arrays["item_bias"][0] = 9


dtypes = st.sampled_from([np.dtype(name) for name in ("<i8", "<i4", "<f4", "<f2", "|b1", "<u2")])


@given(value=arrays_of.arrays(dtypes, arrays_of.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)))
def test_any_array_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, value: np.ndarray[Any, Any]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    snapshots.publish(folder, HEADER, {"values": value, "transposed": value.T})
    found = snapshots.load(folder).arrays
    assert found["values"].tobytes() == value.tobytes()
    assert (found["values"].shape, found["values"].dtype) == (value.shape, value.dtype)
    assert found["transposed"].tobytes() == value.T.tobytes()


def test_versions_grow_even_when_the_clock_stands_still_or_goes_back(tmp_path: Path) -> None:
    published = [snapshots.publish(tmp_path, HEADER | {"created": created}, arrays()) for created in (5000, 5000, 1)]
    assert [int(version) for version in published] == [5000, 5001, 5002]
    assert snapshots.versions(tmp_path) == published
    assert snapshots.current(tmp_path) == published[-1]


def test_nothing_published_is_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        assert snapshots.current(folder) is None
        assert snapshots.versions(folder) == []
        assert snapshots.load_newest_good(folder) is None
        assert snapshots.forget_user(folder, [1]) == 0
        with pytest.raises(SnapshotBroken, match="no snapshot"):
            snapshots.load(folder)


def cut_in_half(path: Path) -> None:
    file = path / "item_vectors.npy"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    file = path / "item_bias.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def lose_a_file(path: Path) -> None:
    (path / "items.npy").unlink()


def empty_a_file(path: Path) -> None:
    (path / "items.npy").write_bytes(b"")


def lose_the_header(path: Path) -> None:
    (path / "header.json").unlink()


def no_json(path: Path) -> None:
    (path / "header.json").write_text('{"format": 1, "arr')


def no_header(path: Path) -> None:
    (path / "header.json").write_text("[1, 2]")


def header_of_another(path: Path) -> None:
    change(path, lambda header: header.update(version="1600000000000"))


def wrong_shape(path: Path) -> None:
    change(path, lambda header: header["arrays"]["items"].update(shape=[4]))


def wrong_type(path: Path) -> None:
    change(path, lambda header: header["arrays"]["item_bias"].update(dtype="<i4"))


def no_description(path: Path) -> None:
    change(path, lambda header: header["arrays"].update(items=None))


def file_outside(path: Path) -> None:
    change(path, lambda header: header["arrays"]["items"].update(file="../../secret.npy"))


def python_objects(path: Path) -> None:
    np.save(path / "items.npy", np.array([{"a": 1}, None, print], object), allow_pickle=True)
    content = (path / "items.npy").read_bytes()
    import zlib

    change(path, lambda header: header["arrays"]["items"].update(dtype="|O", crc32=zlib.crc32(content)))


DAMAGES = [
    cut_in_half,
    flip_a_bit,
    lose_a_file,
    empty_a_file,
    lose_the_header,
    no_json,
    no_header,
    header_of_another,
    wrong_shape,
    wrong_type,
    no_description,
    file_outside,
    python_objects,
]


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    header = json.loads((path / "header.json").read_text())
    edit(header)
    (path / "header.json").write_text(json.dumps(header))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_snapshot_is_refused_and_the_one_before_is_served(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    good = snapshots.publish(tmp_path, HEADER, arrays(1))
    bad = snapshots.publish(tmp_path, HEADER, arrays(2))
    damage(tmp_path / bad)
    with pytest.raises(SnapshotBroken) as raised:
        snapshots.load(tmp_path)
    assert bad in str(raised.value)
    served = snapshots.load_newest_good(tmp_path)
    assert served is not None
    assert served.version == good
    assert listed(served) == {name: array.tolist() for name, array in arrays(1).items()}


def test_without_verification_only_the_shape_is_looked_at(tmp_path: Path) -> None:
    version = snapshots.publish(tmp_path, HEADER, arrays())
    flip_a_bit(tmp_path / version)
    assert snapshots.load(tmp_path, verify=False).version == version
    cut_in_half(tmp_path / version)
    with pytest.raises(SnapshotBroken):
        snapshots.load(tmp_path, verify=False)


def test_a_newer_format_is_said_to_be_newer(tmp_path: Path) -> None:
    version = snapshots.publish(tmp_path, HEADER, arrays())
    change(tmp_path / version, lambda header: header.update(format=snapshots.FORMAT + 1, arrays="of another kind"))
    with pytest.raises(SnapshotTooNew, match="update Palate"):
        snapshots.load(tmp_path)
    assert snapshots.load_newest_good(tmp_path) is None


@pytest.mark.parametrize("content", [b"1700000000009\n", b"../../../etc\n", b"\xff\xfe\x00", b""])
def test_a_current_file_that_points_nowhere_lets_the_newest_good_be_served(tmp_path: Path, content: bytes) -> None:
    version = snapshots.publish(tmp_path, HEADER, arrays())
    (tmp_path / "CURRENT").write_bytes(content)
    with pytest.raises(SnapshotBroken):
        snapshots.load(tmp_path)
    served = snapshots.load_newest_good(tmp_path)
    assert served is not None
    assert served.version == version


def test_an_older_version_can_be_made_current_again(tmp_path: Path) -> None:
    versions = [snapshots.publish(tmp_path, HEADER, arrays(n)) for n in range(3)]
    newest = snapshots.load(tmp_path)
    snapshots.make_current(tmp_path, versions[1])
    assert snapshots.load(tmp_path).version == versions[1]
    assert not snapshots.is_current(tmp_path, newest)
    cut_in_half(tmp_path / versions[1])
    served = snapshots.load_newest_good(tmp_path)
    assert served is not None
    assert served.version == versions[0]  # not the one that was rolled back


def test_prune_keeps_the_newest_and_the_current_and_clears_what_crashes_left(tmp_path: Path) -> None:
    versions = [snapshots.publish(tmp_path, HEADER, arrays(n)) for n in range(5)]
    snapshots.make_current(tmp_path, versions[1])
    (tmp_path / "1700000000999.partial").mkdir()
    (tmp_path / "1700000000999.partial" / "items.npy").write_bytes(b"half")
    (tmp_path / versions[4] / "user_bias.7.npy").write_bytes(b"left by a rewrite")
    mapped = snapshots.load(tmp_path, versions[0])
    assert snapshots.prune(tmp_path, keep=2) == [versions[0], versions[2]]
    assert snapshots.versions(tmp_path) == [versions[1], versions[3], versions[4]]
    assert not list(tmp_path.glob("*.partial"))
    assert not (tmp_path / versions[4] / "user_bias.7.npy").exists()
    assert listed(mapped)["item_vectors"][0][0] == 0  # who reads it can go on
    assert snapshots.load(tmp_path, versions[4]).arrays["item_bias"][1] == 1


def test_forgetting_people_takes_them_out_of_every_snapshot(tmp_path: Path) -> None:
    versions = [snapshots.publish(tmp_path, HEADER, people()), snapshots.publish(tmp_path, HEADER, people())]
    snapshots.publish(tmp_path, HEADER, arrays())  # without people
    assert snapshots.forget_user(tmp_path, [30, 10, 99]) == 4
    for version in versions:
        found = listed(snapshots.load(tmp_path, version))
        assert found["users"] == [20]
        assert found["user_vectors"] == [[2, 3]]
        assert found["user_bias"] == [2]
        assert found["history_offsets"] == [0, 0]
        assert (found["history_items"], found["history_labels"]) == ([], [])
        assert found["items"] == [3, 5, 2**40]
        assert len(list((tmp_path / version).iterdir())) == 1 + len(people())  # no old file is left


def test_forgetting_one_keeps_the_history_of_the_others(tmp_path: Path) -> None:
    snapshots.publish(tmp_path, HEADER, people())
    for gone, users, offsets, items in ((20, [10, 30], [0, 2, 5], [0, 1, 0, 1, 2]), (10, [30], [0, 3], [0, 1, 2])):
        assert snapshots.forget_user(tmp_path, [gone]) == 1
        found = listed(snapshots.load(tmp_path))
        assert (found["users"], found["history_offsets"], found["history_items"]) == (users, offsets, items)
    assert snapshots.forget_user(tmp_path, [10]) == 0


def test_what_any_model_knows_of_a_person_goes_with_them(tmp_path: Path) -> None:
    named = {"ials_user_vectors": np.arange(6.0).reshape(3, 2), "ials_item_vectors": np.ones((3, 2), np.float32)}
    snapshots.publish(tmp_path, HEADER, people() | named)
    assert snapshots.forget_user(tmp_path, [10]) == 1
    found = listed(snapshots.load(tmp_path))
    assert found["ials_user_vectors"] == [[2, 3], [4, 5]]
    assert len(found["ials_item_vectors"]) == 3


def test_who_has_a_snapshot_from_before_a_forgetting_is_told_so(tmp_path: Path) -> None:
    snapshots.publish(tmp_path, HEADER, people())
    before = snapshots.load(tmp_path)
    assert snapshots.is_current(tmp_path, before)
    snapshots.forget_user(tmp_path, [20])
    assert not snapshots.is_current(tmp_path, before)
    assert snapshots.is_current(tmp_path, snapshots.load(tmp_path))
    assert before.arrays["users"].tolist() == [10, 20, 30]


def test_a_snapshot_that_cannot_be_read_is_deleted_when_somebody_is_to_be_forgotten(tmp_path: Path) -> None:
    broken = snapshots.publish(tmp_path, HEADER, people())
    kept = snapshots.publish(tmp_path, HEADER, people())
    no_json(tmp_path / broken)
    assert snapshots.forget_user(tmp_path, [10]) == 1
    assert snapshots.versions(tmp_path) == [kept]


def test_an_error_while_writing_leaves_nothing_and_says_where(tmp_path: Path) -> None:
    version = snapshots.publish(tmp_path, HEADER, arrays())
    with pytest.raises(ValueError, match="JSON"):
        snapshots.publish(tmp_path, HEADER | {"quality": float("nan")}, arrays())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [version]
    (tmp_path / "a file").write_text("")
    with pytest.raises(DataFolderError, match="a file"):
        snapshots.publish(tmp_path / "a file", HEADER, arrays())
    with pytest.raises(DataFolderError, match="a file"):
        snapshots.prune(tmp_path / "a file", 1)


def test_readers_see_whole_snapshots_while_others_are_published_and_pruned(tmp_path: Path) -> None:
    snapshots.publish(tmp_path, HEADER, arrays(0))
    problems: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                found = {float(value) for value in np.unique(snapshots.load(tmp_path).arrays["item_vectors"])}
            except Exception as error:
                problems.append(error)
                return
            if len(found) != 1:
                problems.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(1, 30):
        snapshots.publish(tmp_path, HEADER, arrays(value))
        snapshots.prune(tmp_path, keep=1)
    done.set()
    reader.join()
    assert not problems


PUBLISHER = """
import sys, numpy as np
from pathlib import Path
from palate import snapshots
folder = Path(sys.argv[1])
for n in range(10_000):
    kind = np.full(20_000, n, np.float32)
    snapshots.publish(folder, {"created": 1}, {"a": kind, "b": kind, "users": np.arange(20_000), "user_bias": kind})
    snapshots.forget_user(folder, [n])
    snapshots.prune(folder, 2)
    print(n, flush=True)
"""


@pytest.mark.parametrize("cycles", [1, 3, 5])
def test_a_publisher_killed_at_any_moment_leaves_a_whole_snapshot_current(tmp_path: Path, cycles: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", PUBLISHER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(cycles):
        assert child.stdout.readline()
    threading.Event().wait(0.002 * cycles)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    served = snapshots.load(tmp_path)
    assert np.unique(served.arrays["a"]).tolist() == np.unique(served.arrays["b"]).tolist()
    assert len(served.arrays["users"]) == len(served.arrays["user_bias"])
    snapshots.prune(tmp_path, 1)
    kept = {served.version, snapshots.versions(tmp_path)[-1]}  # killed between the folder's rename and CURRENT's
    assert {path.name for path in tmp_path.iterdir()} - {"CURRENT.new"} == {".lock", "CURRENT"} | kept
