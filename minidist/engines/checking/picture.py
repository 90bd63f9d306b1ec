"""What the page of a verdict shows, as data: evidence in lanes, and what happened around it.

Events are drawn in the order of the history's lines, not to scale: evidence may lie seconds apart, and what matters is
what came before what. `page` fills the data into the template `check.html`, which draws it and needs nothing else.
"""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from minidist.engines.checking.operation import Operation, describe
from minidist.engines.checking.values import show
from minidist.engines.checking.verdict import Verdict, Violation
from minidist.engines.checking.words import Words, words_for

#: Operations around the evidence that can be shown with it.
MAX_AROUND = 40


def page(template: str, title: str, verdict: Verdict, operations: Sequence[Operation]) -> str:
    """A whole HTML page. `template` has `{{title}}` and `{{data}}`; `operations` are those that were judged."""
    data = json.dumps(picture(title, verdict, operations), ensure_ascii=False, separators=(",", ":"))
    # "</script>" within a string of the data would end the script.
    return template.replace("{{title}}", escape(title)).replace("{{data}}", data.replace("<", "\\u003c"))


def picture(title: str, verdict: Verdict, operations: Sequence[Operation]) -> dict[str, Any]:
    """The data of a page."""
    words = words_for(operations)
    return {
        "title": title,
        "model": verdict.model,
        "judgement": verdict.judgement.value,
        "operations": verdict.operations,
        "outcomes": verdict.outcomes,
        "keys": verdict.keys,
        "found": verdict.found,
        "notes": verdict.notes,
        "gave_up": verdict.gave_up,
        "violations": [_violation(each, operations, words) for each in verdict.violations],
    }


def _violation(violation: Violation, operations: Sequence[Operation], words: Words) -> dict[str, Any]:
    names = violation.names or [""] * len(violation.evidence)
    evidence = [
        _operation(each, words)
        | {"what": violation.what(each), "name": name, "marked": place in violation.marked, "evidence": True}
        for place, (each, name) in enumerate(zip(violation.evidence, names, strict=True))
    ]
    return {
        "name": violation.name,
        "breaks": violation.breaks,
        "headline": violation.headline,
        "reasons": violation.reasons,
        "before": violation.before,
        "smallest": violation.is_smallest,
        "operations": evidence + [_operation(each, words) for each in _around(violation, operations)],
        "arrows": [{"tail": each.tail, "head": each.head, "label": each.label} for each in violation.arrows],
    }


def _operation(operation: Operation, words: Words) -> dict[str, Any]:
    return {
        "process": operation.process,
        "node": operation.node if words.with_nodes else None,
        "key": None if operation.key is None else show(operation.key),
        "what": describe(operation),
        "outcome": operation.outcome.value,
        "began": operation.began,
        "ended": operation.ended,
        "from": words.at(operation.began_ns),
        "to": words.end(operation),
        "error": operation.error,
    }


def _around(violation: Violation, operations: Sequence[Operation]) -> list[Operation]:
    """Operations on the key that overlap the last stretch of the evidence: those nearest to its end."""
    inside = frozenset(each.began for each in violation.evidence)
    last = max(each.ended or each.began for each in violation.evidence)
    near = [
        each
        for each in operations
        if each.key == violation.key and each.began < last and each.began not in inside and each.key is not None
    ]
    return near[-MAX_AROUND:]
