"""Health as a transcript: inputs on one line, the changes they cause on the next."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.balancing import Change, Health, HealthSettings


def health(*names: str, **settings: int) -> Health:
    machine = Health(HealthSettings(**settings))
    for name in names:
        machine.add(name)
    return machine


def said(changes: list[Change]) -> list[str]:
    return [f"{each.name}: {each.before} -> {each.after}" for each in changes]


def states(machine: Health) -> dict[str, str]:
    return {each["name"]: each["state"] for each in machine.snapshot()["upstreams"]}


def fail(machine: Health, name: str, times: int, now_ms: int = 0) -> list[Change]:
    return [change for _ in range(times) for change in machine.outcome(name, False, "reset", now_ms)]


def test_the_first_check_counts_at_once_the_others_by_rise_and_fall() -> None:
    machine = health("a", rise=2, fall=3)
    assert said(machine.checked("a", True, "200")) == ["a: unknown -> up"]
    assert machine.checked("a", False, "500") == []
    assert machine.checked("a", False, "500") == []
    assert said(machine.checked("a", False, "500")) == ["a: up -> down"]
    assert machine.checked("a", True, "200") == []
    assert machine.checked("a", False, "500") == []
    assert machine.checked("a", True, "200") == []
    assert said(machine.checked("a", True, "200")) == ["a: down -> up"]
    assert said(health("b").checked("b", False, "refused")) == ["b: unknown -> down"]


def test_one_good_check_between_bad_ones_starts_the_count_again() -> None:
    machine = health("a", fall=3)
    machine.checked("a", True, "200")
    for ok in (False, False, True, False, False):
        assert machine.checked("a", ok, "") == []
    assert states(machine) == {"a": "up"}


def test_failures_in_a_row_eject_for_a_growing_while() -> None:
    machine = health("a", "b", eject_after=3, eject_base_ms=1000, eject_max_ms=2500)
    assert fail(machine, "a", 2) == []
    machine.outcome("a", True, "", 0)
    assert fail(machine, "a", 2) == []
    assert said(fail(machine, "a", 1)) == ["a: unknown -> ejected"]
    assert machine.next_ms() == 1000
    assert machine.tick(999) == []
    assert said(machine.tick(1000)) == ["a: ejected -> unknown"]
    assert machine.next_ms() is None
    assert said(fail(machine, "a", 3, 1000)) == ["a: unknown -> ejected"]
    assert machine.next_ms() == 3000
    machine.tick(3000)
    fail(machine, "a", 3, 3000)
    assert machine.next_ms() == 5500
    machine.tick(5500)
    fail(machine, "a", 3, 5500 + 2500)
    assert machine.next_ms() == 9000, "a whole eject_max without ejection forgives"


def test_passed_checks_end_an_ejection_early() -> None:
    machine = health("a", "b", eject_after=1, rise=2)
    machine.checked("a", True, "200")
    machine.checked("a", True, "200")
    assert said(fail(machine, "a", 1)) == ["a: up -> ejected"]
    assert machine.checked("a", True, "200") == []
    assert said(machine.checked("a", True, "200")) == ["a: ejected -> up"]


def test_down_outlasts_an_ejection() -> None:
    machine = health("a", "b", eject_after=1, eject_base_ms=10, fall=1)
    machine.checked("a", True, "200")
    fail(machine, "a", 1)
    assert said(machine.checked("a", False, "500")) == ["a: ejected -> down"]
    assert machine.tick(10) == []
    assert said(machine.checked("a", True, "200")) == []
    assert said(machine.checked("a", True, "200")) == ["a: down -> up"]


@pytest.mark.parametrize(
    ("count", "percent", "ejected"), [(1, 100, 1), (1, 50, 0), (2, 10, 1), (4, 50, 2), (10, 30, 3)]
)
def test_not_everybody_is_ejected(count: int, percent: int, ejected: int) -> None:
    names = [str(i) for i in range(count)]
    machine = health(*names, eject_after=1, eject_max_percent=percent)
    for name in names:
        fail(machine, name, 1)
    assert list(states(machine).values()).count("ejected") == ejected


def test_ejection_can_be_off() -> None:
    assert fail(health("a", "b", eject_after=0), "a", 100) == []


def test_the_operator_has_the_last_word() -> None:
    machine = health("a", "b")
    assert said(machine.drain("a")) == ["a: unknown -> draining"]
    assert machine.checked("a", False, "500") == []
    assert said(machine.add("a")) == ["a: draining -> down"]
    assert said(machine.remove("a")) == ["a: down -> "]
    assert machine.checked("a", True, "a late check") == []
    assert machine.outcome("a", False, "a late failure", 0) == []
    assert machine.names() == ["b"]
    for command in (machine.drain, machine.remove):
        with pytest.raises(KeyError):
            command("a")


def test_panic_begins_and_ends_in_sight() -> None:
    machine = health("a", "b", "c", panic_percent=50, fall=1)
    for name in "abc":
        machine.checked(name, True, "200")
    assert said(machine.checked("a", False, "500")) == ["a: up -> down"]
    assert said(machine.checked("b", False, "500")) == ["b: up -> down", ": normal -> panic"]
    assert machine.snapshot()["panic"]
    assert said(machine.drain("b")) == ["b: down -> draining", ": panic -> normal"]


def test_panic_is_off_by_default() -> None:
    machine = health("a")
    assert said(machine.checked("a", False, "500")) == ["a: unknown -> down"]
    assert not machine.snapshot()["panic"]


def test_every_state_says_why() -> None:
    machine = health("a", "b", "c", "d", eject_after=2)
    machine.checked("b", False, "check: 500")
    fail(machine, "c", 2)
    machine.drain("d")
    assert [each["why"] for each in machine.snapshot()["upstreams"]] == [
        "not checked yet", "check: 500", "2 requests in a row failed: reset", "draining on request",
    ]  # fmt: skip


def test_a_snapshot_is_taken_only_when_something_changed() -> None:
    machine = health("a", "b")
    assert machine.take_snapshot() is not None
    assert machine.take_snapshot() is None
    machine.checked("a", True, "200")
    assert machine.take_snapshot() is not None
    machine.checked("a", True, "200")
    machine.outcome("a", True, "", 0)
    assert machine.take_snapshot() is None
    machine.add("a", weight=2)
    assert machine.take_snapshot() is not None


def test_data_halves_learn_who_is_suspect() -> None:
    """So that another worker's success is reported, too, and ends the row of failures."""
    machine = health("a", "b")
    machine.take_snapshot()
    fail(machine, "a", 1)
    taken = machine.take_snapshot()
    assert taken is not None
    assert [each["suspect"] for each in taken["upstreams"]] == [True, False]
    fail(machine, "a", 1)
    assert machine.take_snapshot() is None
    machine.outcome("a", True, "", 0)
    assert machine.take_snapshot() is not None


inputs = st.lists(
    st.tuples(
        st.sampled_from(["check", "outcome", "drain", "add", "remove", "tick"]), st.sampled_from("abcd"), st.booleans()
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(inputs, st.integers(0, 100))
def test_whatever_happens_the_promises_hold(steps: list[tuple[str, str, bool]], percent: int) -> None:
    machine = health("a", "b", "c", eject_after=2, eject_base_ms=10, eject_max_percent=percent)
    shown = states(machine)
    for now_ms, (what, name, ok) in enumerate(steps):
        if what in ("drain", "remove") and name not in machine.names():
            continue
        changes = {
            "check": lambda: machine.checked(name, ok, ""),  # noqa: B023
            "outcome": lambda: machine.outcome(name, ok, "", now_ms),  # noqa: B023
            "drain": lambda: machine.drain(name),  # noqa: B023
            "add": lambda: machine.add(name),  # noqa: B023
            "remove": lambda: machine.remove(name),  # noqa: B023
            "tick": lambda: machine.tick(now_ms),  # noqa: B023
        }[what]()
        for change in changes:  # the changes tell the whole difference
            assert shown.get(change.name, "") == change.before
            if change.after:
                shown[change.name] = change.after
            else:
                del shown[change.name]
        assert shown == states(machine)
        ejected = sum(state == "ejected" for state in shown.values())
        if what == "outcome" and changes:
            assert ejected <= max(len(shown) * percent // 100, 1)
        due_ms = machine.next_ms()
        if what == "tick":
            assert due_ms is None or due_ms > now_ms
