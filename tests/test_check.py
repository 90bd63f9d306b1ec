"""`minidist check`: exit codes, words, JSON, and the page."""

import json
import re

import pytest

from minidist.check import main

STALE = [
    {"process": 1, "type": "invoke", "f": "write", "key": "cart", "value": 1, "time": 0, "node": "store-1"},
    {"process": 1, "type": "ok", "f": "write", "key": "cart", "value": 1, "time": 2_000_000, "node": "store-1"},
    {"process": 2, "type": "invoke", "f": "write", "key": "cart", "value": 2, "time": 3_000_000},
    {"process": 2, "type": "ok", "f": "write", "key": "cart", "value": 2, "time": 4_000_000},
    {"process": 4, "type": "invoke", "f": "write", "key": "cart", "value": "</script>", "time": 4_500_000},
    {"process": 3, "type": "invoke", "f": "read", "key": "cart", "time": 5_000_000},
    {"process": 3, "type": "ok", "f": "read", "key": "cart", "value": 1, "time": 6_000_000},
    {"process": 4, "type": "info", "f": "write", "key": "cart", "time": 7_000_000, "error": "timed out"},
]


@pytest.fixture
def written(tmp_path):
    """The path of a history with these lines."""

    def write(*events):
        path = tmp_path / "history.jsonl"
        lines = (event if isinstance(event, str) else json.dumps(event) for event in events)
        path.write_text("".join(f"{line}\n" for line in lines))
        return str(path)

    return write


def test_it_holds(written, capsys):
    assert main([written(*STALE[:4]), "--model", "register"]) == 0
    assert capsys.readouterr().out == "register: holds (2 operations: 2 ok, 0 fail, 0 info)\n"


def test_an_empty_history_holds_and_is_said_to_be_empty(written, capsys):
    for model in ("register", "cas-register", "counter", "set", "list-append", "log", "convergence"):
        assert main([written(), "--model", model]) == 0
        captured = capsys.readouterr()
        assert "holds (0 operations" in captured.out
        assert "no operations: nothing was judged" in captured.err


def test_it_does_not_hold(written, capsys):
    assert main([written(*STALE), "--model", "register"]) == 3
    out = capsys.readouterr().out
    assert "register: violated (4 operations: 3 ok, 0 fail, 1 info)" in out
    assert "process 3 read 1 at 0.006000 s although the write of 2 by process 2 had completed" in out
    assert "this breaks linearizability (stale read)" in out
    assert re.search(r"line 6-7 +0.005000 s to 0.006000 s +process 3 +read → 1 +ok", out)
    assert "timed out" not in out, "the write in doubt is no part of the evidence"


def test_nodes_are_named_where_there_are_several(written, capsys):
    assert main([written(*STALE), "--model", "register"]) == 3
    assert "process 1's write 1 on store-1 had ended (0.002000 s) before process 2's" in capsys.readouterr().out
    assert main([written(*(each | {"node": "store-1"} for each in STALE)), "--model", "register"]) == 3
    assert "process 1's write 1 had ended (0.002000 s) before process 2's" in capsys.readouterr().out


def test_moments_are_those_of_the_lines_unless_the_clock_is_old(written, capsys):
    for began_ns, shown in ((10**9, "1.006000 s"), (1_700_000_000 * 10**9, "0.006000 s")):
        assert (
            main([written(*(each | {"time": each["time"] + began_ns} for each in STALE)), "--model", "register"]) == 3
        )
        assert f"process 3 read 1 at {shown} although" in capsys.readouterr().out


def test_json(written, capsys):
    assert main([written(*STALE), "--model", "register", "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["judgement"] == "violated"
    assert verdict["outcomes"] == {"ok": 3, "fail": 0, "info": 1}
    (violation,) = verdict["violations"]
    assert violation["key"] == "cart"
    assert [each["lines"] for each in violation["evidence"]] == [[1, 2], [3, 4], [6, 7]]
    assert violation["evidence"][0] == {
        "name": "", "lines": [1, 2], "began_ns": 0, "ended_ns": 2_000_000, "process": 1, "node": "store-1",
        "outcome": "ok", "what": "write 1",
    }  # fmt: skip


def test_the_page_is_complete_in_itself(written, tmp_path):
    page = tmp_path / "evidence.html"
    assert main([written(*STALE), "--model", "register", "--html", str(page)]) == 3
    text = page.read_text()
    assert "{{" not in text
    assert not re.search(r"(src|href)=|url\(|@import|fetch\(", text.replace("url(#head)", ""))
    assert text.count("</script>") == 1, "a value cannot end the script"
    data = json.loads(re.search(r"^const D = (.*);$", text, re.M).group(1))
    assert data["judgement"] == "violated"
    operations = data["violations"][0]["operations"]
    assert [each.get("marked") for each in operations] == [False, False, True, None]
    assert [each["what"] for each in operations] == ["write 1", "write 2", "read → 1", 'write "</script>"']
    assert data["violations"][0]["arrows"] == [
        {"tail": 0, "head": 1, "label": "had ended before"},
        {"tail": 1, "head": 2, "label": "had ended before"},
    ]


def test_a_page_of_a_history_that_holds(written, tmp_path):
    page = tmp_path / "evidence.html"
    assert main([written(*STALE[:4]), "--model", "register", "--html", str(page)]) == 0
    assert '"judgement":"holds"' in page.read_text()


def test_standard_input(written, monkeypatch, capsys):
    with open(written(*STALE), "rb") as file:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": file}))
        assert main(["-", "--model", "register"]) == 3


def test_the_budget(written, capsys):
    """Additions of which no two sums are equal, and two reads that no order of them explains."""
    events = [
        {"process": number, "type": "invoke", "f": "add", "key": "k", "value": 3**number, "time": 0}
        for number in range(30)
    ]
    for number, value in enumerate((3**29 + 5, 3**29 + 3**28 + 5)):
        events.append({"process": 90 + number, "type": "invoke", "f": "read", "key": "k", "time": 0})
        events.append({"process": 90 + number, "type": "ok", "f": "read", "key": "k", "value": value, "time": 0})
    assert main([written(*events), "--model", "counter", "--budget", "100ms"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("counter: unknown (32 operations")
    assert 'not decided: key "k": time is up (32 operations)' in out


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([*STALE[:2], "not json"], "history.jsonl: line 3: not JSON"),
        ([STALE[1]], "history.jsonl: line 1: ok without invoke"),
        ([STALE[0] | {"time": 9}, STALE[1] | {"time": 8}], "line 2: time runs backwards: 8 after the 9 of line 1"),
        ([STALE[0] | {"f": "send", "value": {"value": 1}}], "line 1: the model register has no send, allowed: read"),
    ],
)  # fmt: skip
def test_a_history_that_cannot_be_read_is_exit_1(written, capsys, events, message):
    assert main([written(*events), "--model", "register"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_files_that_are_not_there_are_exit_1(written, tmp_path, capsys):
    assert main([str(tmp_path / "none.jsonl"), "--model", "set"]) == 1
    assert capsys.readouterr().err == f"minidist check: {tmp_path}/none.jsonl: No such file or directory\n"
    page = tmp_path / "none" / "page.html"
    assert main([written(*STALE), "--model", "register", "--html", str(page)]) == 1
    captured = capsys.readouterr()
    assert "register: violated" in captured.out, "the verdict is told all the same"
    assert captured.err == f"minidist check: --html: {page}: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--model", "graph"], "--model: given 'graph', allowed: one of register, cas-register, counter, set"),
        (["x", "--model", "set", "--budget", "5"], "--budget: given '5', allowed: a duration"),
        (["x"], "the following arguments are required: --model"),
        (["x", "--model", "set", "--bugdet", "5s"], "unrecognized arguments: --bugdet 5s"),
        ([], "the following arguments are required: HISTORY, --model"),
    ],
)
def test_wrong_usage_is_exit_2(capsys, arguments, message):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "Exit code 0: it holds" in capsys.readouterr().out
