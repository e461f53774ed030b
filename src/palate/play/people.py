"""The people of the play: each has tastes, reads at a human pace, and presses what the bot offers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from palate.domain import Item
from palate.evaluation import simulation
from palate.evaluation.simulation import Reader
from palate.loopback.bot_api_chats import Chat, Chats, Record

VISITOR = 1
"""Chat of the visitor of the page, who is nobody simulated."""
NAMES = (("Mira", "en"), ("Jonas", "en"), ("Ольга", "ru"), ("Tom", "en"), ("Inês", "en"), ("Павел", "ru"))
FIRST_CHAT = 101
SHORTEST, LONGEST = 4.0, 16.0
"""Seconds between two acts of a person."""
ARRIVAL = 6.0
"""Seconds between two people's first words, on average."""
COMMANDS = ("/top", "/next", "/stories", "/sources", "/topics", "/next")
COMMAND, SHARE, PASS = 0.06, 0.05, 0.12
"""Shares of acts that are a command, a link sent to a friend, or nothing."""
LEANING = 0.15
"""How much further from indifference people vote than they feel."""

Find = Callable[[str], Item | None]
"""The item behind a link; None for what isn't known."""


@dataclass(frozen=True)
class Person:
    """Somebody who talks to the bot."""

    chat: int
    name: str
    language: str
    reader: Reader


def people(items: Sequence[Item], rng: np.random.Generator) -> list[Person]:
    """Everybody, with tastes over these items."""
    readers = simulation.readers(rng, len(NAMES), items)
    named = zip(NAMES, readers, strict=True)
    return [Person(FIRST_CHAT + n, name, language, reader) for n, ((name, language), reader) in enumerate(named)]


def arrive(chats: Chats, everybody: Sequence[Person]) -> None:
    """Everybody has Telegram, and nobody has written yet."""
    chats.chat(VISITOR, "You")
    for person in everybody:
        chats.chat(person.chat, person.name, person.language)


async def live(person: Person, chats: Chats, find: Find, friends: Sequence[Person], rng: np.random.Generator) -> None:
    """Talk to the bot until cancelled."""
    await asyncio.sleep(float(rng.exponential(ARRIVAL)))
    while True:
        act(person, chats, find, friends, rng)
        await asyncio.sleep(float(rng.uniform(SHORTEST, LONGEST)))


def act(person: Person, chats: Chats, find: Find, friends: Sequence[Person], rng: np.random.Generator) -> None:
    """Do one thing: begin, vote on the newest post, send it to a friend, ask for something else, or let it be."""
    chat, draw = chats.chat(person.chat), float(rng.random())
    if not chat.started:
        chats.say(person.chat, "/start")
        return
    post, friend = _unanswered(chat), friends[int(rng.integers(len(friends)))]
    if draw < PASS or _is_waiting(chat):
        return
    if post is not None and draw < PASS + SHARE and friend.chat != person.chat:
        chats.say(friend.chat, f"/start {_payload(post)}")
    elif draw < PASS + SHARE + COMMAND:
        chats.say(person.chat, COMMANDS[int(rng.integers(len(COMMANDS)))])
    elif post is None:
        chats.say(person.chat, "/next")
    else:
        likes = rng.random() < _liking(person, find(_link(post)))
        chats.tap(person.chat, post["message_id"], "👍" if likes else "👎")


def _is_waiting(chat: Chat) -> bool:
    """Whether the bot has yet to answer what was written last."""
    last = next(reversed(chat.messages.values()), None)
    return last is not None and not last["from"]["is_bot"]


def _unanswered(chat: Chat) -> Record | None:
    """The newest message when it is a post without a vote of this person."""
    for message in reversed(chat.of_bot()):
        votes = [button for button in _buttons(message) if button["text"][:1] in "👍👎"]
        if votes:
            return None if any("✓" in button["text"] for button in votes) else message
    return None


def _liking(person: Person, item: Item | None) -> float:
    """Probability that the person likes it; people press buttons rather when they feel strongly."""
    if item is None:
        return 0.5
    feels = float(simulation.affinities([person.reader], [item])[0, 0])
    return min(max(feels + LEANING * (1 if feels > 0.5 else -1), 0.02), 0.98)


def _link(message: Record) -> str:
    return str(message.get("link_preview_options", {}).get("url", ""))


def _payload(message: Record) -> str:
    """What the link that the share button spreads starts the bot with."""
    share: str = next(button["url"] for button in _buttons(message) if "url" in button)
    shared = parse_qs(urlsplit(share).query)["url"][0]
    return parse_qs(urlsplit(shared).query)["start"][0]


def _buttons(message: Record) -> list[dict[str, Any]]:
    return [button for row in message.get("reply_markup", {}).get("inline_keyboard", []) for button in row]
