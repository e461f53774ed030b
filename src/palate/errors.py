"""Every exception that Palate raises on purpose.

    PalateError
    ├── SettingsError            a settings file or a PALATE_* variable is wrong
    ├── DataFolderError          the data folder can't be made, read or written
    │   └── AlreadyRunning       another process has this role on this data folder
    ├── DatabaseError            the database can't be used
    │   ├── DatabaseTooNew       it was made by a newer Palate
    │   ├── NotDurable           a write could not be made durable: nothing of it was kept
    │   └── Overloaded           more events or requests wait than may wait
    ├── StoreError               the object store can't be reached, refuses, or isn't there
    ├── InvalidInput             something from outside breaks a rule
    │   ├── InvalidEvent         … an event, with its place in the request
    │   ├── InvalidItem          … an item, with its place in the request
    │   └── InvalidCursor        … a cursor of the feed
    ├── NotFound                 an item, a person, a source, an account, a channel that isn't there
    ├── SourceError              a source could not be read this time
    │   ├── FetchRefused         an address that we won't ask: private, or closed by robots.txt
    │   ├── FetchFailed          no answer, or an answer that is an error
    │   ├── TelegramRefused      Telegram says no; `code` is its own word for why
    │   ├── TelegramUnreachable  … says nothing
    │   ├── AnswerTooLarge       more bytes, before or after decompression, than the limit
    │   ├── NotAFeed             an answer, but not a feed
    │   └── NoPreview            a channel of Telegram that has no public page
    ├── ArchiveError             a file of items or events that can't be read or written
    ├── CycleFailed              a training cycle ended without an answer
    ├── ClientError              `palate.client` was not answered as it asked
    │   ├── RequestRefused       … the server says no, and why
    │   └── Unreachable          … it says nothing, in all attempts
    ├── ProcessDied              a process that did a part of the work ended without an answer
    └── SnapshotError            a published model that can't be used
        ├── SnapshotBroken       cut short, changed, or of another shape than its header says
        └── SnapshotTooNew       written by a newer Palate

Each message is one sentence that says what to do. Our own mistakes are asserts, not exceptions.
"""

from __future__ import annotations

from typing import Any


class PalateError(Exception):
    """Base of everything that Palate raises on purpose; its text is fit to be shown."""


class SettingsError(PalateError):
    """A settings file, variable or option is wrong; the text names the field."""


class DataFolderError(PalateError):
    """The data folder can't be made, read or written."""


class AlreadyRunning(DataFolderError):
    """Another process already has this role on this data folder."""


class DatabaseError(PalateError):
    """The database can't be used."""


class DatabaseTooNew(DatabaseError):
    """The database was migrated by a newer Palate than this one."""


class NotDurable(DatabaseError):
    """A write could not be made durable (full disk, read-only folder, lost server): nothing of it was kept."""


class Overloaded(DatabaseError):
    """More events wait to be written than may wait: nothing of this write was kept, try again shortly."""


class StoreError(PalateError):
    """The object store that machines share can't be reached, refuses us, or isn't there; what was copied is still served."""


class InvalidInput(PalateError):
    """Something from outside breaks a rule.

    `index` is its place in the request, None where there is only one thing; `reason` is the rule it broke.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"at index {index}: {reason}")
        self.reason = reason
        self.index = index


class InvalidEvent(InvalidInput):
    """An event that can't be taken; the whole request it came in is refused."""


class InvalidItem(InvalidInput):
    """An item that can't be taken; the whole request it came in is refused."""


class InvalidCursor(InvalidInput):
    """A cursor that was tampered with, is another person's, or has expired."""


class NotFound(PalateError):
    """The item, person or source that was asked for isn't there."""


class SourceError(PalateError):
    """A source could not be read this time. `retry_after` is the wait it asked for, in seconds, None if none."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class FetchRefused(SourceError):
    """An address that we won't ask: private, loopback or link-local, or closed by robots.txt."""


class FetchFailed(SourceError):
    """No answer, or an answer that is an error; `status` is the HTTP status, None if there was no answer."""

    def __init__(self, reason: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(reason, retry_after)
        self.status = status


class TelegramRefused(SourceError):
    """Telegram refuses a request. `code` is its own word for why, such as CHANNEL_PRIVATE; a FLOOD_WAIT has `retry_after`."""

    def __init__(self, reason: str, code: str, retry_after: float | None = None) -> None:
        super().__init__(reason, retry_after)
        self.code = code


class TelegramUnreachable(SourceError):
    """Telegram could not be reached, or didn't answer in time."""


class AnswerTooLarge(SourceError):
    """More bytes than the limit, before or after decompression."""


class NotAFeed(SourceError):
    """An answer came, but it is no feed."""


class NoPreview(SourceError):
    """A channel of Telegram has no public page, or none that is allowed to be read."""


class ArchiveError(PalateError):
    """A file of items or events can't be read or written; the text names the line or the column."""


class CycleFailed(PalateError):
    """A training cycle ended without an answer: killed, or out of memory. What was published before is still served."""


class ProcessDied(PalateError):
    """A process that did a part of the work ended without an answer: killed, or out of memory."""


class ClientError(PalateError):
    """A call of `palate.client` was not answered as it asked. `left` are events (domain.Event) that may not have arrived."""

    left: tuple[Any, ...] = ()


class RequestRefused(ClientError):
    """The server refuses a call: its status, short code and sentence, the place in a list, and the request's id in its log."""

    def __init__(
        self, message: str, status: int, code: str = "unknown", index: int | None = None, request: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.index = index
        self.request = request


class Unreachable(ClientError):
    """No answer came in all attempts: the server is down, too busy, or somewhere else."""


class SnapshotError(PalateError):
    """A published model can't be used."""


class SnapshotBroken(SnapshotError):
    """A snapshot was cut short or changed, or its arrays have another shape than its header says."""


class SnapshotTooNew(SnapshotError):
    """A snapshot was written by a newer Palate than this one."""
