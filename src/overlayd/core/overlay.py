"""The overlay: one namespace and, by verb family, everything that can be done with it."""

from collections.abc import Sequence

from overlayd.core.access import Access
from overlayd.core.assembly import Survey, assemble, find_kept, survey
from overlayd.core.attributes import Attributes
from overlayd.core.data import Data
from overlayd.core.listings import Listings
from overlayd.core.names import Names
from overlayd.core.namespace import Namespace
from overlayd.core.remount import Outdated, remount
from overlayd.core.types import Rules
from overlayd.host.sources import Source
from overlayd.table.mount_tree import MountTable


class Overlay:
    """What an adapter serves: `names`, `listings`, `attributes` and `data` of one `namespace`."""

    def __init__(
        self,
        table: MountTable,
        sources: Sequence[Source],
        rules: Rules | None = None,
        descriptors: int = 1024,
    ) -> None:
        """*descriptors* bounds the cache of open directories, apart from what guests hold open."""
        self.namespace = Namespace(survey(table, sources), rules or Rules(), descriptors)
        self.access = Access(self.namespace)
        self.attributes = Attributes(self.namespace, self.access)
        self.names = Names(self.namespace, self.access, self.attributes)
        self.listings = Listings(self.namespace, self.attributes, self.names)
        self.data = Data(self.namespace, self.access, self.attributes, self.names)

    def remount(self, wanted: Survey) -> Outdated:
        """Go by another table from now on; what the kernel must forget for that. Does no I/O."""
        kept = find_kept(self.namespace.assembly, wanted.sources)
        return remount(self.namespace, assemble(wanted, kept))

    def settle(self) -> Outdated:
        """The same for what was noted by requests that were under way when the table changed."""
        return remount(self.namespace, self.namespace.assembly)
