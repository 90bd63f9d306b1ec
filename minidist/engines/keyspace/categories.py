"""The ACL categories of commands, as COMMAND INFO and ACL CAT show them, and as `+@name` in a user's rules means them.

Redis derives most of them: from a command's flags, and from its group. Containers have none of their group, only their
subcommands do. What Redis says otherwise, command by command, is in OF_COMMAND; it replaces the group's.

Source: redis 7.2, src/commands/*.json and server.c `setImplicitACLCategories`; a test compares with a real server.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidist.engines.keyspace.registry import Command

# In the order in which ACL CAT lists them.
CATEGORIES = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo", "stream",
    "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
)  # fmt: skip

OF_GROUP = {
    "generic": "keyspace", "sorted-set": "sortedset", "transactions": "transaction",
    "server": "", "pubsub": "", "cluster": "",
}  # fmt: skip
OF_FLAG = {
    "write": "write", "admin": "admin dangerous", "pubsub": "pubsub", "blocking": "blocking", "fast": "fast",
}  # fmt: skip
OF_COMMAND = {
    "KEYS": "keyspace dangerous", "RESTORE": "keyspace dangerous", "MIGRATE": "keyspace dangerous",
    "RESTORE-ASKING": "keyspace dangerous",
    "SORT": "set sortedset list dangerous", "SORT_RO": "set sortedset list dangerous",
    "DBSIZE": "keyspace", "FLUSHDB": "keyspace dangerous", "FLUSHALL": "keyspace dangerous",
    "SWAPDB": "keyspace dangerous", "INFO": "dangerous", "ROLE": "admin dangerous", "LASTSAVE": "admin dangerous",
    "COMMAND": "connection", "WAIT": "connection", "WAITAOF": "connection",
    "ASKING": "connection", "READONLY": "connection", "READWRITE": "connection",
}  # fmt: skip


def categories_of(row: "Command") -> list[str]:
    """The categories of a command, in their order, without `@`."""
    container = row.name.partition(" ")[0]
    if row.name in OF_COMMAND:
        found = set(OF_COMMAND[row.name].split())
    elif container == "COMMAND":
        found = {"connection"}
    elif row.is_container:
        found = set()
    else:
        found = set(OF_GROUP.get(row.group, row.group).split())
    for flag in row.flags & OF_FLAG.keys():
        found.update(OF_FLAG[flag].split())
    if "readonly" in row.flags and row.group != "scripting":
        found.add("read")
    if "fast" not in found:
        found.add("slow")
    return [name for name in CATEGORIES if name in found]
