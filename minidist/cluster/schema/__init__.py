"""The JSON Schema of the topology file, published as `topology.json` beside this file, for editors and other tools.

It is made from the same tables as the launcher's own checks, and from each component's Config; a test compares. After a
change of either: `python -m minidist.cluster.schema`. It says what single values look like. What values say about each
other (names that exist, cycles, one port for two nodes) only the launcher checks.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minidist.cluster.keys import GROUP_KEYS, GROUP_NAME, LINK_KEYS, TOP_KEYS, Key
from minidist.cluster.topology import ADDRESS_OPTIONS, LAUNCHER_OPTIONS
from minidist.runtime.config import KINDS, Config, Duration, Option, Size, options_of

FILE = Path(__file__).with_name("topology.json")
Schema = dict[str, Any]


def topology_schema() -> Schema:
    """The whole schema (draft 2020-12)."""
    from minidist.components import NAMES, config_type

    components = [_component(name, config_type(name)) for name in NAMES]
    properties = _properties(TOP_KEYS)
    properties["groups"] |= {
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{GROUP_NAME.pattern}$"},
        "additionalProperties": {"oneOf": [{"$ref": "#/$defs/program"}, *({"$ref": _place(name)} for name in NAMES)]},
    }
    properties["links"] |= {"items": {"$ref": "#/$defs/link"}}
    link = _table("A delay between two regions.", LINK_KEYS) | {"required": ["between", "latency_ms"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "minidist topology",
        "type": "object",
        "properties": properties,
        "required": ["groups"],
        "additionalProperties": False,
        "$defs": {"program": _program(), **dict(zip(map(_key, NAMES), components, strict=True)), "link": link},
    }


def text() -> str:
    """The schema as it is published."""
    return json.dumps(topology_schema(), indent=2) + "\n"


def _key(component: str) -> str:
    return f"component-{component}"


def _place(component: str) -> str:
    return f"#/$defs/{_key(component)}"


def _properties(keys: Mapping[str, Key]) -> Schema:
    return {name: {**key.schema, "description": key.summary} for name, key in keys.items()}


def _table(description: str, keys: Mapping[str, Key]) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": _properties(keys),
        "additionalProperties": False,
    }


def _program() -> Schema:
    keys = {name: key for name, key in GROUP_KEYS.items() if key.of != "component"}
    wanted = {"anyOf": [{"required": ["command"]}, {"required": ["entry"]}]}
    return _table("A group of the user's own program.", keys) | wanted


def _component(name: str, config_type: type[Config]) -> Schema:
    keys = {key: each for key, each in GROUP_KEYS.items() if each.of != "program"}
    table = _table(f"A group of minidist's {name}.", keys) | {"required": ["component"]}
    options: Schema = {"config": {"type": "string", "description": "A TOML file of options; the keys here beat it."}}
    for option in options_of(config_type).values():
        if option.name not in (*LAUNCHER_OPTIONS, *keys):
            options[option.name] = _option(option)
    table["properties"] = table["properties"] | options
    table["properties"]["component"] = {"const": name}
    return table


def _option(option: Option) -> Schema:
    schema: Schema = {"description": option.summary}
    single = _value(option)
    if option.is_list:
        schema["anyOf"] = [{"type": "string"}, {"type": "array", "items": single}]
    else:
        schema |= single
    if option.name in ADDRESS_OPTIONS:
        schema["description"] += " A group or node may be named instead."
    default = option.show(option.default)
    return schema | ({"default": default} if default else {})


def _value(option: Option) -> Schema:
    """One value: text is always taken; numbers and booleans where the kind has them."""
    if option.kind is KINDS[bool]:
        return {"type": ["boolean", "string"]}
    if option.kind in (KINDS[int], KINDS[float]):
        limits = {"minimum": option.minimum, "maximum": option.maximum}
        number = "integer" if option.kind is KINDS[int] else "number"
        return {"type": [number, "string"]} | {key: limit for key, limit in limits.items() if limit is not None}
    if option.kind in (KINDS[Size], KINDS[Duration]):
        return {"type": ["string", "integer"]}
    if option.kind not in KINDS.values():  # a choice
        return {"enum": option.kind.metavar.split("|")}
    return {"type": "string"}
