"""What the bot says, in English and Russian. Texts are Telegram's HTML; what stands in braces is put in escaped."""

from __future__ import annotations

import html

from palate.chats import Language

COMMANDS: dict[Language, dict[str, str]] = {
    "en": {
        "next": "the next post",
        "top": "what everybody likes",
        "stories": "the news of the day, by story",
        "topics": "what you want to read about",
        "sources": "channels and feeds: hide or show",
        "schedule": "posts at times of your choice",
        "settings": "how new, how many, what happens to disliked posts",
        "language": "of the bot, and of what you read",
        "web": "the same feed in a browser",
        "export": "all that is known of you, as a file",
        "forget": "delete all that is known of you",
        "help": "what the bot can do",
    },
    "ru": {
        "next": "следующий пост",
        "top": "что нравится всем",
        "stories": "новости дня по сюжетам",
        "topics": "о чём вы хотите читать",
        "sources": "каналы и ленты: скрыть или вернуть",
        "schedule": "посты в выбранное время",
        "settings": "свежесть, число постов, удаление непонравившихся",
        "language": "язык бота и того, что вы читаете",
        "web": "та же лента в браузере",
        "export": "всё, что о вас известно, файлом",
        "forget": "удалить всё, что о вас известно",
        "help": "что умеет бот",
    },
}
"""The menu."""

_ENGLISH = {
    "welcome": "Hello! I bring you posts from many channels and feeds, one at a time, and learn what you like.",
    "how": "Press 👍 or 👎 under each post: the next one comes at once, and already counts your vote. "
    "If you like, choose topics to begin with. /help shows what else there is.",
    "help": "👍 and 👎 teach me what you like; the next post comes at once. 🙈 hides a channel. ↗ shares a post.\n\n{commands}",
    "unknown": "I only know buttons and commands: /next brings a post, /help shows all.",
    "nothing": "That is all there is for now. New posts keep coming: try /next later.",
    "rationed": "That was your {count} for today. Tomorrow there is more; /settings changes the number.",
    "gone": "This post is no longer there.",
    "forged": "This button is not from here. /next brings a fresh post.",
    "liked": "👍 More like this.",
    "disliked": "👎 Less like this.",
    "counted": "It counts already.",
    "changed": "Your vote was changed.",
    "hidden": "{name} is hidden from now on.",
    "shown": "{name} is shown again.",
    "sourceless": "This post has no channel.",
    "like": "👍",
    "dislike": "👎",
    "share": "↗ Share",
    "hide": "🙈 Hide channel",
    "unhide": "👁 Show channel again",
    "read": "Read",
    "top": "<b>What everybody likes</b>",
    "stories": "<b>The news of the day</b>",
    "stories_none": "There are no stories yet.",
    "digest": "<b>Your day in stories</b>",
    "sources": "<b>Channels and feeds</b>\nPress one to hide it or to show it again.",
    "sources_none": "There are no channels yet.",
    "topics": "<b>Topics</b>\nWhat do you want to read about?",
    "topics_none": "There are no topics yet: they come with the first posts.",
    "done": "Done.",
    "language": "<b>Language</b>\nFirst the bot's own, then those that you read; none means all.",
    "settings": "<b>Settings</b>\nHow many days old a post may be, how many posts a day, "
    "and whether a post disappears when you dislike it.",
    "days": "{count} days",
    "day": "1 day",
    "a_day": "{count} a day",
    "endless": "endless",
    "deleting": "Delete disliked posts",
    "web": "This link logs a browser in as you, once, within an hour:\n{link}",
    "web_none": "The owner of this bot has set up no web pages.",
    "export": "All that is known of you.",
    "schedule": "<b>Posts at your times</b>: {times}\nPress the hours at which you want posts; below, how many at a time, "
    "when the day's stories come (☰), quiet hours (🌙) and your time zone (🕒). Other times: /schedule 8:30 20:15, "
    "another zone: /schedule Europe/Madrid, none: /schedule off",
    "schedule_puzzled": "I don't understand these times. Write them like this: /schedule 8:30 20:15 Europe/Madrid",
    "posts": "{count} 📄",
    "zones": "<b>Your time zone</b>",
    "mail_empty": "Write the text after the command: /mail Hello, everybody!",
    "mail_yes": "Send to all {count}",
    "mail_no": "Don't send",
    "mail_confirmed": "It is on its way.",
    "mail_cancelled": "It is not sent.",
    "forget": "<b>Forget you?</b>\nYour choices and all that you liked and read will be deleted, also from the model. "
    "Nothing brings them back.",
    "forget_yes": "Forget me for good",
    "forget_no": "Keep it all",
    "kept": "Everything stays as it is.",
    "forgotten": "Nothing is known of you here any more. /start begins anew.",
    "link_broken": "This link doesn't work any more, but there is plenty else.",
    "failed": "Something went wrong on our side. Please try again in a minute.",
    "why_liked": "near what you liked",
    "why_source": "from a channel you like",
    "why_label": "about what you like",
    "why_popular": "many like it",
    "why_fresh": "new",
    "why_explore": "to find out whether it fits",
    "why_ask": "your vote on this tells me much",
    "why_shared": "a friend sent you this",
    "also": "Also in: {names}",
}

_RUSSIAN = {
    "welcome": "Здравствуйте! Я приношу посты из разных каналов и лент, по одному, и учусь тому, что вам нравится.",
    "how": "Нажимайте 👍 или 👎 под постом: следующий придёт сразу и уже учтёт ваш голос. "
    "Если хотите, выберите темы для начала. Что ещё можно: /help.",
    "help": "👍 и 👎 учат меня вашему вкусу; следующий пост приходит сразу. 🙈 скрывает канал. ↗ делится постом.\n\n{commands}",
    "unknown": "Я понимаю только кнопки и команды: /next принесёт пост, /help покажет всё.",
    "nothing": "Пока это всё. Новые посты появляются постоянно: попробуйте /next позже.",
    "rationed": "Это были ваши {count} на сегодня. Завтра будут новые; изменить число: /settings.",
    "gone": "Этого поста больше нет.",
    "forged": "Эта кнопка не отсюда. /next принесёт свежий пост.",
    "liked": "👍 Больше такого.",
    "disliked": "👎 Меньше такого.",
    "counted": "Это уже учтено.",
    "changed": "Голос изменён.",
    "hidden": "Канал {name} скрыт.",
    "shown": "Канал {name} снова показывается.",
    "sourceless": "У этого поста нет канала.",
    "like": "👍",
    "dislike": "👎",
    "share": "↗ Поделиться",
    "hide": "🙈 Скрыть канал",
    "unhide": "👁 Вернуть канал",
    "read": "Читать",
    "top": "<b>Что нравится всем</b>",
    "stories": "<b>Новости дня</b>",
    "stories_none": "Сюжетов пока нет.",
    "digest": "<b>Ваш день в сюжетах</b>",
    "sources": "<b>Каналы и ленты</b>\nНажмите, чтобы скрыть или вернуть.",
    "sources_none": "Каналов пока нет.",
    "topics": "<b>Темы</b>\nО чём вы хотите читать?",
    "topics_none": "Тем пока нет: они появятся с первыми постами.",
    "done": "Готово.",
    "language": "<b>Язык</b>\nСначала язык бота, потом языки, на которых вы читаете; ни одного — значит все.",
    "settings": "<b>Настройки</b>\nСколько дней может быть посту, сколько постов в день "
    "и исчезает ли пост, который не понравился.",
    "days": "{count} дн.",
    "day": "1 день",
    "a_day": "{count} в день",
    "endless": "без предела",
    "deleting": "Удалять непонравившиеся",
    "web": "Эта ссылка один раз, в течение часа, впустит браузер под вашим именем:\n{link}",
    "web_none": "Владелец бота не настроил веб-страницы.",
    "export": "Всё, что о вас известно.",
    "schedule": "<b>Посты в ваше время</b>: {times}\nНажмите часы, в которые хотите посты; ниже — сколько за раз, "
    "когда присылать сюжеты дня (☰), тихие часы (🌙) и часовой пояс (🕒). Другое время: /schedule 8:30 20:15, "
    "другой пояс: /schedule Europe/Madrid, ничего: /schedule off",
    "schedule_puzzled": "Не понимаю этого времени. Пишите так: /schedule 8:30 20:15 Europe/Madrid",
    "posts": "{count} 📄",
    "zones": "<b>Ваш часовой пояс</b>",
    "mail_empty": "Напишите текст после команды: /mail Всем привет!",
    "mail_yes": "Отправить всем ({count})",
    "mail_no": "Не отправлять",
    "mail_confirmed": "Рассылка началась.",
    "mail_cancelled": "Рассылка отменена.",
    "forget": "<b>Забыть вас?</b>\nВаш выбор и всё, что вы читали и оценили, будет удалено, и из модели тоже. "
    "Вернуть это нельзя.",
    "forget_yes": "Забыть навсегда",
    "forget_no": "Оставить всё",
    "kept": "Всё остаётся как есть.",
    "forgotten": "Здесь больше ничего о вас не известно. /start начнёт заново.",
    "link_broken": "Эта ссылка больше не работает, но есть много другого.",
    "failed": "Что-то сломалось у нас. Попробуйте, пожалуйста, через минуту.",
    "why_liked": "похоже на то, что вам понравилось",
    "why_source": "из канала, который вам нравится",
    "why_label": "о том, что вам нравится",
    "why_popular": "нравится многим",
    "why_fresh": "новое",
    "why_explore": "чтобы узнать, подходит ли вам это",
    "why_ask": "ваш голос здесь многое мне скажет",
    "why_shared": "вам прислал это друг",
    "also": "Ещё об этом: {names}",
}

_WORDS: dict[Language, dict[str, str]] = {"en": _ENGLISH, "ru": _RUSSIAN}


def say(language: Language, name: str, /, **values: object) -> str:
    """A text by its name."""
    return _WORDS[language][name].format(**{key: html.escape(str(value)) for key, value in values.items()})


def helping(language: Language) -> str:
    """The answer to /help."""
    commands = "\n".join(f"/{name} – {what}" for name, what in COMMANDS[language].items())
    return _WORDS[language]["help"].format(commands=html.escape(commands))


def language_of(code: str | None) -> Language:
    """The bot's language for somebody whose Telegram is in this one (IETF tag)."""
    return "ru" if (code or "").lower().partition("-")[0] == "ru" else "en"


def names() -> dict[Language, frozenset[str]]:
    """The names of all texts, by language."""
    return {language: frozenset(words) for language, words in _WORDS.items()}
