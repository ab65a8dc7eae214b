"""File names and errors as text that any terminal, log or JSON file can carry."""

from __future__ import annotations

FIRST_ESCAPED, LAST_ESCAPED = 0xDC80, 0xDCFF  # PEP 383: bytes that are not UTF-8, inside a str
LONGEST_LINE = 200  # characters of another library's error that a message of ours quotes


def printable(text: str) -> str:
    r"""The text with every character that is not printable written as an escape such as \x1b, \xff or \u202e.

    A byte of a file name that is not UTF-8 is shown as that byte; nothing that is left can move a cursor,
    recolour a terminal, reverse the writing direction or break a line.
    """
    shown = ""
    for character in text:
        code = ord(character)
        if character.isprintable():
            shown += character
        elif code <= 0xFF or FIRST_ESCAPED <= code <= LAST_ESCAPED:
            shown += f"\\x{code & 0xFF:02x}"
        else:
            shown += f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return shown


def first_line(error: Exception) -> str:
    """The first line of what an error says, cut to a length that fits into a message of ours."""
    return (str(error).strip() or repr(error)).splitlines()[0][:LONGEST_LINE]
