"""The wire of a loopback MTProto 2.0 server: the real Telethon connects to it with a session whose key the server shares.

No key is exchanged (the session brings it), the transport is Telethon's own default (TCP, full), and requests are parsed with
Telethon's registry of types. What is answered is the business of `telegram_world`.

MTProto 2.0: https://core.telegram.org/mtproto/description
"""

from __future__ import annotations

import asyncio
import gzip
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from typing import Any
from zlib import crc32

from telethon.crypto import AES
from telethon.extensions import BinaryReader
from telethon.tl import functions, types

_CONTAINER, _PACKED, _VECTOR, _RESULT, _ERROR = 0x73F1F8DC, 0x3072CFA1, 0x1CB5C415, 0xF35C6D01, 0x2144CA19
_BOOLS = {True: 0x997275B5, False: 0xBC799737}
_WRAPPERS = (
    functions.InvokeWithLayerRequest,
    functions.InitConnectionRequest,
    functions.InvokeWithoutUpdatesRequest,
)
_PINGS = (functions.PingRequest, functions.PingDelayDisconnectRequest)

Answer = Callable[[bytes, Any], Any]
"""What to say to a request of the session with this key: a TL object, a list of them, or a truth. Raises Refusal."""


class Refusal(Exception):
    """An error as an answer, such as 420 FLOOD_WAIT_30; `cut` closes the connection in place of it."""

    def __init__(self, code: int, message: str, cut: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.cut = code, message, cut


@dataclass(eq=False)
class _Connection:
    writer: asyncio.StreamWriter
    key: bytes = b""
    session: int = 0
    salt: int = 0
    packets: int = 0
    messages: int = 0
    last_id: int = 0


@dataclass(eq=False)
class MtprotoServer:
    """Listens on a free port of the loopback address from `start` to `close`."""

    answer: Answer
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """Each shared key of 256 bytes by its id."""
    port: int = 0
    _connections: list[_Connection] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, on the same port again after a `close`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut every connection and listen no more."""
        assert self._server is not None, "a server is closed after it was started"
        self._server.close()
        for connection in self._connections:
            connection.writer.close()
        await self._server.wait_closed()
        while self._connections:
            await asyncio.sleep(0)

    def new_key(self) -> bytes:
        """A key that the server shares with whoever is given it."""
        key = os.urandom(256)
        self.keys[key_id(key)] = key
        return key

    def push(self, key: bytes, update: Any) -> None:
        """Say something unasked to all connections of the session with this key."""
        for connection in self._connections:
            if connection.key == key and connection.session:
                self._send(connection, bytes(update))

    def drop(self, key: bytes) -> None:
        """Cut the connections of the session with this key."""
        for connection in self._connections:
            if connection.key == key:
                connection.writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.append(connection)
        try:
            while True:
                length = struct.unpack("<i", await reader.readexactly(4))[0]
                packet = await reader.readexactly(length - 4)
                assert struct.unpack("<I", packet[-4:])[0] == crc32(struct.pack("<i", length) + packet[:-4])
                self._take(connection, packet[4:-4])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.remove(connection)
            writer.close()

    def _take(self, connection: _Connection, packet: bytes) -> None:
        connection.key = packet[:8]
        key = self.keys[connection.key]
        plain = decrypt(key, packet[8:24], packet[24:], from_server=False)
        connection.salt, connection.session, message, _, length = struct.unpack("<qqqii", plain[:32])
        self._take_message(connection, message, plain[32 : 32 + length])

    def _take_message(self, connection: _Connection, message: int, body: bytes) -> None:
        kind = struct.unpack("<I", body[:4])[0]
        if kind == _CONTAINER:
            for inner, content in _contained(body):
                self._take_message(connection, inner, content)
        elif kind == _PACKED:
            self._take_message(connection, message, gzip.decompress(BinaryReader(body[4:]).tgread_bytes()))
        else:
            self._answer(connection, message, _unwrapped(BinaryReader(body).tgread_object()))

    def _answer(self, connection: _Connection, message: int, request: Any) -> None:
        if isinstance(request, types.MsgsAck):
            return
        if isinstance(request, _PINGS):
            self._send(connection, bytes(types.Pong(message, request.ping_id)))
            return
        try:
            result = _serialised(self.answer(connection.key, request))
        except Refusal as refusal:
            if refusal.cut:
                connection.writer.close()
                return
            result = struct.pack("<Ii", _ERROR, refusal.code) + _short_text(refusal.message)
        self._send(connection, struct.pack("<Iq", _RESULT, message) + result)

    def _send(self, connection: _Connection, body: bytes) -> None:
        if connection.writer.is_closing():
            return
        connection.last_id = max(int(time.time() * 2**32) // 4 * 4 + 1, connection.last_id + 4)
        connection.messages += 2
        head = (connection.salt, connection.session, connection.last_id, connection.messages - 1, len(body))
        plain = struct.pack("<qqqii", *head) + body
        plain += os.urandom(-(len(plain) + 12) % 16 + 12)
        packet = connection.key + encrypt(self.keys[connection.key], plain, from_server=True)
        packet = struct.pack("<ii", len(packet) + 12, connection.packets) + packet
        connection.packets += 1
        connection.writer.write(packet + struct.pack("<I", crc32(packet)))


def key_id(key: bytes) -> bytes:
    """The id by which a packet names its key."""
    return sha1(key).digest()[-8:]


def encrypt(key: bytes, plain: bytes, from_server: bool) -> bytes:
    """The message key and the encrypted text."""
    start = 96 if from_server else 88
    message_key = sha256(key[start : start + 32] + plain).digest()[8:24]
    return message_key + bytes(AES.encrypt_ige(plain, *_secrets(key, message_key, from_server)))


def decrypt(key: bytes, message_key: bytes, encrypted: bytes, from_server: bool) -> bytes:
    """The plain text with its padding; a text whose message key is wrong is refused."""
    plain = bytes(AES.decrypt_ige(encrypted, *_secrets(key, message_key, from_server)))
    start = 96 if from_server else 88
    assert sha256(key[start : start + 32] + plain).digest()[8:24] == message_key, "the message key fits its text"
    return plain


def _secrets(key: bytes, message_key: bytes, from_server: bool) -> tuple[bytes, bytes]:
    """Key and initialisation vector of AES-256-IGE."""
    x = 8 if from_server else 0
    a = sha256(message_key + key[x : x + 36]).digest()
    b = sha256(key[40 + x : 76 + x] + message_key).digest()
    return a[:8] + b[8:24] + a[24:], b[:8] + a[8:24] + b[24:]


def _contained(body: bytes) -> list[tuple[int, bytes]]:
    """Each message of a container, with its id."""
    found, offset = [], 8
    for _ in range(struct.unpack("<i", body[4:8])[0]):
        message, _, length = struct.unpack("<qii", body[offset : offset + 16])
        found.append((message, body[offset + 16 : offset + 16 + length]))
        offset += 16 + length
    return found


def _unwrapped(request: Any) -> Any:
    while isinstance(request, _WRAPPERS):
        request = request.query
    return request


def _serialised(answer: Any) -> bytes:
    if isinstance(answer, bool):
        return struct.pack("<I", _BOOLS[answer])
    if isinstance(answer, list):
        return struct.pack("<Ii", _VECTOR, len(answer)) + b"".join(map(bytes, answer))
    return bytes(answer)


def _short_text(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 254, "the text of an error is short"
    raw = bytes([len(raw)]) + raw
    return raw + bytes(-len(raw) % 4)
