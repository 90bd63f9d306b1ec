"""The topology file: what is read from it, and what is said about everything that can be wrong with it."""

import pytest

from minidist.cluster.topology import TopologyError, parse
from minidist.runtime.config import Address

SHOP = """
name = "shop"

[groups.web]
command = ["python", "-m", "shop.web"]
entry = "shop.web:main"
replicas = 3
env = { CACHE_URL = "{cache.url}", WORKERS = 2 }
ready = "http:/healthz"

[groups.edge]
component = "balancer"
listen = "127.0.0.1:8080"
upstream = "web"
balance = "least-connections"
after = ["jobs"]

[groups.cache]
component = "cache"
max_memory = "64mb"

[groups.jobs]
command = ["sh", "-c", "exec jobs {cache[0].address}"]
ready = "log:^listening"
restart = "always"

[regions]
eu = ["web-1", "edge"]
us = ["web[1]", "cache"]

[[links]]
between = ["eu", "us"]
latency_ms = 40
jitter_ms = 2
"""


def read(text, name=""):
    return parse(text, file="minidist.toml", directory_name="my shop", name=name)


def refused(text):
    with pytest.raises(TopologyError) as caught:
        read(text)
    return str(caught.value)


def test_a_whole_file():
    shop = read(SHOP)
    assert shop.name == "shop"
    assert list(shop.groups) == ["web", "edge", "cache", "jobs"]
    web, edge, cache, jobs = shop.groups.values()
    assert web.command == ("python", "-m", "shop.web")
    assert web.entry == "shop.web:main"
    assert web.is_program
    assert web.component == "command"
    assert web.node_names() == ("web-1", "web-2", "web-3")
    assert web.env == {"CACHE_URL": "{cache.url}", "WORKERS": "2"}
    assert web.depends_on == ("cache",)
    assert edge.listen == Address("127.0.0.1", 8080)
    assert edge.options == {"upstream": "web", "balance": "least-connections"}
    assert edge.depends_on == ("jobs", "web")
    assert cache.depends_on == ()
    assert cache.node_names() == ("cache-1",)
    assert jobs.restart_always
    assert jobs.ready == "log:^listening"
    assert shop.regions == {"eu": ("web-1", "edge"), "us": ("web-2", "cache")}
    assert (shop.nodes_in("eu"), shop.nodes_in("us")) == (("web-1", "edge-1"), ("web-2", "cache-1"))
    assert shop.region_of("edge-2") == "eu", "a node that scale adds is where its group is"
    assert shop.region_of("web-2") == "us"
    assert shop.region_of("web-3") is None
    assert (shop.links[0].between, shop.links[0].latency_ms, shop.links[0].jitter_ms) == (("eu", "us"), 40, 2)


def test_the_name_is_the_option_else_the_files_else_the_directorys():
    nameless = '[groups.a]\ncommand = ["a"]'
    assert read(SHOP, name="other").name == "other"
    assert read(SHOP).name == "shop"
    assert read(nameless).name == "my-shop"


WRONG = {
    "no TOML": ("name = ", "text that is no TOML, allowed: TOML ("),
    "no groups": ('name = "x"', "minidist.toml: groups: given 0 groups, allowed: 1 to 256 tables [groups.NAME]"),
    "unknown top key": (
        'group = 1\n[groups.a]\ncommand = ["a"]',
        "minidist.toml: group: given 1, allowed: one of name, groups, regions, links (did you mean groups?)",
    ),
    "name": (
        'name = "a/b"\n[groups.a]\ncommand = ["a"]',
        "name: given 'a/b', allowed: letters, digits, '.', '_' and '-', at most 64",
    ),
    "group name": ('[groups."1a"]\ncommand = ["a"]', "groups.1a: given '1a', allowed: a letter, then letters, digits"),
    "no table": ("[groups]\na = 1", "groups.a: given 1, allowed: a table [groups.a]"),
    "no kind": (
        "[groups.a]\nreplicas = 2",
        "groups.a: given none of them, allowed: either component, or command and/or entry",
    ),
    "two kinds": (
        '[groups.a]\ncomponent = "cache"\ncommand = ["a"]',
        "groups.a: given component and command, allowed: either component, or command and/or entry",
    ),
    "unknown component": (
        '[groups.a]\ncomponent = "cahce"',
        "(did you mean cache?)",
    ),
    "command as text": (
        '[groups.a]\ncommand = "python app.py"',
        'groups.a.command: given \'python app.py\', allowed: a list of words, such as ["python", "app.py"]',
    ),
    "no command": ("[groups.a]\ncommand = []", "groups.a.command: given [], allowed: a list of words"),
    "entry": ('[groups.a]\nentry = "app.main"', "groups.a.entry: given 'app.main', allowed: package.module:function"),
    "replicas": (
        '[groups.a]\ncommand = ["a"]\nreplicas = 0',
        "groups.a.replicas: given 0, allowed: a whole number from 1 to 256",
    ),
    "replicas as text": (
        '[groups.a]\ncommand = ["a"]\nreplicas = "3"',
        "groups.a.replicas: given '3', allowed",
    ),
    "env": (
        '[groups.a]\ncommand = ["a"]\nenv = { A = [] }',
        "groups.a.env: given {'A': []}, allowed: a table of variables and texts or numbers",
    ),
    "ready": (
        '[groups.a]\ncommand = ["a"]\nready = "udp"',
        'groups.a.ready: given \'udp\', allowed: "tcp", "http:/path" or "log:REGEX"',
    ),
    "ready pattern": (
        '[groups.a]\ncommand = ["a"]\nready = "log:("',
        "groups.a.ready: given 'log:(', allowed: a regular expression after log: (missing )",
    ),
    "ready of a component": (
        '[groups.a]\ncomponent = "cache"\nready = "tcp"',
        "groups.a.ready: given 'tcp', allowed",
    ),
    "restart": (
        '[groups.a]\ncommand = ["a"]\nrestart = true',
        'groups.a.restart: given True, allowed: "always"',
    ),
    "a port in the environment": (
        '[groups.a]\ncommand = ["a"]\nenv = { PORT = 80 }',
        "groups.a.env.PORT: given '80', allowed: nothing: listen = \"HOST:PORT\" fixes the port",
    ),
    "Unix socket": ('[groups.a]\ncomponent = "cache"\nlisten = "unix:/s"', "given 'unix:/s', allowed: HOST:PORT"),
    "listen": ('[groups.a]\ncommand = ["a"]\nlisten = "8080"', "groups.a.listen: given '8080', allowed: HOST:PORT"),
    "one port for two": (
        '[groups.a]\ncommand = ["a"]\nreplicas = 2\nlisten = "127.0.0.1:80"',
        "groups.a.listen: given '127.0.0.1:80', allowed: HOST:0, or replicas = 1",
    ),
    "unknown key of a program": (
        '[groups.a]\ncommand = ["a"]\nreplica = 2',
        "groups.a.replica: given 2, allowed: one of command, entry, replicas, env, ready, listen, after, restart "
        "(did you mean replicas?)",
    ),
    "unknown option": (
        '[groups.a]\ncomponent = "cache"\nmax_memroy = "1mb"',
        "(did you mean max_memory?)",
    ),
    "option's value": (
        '[groups.a]\ncomponent = "cache"\nmax_memory = "much"',
        "minidist.toml: groups.a.max_memory: given 'much', allowed: a size such as 64mb",
    ),
    "options that do not go together": (
        '[groups.a]\ncomponent = "cache"\nlisten = "0.0.0.0:0"',
        "groups.a.listen: given '0.0.0.0:0', allowed: a loopback address, or any with auth_file, tls_cert or insecure",
    ),
    "launcher's option": (
        '[groups.a]\ncomponent = "cache"\nname = "x"',
        "groups.a.name: given 'x', allowed: nothing: the launcher sets it",
    ),
    "reference to nobody": (
        '[groups.web]\ncommand = ["a"]\nenv = { A = "{cach.url}" }\n[groups.cache]\ncomponent = "cache"',
        "groups.web.env.A: given '{cach.url}', allowed: a reference to one of web, cache (did you mean cache?)",
    ),
    "attribute": (
        '[groups.web]\ncommand = ["{cache.uri}"]\n[groups.cache]\ncomponent = "cache"',
        "groups.web.command[0]: given '{cache.uri}', allowed: one of the attributes url, urls, address",
    ),
    "index": (
        '[groups.web]\ncommand = ["{cache[1].url}"]\n[groups.cache]\ncomponent = "cache"',
        "groups.web.command[0]: given '{cache[1].url}', allowed: cache[0] to cache[0]",
    ),
    "admin of a program": (
        '[groups.web]\ncommand = ["a"]\n[groups.b]\ncommand = ["{web.admin}"]',
        "groups.b.command[0]: given '{web.admin}', allowed: admin only of minidist's components",
    ),
    "upstream": (
        '[groups.web]\ncommand = ["a"]\n[groups.edge]\ncomponent = "balancer"\nupstream = "wbe"',
        "groups.edge.upstream: given 'wbe', allowed: HOST:PORT, a group (web, edge) or a node",
    ),
    "after": (
        '[groups.web]\ncommand = ["a"]\nafter = ["web"]\n[groups.b]\ncommand = ["b"]',
        "groups.web.after[0]: given 'web', allowed: one of b",
    ),
    "cycle": (
        '[groups.a]\ncommand = ["{b.url}"]\n[groups.b]\ncommand = ["b"]\nafter = ["c"]\n'
        '[groups.c]\ncommand = ["{a.url}"]',
        "groups.c: given the cycle a → b → c → a, allowed: dependencies without a cycle",
    ),
    "a group named as a node": (
        '[groups.web]\ncommand = ["a"]\n[groups.web-2]\ncommand = ["b"]',
        "groups.web-2: given 'web-2', allowed: a name that is not a node of the group web",
    ),
    "two groups with the same variables": (
        '[groups.a-b]\ncommand = ["a"]\n[groups.a_b]\ncommand = ["b"]',
        "groups.a_b: given 'a_b', allowed: a name that does not become A_B as a-b does",
    ),
    "region": (
        '[groups.a]\ncommand = ["a"]\n[regions]\neu = ["b"]',
        "regions.eu: given 'b', allowed: a node of, or one of a",
    ),
    "null character in a command": (
        '[groups.a]\ncommand = ["a", "b\\u0000c"]',
        r"groups.a.command[1]: given 'b\x00c', allowed: text without null characters",
    ),
    "null character in the environment": (
        '[groups.a]\ncommand = ["a"]\nenv = { A = "\\u0000" }',
        r"groups.a.env.A: given '\x00', allowed: text without null characters",
    ),
    "null character in an option": (
        '[groups.a]\ncomponent = "cache"\ndata_dir = "\\u0000"',
        r"groups.a.data_dir: given '\x00', allowed: text without null characters",
    ),
    "after where there is nobody else": (
        '[groups.a]\ncommand = ["a"]\nafter = ["b"]',
        "groups.a.after[0]: given 'b', allowed: nothing: there is no other",
    ),
    "node in two regions": (
        '[groups.a]\ncommand = ["a"]\n[regions]\neu = ["a"]\nus = ["a-1"]',
        "regions.us: given 'a-1', allowed: each node once; it is in eu already",
    ),
    "link between": (
        '[groups.a]\ncommand = ["a"]\n[regions]\neu = ["a"]\n[[links]]\nbetween = ["eu", "ue"]\nlatency_ms = 1',
        "links[0].between: given 'ue', allowed: one of eu",
    ),
    "link without latency": (
        '[groups.a]\ncommand = ["a"]\n[[links]]\nbetween = ["a", "b"]',
        "links[0].latency_ms: given nothing, allowed: a number from 0 to 600000",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_key_given_and_allowed(case):
    text, expected = WRONG[case]
    message = refused(text)
    assert expected in message
    assert message.startswith("minidist.toml: ")


def test_a_balancers_upstreams_may_be_groups_nodes_and_addresses_with_weights():
    shop = read(
        '[groups.web]\ncommand = ["a"]\nreplicas = 2\n[groups.edge]\ncomponent = "balancer"\n'
        'upstream = ["web-1=3", "127.0.0.1:99=2", "{web[1].address}"]'
    )
    assert shop.groups["edge"].depends_on == ("web",)


def test_what_a_node_refers_to_in_its_own_group_is_no_dependency():
    shop = read('[groups.web]\ncommand = ["a"]\nreplicas = 3\nenv = { PEERS = "{web.addresses}" }')
    assert shop.groups["web"].depends_on == ()
