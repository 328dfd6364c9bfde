"""The overlay: one namespace and, by verb family, everything that can be done with it."""

from collections.abc import Sequence

from overlayd.core.access import Access
from overlayd.core.attributes import Attributes
from overlayd.core.data import Data
from overlayd.core.names import Names
from overlayd.core.namespace import Namespace
from overlayd.core.types import Rules
from overlayd.host.sources import Source
from overlayd.table.mount_tree import MountTable


class Overlay:
    """What an adapter serves: `names`, `attributes` and `data` of one `namespace`."""

    def __init__(
        self,
        table: MountTable,
        sources: Sequence[Source],
        rules: Rules | None = None,
        descriptors: int = 1024,
    ) -> None:
        """*descriptors* bounds the cache of open directories, apart from what guests hold open."""
        self.namespace = Namespace(table, sources, rules or Rules(), descriptors)
        self.access = Access(self.namespace)
        self.attributes = Attributes(self.namespace, self.access)
        self.names = Names(self.namespace, self.access, self.attributes)
        self.data = Data(self.namespace, self.access, self.attributes, self.names)
