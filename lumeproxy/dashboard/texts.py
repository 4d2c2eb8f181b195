"""The operator's terms and privacy notice: Markdown files, or defaults that say what this program keeps.

The Markdown is a small strict part of CommonMark (https://spec.commonmark.org/0.31.2, 2026-11-24): headings, paragraphs,
lists, emphasis, code and links to http, https and mailto. Everything is escaped first, so that no HTML passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape

_HEADING = re.compile(r"(#{1,3}) +(.+)")
_ITEM = re.compile(r"(?:[-*]|[0-9]{1,3}[.)]) +(.+)")
_NUMBERED = re.compile(r"[0-9]")
# On escaped text: quotes and angle brackets are entities by then.
_LINK = re.compile(r"\[([^\[\]]{1,200})\]\(((?:https?://|mailto:|/)[^\s()<>*`]{1,500})\)")
_STRONG = re.compile(r"\*\*([^*]{1,500})\*\*")
_EMPHASIS = re.compile(r"\*([^*]{1,500})\*")
_CODE = re.compile(r"`([^`]{1,200})`")

TERMS = """
# Terms

These are the terms that come with the program; the operator of this server has not written others.

## What you get

This server passes your requests on to providers of language models and gives you their answers, unchanged. Who runs it, and
with which providers, its operator can tell you.

## What it costs

Each call is charged to your credit: the provider's tokens at the prices in force when the call began. What a call cost, and
by which rule, stands in its record under *Usage*. Credit is set aside before a call and given back when it costs less. A
call that you break off is charged as the provider bills it.

## What is expected of you

- Keep your API keys to yourself, and revoke one that others may have seen.
- Do nothing with the models that their providers' terms forbid.
- Do not try to reach accounts, credit or data of others.

The operator may suspend an account, and says why.

## Ending it

You can close your account at any time on its own page. What is kept then stands in the [privacy notice](/privacy).
"""

PRIVACY = """
# Privacy

This notice comes with the program and says what it keeps.

## What is said to a model is not kept

Your requests and the models' answers pass through the memory of this server and are neither stored nor logged. They do
reach the provider that serves the model, whose own privacy notice applies to them.

## What is kept of each call

Its time, account and API key, which API and model it used, how it ended, how many tokens of which kind, what it cost, how
long it took, the address and name of the program that made it, the ids that the program gave its session and agent, and the
provider's id of it. For some failed calls, the provider's short error text.

## What is kept of an account

Its name; its credit and every change to it; of API keys only a fingerprint, a name and limits; of a password only a hash
(argon2id); which browsers are signed in, with their address; which terms you accepted, and when; and what was changed of
the account, when and by whom.

## Cookies

One that keeps you signed in, and one that protects the forms before that. There are no others, and nothing is loaded from
other servers.

## Your rights

On the page of your account you can fetch all data about you, and close the account. What says who you are is then erased:
name, password, sessions, key names, addresses, and the names and ids of your programs. The entries of the ledger and the
counts that they follow from are kept.
"""


@dataclass(frozen=True, slots=True)
class Texts:
    """Both texts as HTML, and the version of the terms."""

    terms: Markup
    privacy: Markup
    version: str


def render(markdown: str) -> Markup:
    """A text as HTML."""
    return Markup("\n").join(_blocks(markdown.replace("\r\n", "\n")))


def _blocks(text: str) -> Iterator[Markup]:
    for block in re.split(r"\n[ \t]*\n", text.strip("\n")):
        lines = [line.strip() for line in block.splitlines() if line.strip()]
        heading = _HEADING.fullmatch(lines[0]) if lines else None
        if heading is not None:
            level = len(heading[1])
            yield Markup(f"<h{level}>%s</h{level}>") % _inline(heading[2])
            lines = lines[1:]
        if not lines:
            continue
        if all(_ITEM.fullmatch(line) or at for at, line in enumerate(lines)) and _ITEM.fullmatch(lines[0]):
            kind = "ol" if _NUMBERED.match(lines[0]) else "ul"
            items = Markup("").join(Markup("<li>%s</li>") % _inline(item) for item in _items(lines))
            yield Markup(f"<{kind}>%s</{kind}>") % items
        else:
            yield Markup("<p>%s</p>") % _inline(" ".join(lines))


def _items(lines: list[str]) -> list[str]:
    """The texts of a list; a line that begins no item goes on with the one before."""
    items: list[str] = []
    for line in lines:
        begun = _ITEM.fullmatch(line)
        if begun is not None:
            items.append(begun[1])
        else:
            items[-1] += " " + line
    return items


def _inline(text: str) -> Markup:
    shown = str(escape(text))
    shown = _CODE.sub(r"<code>\1</code>", shown)
    shown = _LINK.sub(r'<a href="\2" rel="noreferrer noopener">\1</a>', shown)
    shown = _STRONG.sub(r"<strong>\1</strong>", shown)
    return Markup(_EMPHASIS.sub(r"<em>\1</em>", shown))  # escaped above, the tags are ours
