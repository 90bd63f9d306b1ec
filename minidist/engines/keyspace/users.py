"""Who may use the node: users and passwords, until ACLs."""

DEFAULT_USER = b"default"


class Users:
    """User names and passwords. Without any, everybody is the default user and nobody is asked for a password."""

    def __init__(self, passwords: dict[bytes, bytes] | None = None) -> None:
        self.passwords = passwords or {}

    @property
    def password_needed(self) -> bool:
        """A new client must authenticate first."""
        return bool(self.passwords)

    @property
    def default_password(self) -> bytes:
        """The default user's, which AUTH with one argument means; b"" where it has none."""
        return self.passwords.get(DEFAULT_USER, b"")

    def require(self, password: bytes) -> None:
        """`requirepass`: the default user's password; b"" takes it away."""
        self.passwords.pop(DEFAULT_USER, None)
        if password:
            self.passwords[DEFAULT_USER] = password

    def accepts(self, user: bytes, password: bytes) -> bool:
        """Whether this user may come in with this password; compared in constant time."""
        from hmac import compare_digest

        if not self.passwords:
            return user == DEFAULT_USER
        expected = self.passwords.get(user)
        return expected is not None and compare_digest(expected, password)

    @classmethod
    def parse(cls, text: str) -> "Users":
        """From `user:password` lines; `#` begins a comment line. Raises ValueError with the number of a bad line."""
        passwords = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            user, colon, password = line.rstrip("\r").partition(":")
            if not user or not colon or not password:
                raise ValueError(f"line {number} is not user:password")
            passwords[user.encode()] = password.encode()
        if not passwords:
            raise ValueError("there is no user:password line")
        return cls(passwords)
