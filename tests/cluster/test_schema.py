"""The published JSON Schema is what the tables and the components' options say now."""

from minidist.cluster.schema import FILE, text, topology_schema


def test_the_published_file_is_current():
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m minidist.cluster.schema"


def test_groups_are_programs_or_components():
    definitions = topology_schema()["$defs"]
    assert definitions["program"]["properties"]["replicas"]["maximum"] == 256
    cache = definitions["component-cache"]
    assert cache["properties"]["component"] == {"const": "cache"}
    assert cache["properties"]["max_memory"]["type"] == ["string", "integer"]
    assert "peers" not in cache["properties"]
    assert "ready" not in cache["properties"]
