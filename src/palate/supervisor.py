"""Starts the loops as processes, restarts those that crash, and stops all of them cleanly.

The supervisor itself stays small: the command that read the settings becomes it (`become`), and it loads nothing of the loops.
Its children share its process group, so that Ctrl-C reaches all of them, and each holds the reading end of a pipe whose writing
end only the supervisor has: when it dies, however it dies, the pipe closes and the child stops.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from palate.errors import AlreadyRunning, DataFolderError

log = logging.getLogger(__name__)

LEASH = "PALATE_LEASH"
"""Environment variable that tells a child the number of its pipe."""

GIVE_UP = 78
"""Exit status of a child that can't work until somebody mends something (EX_CONFIG of sysexits.h)."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds before a crashed child is started again: doubled from crash to crash."""

HEALTHY = 10.0
"""Seconds after which a child that was started is well, and its next crash the first."""

PATIENCE = 15.0
"""Seconds that children get to stop by themselves before they are killed."""


@dataclass(frozen=True)
class Plan:
    """What to run: the arguments after `palate` of each child by its name, and where the whole then answers."""

    children: dict[str, list[str]]
    host: str
    port: int
    title: str
    """What the user is told to be there, once it is."""


@dataclass
class Child:
    """A loop that runs in a process of its own. `arguments` follow `palate` on its command line."""

    name: str
    arguments: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    start_at: float = field(default=0.0)


@contextmanager
def role(data: Path, name: str, command: str | None = None) -> Iterator[None]:
    """Hold a role on a data folder for as long as the block runs; the lock goes with the process, however it ends.

    `command`: what the role is run by (None: the command of `palate` with that name).
    Raises AlreadyRunning when another process has it, DataFolderError when the folder can't be used.
    """
    try:
        (data / "locks").mkdir(parents=True, exist_ok=True)
        handle = os.open(data / "locks" / name, os.O_RDWR | os.O_CREAT, 0o644)
        os.set_inheritable(handle, True)  # stays held through `become`; Popen closes it in children
    except OSError as error:
        raise DataFolderError(f"The data folder {data} can't be used: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            running = f"`{command or f'palate {name}'}` is already running on {data}"
            raise AlreadyRunning(f"{running}: stop it first, or give this one another --data folder.") from error
        yield
    finally:
        os.close(handle)


def follow_parent() -> None:
    """In a child of the supervisor: stop when the supervisor is gone. Anywhere else: nothing."""
    leash = os.environ.pop(LEASH, None)
    if leash is None:
        return

    def wait(descriptor: int) -> None:
        os.read(descriptor, 1)  # returns only at the end of the pipe: nobody ever writes to it
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os._exit(1)

    threading.Thread(target=wait, args=(int(leash),), name="leash", daemon=True).start()


def stop_signal() -> threading.Event:
    """An event that SIGINT and SIGTERM set: what the endless loops wait for."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def become(plan: Plan) -> NoReturn:
    """Turn this process into the supervisor of a plan: same process, same roles, none of the memory."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "palate.supervisor", json.dumps(asdict(plan))])


def supervise(plan: Plan) -> int:
    """Run a plan until a signal or until a child gives up; returns the exit status."""
    children = [Child(name, arguments) for name, arguments in plan.children.items()]

    def announce() -> None:
        print(f"\n  {plan.title}: http://{plan.host}:{plan.port}\n  Ctrl-C stops it.\n", flush=True)

    return run(children, lambda: answers(plan.host, plan.port), announce)


def run(children: Sequence[Child], ready: Callable[[], bool], when_ready: Callable[[], None]) -> int:
    """Run the children until a signal or until one gives up; returns the exit status.

    `when_ready` is called once, as soon as `ready` is true.
    """
    stop = stop_signal()
    leash, ours = os.pipe()
    announced = False
    try:
        while not stop.is_set():
            if any(_tend(child, leash) == GIVE_UP for child in children):
                return 1
            if not announced and ready():
                announced = True
                when_ready()
            stop.wait(0.2)
        return 0
    finally:
        _stop_all(children)
        os.close(leash)
        os.close(ours)


def answers(host: str, port: int) -> bool:
    """Whether a server there says that it is ready."""
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tend(child: Child, leash: int) -> int | None:
    """Start a child that should run and does not; the exit status of one that has just ended, else None."""
    now = time.monotonic()
    if child.process is None:
        if now >= child.start_at:
            _start(child, leash)
        return None
    status = child.process.poll()
    if status is None:
        if now - child.started > HEALTHY:
            child.pause = FIRST_PAUSE
        return None
    child.process = None
    if status != GIVE_UP:
        log.warning("%s ended with status %d; starting it again in %.0f s", child.name, status, child.pause)
    child.start_at = now + child.pause
    child.pause = min(2 * child.pause, LONGEST_PAUSE)
    return status


def _start(child: Child, leash: int) -> None:
    child.started = time.monotonic()
    child.process = subprocess.Popen(
        [sys.executable, "-m", "palate", *child.arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=[leash],
        env={**os.environ, LEASH: str(leash)},
    )


def _stop_all(children: Sequence[Child]) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s serve  %(levelname)s %(message)s", datefmt="%H:%M:%S")
    sys.exit(supervise(Plan(**json.loads(sys.argv[1]))))
