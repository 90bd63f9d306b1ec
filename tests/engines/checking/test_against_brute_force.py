"""Small histories of every model, right ones and falsified ones, judged also by trying all orders.

The brute force shares nothing with the checkers: it knows the definition of linearizability and nothing else. What the
checkers give as evidence is judged by it as well: it must be a violation by itself.
"""

import random

import msgspec
from checking import Shape, history
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.engines.checking import Budget, Judgement, Outcome, check
from minidist.engines.checking.history import read
from minidist.engines.checking.models import Kind, Values, counter_steps, register_steps
from minidist.engines.checking.plain import attempt
from minidist.engines.checking.search import EFFORTS, search

IMPOSSIBLE = object()


def register(state, operation):
    if operation.f == "read":
        return state if operation.result == state else IMPOSSIBLE
    if operation.f == "write":
        return operation.argument
    old, new = operation.argument
    return new if old == state else IMPOSSIBLE


def counter(state, operation):
    if operation.f == "add":
        return state + operation.argument
    return state if (operation.result or 0) == state else IMPOSSIBLE


def growing_set(state, operation):
    if operation.f == "add":
        return state | {operation.argument}
    values = operation.result or []
    return state if len(values) == len(set(values)) and state == set(values) else IMPOSSIBLE


OBJECTS = {
    "register": (register, None),
    "cas-register": (register, None),
    "counter": (counter, 0),
    "set": (growing_set, frozenset()),
}


def is_linearizable(operations, model) -> bool:
    """By trying all orders in which no operation comes after one that began when it had ended."""
    apply, initial = OBJECTS[model]

    def possible(left, state) -> bool:
        if not any(each.is_ok for each in left):
            return True
        for each in left:
            if any(other.is_ok and other.ended < each.began for other in left):
                continue
            after = apply(state, each)
            if after is not IMPOSSIBLE and possible([other for other in left if other is not each], after):
                return True
        return False

    relevant = [each for each in operations if each.may_have_happened and (each.is_ok or each.f != "read")]
    return possible(relevant, initial)


@st.composite
def histories(draw):
    """A model and a history of it: up to eight operations of up to four clients, up to two answers falsified."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    model = draw(st.sampled_from(sorted(OBJECTS)))
    shape = Shape(
        model,
        operations=rng.randint(3, 8),
        clients=rng.randint(2, 4),
        values=rng.choice([0, 2, 3]),
        info=rng.choice([0, 0.2, 0.4]),
        reads=rng.choice([0.3, 0.6]),
        overlap=rng.choice([0.2, 1]),
    )
    operations = read(history(shape, rng.randrange(2**32)))
    for _ in range(rng.randint(0, 2)):
        place = rng.randrange(len(operations))
        operations[place] = falsified(operations[place], model, rng)
    return model, operations


def falsified(operation, model, rng):
    if operation.f == "read" and operation.is_ok:
        values = set(operation.result or []) if model == "set" else set()
        result = sorted(values ^ {rng.randint(0, 3)}) if model == "set" else rng.choice([None, 0, 1, 2, 3])
        return msgspec.structs.replace(operation, result=result)
    if operation.ended is None:
        return operation
    return msgspec.structs.replace(operation, outcome=rng.choice(list(Outcome)))


@given(histories())
@settings(max_examples=200)
def test_all_checkers_agree_with_all_orders(case):
    model, operations = case
    verdict = check(operations, model)
    expected = is_linearizable(operations, model)
    assert verdict.judgement is (Judgement.HOLDS if expected else Judgement.VIOLATED)
    for violation in verdict.violations:
        if not violation.before and model in ("register", "cas-register"):
            assert not is_linearizable(violation.evidence, model), "the evidence alone must be a violation"


@given(histories())
@settings(max_examples=100)
def test_the_search_agrees_with_the_plain_algorithm(case):
    """Also where the quick checkers would have answered: without them, at once with all configurations or in steps."""
    model, operations = case
    if model == "set":
        return
    steps = counter_steps(operations) if model == "counter" else register_steps(operations, Values())
    plain = attempt(steps, Budget())
    assert (search(steps, Budget()) is None) == plain.linearizable
    if plain.linearizable:
        assert all(step in plain.order for step in steps if step.must)


@given(histories(), st.integers(0, 2**32))
@settings(max_examples=200)
def test_the_search_agrees_also_on_what_the_shrinking_makes(case, seed):
    """Operations that happened before their end or not at all, and several states to begin with."""
    model, operations = case
    if model == "set":
        return
    rng = random.Random(seed)
    steps = counter_steps(operations) if model == "counter" else register_steps(operations, Values())
    steps = [
        msgspec.structs.replace(step, must=False) if step.kind is not Kind.READ and rng.random() < 0.3 else step
        for step in steps
    ]
    initial = tuple(rng.sample([0, 1, 2, 3], rng.randint(1, 2)))
    expected = attempt(steps, Budget(), initial).linearizable
    assert (search(steps, Budget(), initial) is None) == expected
    assert (search(steps, Budget(), initial, trail=True) is None) == expected


@given(st.integers(0, 2**32), st.sampled_from(["register", "cas-register", "counter", "set"]), st.sampled_from([0, 3]))
@settings(max_examples=40)
def test_what_a_correct_object_did_holds(seed, model, values):
    """Longer histories than all orders could be tried of."""
    operations = read(history(Shape(model, 150, keys=2, clients=6, values=values, info=0.05), seed))
    assert check(operations, model).judgement is Judgement.HOLDS


def test_a_narrow_search_is_followed_by_a_wide_one():
    """The first attempt uses the fewest optional operations, which here is a dead end: 5, where 2 + 3 is needed."""
    assert EFFORTS[-1] is None
    events = [(0, 5), (1, 2), (2, 3)]
    lines = [
        f'{{"process":{process},"type":"{type_}","f":"add","key":"k","value":{amount},"time":0}}'
        for process, amount in events
        for type_ in ("invoke", "info")
    ]
    for number, value in enumerate((5, 10)):
        lines += [
            f'{{"process":{9 + number},"type":"invoke","f":"read","key":"k","time":0}}',
            f'{{"process":{9 + number},"type":"ok","f":"read","key":"k","value":{value},"time":0}}',
        ]
    assert search(counter_steps(read(lines)), Budget()) is None
