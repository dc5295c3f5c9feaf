"""The nodes' liabilities in the catalog, which the next leader of the service counts, too."""

import structlog

from app.catalog.catalog import Catalog
from app.catalog.nodes import Liabilities
from app.domain.errors import CatalogUnavailable

_log = structlog.get_logger(__name__)


class StoredLiabilities:
    """The most connections of each server that each node can have, according to the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._stored: dict[tuple[str, str], int] = {}

    async def load(self) -> Liabilities:
        """Load those that an earlier leader has stored.

        Raises:
            CatalogUnavailable
        """
        self._stored = dict(await self._catalog.nodes.load_liabilities())
        return self._stored

    def of(self, node: str, server: str) -> int:
        """The least value that the catalog has now."""
        return self._stored.get((node, server), 0)

    def forget(self, node: str) -> None:
        """Note that *node* was deleted, along with its stored liabilities."""
        self._stored = {key: value for key, value in self._stored.items() if key[0] != node}

    async def save(self, liabilities: Liabilities) -> bool:
        """Store them.

        Returns whether the catalog was reached. While it is away, it is not asked.
        """
        if not self._catalog.available:
            return False
        # Until the catalog has answered, it may have either value.
        for (node, server), connections in liabilities.items():
            self._stored[node, server] = min(connections, self.of(node, server))
        try:
            await self._catalog.nodes.save_liabilities(liabilities)
        except CatalogUnavailable as error:
            _log.warning("no node gets more connections", reason=error.detail)
            return False
        self._stored.update(liabilities)
        return True
