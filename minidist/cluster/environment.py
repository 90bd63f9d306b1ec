"""What `env` prints and `exec` and `run` set: where the cluster's groups are.

For a group `my-cache`: MY_CACHE_URL, _HOST, _PORT, _ADDRESS of its first node, MY_CACHE_URLS and _BOOTSTRAP of all, and
MY_CACHE_2_URL, _HOST, _PORT, _ADDRESS of each single node.
"""

from typing import TYPE_CHECKING

from minidist.cluster.references import Reference
from minidist.cluster.topology import env_prefix

if TYPE_CHECKING:
    from minidist.cluster.cluster import Cluster

OF_NODE = ("url", "host", "port", "address")
OF_GROUP = ("urls", "bootstrap")


def variables(cluster: "Cluster") -> dict[str, str]:
    """Every variable, in the order of the topology."""
    found = {}
    for group in cluster.groups:
        nodes = cluster.endpoints(group)
        prefix = env_prefix(group)
        for attribute in (*OF_NODE, *OF_GROUP):
            found[f"{prefix}_{attribute.upper()}"] = Reference(group, None, attribute).value(nodes)
        for index in range(len(nodes)):
            for attribute in OF_NODE:
                found[f"{prefix}_{index + 1}_{attribute.upper()}"] = Reference(group, index, attribute).value(nodes)
    return found
