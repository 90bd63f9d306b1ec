"""Names to addresses, with the loop's own getaddrinfo or one that the test plays."""

import asyncio
import socket
from typing import Any

import pytest

from minidist.runtime.config import Address
from minidist.runtime.resolve import ResolveError, is_literal, resolve


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Play the loop's getaddrinfo: `answers(result or exception)`; the questions asked are in the list it returns."""

    def play(outcome: Any) -> list[tuple[str, int]]:
        asked: list[tuple[str, int]] = []

        async def getaddrinfo(loop: Any, host: str, port: int, **options: Any) -> Any:
            asked.append((host, port))
            if isinstance(outcome, asyncio.Future):
                return await outcome
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        return asked

    return play


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:53", "[2001:db8::1]:0", "unix:/run/x", "0.0.0.0:1"])
async def test_literals_are_answered_at_once(answers: Any, text: str) -> None:
    asked = answers(AssertionError("not to be asked"))
    assert await resolve(Address.parse(text)) == [Address.parse(text)]
    assert asked == []


@pytest.mark.parametrize("host", ["localhost", "1.2.3", "01.2.3.4", "1.2.3.4.5", "example.com", "", "::1\0", "fe80::g"])
def test_what_is_no_literal(host: str) -> None:
    assert not is_literal(host)


async def test_a_name_gives_each_of_its_addresses_once_in_the_systems_order(answers: Any) -> None:
    v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 80))
    v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::7", 80, 0, 0))
    asked = answers([v6, v4, v6])
    assert await resolve(Address("www.example", 80)) == [Address("2001:db8::7", 80), Address("192.0.2.7", 80)]
    assert asked == [("www.example", 80)]


async def test_the_machines_own_name_is_looked_up_for_real() -> None:
    found = await resolve(Address("localhost", 8080))
    assert {str(each) for each in found} & {"127.0.0.1:8080", "[::1]:8080"}


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (socket.gaierror(-2, "Name or service not known"), "cannot look up www.example: Name or service not known"),
        (UnicodeError("label too long"), "cannot look up www.example: label too long"),
        ([], "cannot look up www.example: no addresses"),
    ],
)
async def test_a_name_without_addresses_is_an_error_in_one_line(answers: Any, outcome: Any, text: str) -> None:
    answers(outcome)
    with pytest.raises(ResolveError, match=f"^{text}$"):
        await resolve(Address("www.example", 80))


async def test_a_lookup_that_does_not_end_is_given_up(answers: Any) -> None:
    answers(asyncio.get_running_loop().create_future())
    with pytest.raises(ResolveError, match=r"looking up www.example took longer than 0.01 s"):
        await resolve(Address("www.example", 80), timeout_s=0.01)


async def test_a_label_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ResolveError, match="cannot look up"):
        await resolve(Address("a" * 64 + ".example", 80))
