from __future__ import annotations

import os
import subprocess
import sys

EVERY_FIELD = """
import typing
import msgspec
import palate.delivery.messages

def below(type_):
    for child in type_.__subclasses__():
        yield child
        yield from below(child)

fields = [
    field
    for struct in below(msgspec.Struct)
    if struct.__module__.startswith("palate.")
    for field in typing.get_type_hints(struct, include_extras=True).values()
]
for field in fields:
    try:
        msgspec.json.Decoder(field)  # builds what decodes the field, and frees it at once
    except TypeError:
        pass  # holds what is never decoded
print(len(fields))
"""


def test_no_type_of_a_field_makes_msgspec_corrupt_memory() -> None:
    # With the debug allocator a wrong free ends the process at once, and not at some later time.
    environment = os.environ | {"PYTHONMALLOC": "debug"}
    done = subprocess.run(
        [sys.executable, "-c", EVERY_FIELD], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
