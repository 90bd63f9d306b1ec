"""What a file may touch: structures, wire and engines nothing of the world; components the world through runtime only.

The pure layers get their time as an argument and their randomness as an injected `random.Random`, and do nothing whose
outcome depends on the process it happens in: no iteration over a set, no `hash()`, no `id()`. That is what lets the
same code run in a daemon, in a test and in a seeded simulation.

The rules read the syntax tree, so they see names, not values: an honest mistake is found, a determined evasion is not.
"""

import ast
from collections.abc import Iterator

import pytest
from source_reader import PURE_LAYERS, TOOLS, Source, no_findings, package

# What a pure file may import beside minidist itself. An addition is a decision: nothing here may reach the world.
PURE_MODULES = frozenset(
    "__future__ abc array base64 binascii bisect codecs collections contextlib copy dataclasses datetime decimal enum"
    " fractions functools hashlib heapq hmac html importlib ipaddress itertools json math numbers operator random re"
    " string struct sys textwrap types typing unicodedata urllib.parse weakref zlib"
    " cramjam crc32c dns google_crc32c hiredis hpack httptools lupa mmh3 msgpack msgspec sortedcontainers".split()
)

# Doors to the world that only runtime and the tools may open.
WORLD_MODULES = frozenset(
    "ctypes fcntl glob http.client io.open mmap multiprocessing os pathlib pty resource secrets select selectors shutil"
    " signal socket socketserver sqlite3 ssl subprocess tempfile termios threading time urllib.request uuid".split()
)

WORLD_CALLS = frozenset("open input print exec eval breakpoint __import__".split())
DESCRIPTOR_CALLS = frozenset("fileno detach add_reader add_writer remove_reader remove_writer".split())
EXECUTOR_CALLS = frozenset("run_in_executor to_thread".split())
CLOCK_CALLS = frozenset("now utcnow today".split())
PER_PROCESS_CALLS = frozenset("hash id".split())

# Calls whose result does not depend on the order in which they see a set's elements.
ORDER_FREE = frozenset("all any bool frozenset len max min set sorted sum".split())
ORDERED = frozenset("enumerate filter iter list map next reversed tuple zip".split())


def is_pure(source: Source) -> bool:
    return source.layer in PURE_LAYERS


def is_guarded(source: Source) -> bool:
    return source.layer in (*PURE_LAYERS, "components")


def within(name: str, modules: frozenset[str]) -> bool:
    """Whether an imported name is one of the modules or lies below one."""
    parts = name.split(".")
    return any(".".join(parts[:count]) in modules for count in range(1, len(parts) + 1))


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str, bool]]:
    """Every call as (node, name, whether it is a method or a module's function)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node, node.func.id, False
            elif isinstance(node.func, ast.Attribute):
                yield node, node.func.attr, True


def impure_imports(source: Source) -> list[str]:
    if not is_pure(source):
        return []
    return [
        source.at(node, f"a pure layer may not import {name}")
        for node, name in source.imports()
        if name.split(".")[0] != "minidist" and not within(name, PURE_MODULES)
    ]


def world_imports(source: Source) -> list[str]:
    if source.layer != "components":
        return []
    return [
        source.at(node, f"{name} belongs to runtime: use the port that the node was given")
        for node, name in source.imports()
        if within(name, WORLD_MODULES)
    ]


def world_calls(source: Source) -> list[str]:
    """Files, output and evaluation in guarded layers; sock_*, descriptors and executors there too."""
    if not is_guarded(source):
        return []
    found = []
    for node, name, is_attribute in calls(source.tree):
        if not is_attribute and name in WORLD_CALLS:
            found.append(source.at(node, f"{name}() belongs to runtime"))
        elif is_attribute and (name.startswith("sock_") or name in DESCRIPTOR_CALLS):
            found.append(source.at(node, f"{name}() works on descriptors, which belong to runtime"))
        elif name in EXECUTOR_CALLS:
            found.append(source.at(node, f"{name}() needs a thread: only Disk has those"))
    return found


def hidden_clocks_and_dice(source: Source) -> list[str]:
    """`datetime.now()` and the shared generator of `random`; `random.Random` itself is how randomness is injected."""
    if not is_guarded(source):
        return []
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            names = [alias.name for alias in node.names if alias.name != "Random"]
            found += [source.at(node, f"random.{name} is not seeded: use the injected Random") for name in names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "random" and node.attr != "Random":
                if any(name == "random" for _, name in source.imports()):
                    found.append(source.at(node, f"random.{node.attr} is not seeded: use the injected Random"))
            elif node.value.id in ("datetime", "date") and node.attr in CLOCK_CALLS:
                found.append(source.at(node, f"{node.value.id}.{node.attr} reads the clock: take now_ms"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("Random", "random.Random") and not node.args:
            found.append(source.at(node, "Random() without a seed"))
    return found


def per_process_values(source: Source) -> list[str]:
    """hash() and id() differ from process to process; a __hash__ method may call hash()."""
    if not is_pure(source):
        return []
    hash_methods = [n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef) and n.name == "__hash__"]
    excused = {node for method in hash_methods for node in ast.walk(method)}
    return [
        source.at(node, f"{name}() differs from process to process")
        for node, name, is_attribute in calls(source.tree)
        if not is_attribute and name in PER_PROCESS_CALLS and node not in excused
    ]


class SetOrder(ast.NodeVisitor):
    """Finds uses of a set that depend on its order. A set is a display, set(), or a name annotated or assigned so."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings: list[str] = []
        self.sets: list[set[str]] = [set()]
        self.attributes = self._set_attributes(source.tree)

    @staticmethod
    def _set_attributes(tree: ast.AST) -> set[str]:
        """Names of attributes that some class of the file declares or assigns as a set."""
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and is_set_type(node.annotation):
                found.add(target_name(node.target))
            elif isinstance(node, ast.Assign) and is_set_display(node.value):
                found.update(target_name(target) for target in node.targets if isinstance(target, ast.Attribute))
        return found - {""}

    def is_set(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return any(node.id in scope for scope in self.sets)
        if isinstance(node, ast.Attribute):
            return node.attr in self.attributes
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
            return self.is_set(node.left)
        return is_set_display(node)

    def complain(self, node: ast.AST, how: str) -> None:
        self.findings.append(self.source.at(node, f"{how} a set: the order differs from process to process; sort it"))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        scope = {argument.arg for argument in arguments if argument.annotation and is_set_type(argument.annotation)}
        for inner in ast.walk(node):
            if (
                isinstance(inner, ast.AnnAssign)
                and isinstance(inner.target, ast.Name)
                and is_set_type(inner.annotation)
            ):
                scope.add(inner.target.id)
            elif isinstance(inner, ast.Assign) and is_set_display(inner.value):
                scope.update(target.id for target in inner.targets if isinstance(target, ast.Name))
        self.sets.append(scope)
        self.generic_visit(node)
        self.sets.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_For(self, node: ast.For) -> None:
        if self.is_set(node.iter):
            self.complain(node, "a loop over")
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if self.is_set(node.value):
            self.complain(node, "unpacking")
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        if any(self.is_set(generator.iter) for generator in node.generators):
            self.complain(node, "a comprehension over")
        self.generic_visit(node)

    visit_DictComp = visit_GeneratorExp = visit_ListComp  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "pop" and not node.args and self.is_set(node.func.value):
                self.complain(node, "pop() from")
            if node.func.attr in ("join", "extend") and node.args and self.is_set(node.args[0]):
                self.complain(node, f"{node.func.attr}() of")
        if name in ORDERED and any(self.is_set(argument) for argument in node.args):
            self.complain(node, f"{name}() of")
        if name in ORDER_FREE and len(node.args) == 1 and isinstance(node.args[0], ast.GeneratorExp | ast.ListComp):
            for child in ast.iter_child_nodes(node.args[0]):
                self.visit(child)
            return
        self.generic_visit(node)


def target_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_set_type(annotation: ast.AST) -> bool:
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return target_name(base) in ("set", "frozenset", "Set", "AbstractSet", "MutableSet")


def is_set_display(node: ast.AST) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")


def order_of_sets(source: Source) -> list[str]:
    if not is_pure(source):
        return []
    visitor = SetOrder(source)
    visitor.visit(source.tree)
    return visitor.findings


RULES = (
    impure_imports,
    world_imports,
    world_calls,
    hidden_clocks_and_dice,
    per_process_values,
    order_of_sets,
)


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps_the_rule(rule):
    no_findings(finding for source in package() for finding in rule(source))


BROKEN = [
    (impure_imports, "import asyncio"),
    (impure_imports, "import time"),
    (impure_imports, "from os import path"),
    (impure_imports, "def f():\n    import logging"),
    (impure_imports, "from http import client"),
    (world_calls, "def f(): return open('x')"),
    (world_calls, "print('x')"),
    (hidden_clocks_and_dice, "import random\nx = random.choice([1, 2])"),
    (hidden_clocks_and_dice, "from random import shuffle"),
    (hidden_clocks_and_dice, "import random\nrng = random.Random()"),
    (hidden_clocks_and_dice, "from datetime import datetime\nx = datetime.now()"),
    (per_process_values, "def slot(key): return hash(key) % 16"),
    (per_process_values, "def name(node): return id(node)"),
    (order_of_sets, "for x in {1, 2}: f(x)"),
    (order_of_sets, "def f(nodes: set[str]): return [n for n in nodes]"),
    (order_of_sets, "def f():\n    nodes = set()\n    return list(nodes)"),
    (order_of_sets, "def f(nodes: frozenset[str]): return next(iter(nodes))"),
    (order_of_sets, "class A:\n    def __init__(self): self.up = set()\n    def pick(self): return self.up.pop()"),
    (order_of_sets, "class A:\n    up: set[str]\n    def all(self): return ','.join(self.up)"),
    (order_of_sets, "def f(a: set[int], b: set[int]):\n    for x in a - b: g(x)"),
]


@pytest.mark.parametrize(("rule", "text"), BROKEN)
def test_what_breaks_a_rule_of_the_pure_layers_is_found(rule, text):
    assert len(rule(Source("minidist/engines/x.py", text))) == 1


FINE = [
    "import random\ndef f(rng: random.Random): return rng.choice([1, 2])",
    "from random import Random",
    "import struct, hashlib\nfrom collections import OrderedDict\nfrom minidist.structures import lru",
    "class Key:\n    def __hash__(self): return hash(self.name)",
    "def f(nodes: set[str]): return sorted(nodes)",
    "def f(nodes: set[str]): return sum(1 for n in nodes), len(nodes), 'a' in nodes",
    "def f(nodes: list[str]): return [n for n in nodes]",
    "from datetime import datetime\nx = datetime.fromtimestamp(0)",
]


@pytest.mark.parametrize("text", FINE)
def test_what_is_allowed_in_the_pure_layers_is_not_reported(text):
    assert [finding for rule in RULES for finding in rule(Source("minidist/wire/x.py", text))] == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (world_imports, "import time"),
        (world_imports, "from os import environ"),
        (world_imports, "def f():\n    import socket"),
        (world_calls, "async def f(loop, s): await loop.sock_recv(s, 1)"),
        (world_calls, "def f(t): return t.get_extra_info('socket').fileno()"),
        (world_calls, "async def f(): await asyncio.to_thread(g)"),
        (hidden_clocks_and_dice, "import random\nx = random.random()"),
    ],
)
def test_what_breaks_a_rule_of_the_components_is_found(rule, text):
    assert len(rule(Source("minidist/components/cache/server.py", text))) == 1


@pytest.mark.parametrize("layer", ["runtime", *TOOLS])
def test_runtime_and_tools_may_touch_the_world(layer):
    source = Source(f"minidist/{layer}/x.py", "import os, time\nx = open('y')")
    assert [finding for rule in RULES for finding in rule(source)] == []
