"""Names to addresses: literals at once, names through the loop (`getaddrinfo`, and so /etc/hosts and nsswitch).

The order of the result is the system's (RFC 6724): try the first address first. Nothing is kept: the system does not
say how long an answer holds. Who needs to follow a name over time asks again, and drops what is no longer there.
"""

import asyncio
import socket

from minidist.runtime.config import Address


class ResolveError(OSError):
    """The name has no address, or none could be learnt in time. Certainly nothing was sent to it."""


def is_literal(host: str) -> bool:
    """Whether a host is written as an IPv4 or IPv6 address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):  # ValueError: a zero byte in the host
            continue
        return True
    return False


async def resolve(address: Address, *, timeout_s: float = 5.0) -> list[Address]:
    """The addresses behind HOST:PORT, each once and at least one; a literal or a Unix socket is its own.

    Raises ResolveError, also after `timeout_s` of loop time.
    """
    if address.path or is_literal(address.host):
        return [address]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise ResolveError(f"looking up {address.host} took longer than {timeout_s:g} s") from error
    except (OSError, UnicodeError) as error:  # UnicodeError: a label too long or empty, found by the idna codec
        raise ResolveError(f"cannot look up {address.host}: {getattr(error, 'strerror', None) or error}") from error
    addresses = list(dict.fromkeys(Address(str(name[0]), int(name[1])) for *_, name in found))
    if not addresses:
        raise ResolveError(f"cannot look up {address.host}: no addresses")
    return addresses
