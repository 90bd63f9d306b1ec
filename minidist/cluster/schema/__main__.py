"""Write topology.json anew: `python -m minidist.cluster.schema`."""

from minidist.cluster.schema import FILE, text

FILE.write_text(text(), encoding="utf-8")
