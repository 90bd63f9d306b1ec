"""Pub/sub on the engine: who gets what, encoded how often, and what is kept of subscriptions."""

import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.outputs import Push
from minidist.engines.keyspace.publishing import Patterns, beginning_of
from minidist.wire.resp_replies import bulks


@pytest.fixture
def messages(world):
    """What was pushed since the last call: (session, message), in order."""

    def messages():
        pushes = [output for output in world.service.outbox if isinstance(output, Push)]
        world.service.outbox.clear()
        return [(session, push.message) for push in pushes for session in push.sessions]

    return messages


def old(*words: bytes) -> bytes:
    """A message as RESP2 has it."""
    return bulks(words)


def new(*words: bytes) -> bytes:
    """A message as RESP3 has it."""
    return b">" + bulks(words)[1:]


class TestDelivery:
    def test_channels_before_patterns_shorter_beginnings_first(self, world, messages):
        client, other = world.client(), world.client()
        client.send("PSUBSCRIBE", "news.a*", "news.*", "*", "sport.*")
        client.send("SUBSCRIBE", "news.art")
        assert other.show("PUBLISH", "news.art", "hello") == "4"
        assert [shown for _, shown in messages()] == [
            old(b"message", b"news.art", b"hello"),
            old(b"pmessage", b"*", b"news.art", b"hello"),
            old(b"pmessage", b"news.*", b"news.art", b"hello"),
            old(b"pmessage", b"news.a*", b"news.art", b"hello"),
        ]

    def test_each_in_its_protocol(self, world, messages):
        two, three, other = world.client(), world.client(), world.client()
        three.send("HELLO", "3")
        two.send("SUBSCRIBE", "c")
        three.send("SUBSCRIBE", "c")
        assert other.show("PUBLISH", "c", b"\xff\r\n") == "2"
        assert messages() == [
            (two.session, old(b"message", b"c", b"\xff\r\n")),
            (three.session, new(b"message", b"c", b"\xff\r\n")),
        ]

    def test_a_thousand_subscribers_share_one_message(self, world):
        clients = [world.client() for _ in range(1000)]
        for client in clients:
            client.send("SUBSCRIBE", "c")
        assert world.client().show("PUBLISH", "c", "m") == "1000"
        (push,) = world.service.outbox
        assert push.sessions == [client.session for client in clients]

    def test_shard_channels_are_others(self, world, messages):
        client, other = world.client(), world.client()
        client.send("SSUBSCRIBE", "c")
        client.send("PSUBSCRIBE", "*")
        assert other.show("SPUBLISH", "c", "m") == "1"
        assert messages() == [(client.session, old(b"smessage", b"c", b"m"))]
        assert other.show("PUBLISH", "c", "m") == "1"
        assert messages() == [(client.session, old(b"pmessage", b"*", b"c", b"m"))]

    def test_to_oneself(self, world, messages):
        client = world.client()
        client.send("HELLO", "3")
        client.send("SUBSCRIBE", "c")
        assert client.show("PUBLISH", "c", "m") == "1"
        assert messages() == [(client.session, new(b"message", b"c", b"m"))]

    def test_inside_a_transaction(self, world, messages):
        client, other = world.client(), world.client()
        client.send("SUBSCRIBE", "c")
        other.send("MULTI")
        other.send("PUBLISH", "c", "m")
        assert messages() == []
        assert other.show("EXEC") == "[1]"
        assert messages() == [(client.session, old(b"message", b"c", b"m"))]


class TestLeaving:
    @pytest.mark.parametrize("how", ["RESET", "close", "UNSUBSCRIBE"])
    def test_nothing_is_kept(self, world, how):
        client, other = world.client(), world.client()
        client.send("SUBSCRIBE", "a", "b", "a")
        client.send("PSUBSCRIBE", "a*", "[b")
        client.send("SSUBSCRIBE", "s")
        if how == "close":
            world.service.close(client.session)
        elif how == "RESET":
            client.send("RESET")
        else:
            for name in ("UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"):
                client.send(name)
            assert not client.session.gated
        publishing = world.service.publishing
        assert (publishing.channels, publishing.shard_channels, publishing.patterns.by_text) == ({}, {}, {})
        assert publishing.patterns._by_beginning == {}
        assert [other.show("PUBLISH", name, "m") for name in ("a", "b")] == ["0", "0"]

    def test_client_list_shows_it(self, world):
        client, other = world.client(), world.client()
        client.send("SUBSCRIBE", "a", "b")
        client.send("PSUBSCRIBE", "a*")
        shown = other.show("CLIENT", "LIST", "TYPE", "pubsub")
        assert "sub=2 psub=1 ssub=0" in shown
        assert "flags=P" in shown
        assert "sub=0" in other.show("CLIENT", "LIST", "TYPE", "normal")
        assert other.show("CLIENT", "KILL", "TYPE", "pubsub") == "1"


class TestPatterns:
    def test_beginnings(self):
        assert [beginning_of(each) for each in (b"a.*", b"*", b"a?b", b"a[b]", b"a\\*", b"x" * 40, b"")] == [
            b"a.", b"", b"a", b"a", b"a", b"x" * 32, b"",
        ]  # fmt: skip

    def test_only_what_can_match_is_tried(self, world):
        patterns = Patterns()
        tried = []
        for number in range(1000):
            patterns.add(b"user:%d:*" % number, world.client().session)
        for pattern in patterns.by_text.values():
            matches = pattern.matches
            pattern.matches = lambda channel, matches=matches: tried.append(channel) or matches(channel)
        assert [each.text for each in patterns.matching(b"user:77:name")] == [b"user:77:*"]
        assert len(tried) == 1

    names = st.text("ab.*?", max_size=6)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(names), st.text("ab.", max_size=6))
    def test_the_same_as_trying_all(self, world_type, texts, channel):
        world = world_type()
        patterns = Patterns()
        session = world.client().session
        for text in texts:
            patterns.add(text.encode(), session)
        found = [each.text.decode() for each in patterns.matching(channel.encode())]
        assert sorted(found) == sorted({text for text in texts if fnmatch.fnmatchcase(channel, text)})
        for text in dict.fromkeys(texts):
            patterns.remove(text.encode(), session)
        assert (patterns.by_text, patterns._by_beginning) == ({}, {})
