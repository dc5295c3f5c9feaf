"""The catalog: the service's own data, in its own Postgres database.

Rows in, domain values out; one file per noun. Other packages decide what should change, and what
follows from a change.
"""

from sqlalchemy import select, true

from app.catalog.advisor_settings import StoredAdvisorSettings
from app.catalog.application_credentials import StoredApplicationCredentials
from app.catalog.audit_log import AuditLog
from app.catalog.database import CatalogAddress, Database
from app.catalog.database_requirements import check_tables
from app.catalog.desired_pools import DesiredPools
from app.catalog.instances import Instances
from app.catalog.nodes import Nodes
from app.catalog.password_versions import PasswordVersions
from app.catalog.recommendations import Recommendations
from app.catalog.samples import Samples
from app.catalog.tenants import Tenants
from app.catalog.usage_reports import UsageReports


class Catalog:
    """Everything that outlives the service, by noun.

    It connects at the first operation. Each operation is one transaction with one deadline; it
    raises CatalogUnavailable while the catalog is unreachable. If the response to a commit is lost,
    the commit may have happened; repeating the operation is safe.
    """

    def __init__(
        self, address: CatalogAddress, *, epoch: int | None = None, deadline: float = 3.0
    ) -> None:
        """Use the migrated catalog at *address*, with *deadline* seconds for each operation.

        Write only in *epoch*; see `Database`.
        """
        self._database = Database(address, epoch=epoch, deadline=deadline)
        self.tenants = Tenants(self._database)
        self.pools = DesiredPools(self._database)
        self.password_versions = PasswordVersions(self._database)
        self.application_credentials = StoredApplicationCredentials(self._database)
        self.advisor = StoredAdvisorSettings(self._database)
        self.audit_log = AuditLog(self._database)
        self.recommendations = Recommendations(self._database)
        self.samples = Samples(self._database)
        self.usage_reports = UsageReports(self._database)
        self.instances = Instances(self._database)
        self.nodes = Nodes(self._database)

    @property
    def available(self) -> bool:
        """Whether the last operation reached the catalog; False before the first."""
        return self._database.available

    @property
    def write_problem(self) -> str | None:
        """Why the catalog, which responds, took no write; None from the next one that it takes."""
        return self._database.write_problem

    async def ping(self) -> None:
        """Check whether the catalog answers, and update `available`.

        Raises:
            CatalogUnavailable: it does not.
        """
        async with self._database.reading() as connection:
            await connection.execute(select(true()))

    async def check_tables(self) -> None:
        """Check whether the catalog answers and all its tables can be used; lock none of them.

        Raises:
            CatalogUnavailable: it does not answer.
            CatalogUnusable: a table, a column or a right is missing.
        """
        async with self._database.reading() as connection:
            await connection.run_sync(check_tables)

    async def close(self) -> None:
        await self._database.close()
