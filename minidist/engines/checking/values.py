"""Values of a history: JSON as it was read, one normal form for comparing, short text for people.

Bytes are strings in a history when they are UTF-8 and `{"b64":"…"}` when they are not, so one sequence of bytes has one
value here: a `str` or else `bytes`. Python calls `1`, `1.0` and `true` equal; a checker must not take the answer `true`
for the number that was written, so values are compared by what `canonical` makes of them.
"""

import base64
import binascii
import json
from collections.abc import Hashable, Sequence
from typing import Any

#: What a key may be. Numbers are kept as numbers: `1` and `"1"` are two keys.
Key = str | bytes | int
#: Characters of a value shown in a sentence; lists are cut in the middle, since their ends say most.
MAX_TEXT = 60
#: How deep lists and objects may lie in each other.
MAX_DEPTH = 50
_B64 = "b64"


def from_json(value: Any, depth: int = 0) -> Any:
    """A value as it was read from JSON, with `{"b64": …}` decoded at any depth. Raises ValueError."""
    if depth > MAX_DEPTH:
        raise ValueError(f"a value is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        return [from_json(each, depth + 1) for each in value]
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get(_B64), str):
            return from_bytes(_decoded(value[_B64]))
        return {name: from_json(each, depth + 1) for name, each in value.items()}
    return value


def from_bytes(value: bytes) -> str | bytes:
    """What a client library returned: text when it is UTF-8, else the bytes themselves."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def to_json(value: Any) -> Any:
    """The reverse of `from_json`."""
    if isinstance(value, bytes):
        text = from_bytes(value)
        return text if isinstance(text, str) else {_B64: base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if isinstance(value, dict):
        return {name: to_json(each) for name, each in value.items()}
    return value


def canonical(value: Any) -> Hashable:
    """Equal for two values exactly when they are the same JSON value."""
    kind = type(value)
    if kind is int or kind is str or value is None or kind is bytes:
        return value  # type: ignore[no-any-return]
    if kind is float and value.is_integer():
        return int(value)
    if kind is list or kind is tuple:
        return ("list", *(canonical(each) for each in value))
    if kind is dict:
        return ("object", *sorted((name, canonical(each)) for name, each in value.items()))
    return (kind.__name__, value)


def original(value: Any) -> Any:
    """A value that `canonical` makes this of."""
    if not isinstance(value, tuple):
        return value
    kind, *parts = value
    if kind == "list":
        return [original(each) for each in parts]
    if kind == "object":
        return {name: original(each) for name, each in parts}
    return parts[0]


def printable(text: str) -> str:
    """Text for a terminal or a page, without what would move the cursor or turn the line round."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def show(value: Any, limit: int = MAX_TEXT) -> str:
    """The value for a sentence: JSON, cut to about `limit` characters. Takes canonical values as well."""
    value = original(value)
    if isinstance(value, list) and len(value) > 1:
        return _show_list(value, limit)
    text = printable(json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":")))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _show_list(items: Sequence[Any], limit: int) -> str:
    """All items when they fit, else as many of the first and of the last as do."""
    if len(items) <= limit:
        whole = f"[{', '.join(show(item, limit) for item in items)}]"
        if len(whole) <= limit:
            return whole
    front: list[str] = []
    back: list[str] = []
    room = limit - len("[… 1000 more …]")
    while 2 * len(front) + 2 <= len(items):
        first, last = show(items[len(front)], limit), show(items[-1 - len(back)], limit)
        room -= len(first) + len(last) + 4
        if room < 0:
            break
        front.append(first)
        back.insert(0, last)
    left = len(items) - len(front) - len(back)
    return f"[{', '.join([*front, f'… {left} more …', *back])}]"


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text!r} is not base64") from error
