"""JSON with comments and trailing commas, as opencode and editors write it, made plain JSON. Pure.

Lines keep their place, for whoever tells where a fault is."""

from __future__ import annotations

import re

# A string as a whole, so that what looks like a comment or a comma in it is left alone; else a comment; else a comma
# before a closing bracket, with nothing but space and comments in between.
_COMMENT = r"//[^\n]*|/\*.*?\*/"
_PART = re.compile(rf'"(?:\\.|[^"\\])*"|{_COMMENT}|,(?=(?:\s|{_COMMENT})*[\]}}])', re.DOTALL)


def plain(text: str) -> str:
    """The same document without comments and trailing commas."""
    return _PART.sub(lambda found: found[0] if found[0][0] == '"' else "\n" * found[0].count("\n"), text)
