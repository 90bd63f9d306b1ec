"""The file of --auth-file: lines of `user:password`, and of `user NAME rule…` as Redis' ACL files have them.

ACL SAVE writes lines of the second kind only, so that passwords are kept as hashes from then on; comments are lost.
"""

from minidist.engines.keyspace.registry import CommandTable
from minidist.engines.keyspace.users import Users
from minidist.runtime.files import read_text, replace_bytes


class UserFileOnDisk:
    """Implements engines.keyspace.users.UserFile."""

    def __init__(self, path: str, table: CommandTable) -> None:
        self.path = path
        self._table = table

    def load(self) -> Users:
        return Users.parse(read_text(self.path), self._add)

    def _add(self, users: Users, words: list[str]) -> None:
        from minidist.engines.keyspace.acl_rules import add_from_line  # only for files that have rules

        add_from_line(users, words, self._table)

    def save(self, lines: bytes) -> None:
        replace_bytes(self.path, lines)
