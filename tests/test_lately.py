from hypothesis import given
from hypothesis import strategies as st

from palate.lately import Lately


def test_what_is_asked_for_again_outlives_what_is_not() -> None:
    memory: Lately[str, int] = Lately(4)
    memory.add({"kept": 1, "dropped": 2})
    memory.add({"a": 3})
    assert memory.find(["kept", "never"]) == {"kept": 1}
    memory.add({"b": 4})
    assert memory.get("kept") == 1
    assert memory.get("dropped") is None


@given(st.lists(st.integers(0, 20)), st.integers(2, 12))
def test_it_holds_no_more_than_its_size_and_tells_nothing_wrong(asked: list[int], size: int) -> None:
    memory: Lately[int, str] = Lately(size)
    for number in asked:
        assert memory.get(number) in (None, str(number))
        memory.add({number: str(number)})
        assert memory.get(number) == str(number)
        assert len(memory) <= size
    memory.clear()
    assert len(memory) == 0


def test_all_of_several_are_told_or_none() -> None:
    memory: Lately[str, int] = Lately(4)
    memory.add({"old": 1, "older": 2})
    memory.add({"new": 3})
    assert memory.all_of(["new", "old"]) == [3, 1]
    assert memory.all_of(["new", "never"]) is None
    assert memory.all_of([]) == []
