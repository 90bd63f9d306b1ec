"""`minidist sim`: the contract's lines, exit codes, bad input, planted bugs."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minidist.cluster import demo
from minidist.sim.campaign import in_other_order
from minidist.sim.command import main

DEMO = str(Path(demo.__file__).with_name("minidist.toml"))
LINE = re.compile(r"seed (\d+) (ok|failed|stuck) trace ([0-9a-f]{64}) steps (\d+) virtual (\d+\.\d{3})")

SCENARIO = """
import asyncio

async def serve(env):
    async def answer(reader, writer):
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", int(env["PORT"]))
    await server.serve_forever()

async def scenario(sim):
    shout = await sim.program(serve, name="shout")
    reader, writer = await asyncio.open_connection(shout.host, shout.port)
    await sim.trial(duration_s=5)
    writer.write(b"hello")
    answer = await reader.read(100)
    writer.close()
    assert answer == b"{answer}"
"""


def run(capsys, *arguments):
    """Exit code, the lines on stdout, the text on stderr."""
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


# What is drawn when the file is imported is not part of the seed.
OTHERWISE_EVERY_TIME = """
import asyncio, os
DELAY_S = int.from_bytes(os.urandom(4), "big") / 1e6

async def scenario(sim):
    await asyncio.sleep(DELAY_S)
"""


@pytest.fixture
def unrepeatable(tmp_path):
    file = tmp_path / "otherwise.py"
    file.write_text(OTHERWISE_EVERY_TIME)
    return str(file)


@pytest.fixture
def scenario(tmp_path):
    file = tmp_path / "loud.py"

    def write(answer="HELLO"):
        file.write_text(SCENARIO.replace("{answer}", answer))
        return str(file)

    return write


@pytest.fixture
def faults_file(tmp_path):
    def write(faults):
        file = tmp_path / "faults.json"
        file.write_text(json.dumps(faults))
        return str(file)

    return write


def test_one_seed_prints_its_line_and_its_trace_twice_the_same(capsys):
    code, lines, _ = run(capsys, DEMO, "--seed", "3", "--faults", "random", "--duration", "10s")
    assert code == 0
    seed, ending, digest, _, virtual = LINE.fullmatch(lines[0]).groups()
    assert (seed, ending) == ("3", "ok")
    assert float(virtual) > 10
    assert lines[1:] == [f"trace {digest}"]
    again = run(capsys, DEMO, "--seed", "3", "--faults", "random", "--duration", "10s")
    assert again[1] == lines


def test_several_seeds_come_in_order_and_end_with_the_hash_of_their_hashes(capsys):
    code, lines, said = run(capsys, DEMO, "--seeds", "1..3", "--faults", "random", "--duration", "3s")
    assert code == 0
    assert [LINE.fullmatch(line).group(1) for line in lines[:-1]] == ["1", "2", "3"]
    digests = "".join(LINE.fullmatch(line).group(3) for line in lines[:-1])
    assert lines[-1] == f"trace {hashlib.sha256(digests.encode()).hexdigest()}"
    assert "s of virtual time" in said
    assert "% info" in said
    assert "faults that fired: " in said


def test_twice_gives_the_same_lines(capsys, scenario):
    once = run(capsys, scenario(), "--seeds", "1..9")
    twice = run(capsys, scenario(), "--seeds", "1..9", "--twice")
    assert once[0] == twice[0] == 0
    assert once[1] == twice[1]


def test_a_seed_that_is_not_the_same_again_has_failed(capsys, unrepeatable, tmp_path):
    code, lines, said = run(capsys, unrepeatable, "--seeds", "1..2", "--twice")
    assert code == 3
    assert [LINE.fullmatch(line).group(2) for line in lines[0:4:2]] == ["failed", "failed"]
    assert lines[1] == f"replay: minidist sim {unrepeatable} --seed 1 --duration 60s --twice"
    assert said.count("not the same run again: ") == 2
    code, _, said = run(capsys, unrepeatable, "--bundle", str(tmp_path / "bundle"))
    assert code == 0
    assert "differs" in said


def test_second_runs_come_after_other_seeds():
    seeds = range(3, 30)
    second = list(in_other_order(seeds))
    assert sorted(second) == list(seeds)
    before = {seed: place for place, seed in enumerate(second)}
    assert sum(before[seed + 1] < before[seed] for seed in seeds[:-1]) > len(seeds) * 3 // 4


def test_seeds_in_which_too_little_happened_are_named(capsys):
    code, _, said = run(capsys, DEMO, "--seeds", "4..5", "--faults", "random", "--duration", "3s")
    assert code == 0
    for seed in (4, 5):
        assert re.search(rf"seed {seed}: too little happened to count: \d+\.\d s simulated, wanted 30", said)
    assert said.endswith("seeds in which too little happened to count: 2\n")


def test_its_processes_end_when_it_is_killed():
    program = "import sys; from minidist.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "sim", DEMO, "--seeds", "1..100", "--faults", "random"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("seed 1 ")
        workers = children_of(process.pid)
        assert workers
        process.kill()
        process.stdout.read()  # until the last process that holds it has ended


def children_of(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_json_is_an_object_per_line(capsys):
    _, lines, _ = run(capsys, DEMO, "--seed", "1", "--duration", "2s", "--json")
    seed, last = map(json.loads, lines)
    assert seed["ending"] == "ok"
    assert seed["operations"]["ok"] > 50
    assert last["trace"] == seed["trace"]


@pytest.mark.parametrize("bug", ["cache-lost-write", "web-mixed-answers"])
def test_a_planted_bug_is_found_and_can_be_replayed(capsys, bug):
    code, lines, said = run(capsys, DEMO, "--seed", "1", "--duration", "30s", "--bug", bug)
    assert code == 3
    assert LINE.fullmatch(lines[0]).group(2) == "failed"
    assert lines[1] == f"replay: minidist sim {DEMO} --seed 1 --duration 30s --bug {bug}"
    assert ("stale" in said or "read" in said) if bug == "cache-lost-write" else "was answered" in said
    assert run(capsys, *lines[1].split()[3:])[1] == lines


def test_the_bugs_are_listed(capsys):
    code, lines, _ = run(capsys, "--list-bugs")
    assert code == 0
    assert any(line.startswith("cache-lost-write ") for line in lines)


def test_a_scenario_in_python(capsys, scenario):
    assert run(capsys, scenario())[0] == 0
    code, lines, said = run(capsys, scenario(answer="hello"))
    assert code == 3
    assert LINE.fullmatch(lines[0]).group(2) == "failed"
    assert "AssertionError" in said


def test_a_faults_file_is_played(capsys, faults_file):
    faults = faults_file(
        [
            {"kind": "kill", "on": "web-1", "at": "2s", "duration": "1s"},
            {"kind": "partition", "sides": [["edge"], ["web-2", "web-3"]], "at": "2s", "duration": "500ms"},
            {"kind": "refuse", "on": "cache", "at": "1h"},
        ]
    )
    code, lines, said = run(capsys, DEMO, "--duration", "8s", "--faults", faults)
    assert code == 0, said
    assert len(lines) == 2
    assert "kill 1" in said
    assert "this fault never took effect: refuse cache" in said


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"kind": "explode", "on": "web-1"}, "kind: given 'explode', allowed: one of partition, delay"),
        ({"kind": "kill", "on": "web-4"}, "on: given 'web-4', allowed: one of web, edge, cache, web-1"),
        ({"kind": "delay", "ms": 5, "on": "web", "peer": "moon"}, "peer: given 'moon', allowed: one of web"),
        ({"kind": "delay", "on": "web"}, "ms: given nothing, allowed: a number that is not negative; delay needs it"),
        ({"kind": "kill", "on": "web", "ms": 3}, "ms: given 3, allowed: for kill one of"),
        ({"kind": "reply", "on": "web", "error": "no"}, "a minidist node"),
        ({"kind": "delay", "ms": 1, "sides": [["web"], ["edge"]]}, "sides: given"),
    ],
)
def test_a_wrong_fault_is_named(capsys, faults_file, fault, complaint):
    code, lines, said = run(capsys, DEMO, "--faults", faults_file([{"kind": "pause", "on": "web"}, fault]))
    assert code == 2
    assert lines == []
    assert "faults[1]: " in said
    assert complaint in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "given no file"),
        (["nothing.toml"], "given 'nothing.toml'"),
        ([DEMO, "--seed", "x"], "--seed: given 'x'"),
        ([DEMO, "--seeds", "5..1"], "--seeds: given '5..1'"),
        ([DEMO, "--seeds", "5"], "--seeds: given '5'"),
        ([DEMO, "--duration", "soon"], "--duration: given 'soon'"),
        ([DEMO, "--faults", "nothing.json"], "--faults: given 'nothing.json'"),
        ([DEMO, "--bug", "none"], "--bug: given 'none', allowed: one of cache-lost-write"),
        ([DEMO, "--sed", "1"], "--sed"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(capsys, arguments, complaint):
    code, lines, said = run(capsys, *arguments)
    assert code == 2
    assert lines == []
    assert complaint in said
    assert len(said.splitlines()) == 1


def test_a_command_without_entry_is_refused(capsys, tmp_path):
    file = tmp_path / "topology.toml"
    file.write_text('[groups.shop]\ncommand = ["shop"]\n')
    code, _, said = run(capsys, str(file))
    assert code == 2
    assert "groups.shop.entry" in said


def test_a_bundle_has_everything(capsys, tmp_path):
    directory = tmp_path / "bundle"
    code, lines, _ = run(
        capsys, DEMO, "--seed", "1", "--duration", "20s", "--bug", "cache-lost-write", "--bundle", str(directory)
    )
    assert code == 3
    assert lines[1].removeprefix("replay: ") in (directory / "replay").read_text()
    assert (directory / "topology.toml").read_text() == Path(DEMO).read_text()
    assert json.loads((directory / "faults.json").read_text()) == []
    assert json.loads((directory / "history.jsonl").read_text().splitlines()[0])["type"] == "invoke"
    assert "running" in (directory / "logs" / "cache-1.log").read_text()
    assert "cache-1      ready" in (directory / "trace.txt").read_text()
    report = (directory / "report.html").read_text()
    assert "SET cache-1/r1 " in report
    assert "http://www.w3.org" in report.replace("http://127", "")
    assert "src=" not in report
    data = json.loads(re.search(r"^const D = (.*);$", report, re.M).group(1))
    assert data["problems"] == [], "the violation says it"
    evidence = data["violations"][0]["evidence"]
    bars = {(host, begins, ends) for host, begins, ends, *_, marked in data["operations"] if marked}
    assert {(each["host"], each["from"], each["to"]) for each in evidence} <= bars
    # The sentences have the times of the picture.
    assert f"({evidence[-1]['from']:.6f} s)" in data["violations"][0]["headline"]


def test_what_is_wrong_is_indented_below_its_seed(capsys):
    _, _, err = run(capsys, DEMO, "--seed", "1", "--duration", "20s", "--bug", "cache-lost-write")
    assert re.match(r"  stale read: .*\n  process \d.*\n  But process", err)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('await sim.component("cach")', "component: given 'cach', allowed: one of cache, balancer"),
        ('(await sim.up("minidist.toml"))["edge-9"]', "node: given 'edge-9', allowed: one of cache, cache-1"),
        ('await sim.up("none.toml")', "none.toml: given 'No such file or directory', allowed: a topology file"),
        ('await sim.program("no_such_module:main")', "given 'no_such_module:main', allowed: a module"),
        ('sim.check("registr")', "model: given 'registr', allowed: one of register, cas-register"),
        ('sim.partition(["x"], [await sim.cache()])', "given 'x', allowed: one of cache, cache-1"),
        ('(await sim.cache()).faults.slowness(ms=5)', "kind: given 'slowness', allowed: one of partition, delay"),
    ],
)  # fmt: skip
def test_names_that_a_scenario_gets_wrong_are_wrong_usage(capsys, tmp_path, monkeypatch, body, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minidist.toml").write_text('name = "one"\n[groups.cache]\ncomponent = "cache"\n')
    (tmp_path / "wrong.py").write_text(f"async def scenario(sim):\n    {body}\n")
    code, out, err = run(capsys, "wrong.py")
    assert (code, out) == (2, [])
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name' ({file}:1)"),
        ("async def scenario(sim)\n    pass", "SyntaxError: expected ':' ({file}:1)"),
        ("\nundefined", "NameError: name 'undefined' is not defined ({file}:2)"),
    ],
)
def test_a_scenario_that_cannot_be_imported_is_wrong_usage(capsys, tmp_path, text, complaint):
    file = tmp_path / "broken.py"
    file.write_text(text)
    code, out, err = run(capsys, str(file))
    assert (code, out) == (2, [])
    assert complaint.format(file=file) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("body", ["1 / 0", "__import__('time').sleep(1)"])
def test_a_stack_begins_in_the_scenario(capsys, tmp_path, body):
    file = tmp_path / "fails.py"
    file.write_text(f"async def scenario(sim):\n    {body}\n")
    code, _, err = run(capsys, str(file))
    assert code == 3
    frames = re.findall(r'File "(.*)", line', err)
    assert frames == [str(file)]
