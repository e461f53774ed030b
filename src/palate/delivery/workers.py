"""Several processes that serve one address."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

log = logging.getLogger(__name__)

Work = Callable[[list[socket.socket], int], None]

PATIENCE = 15.0
"""Seconds that a process gets to answer what it has begun, before it is killed."""


def run_workers(work: Work, listener: socket.socket, count: int) -> None:
    """Run `work` in `count` processes until SIGINT or SIGTERM; one that ends is replaced after a second.

    `work` gets the listening socket and its place among the processes, which one that replaces it takes over; it has to be
    something that pickle can send.
    """
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    workers = [_start(work, listener, place) for place in range(count)]
    try:
        while not stop.is_set():
            wait([worker.sentinel for worker in workers], timeout=0.5)
            dead = [worker for worker in workers if not worker.is_alive()]
            if dead and not stop.wait(1.0):
                log.error("%d of %d processes ended and are replaced.", len(dead), count)
                workers = [
                    worker if worker.is_alive() else _start(work, listener, place)
                    for place, worker in enumerate(workers)
                ]
    finally:
        _end(workers)
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(work: Work, listener: socket.socket, place: int) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_follow, args=(work, listener, place), name="api")
    process.start()
    return process


def _end(workers: list[BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(PATIENCE)
        worker.kill()


def _follow(work: Work, listener: socket.socket, place: int) -> None:
    """Work, and stop when the first process is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a child only"

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    work([listener], place)
