"""The suites: where each comes from, how it is run against a node, and which of its cases do not apply, and why.

A case applies when it is about a command that Redis 7.2 has, outside CLUSTER, SENTINEL, modules and replication. The
node says that it is compatible with 7.2, so suites leave out by themselves what later versions have brought; the
exclusions here are the rest. An exclusion is a pattern of case ids, or `@marker`, and its reason. What a suite's cases
do without a server (parsers, retries, pools with fakes) is told apart when it runs: see referee.py.
"""

from dataclasses import dataclass, field

CLUSTER = "CLUSTER: needs a Redis Cluster"
SENTINEL = "SENTINEL: needs sentinels"
MODULES = "modules: JSON, search, time series, Bloom filters, vector sets"
REPLICATION = "replication: needs replicas"
TLS = "needs the suite's own TLS terminator and certificates"
SEVERAL_SERVERS = "needs several servers of the suite's own, or Redis Enterprise"
CLOUD = "needs an account of a cloud"

Exclusions = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Run:
    """One way to run a suite: the arguments for pytest, or for the suite's own program."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Suite:
    name: str
    version: str
    source: str  # of the files: a package of PyPI (`pypi:name`), or a repository of git
    runs: tuple[Run, ...]
    port: int  # where the suite looks for a server
    memcached: bool = False  # and whether it means one of memcached
    node: tuple[str, ...] = ()  # options of the node
    requires: tuple[str, ...] = ()  # packages that it needs
    exclusions: Exclusions = field(default=())
    own_program: bool = False  # it is no pytest suite
    about: str = ""


REDIS_PY = Suite(
    name="redis-py",
    version="8.1.0",
    source="pypi:redis",
    port=6379,
    requires=(
        "pytest", "pytest-asyncio", "pytest-timeout", "mock", "numpy", "PyJWT", "requests", "cachetools", "xxhash",
        "packaging", "pybreaker", "aiohttp", "redis-entraid", "opentelemetry-api", "opentelemetry-sdk",
        "opentelemetry-exporter-otlp-proto-http",
    ),
    runs=tuple(
        Run(f"protocol {protocol}", ("--redis-url=redis://localhost:6379/0", f"--protocol={protocol}", "tests"))
        for protocol in (2, 3)
    ),
    exclusions=(
        ("@onlycluster", CLUSTER),
        ("tests/*test_cluster*", CLUSTER),
        ("*TestClusterPubSub*", CLUSTER),
        ("tests/*maint_notifications/*", SEVERAL_SERVERS),
        ("@redismod", MODULES),
        ("tests/*test_sentinel*", SENTINEL),
        ("@multidb_integration", SEVERAL_SERVERS),
        ("tests/*test_scenario/*", SEVERAL_SERVERS),
        ("tests/*test_ssl.py*", TLS),
        ("tests/*test_connect.py::*ssl*", TLS),
        ("@cp_integration", CLOUD),
    ),
    about="The client's own tests, synchronous and asyncio, in both protocols.",
)  # fmt: skip

RESP_COMPATIBILITY = Suite(
    name="resp-compatibility",
    version="ed92742",
    source="https://github.com/tair-opensource/resp-compatibility",
    port=6379,
    requires=("redis>=5,<8", "pyyaml"),  # it waits for RESP2 replies, which redis-py 8 no longer asks for by itself
    runs=tuple(
        Run(version, ("--testfile", "cts.json", "--specific-version", version, "--show-failed"))
        for version in ("7.0.0", "7.2.0")
    ),
    own_program=True,
    about="Commands of each version of Redis with the replies they must get.",
)

FAKEREDIS = Suite(
    name="fakeredis",
    version="2.37.1",
    source="pypi:fakeredis",
    port=6390,
    requires=(
        "fakeredis==2.37.1", "redis==8.1.0", "valkey", "sortedcontainers", "lupa", "pytest", "pytest-asyncio",
        "pytest-timeout", "pytest-mock", "hypothesis", "jsonpath-ng", "pyprobables", "numpy",
    ),
    runs=(
        Run("on the server", ("--timeout", "100", "-m", "real", "test")),
        Run("fake against server", ("--timeout", "300", "test/test_hypothesis")),
    ),
    exclusions=(("test/test_stack/*", MODULES), ("test/test_dragonfly/*", "Dragonfly's own commands")),
    about="Its cases run on the fake and on a real server: here, our node is the real one. The second run plays random "
    "commands to the fake and to the node, and compares.",
)  # fmt: skip

PYMEMCACHE = Suite(
    name="pymemcache",
    version="4.0.0",
    source="pypi:pymemcache",
    port=11211,
    memcached=True,
    node=("--max-bulk", "1mb"),  # memcached's own default for the longest value, which a case expects
    requires=("pytest", "Faker"),
    runs=(
        Run(
            "memcached listener",
            ("-o", "addopts=", "-m", "integration", "--server", "127.0.0.1", "--port", "11211", "pymemcache/test"),
        ),
    ),
    exclusions=(("*tls*", TLS),),
    about="The integration tests of memcached's usual client.",
)

# --- applications: what stands on redis-py --------------------------------------------------------------------------

PYTEST = ("pytest", "pytest-timeout")

DJANGO = Suite(
    name="django",
    version="5.2.19",
    source="pypi:django",
    port=6379,
    requires=("django==5.2.19", "redis==8.1.0", "pytest", "pytest-django"),
    runs=(
        Run(
            "cache backend",
            ("-o", "pythonpath=tests", "--ds=django_settings", "-k", "RedisCacheTests", "tests/cache/tests.py"),
        ),
    ),
    about="Django's tests of its cache backend for Redis, with the settings of tests/judges/django_settings.py.",
)

KOMBU = Suite(
    name="kombu",
    version="5.7.0",
    source="pypi:kombu",
    port=6379,
    requires=("kombu==5.7.0", "redis==8.1.0", *PYTEST),
    runs=(
        Run(
            "integration",
            ("--timeout", "60", "t/integration/test_redis.py", "t/integration/test_redis_brpop_qos.py"),
        ),
    ),
    about="Celery's messaging: queues, priorities, fanout over pub/sub, what is not acknowledged.",
)

RQ = Suite(
    name="rq",
    version="2.12.0",
    source="pypi:rq",
    port=6379,
    requires=("rq==2.12.0", "redis==8.1.0", "psutil", "croniter", *PYTEST),
    runs=(Run("all", ("--timeout", "60", "tests")),),
    exclusions=(("tests/test_worker_pool.py*", "its workers must start and end in fixed parts of a second"),),
    about="rq's whole suite: queues, workers, registries, schedulers, dependencies, groups.",
)

HUEY = Suite(
    name="huey",
    version="3.5.4",
    source="pypi:huey",
    port=6379,
    requires=("huey==3.5.4", "redis==8.1.0", *PYTEST),
    runs=(Run("redis", ("--timeout", "60", "-k", "Redis or redis", "huey/tests")),),
    about="huey's storages on Redis.",
)

SUITES = {suite.name: suite for suite in (REDIS_PY, RESP_COMPATIBILITY, FAKEREDIS, PYMEMCACHE, DJANGO, KOMBU, RQ, HUEY)}
