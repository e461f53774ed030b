"""A stand-in for Telegram's Bot API over HTTP: strict, with rates that are counted, faults on demand, and people who tap.

`POST /bot<token>/<method>` is what a bot asks. `GET /chats`, `GET /chats/<id>` and `POST /chats/<id>/say`, `…/tap`,
`…/block` are the people's side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from aiohttp import web

from palate.loopback import bot_api_rules as rules
from palate.loopback.bot_api_chats import ANSWERABLE, BOT, TOKEN, Channel, Chat, Chats, Fault, Record, too_many
from palate.loopback.bot_api_rules import MAX_CAPTION, MAX_TEXT, Refused, bad

Fields = Mapping[str, str]
Method = Callable[[Chats, Fields], Any]

DELETABLE = 48 * 3600
"""Seconds after which a message can't be deleted any more."""

SENDING = ("sendMessage", "sendDocument", "copyMessage", "copyMessages")
CHANGING = ("editMessageText", "editMessageReplyMarkup", "deleteMessage")


@asynccontextmanager
async def serving(chats: Chats, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve for as long as the block runs; gives the address."""
    runner = web.AppRunner(application(chats), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def application(chats: Chats) -> web.Application:
    """Both sides as one application."""
    app = web.Application(client_max_size=50_000_000)
    app.router.add_route("*", "/bot{token}/{method}", partial(_ask, chats))
    app.router.add_get("/chats", partial(_show, chats))
    app.router.add_get("/chats/{chat}", partial(_view, chats))
    app.router.add_post("/chats/{chat}/{act}", partial(_act, chats))
    return app


async def _show(chats: Chats, _: web.Request) -> web.Response:
    return await _json(chats.state())


async def _view(chats: Chats, request: web.Request) -> web.Response:
    """One chat, as its person sees it."""
    person = int(request.match_info["chat"])
    if person not in chats.chats:
        return await _json({"error": "nobody has this chat"}, 404)
    return await _json(chats.view(person, min(int(request.query.get("last", 50)), 200)))


async def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


# the bot's side


async def _ask(chats: Chats, request: web.Request) -> web.StreamResponse:
    method = request.match_info["method"]
    fields = await _fields(request)
    fault = chats.fault(method, _chat_id(fields)) if method in (*SENDING, *CHANGING) else _named_fault(chats, method)
    if fault is not None and fault.drop == "before":
        return _drop(request)
    try:
        if request.match_info["token"] != TOKEN:
            raise Refused(401, "Unauthorized")
        if fault is not None and fault.drop is None:
            raise _refused(chats, fault, _chat_id(fields))
        result = await _do(chats, method, fields)
    except Refused as refused:
        told = {"ok": False, "error_code": refused.status, "description": refused.description}
        return await _json(told | ({"parameters": refused.parameters} if refused.parameters else {}), refused.status)
    if fault is not None:
        return _drop(request)
    return await _json({"ok": True, "result": result})


def _named_fault(chats: Chats, method: str) -> Fault | None:
    return chats.fault(method, None) if any(fault.method == method for fault in chats.faults) else None


def _drop(request: web.Request) -> web.Response:
    assert request.transport is not None, "a request that is being answered has a connection"
    request.transport.abort()
    return web.Response()


def _refused(chats: Chats, fault: Fault, chat: int | None) -> Refused:
    if fault.retry_after is None:
        return Refused(fault.status, fault.description)
    chats.rates.hold(None if fault.everybody else chat, fault.retry_after)
    return too_many(fault.retry_after)


async def _fields(request: web.Request) -> dict[str, str]:
    if request.content_type == "application/json":
        given = msgspec.json.decode(await request.read(), type=dict[str, Any])
        return {
            name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in given.items()
        }
    fields = dict(request.query)
    for name, value in (await request.post()).items():
        fields[name] = value if isinstance(value, str) else _file(value)
    return fields


def _file(given: web.FileField | bytes | bytearray) -> str:
    content = given.file.read() if isinstance(given, web.FileField) else bytes(given)
    name = given.filename if isinstance(given, web.FileField) else "file"
    return msgspec.json.encode({"name": name, "content": content.decode("utf-8", "replace")}).decode()


def _chat_id(fields: Fields) -> int | None:
    text = fields.get("chat_id", "")
    return int(text) if text.removeprefix("-").isdigit() else None


async def _do(chats: Chats, method: str, fields: Fields) -> Any:
    if method == "getUpdates":
        return await _get_updates(chats, fields)
    do = METHODS.get(method)
    if do is None:
        raise Refused(404, "Not Found: method not found")
    if method not in (*SENDING, *CHANGING):
        return do(chats, fields)
    chat = _chat(chats, fields)
    chats.rates.check_held(chat.id)
    chats.rates.count(chat.id, method in SENDING)
    result = do(chats, fields)
    if method in SENDING:
        chats.rates.delivered(chat.id)
    return result


async def _get_updates(chats: Chats, fields: Fields) -> list[Record]:
    """Updates from `offset` on; those before it are confirmed, and gone. Waits for one up to `timeout` seconds."""
    offset, limit = int(fields.get("offset", 0)), int(fields.get("limit", 100))
    while chats.updates and chats.updates[0]["update_id"] < offset:
        chats.updates.popleft()
    wanted = msgspec.json.decode(fields.get("allowed_updates", "[]"), type=list[str])
    if wanted:
        kept = [update for update in chats.updates if any(kind in update for kind in wanted)]
        chats.updates.clear()
        chats.updates.extend(kept)
    chats.polls += 1
    own = chats.polls
    chats.notify()
    try:
        await chats.until(lambda: bool(chats.updates) or chats.polls != own, float(fields.get("timeout", 0)) or 0.001)
    except TimeoutError:
        return []
    if chats.polls != own:
        raise Refused(
            409, "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
        )
    return list(chats.updates)[: min(max(limit, 1), 100)]


def _chat(chats: Chats, fields: Fields) -> Chat:
    id = _chat_id(fields)
    chat = chats.chats.get(id) if id is not None else None
    if chat is None:
        raise bad("chat not found")
    if not chat.started:
        raise Refused(403, "Forbidden: bot can't initiate conversation with a user")
    if chat.blocked:
        raise Refused(403, "Forbidden: bot was blocked by the user")
    return chat


def _send(chats: Chats, chat: Chat, fields: Fields, content: Record) -> Record:
    rows = rules.read_keyboard(fields.get("reply_markup"))
    markup = {"reply_markup": {"inline_keyboard": rows}} if rows else {}
    return chats.put(chat.messages, chat.head(), BOT, content | markup)


def _send_message(chats: Chats, fields: Fields) -> Record:
    plain = rules.read_text(fields, "text", MAX_TEXT)
    preview = rules.read_preview(fields.get("link_preview_options"))
    content: Record = {"text": plain.text, "link_preview_options": preview}
    return _send(chats, _chat(chats, fields), fields, content)


def _send_document(chats: Chats, fields: Fields) -> Record:
    if "document" not in fields:
        raise bad("there is no document in the request")
    attached = fields["document"].removeprefix("attach://")
    file = msgspec.json.decode(fields.get(attached, fields["document"]), type=dict[str, str])
    caption = rules.read_text(fields, "caption", MAX_CAPTION)
    document = {"file_id": file["name"], "file_unique_id": file["name"], "file_name": file["name"]}
    content: Record = {"document": document, "caption": caption.text, "loopback_content": file["content"]}
    return _send(chats, _chat(chats, fields), fields, content)


def _source(chats: Chats, fields: Fields) -> Channel:
    """The channel to copy from; one that the bot isn't in holds nothing, as the real server says."""
    given = fields.get("from_chat_id", "")
    found = [one for one in chats.channels.values() if given in (str(one.id), f"@{one.username}")]
    if not found or not found[0].has_bot:
        raise bad("message to copy not found")
    return found[0]


def _copied(chats: Chats, chat: Chat, fields: Fields, post: Record) -> Record:
    content = {name: value for name, value in post.items() if name in ("text", "entities", "photo", "media_group_id")}
    return {"message_id": _send(chats, chat, fields, content)["message_id"]}


def _copy_message(chats: Chats, fields: Fields) -> Record:
    post = _source(chats, fields).posts.get(int(fields["message_id"]))
    if post is None:
        raise bad("message to copy not found")
    return _copied(chats, _chat(chats, fields), fields, post)


def _copy_messages(chats: Chats, fields: Fields) -> list[Record]:
    posts, ids = _source(chats, fields).posts, rules.read_ids(fields.get("message_ids"))
    found = [posts[id] for id in ids if id in posts]
    if not found:
        raise bad("there are no messages to copy")
    if "reply_markup" in fields:
        raise bad("unexpected parameter reply_markup")
    return [_copied(chats, _chat(chats, fields), {}, post) for post in found]


def _message(chats: Chats, fields: Fields, what: str) -> Record:
    message = _chat(chats, fields).messages.get(int(fields.get("message_id", 0)))
    if message is None:
        raise bad(f"message to {what} not found")
    if what == "edit" and not message["from"]["is_bot"]:
        raise bad("message can't be edited")
    return message


def _change(chats: Chats, message: Record, changed: Record) -> Record:
    if all(message.get(name) == value for name, value in changed.items()):
        raise bad(
            "message is not modified: specified new message content and reply markup are exactly the same as a current "
            "content and reply markup of the message"
        )
    message.update(changed)
    chats.notify()
    return message


def _edit_markup(chats: Chats, fields: Fields) -> Record:
    rows = rules.read_keyboard(fields.get("reply_markup")) or []
    markup: Record = {"inline_keyboard": rows}
    return _change(chats, _message(chats, fields, "edit"), {"reply_markup": markup})


def _edit_text(chats: Chats, fields: Fields) -> Record:
    plain = rules.read_text(fields, "text", MAX_TEXT)
    rows = rules.read_keyboard(fields.get("reply_markup")) or []
    changed: Record = {"text": plain.text, "reply_markup": {"inline_keyboard": rows}}
    return _change(chats, _message(chats, fields, "edit"), changed)


def _delete(chats: Chats, fields: Fields) -> bool:
    chat, message = _chat(chats, fields), _message(chats, fields, "delete")
    if chats.now().timestamp() - message["date"] > DELETABLE:
        raise bad("message can't be deleted")
    del chat.messages[message["message_id"]]
    chat.deleted.append(message["message_id"])
    chats.notify()
    return True


def _answer(chats: Chats, fields: Fields) -> bool:
    time, chat = chats.taps.pop(fields.get("callback_query_id", ""), (-ANSWERABLE, 0))
    if chats.ticks() - time >= ANSWERABLE:
        raise bad("query is too old and response timeout expired or query ID is invalid")
    if rules.units(fields.get("text", "")) > 200:
        raise bad("MESSAGE_TOO_LONG")
    chats.chats[chat].notices.append(fields.get("text", ""))
    chats.notify()
    return True


def _set_commands(chats: Chats, fields: Fields) -> bool:
    chats.commands[fields.get("language_code", "")] = rules.read_commands(fields.get("commands"))
    return True


METHODS: dict[str, Method] = {
    "getMe": lambda _chats, _fields: BOT,
    "deleteWebhook": lambda _chats, _fields: True,
    "setMyCommands": _set_commands,
    "sendMessage": _send_message,
    "sendDocument": _send_document,
    "copyMessage": _copy_message,
    "copyMessages": _copy_messages,
    "editMessageReplyMarkup": _edit_markup,
    "editMessageText": _edit_text,
    "deleteMessage": _delete,
    "answerCallbackQuery": _answer,
}


# the people's side


async def _act(chats: Chats, request: web.Request) -> web.Response:
    """What somebody does who watches the chats on a page."""
    person = int(request.match_info["chat"])
    given = msgspec.json.decode(await request.read() or b"{}", type=dict[str, Any])
    act = request.match_info["act"]
    if act == "say":
        text = str(given["text"]).strip()
        payload = text.partition(" ")[2] if text.startswith("/start ") else None
        if not 0 < rules.units(text) <= MAX_TEXT or not (payload is None or rules.PAYLOAD.fullmatch(payload)):
            return await _json({"error": "nobody can say that"}, 400)
        chats.say(person, text)
    elif act == "tap":
        chats.tap(person, int(given["message"]), data=str(given["data"]))
    elif act == "block":
        chats.block(person)
    else:
        return await _json({"error": "say, tap or block"}, 404)
    return await _json(chats.view(person, 1))


async def wait_for_messages(chats: Chats, person: int, count: int, seconds: float = 30.0) -> list[Record]:
    """The bot's messages to a person, once there are so many. Raises TimeoutError."""
    await chats.until(lambda: len(chats.chat(person).of_bot()) >= count, seconds)
    return chats.chat(person).of_bot()
