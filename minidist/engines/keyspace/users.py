"""Who may use the node: users, their passwords, and whether anything is forbidden to them.

Without any rules there is the default user alone, who needs no password and may do everything; then nothing of ACLs is
loaded. What a user may do is kept by acl_rules.py as `selectors`; None means one selector that allows everything. Only
the commands of a `restricted` user are checked (acl.py).

Of passwords only the SHA-256 is kept, as Redis does, except `requirepass`, which CONFIG GET shows.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from minidist.engines.keyspace.acl_rules import Selector

DEFAULT_USER = b"default"


def hashed(password: bytes) -> bytes:
    """SHA-256 in hexadecimal."""
    from hashlib import sha256  # not for a node's start

    return sha256(password).hexdigest().encode()


class User:
    """One user. As made here: off, without passwords, allowed nothing but what `selectors` says."""

    __slots__ = ("enabled", "name", "nopass", "passwords", "restricted", "selectors", "skip_sanitize")

    def __init__(self, name: bytes, selectors: "list[Selector] | None") -> None:
        self.name = name
        self.enabled = False
        self.nopass = False
        self.passwords: dict[bytes, None] = {}  # hashes, in the order in which they were added
        self.skip_sanitize = False  # kept and shown; RESTORE checks every payload
        self.selectors = selectors
        self.restricted = selectors is not None

    def become(self, other: "User") -> None:
        """Take over everything but the name."""
        self.enabled, self.nopass, self.skip_sanitize = other.enabled, other.nopass, other.skip_sanitize
        self.passwords = dict(other.passwords)
        self.selectors, self.restricted = other.selectors, other.restricted

    def knows(self, password: bytes) -> bool:
        """Whether this is one of its passwords; compared in constant time."""
        from hmac import compare_digest

        given = hashed(password)
        matches = [compare_digest(given, each) for each in self.passwords]
        return any(matches)

    @classmethod
    def everything(cls, name: bytes) -> "User":
        """A user who is on and may do everything; without a password, if none is added."""
        user = cls(name, None)
        user.enabled = True
        return user


class UserFile(Protocol):
    """Where ACL LOAD and ACL SAVE find the users."""

    path: str

    def load(self) -> "Users":
        """Raises OSError, ValueError."""

    def save(self, lines: bytes) -> None:
        """Put the lines of ACL LIST in place of what is there. Raises OSError."""


class Users:
    """The users of a node, by name. Without passwords: the default user alone, and nobody is asked for one.

    With them: one user for each name; the default user is off if it is not among them.
    """

    def __init__(self, passwords: dict[bytes, bytes] | None = None) -> None:
        self.requirepass = b""  # the default user's, where it is known in plain
        self.default = User.everything(DEFAULT_USER)
        self.default.nopass = not passwords
        self.by_name = {DEFAULT_USER: self.default}
        if passwords:
            self.default.enabled = False
            for name, password in passwords.items():
                self.add_with_password(name, password)

    def add_with_password(self, name: bytes, password: bytes) -> None:
        """A user who may do everything."""
        user = self.by_name.setdefault(name, User.everything(name))
        user.enabled = True
        user.nopass = False
        user.passwords[hashed(password)] = None
        if name == DEFAULT_USER:
            self.requirepass = password

    @property
    def password_needed(self) -> bool:
        """A new client must authenticate first."""
        return not (self.default.nopass and self.default.enabled)

    def require(self, password: bytes) -> None:
        """`requirepass`: the default user's only password; b"" takes it away."""
        self.requirepass = password
        self.default.nopass = not password
        self.default.passwords = {hashed(password): None} if password else {}

    def accepted(self, name: bytes, password: bytes) -> User | None:
        """The user who may come in with this password, if there is such a one."""
        user = self.by_name.get(name)
        if user is None or not user.enabled:
            return None
        return user if user.nopass or user.knows(password) else None

    @classmethod
    def parse(cls, text: str, add: "Callable[[Users, list[str]], None]") -> "Users":
        """From a file's lines: `user:password`, or `user NAME rule…`, which `add` puts in; `#` begins a comment.

        The default user is off unless there is a line for it, so that a file never leaves the door open by oversight.
        Raises ValueError with the number of a bad line.
        """
        users = cls()
        lines = [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1)]
        lines = [(at, line) for at, line in lines if line and not line.startswith("#")]
        if not lines:
            raise ValueError("there is no user:password line")
        users.default.enabled = users.default.nopass = False
        defined = set()
        for number, line in lines:
            try:
                if line.startswith("user "):
                    words = line.split()[1:]
                    if words[0] in defined:
                        raise ValueError(f"defines the user '{words[0]}' again")
                    defined.add(words[0])
                    add(users, words)
                    continue
                name, colon, password = line.partition(":")
                if not name or not colon or not password:
                    raise ValueError("is not user:password")
                users.add_with_password(name.encode(), password.encode())
            except ValueError as problem:
                raise ValueError(f"line {number} {problem}") from None
        return users
