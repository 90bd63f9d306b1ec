"""ACLs beside a real redis-server: categories, uses of keys, rules and what they allow. Skips where there is none.

The server at hand may be a 7.0, which words refusals otherwise, makes up the shortest list of a user's rules where 7.2
keeps them as given, and does not show `sanitize-payload`. So our list is given to the server, too: it must mean the
same.
"""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidist.engines.keyspace.commands import all_commands
from minidist.engines.keyspace.key_access import key_flags
from minidist.wire.resp import encode_command
from minidist.wire.resp_client import NOTHING, PlainReplyReader, ReplyError
from minidist.wire.resp_plain import split_inline

ROWS = {each.full_name: each for row in all_commands().commands.values() for each in (row, *row.subcommands.values())}


@pytest.fixture(scope="module")
def ask(redis_client):
    """Ask a real server; the reply as a Python value."""
    client, reader = redis_client(), PlainReplyReader()

    def ask(*words):
        client.socket.sendall(encode_command([word if isinstance(word, bytes) else word.encode() for word in words]))
        while (reply := reader.next()) is NOTHING:
            reader.feed(client.socket.recv(65536))
        return reply

    ask("HELLO", "3")
    return ask


@pytest.fixture(scope="module")
def real_commands(ask):
    """COMMAND INFO of every command and subcommand, by full name."""
    found = {}

    def walk(rows):
        for row in rows:
            found[row[0].decode()] = row
            walk(row[9])

    walk(ask("COMMAND"))
    return found


def test_categories_of_every_command_that_both_have(real_commands):
    both = ROWS.keys() & real_commands.keys()
    assert len(both) > 250
    ours = {name: set(ROWS[name].categories) for name in both}
    assert ours == {name: {each.decode() for each in real_commands[name][6]} for name in both}


def test_lists_of_categories(ask, client):
    assert ask("ACL", "CAT") == [each.encode() for each in re.findall(r"\w+", client.show("ACL", "CAT"))]
    for category in ask("ACL", "CAT"):
        real = {each.decode() for each in ask("ACL", "CAT", category)}
        ours = set(re.findall(r'"([^"]+)"', client.show("ACL", "CAT", category)))
        added = {name for name in ours if name.split("|")[0] == "debug" or ROWS[name].since >= "7.2"}
        assert ours - added <= real, category
        assert not {name for name in real - ours if name in ROWS}


def test_uses_of_keys_of_every_command_that_both_have(real_commands):
    """SORT and GEORADIUS have further specifications for options, which key_access.py knows by their arguments."""
    for name in ROWS.keys() & real_commands.keys():
        specifications = [{flag.decode() for flag in each[b"flags"]} for each in real_commands[name][8]]
        if not specifications:
            continue
        ours = [set(flags.split()) for flags in key_flags(ROWS[name])]
        shown = [flags - {"variable_flags"} for flags in specifications]
        assert ours[0] == shown[0], name
        assert ours[-1] == shown[-1] or name == "sort_ro", name


# --- any rules, any commands ----------------------------------------------------------------------------------------

NAMES = (
    b"get set mset client client|list client|kill config|get select debug bgsave GET Ping nosuch client|x get|a".split()
)
NAMES += b"select|0 select|1 client|list|x config| xgroup acl|whoami subscribe publish eval sort | zunionstore".split()
CATEGORIES = b"read write string connection admin dangerous slow fast keyspace pubsub sortedset all nosuch".split()
PATTERNS = [b"a*", b"b", b"?*", b"[ab]?", b"", b"x y", b"A*", b"app:*"]  # %RW~* is listed as ~*, which says more
COMMAND_RULES = st.tuples(
    st.sampled_from([b"+", b"-"]),
    st.one_of(st.sampled_from(NAMES), st.sampled_from(CATEGORIES).map(lambda name: b"@" + name)),
).map(b"".join)
KEY_RULES = st.tuples(
    st.sampled_from([b"~", b"%R~", b"%W~", b"%RW~", b"%wr~", b"%RR~", b"%~", b"%x~", b"%R"]), st.sampled_from(PATTERNS)
).map(b"".join)
CHANNEL_RULES = st.sampled_from(PATTERNS).map(lambda pattern: b"&" + pattern)
SINGLE = b"on off nopass resetpass allkeys resetkeys allchannels resetchannels allcommands nocommands clearselectors"
SINGLE += b" reset ON AllKeys >pw >other <pw <none #00 skip-sanitize-payload sanitize-payload foo ~* &* +@all -@all"
WORDS = st.sampled_from([*SINGLE.split(), *b"() ( ) + - & %".split(), b"#" + b"0" * 64, b"!" + b"0" * 64, b""])
SELECTORS = st.lists(st.one_of(COMMAND_RULES, KEY_RULES, CHANNEL_RULES), max_size=4).map(
    lambda rules: b"(" + b" ".join(rules) + b")"
)
RULES = st.lists(st.one_of(COMMAND_RULES, COMMAND_RULES, KEY_RULES, CHANNEL_RULES, WORDS, SELECTORS), max_size=8)

KEYS = st.sampled_from(["a", "b", "ab", "app:1", "z", ""])
TEMPLATES = """GET k|SET k v|SET k v GET|SET k v EX 1|MSET k 1 k 2|RENAME k k|COPY k k|ZUNIONSTORE k 2 k k|EVAL x 1 k a|
XREAD STREAMS k k 0 0|BITFIELD k GET u8 0|BITFIELD k OVERFLOW FAIL SET u8 0 1|BITFIELD k GET u8 0 INCRBY u8 0 1|
SORT k|SORT k STORE k|SORT k LIMIT 0 1 STORE k BY x|SUBSCRIBE k k|PSUBSCRIBE k k|PSUBSCRIBE a*|PUBLISH k m|
SPUBLISH k m|SSUBSCRIBE k|UNSUBSCRIBE k|CLIENT LIST|CLIENT KILL k|CLIENT|CLIENT NOSUCH|CONFIG GET k|SELECT 0|SELECT 1|
STRLEN k|OBJECT ENCODING k|LMOVE k k LEFT LEFT|SINTERSTORE k k k|PFMERGE k k|XGROUP CREATE k g $|XGROUP HELP|
EXISTS k k|MEMORY USAGE k|DEL k k|BLPOP k k 0|LMPOP 2 k k LEFT|GETEX k|AUTH x|AUTH x y|HELLO 3|NOSUCH k|GET|GET k k|
PING|ACL WHOAMI|ACL SETUSER k|PFCOUNT k|WATCH k|SMOVE k k m|ZRANGESTORE k k 0 1|XADD k * f v|XLEN k|KEYS *|SCAN 0|
BITOP AND k k k|EXPIRE k 1|PERSIST k|SDIFFSTORE k k|GEOADD k 1 1 m|GEOSEARCHSTORE k k FROMMEMBER m BYRADIUS 1 m"""
COMMANDS = st.lists(
    st.tuples(st.sampled_from(TEMPLATES.replace("\n", "").split("|")), st.tuples(KEYS, KEYS, KEYS)).map(
        lambda each: filled(*each)
    ),
    min_size=1,
    max_size=12,
)


def filled(template: str, keys: tuple[str, ...]) -> list[str]:
    """A template with keys in place of `k`."""
    rest = iter(keys)
    return [next(rest) if word == "k" else word for word in template.split()]


def ours(client, *words):
    reader = PlainReplyReader()
    reader.feed(client.send(*words))
    return reader.next()


def as_text(reply):
    return "!" + str(reply) if isinstance(reply, ReplyError) else reply


def words_of(line: bytes) -> list[bytes]:
    """The rules of a line of ACL LIST, without the name, selectors whole."""
    return re.findall(rb"\([^)]*\)|[^ ]+", line)[2:]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RULES, COMMANDS)
def test_any_rules_and_commands(ask, world_type, rules, commands):
    client = world_type().client()
    client.session.speak(True)
    ask("ACL", "DELUSER", "u", "copy")
    assert ours(client, "ACL", "SETUSER", "u") == ask("ACL", "SETUSER", "u")
    for rule in rules:
        assert as_text(ours(client, "ACL", "SETUSER", "u", rule)) == as_text(ask("ACL", "SETUSER", "u", rule)), rule
    got, real = ours(client, "ACL", "GETUSER", "u"), ask("ACL", "GETUSER", "u")
    assert got.keys() == real.keys()
    assert set(got[b"flags"]) - {b"sanitize-payload"} == set(real[b"flags"]) - {b"sanitize-payload"}
    for field in (b"passwords", b"keys", b"channels"):
        assert got[field] == real[field]
    assert [(each[b"keys"], each[b"channels"]) for each in got[b"selectors"]] == [
        (each[b"keys"], each[b"channels"]) for each in real[b"selectors"]
    ]
    listed = [line for line in ours(client, "ACL", "LIST") if line.startswith(b"user u ")]
    assert ask("ACL", "SETUSER", "copy", *words_of(listed[0])) == b"OK"
    assert without_first_arguments(ask("ACL", "GETUSER", "copy")) == without_first_arguments(real), listed
    for command in commands:
        said, expected = as_text(ours(client, "ACL", "DRYRUN", "u", *command)), ask("ACL", "DRYRUN", "u", *command)
        assert said == in_words_of_7_2(as_text(expected)), (command, listed)


def in_words_of_7_2(reply):
    return reply.replace(b"This user has", b"User u has") if isinstance(reply, bytes) else reply


def without_first_arguments(user):
    """7.0 does not keep the order of these."""
    commands = [sorted(each[b"commands"].split()) for each in (user, *user[b"selectors"])]
    flags = set(user[b"flags"]) - {b"sanitize-payload"}
    return {**user, b"flags": flags, b"commands": commands, b"selectors": len(user[b"selectors"])}


def test_words_of():
    line = b"user u on #ab ~a* resetchannels -@all +get (~x resetchannels -@all +set)"
    assert words_of(line)[-1] == b"(~x resetchannels -@all +set)"
    assert words_of(line)[:2] == [b"on", b"#ab"]
    assert split_inline(line)[:2] == [b"user", b"u"]
