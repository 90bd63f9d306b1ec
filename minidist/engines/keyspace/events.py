"""Kinds of keyspace events, as `notify-keyspace-events` names them by letters.

Source: https://redis.io/docs/latest/develop/use/keyspace-notifications/
"""

KEYSPACE, KEYEVENT = 1, 2
GENERIC, STRING, LIST, SET, HASH, SORTED_SET = 4, 8, 16, 32, 64, 128
EXPIRED, EVICTED, STREAM, MODULE, MISS, NEW = 256, 512, 1024, 2048, 4096, 8192
LETTERS = {
    "K": KEYSPACE, "E": KEYEVENT, "g": GENERIC, "$": STRING, "l": LIST, "s": SET, "h": HASH, "z": SORTED_SET,
    "x": EXPIRED, "e": EVICTED, "t": STREAM, "d": MODULE, "m": MISS, "n": NEW,
}  # fmt: skip
ALL = GENERIC | STRING | LIST | SET | HASH | SORTED_SET | EXPIRED | EVICTED | STREAM | MODULE
INVALID = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."
SHOWN_ORDER = "g$lshzxetdnKEm"


def parse_events(text: str) -> int:
    """The kinds that letters stand for, `A` for most of them. Raises ValueError with Redis' words."""
    kinds = 0
    for letter in text:
        if letter != "A" and letter not in LETTERS:
            raise ValueError(INVALID)
        kinds |= ALL if letter == "A" else LETTERS[letter]
    return kinds


def show_events(kinds: int) -> str:
    """The letters of some kinds, as CONFIG GET shows them."""
    shown = "A" if kinds & ALL == ALL else ""
    return shown + "".join(
        letter for letter in SHOWN_ORDER if kinds & LETTERS[letter] and not (shown and LETTERS[letter] & ALL)
    )
