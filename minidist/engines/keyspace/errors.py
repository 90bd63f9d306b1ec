"""Errors that commands answer, in Redis' own words."""

from collections.abc import Sequence


class CommandError(Exception):
    """A command cannot do what was asked; the text, which begins with its code, is the reply."""


class Postponed(Exception):
    """A command cannot run yet (paused, asleep, no room for it): run it, and what follows on its connection, later."""


SYNTAX = "ERR syntax error"
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
NOT_A_FLOAT = "ERR value is not a valid float"
NO_SUCH_KEY = "ERR no such key"
OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'."
NO_AUTH = "NOAUTH Authentication required."
WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."
EXEC_ABORT = "EXECABORT Transaction discarded because of previous errors."
STRING_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
INDEX_OUT_OF_RANGE = "ERR index out of range"


def wrong_arity(name: str) -> CommandError:
    """`name` is the command's in lower case, a subcommand's as `client|kill`."""
    return CommandError(f"ERR wrong number of arguments for '{name}' command")


def discarded(problem: CommandError) -> CommandError:
    """What EXEC answers where it was refused before it ran; the transaction is over."""
    return CommandError(f"EXECABORT Transaction discarded because of: {str(problem).removeprefix('ERR ')}")


def unknown_subcommand(container: str, given: bytes) -> CommandError:
    return CommandError(f"ERR unknown subcommand '{printable(given)[:128]}'. Try {container.upper()} HELP.")


def unknown_command(args: Sequence[bytes]) -> CommandError:
    """With at most 128 bytes of the arguments."""
    shown = ""
    for argument in args[1:]:
        if len(shown) >= 128:
            break
        shown += f"'{printable(argument)[: 128 - len(shown)]}' "
    return CommandError(f"ERR unknown command '{printable(args[0])[:128]}', with args beginning with: {shown}")


def printable(data: bytes) -> str:
    """A client's bytes inside an error text; `resp_replies.error` writes the same bytes again."""
    return data.decode("utf-8", "surrogateescape")
