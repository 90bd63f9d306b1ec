"""Imports go down only: structures ← wire ← engines ← components ← tools; runtime stands beside the engines."""

import subprocess
import sys

import pytest
from source_reader import ROOT, TOOLS, Source, no_findings, package

from minidist.components import COMPONENTS

MAY_IMPORT = {
    "structures": {"structures"},
    "wire": {"structures", "wire"},
    "engines": {"structures", "wire", "engines"},
    "runtime": {"structures", "wire", "runtime"},
    "components": {"structures", "wire", "engines", "runtime", "components"},
}

# Libraries and modules of the standard library that are slow to import: only inside functions that need them.
HEAVY = (
    "argparse",
    "cramjam",
    "dns",
    "email",
    "hdrh",
    "http.client",
    "http.server",
    "lupa",
    "maxminddb",
    "multiprocessing",
    "prometheus_client",
    "redis",
    "rich",
    "sqlite3",
    "urllib.request",
    "xml",
)


def upward_imports(source: Source) -> list[str]:
    allowed = MAY_IMPORT.get(source.layer)
    if allowed is None:
        return []
    return [
        source.at(node, f"{source.layer} may not import {name}")
        for node, name in source.imports()
        if name.startswith("minidist.") and name.split(".")[1] in {*MAY_IMPORT, *TOOLS} - allowed
    ]


def component_of(module: str) -> str:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["minidist", "components"] and len(parts) > 2 else ""


def imports_of_other_components(source: Source) -> list[str]:
    """A component may import itself only. The registry (components/__init__.py) imports them by name, when asked."""
    own = component_of(source.module)
    if source.layer != "components" or not own:
        return []
    return [
        source.at(node, f"component {own} may not import {name}: what two components need is an engine")
        for node, name in source.imports()
        if component_of(name) not in ("", own)
    ]


def heavy_imports(source: Source) -> list[str]:
    """A daemon imports these layers on start, so what is heavy or rare is imported by the function that needs it."""
    if source.layer not in MAY_IMPORT:
        return []
    return [
        source.at(node, f"{name} is heavy: import it inside the function that needs it")
        for node, name in source.eager_imports()
        if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)
    ]


@pytest.mark.parametrize("rule", [upward_imports, imports_of_other_components, heavy_imports])
def test_the_package_keeps_the_rule(rule):
    no_findings(finding for source in package() for finding in rule(source))


def test_every_file_belongs_to_a_layer():
    known = {"", *MAY_IMPORT, *TOOLS}
    assert [source.path for source in package() if source.layer not in known] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("minidist/structures/lru.py", "from minidist.wire import resp"),
        ("minidist/wire/resp.py", "import minidist.engines.keyspace"),
        ("minidist/wire/resp.py", "def f():\n    from ..runtime import clock"),
        ("minidist/engines/raft/log.py", "from minidist.runtime.disk import Disk"),
        ("minidist/runtime/node.py", "from minidist.components.cache.server import Cache"),
        ("minidist/components/cache/server.py", "from minidist.cluster import topology"),
        ("minidist/components/cache/server.py", "from minidist import testing"),
    ],
)
def test_an_import_that_goes_up_is_found(path, text):
    assert len(upward_imports(Source(path, text))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("minidist/components/cache/server.py", "from minidist.runtime.listener import Listener"),
        ("minidist/runtime/admin.py", "from minidist.wire.http1 import head"),
        ("minidist/engines/raft/node.py", "from .log import Log"),
        ("minidist/structures/lru.py", "from minidist import __version__"),
        ("minidist/cluster/verbs.py", "from minidist.load import run"),
    ],
)
def test_an_import_that_goes_down_is_fine(path, text):
    assert upward_imports(Source(path, text)) == []


def test_components_that_know_each_other_are_found():
    assert imports_of_other_components(Source("minidist/components/kv/state.py", "from ..cache import state"))
    assert imports_of_other_components(
        Source("minidist/components/kv/state.py", "import minidist.components.cache.state")
    )
    assert not imports_of_other_components(Source("minidist/components/kv/state.py", "from .config import Config"))


def test_a_heavy_import_is_found_where_it_costs():
    path = "minidist/components/cache/server.py"
    assert heavy_imports(Source(path, "import rich"))
    assert heavy_imports(Source(path, "from http import client"))
    assert not heavy_imports(Source(path, "def tls():\n    import rich"))
    assert not heavy_imports(Source(path, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rich"))
    assert not heavy_imports(Source("minidist/cluster/top.py", "import rich"))


def modules_after(statement: str) -> set[str]:
    """What a fresh interpreter has imported after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("component", COMPONENTS, ids=[component.name for component in COMPONENTS])
def test_a_daemon_starts_without_what_is_heavy(component):
    """The rule above reads single files; this sees what they bring with them."""
    imported = modules_after(f"import minidist.runtime.daemon, {component.module}")
    assert "asyncio" in imported
    assert [name for name in HEAVY if name in imported] == []


def test_the_plugin_costs_a_run_that_does_not_use_it_next_to_nothing():
    ours = modules_after("import pytest, minidist.testing.plugin") - modules_after("import pytest")
    assert [
        name for name in sorted(ours) if name.split(".")[0] in ("asyncio", "uvloop", "msgspec", "msgpack", "redis")
    ] == []
