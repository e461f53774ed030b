"""A fork that answers one request after the other, so that the process that serves is never kept by what it does."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from palate.errors import ProcessDied

Answering = Callable[[bytearray], bytes]

_LENGTH = 8  # bytes that say how many follow


class Process:
    """Forked at once: before any thread, if it can be. For one thread at a time."""

    def __init__(self, opened: Callable[[], Answering], niceness: int) -> None:
        """`opened` is called in the fork, to make ready what answers there. `niceness`: by so much it stands back."""
        self._opened = opened
        self._niceness = niceness
        self._start()

    def ask(self, content: bytes) -> bytearray:
        """Its answer. Raises ProcessDied when the process ended over it; `replace` gives another one."""
        try:
            _send(self._socket, content)
            return _receive(self._socket)
        except (OSError, EOFError) as error:
            raise ProcessDied("The process that does this ended over it.") from error

    def replace(self) -> None:
        """Another one in its place."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the process, whatever it does."""
        self._socket.close()
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = os.fork()
        if self._process == 0:
            _run(theirs, self._opened, self._niceness)
        theirs.close()


def _run(theirs: socket.socket, opened: Callable[[], Answering], niceness: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when its parent does
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _close_all_but(theirs.fileno())
        _stand_back(niceness)
        answer = opened()
        while True:
            _send(theirs, answer(_receive(theirs)))
    except (EOFError, OSError):
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # what the parent would do at its end is the parent's


def _stand_back(niceness: int) -> None:
    """Whoever answers comes first, also where both were given real-time priority, of which `nice` knows nothing."""
    os.nice(niceness)
    with suppress(AttributeError, PermissionError):  # not every system has it
        priority = os.sched_getparam(0).sched_priority
        if priority > niceness:
            os.sched_setparam(0, os.sched_param(priority - niceness))


def _close_all_but(descriptor: int) -> None:
    """The parent's own end would keep this process from seeing the parent's death, and its port from being free then."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 65_536)


def _send(peer: socket.socket, content: bytes) -> None:
    peer.sendall(len(content).to_bytes(_LENGTH, "little"))
    peer.sendall(content)


def _receive(peer: socket.socket) -> bytearray:
    return _exactly(peer, int.from_bytes(_exactly(peer, _LENGTH), "little"))


def _exactly(peer: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    while view:
        count = peer.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return content
