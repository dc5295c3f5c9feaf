"""Credentials of applications: creates, revokes, and finds them when an application connects.

All of them are in memory: they work while the catalog is away, and a revoked one is refused at
once.
"""

import secrets
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from app.catalog.catalog import Catalog
from app.control import audit_events
from app.control.keyed_locks import KeyedLocks
from app.control.operation import Operation, PlanFor
from app.domain.application_credential import (
    MAX_CREDENTIALS,
    SCRAM_ITERATIONS,
    ApplicationCredential,
)
from app.domain.audit import Actor, AuditEvent
from app.domain.errors import (
    CredentialExists,
    CredentialNotFound,
    StrategyNotOnNodes,
    TooManyCredentials,
)
from app.domain.plan import PlanAction, plan_record, plan_step
from app.domain.scram import scram_verifier
from app.domain.tenant import TenantId
from app.pools.manager import TenantPoolManager
from app.pools.tenant_state import TenantState

_PASSWORD_BYTES = 32
# A use within this time after the last one is not noted.
_USE_PRECISION = timedelta(minutes=1)
# The most uses stored in one transaction.
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCredential:
    """A new credential with its password, which cannot be shown again."""

    credential: ApplicationCredential
    password: str = field(repr=False)


class ApplicationCredentials:
    def __init__(self, catalog: Catalog, manager: TenantPoolManager, locks: KeyedLocks) -> None:
        self._catalog = catalog
        self._manager = manager
        self._locks = locks
        # By tenant, then by name.
        self._known: defaultdict[str, dict[str, ApplicationCredential]] = defaultdict(dict)
        # By user: credentials with a use that is not stored yet.
        self._unsaved: dict[str, ApplicationCredential] = {}

    async def load(self) -> None:
        """Load what the catalog has; at start.

        Raises:
            CatalogUnavailable
        """
        for credential in await self._catalog.application_credentials.load():
            self._known[credential.tenant][credential.name] = credential

    def find(self, user: str) -> ApplicationCredential | None:
        """The credential with this user name; None if it is unknown, expired or revoked.

        A new password has a new verifier: a check of one says nothing about another.
        """
        tenant, _, name = user.partition(".")
        found = self._known.get(tenant, {}).get(name)
        state = self._manager.tenants.get(tenant)
        if found is None or state is None or state.tenant.deleting:
            return None
        return None if found.is_expired(datetime.now(UTC)) else found

    def used(self, credential: ApplicationCredential) -> None:
        """Note that an application has just connected with *credential*; this is stored later."""
        now = datetime.now(UTC)
        try:
            known = self.get(credential.tenant, credential.name)
        except CredentialNotFound:
            return
        is_another = known.verifier != credential.verifier
        if is_another or (known.last_used_at and now - known.last_used_at < _USE_PRECISION):
            return
        noted = replace(known, last_used_at=now)
        self._known[noted.tenant][noted.name] = self._unsaved[noted.user] = noted

    async def save_uses(self) -> int:
        """Store when credentials were last used; return the number of those used since.

        Raises:
            CatalogUnavailable
        """
        used = list(self._unsaved.values())
        for first in range(0, len(used), _BATCH):
            batch = used[first : first + _BATCH]
            await self._catalog.application_credentials.save_uses(batch)
            for each in batch:
                if self._unsaved.get(each.user) is each:
                    del self._unsaved[each.user]
        return len(used)

    def of(self, tenant: TenantId) -> list[ApplicationCredential]:
        """The credentials of a tenant by name, expired ones included."""
        known = self._known.get(tenant, {})
        return [known[name] for name in sorted(known)]

    def get(self, tenant: TenantId, name: str) -> ApplicationCredential:
        """A tenant's credential, expired or not.

        Raises:
            CredentialNotFound
        """
        found = self._known.get(tenant, {}).get(name)
        if found is None:
            raise CredentialNotFound(f"Tenant {tenant} has no credential {name}.")
        return found

    def create(
        self, state: TenantState, name: str, actor: Actor, *, expires_at: datetime | None = None
    ) -> Operation[AuditEvent, IssuedCredential]:
        """Create a credential with a new password.

        Raises:
            TenantNotFound, TenantDeleting, StrategyNotOnNodes, CredentialExists,
            TooManyCredentials, CatalogUnavailable
        """
        tenant_id = state.tenant.spec.id

        async def plan() -> PlanFor[AuditEvent]:
            tenant = self._manager.tenants.state(tenant_id).tenant
            spec = tenant.spec
            known = self._known.get(spec.id, {})
            tenant.check_not_deleting()
            if spec.is_shared:
                raise StrategyNotOnNodes(
                    f"Tenant {spec.id} is shared: an application that connects with the role of "
                    f"all shared tenants of server {spec.server} could read other tenants' rows. "
                    "Use the strategy per_tenant or per_database."
                )
            if name in known:
                raise CredentialExists(f"Credential {spec.id}.{name} exists. Revoke it first.")
            if len(known) >= MAX_CREDENTIALS:
                raise TooManyCredentials(
                    f"Tenant {spec.id} has {len(known)} credentials, the maximum. Revoke one first."
                )
            event = audit_events.credential_created(spec.id, name, expires_at, actor)
            return PlanFor.of(event, plan_record(f"credential {spec.id}.{name}", event))

        async def execute(plan: PlanFor[AuditEvent]) -> IssuedCredential:
            password = secrets.token_urlsafe(_PASSWORD_BYTES)
            credential = await self._catalog.application_credentials.save(
                tenant_id,
                name,
                scram_verifier(password, iterations=SCRAM_ITERATIONS),
                expires_at=expires_at,
                event=plan.subject,
            )
            self._known[tenant_id][name] = credential
            return IssuedCredential(credential=credential, password=password)

        lock = partial(self._locks.hold, tenant_id)
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    def revoke(
        self, credential: ApplicationCredential, actor: Actor
    ) -> Operation[ApplicationCredential, ApplicationCredential]:
        """Delete a credential; from then on it is refused.

        Raises:
            CredentialNotFound: it was revoked in the meantime.
            CatalogUnavailable: nothing was done.
        """
        tenant, name = credential.tenant, credential.name

        async def plan() -> PlanFor[ApplicationCredential]:
            current = self.get(tenant, name)
            if current.created_at != credential.created_at:  # another credential with that name
                raise CredentialNotFound(f"Credential {credential.user} was revoked meanwhile.")
            return PlanFor.of(current, plan_step(PlanAction.FORGET, f"credential {current.user}"))

        async def execute(plan: PlanFor[ApplicationCredential]) -> ApplicationCredential:
            event = audit_events.credential_revoked(plan.subject, actor)
            await self._catalog.application_credentials.delete(plan.subject, event=event)
            self._drop(tenant, name)
            return plan.subject

        lock = partial(self._locks.hold, tenant)
        return Operation(plan=plan, execute=execute, lock=lock, needs_catalog=True)

    async def read_in_doubt(self) -> None:
        """Take over revocations whose response was lost, once nobody repeats them any more.

        Raises:
            CatalogUnavailable
        """
        stored = self._catalog.application_credentials
        for each in stored.in_doubt:
            async with self._locks.hold_if_free(each.tenant) as is_free:
                if (
                    is_free
                    and not await stored.has(each)
                    and each.name in self._known.get(each.tenant, {})
                ):
                    self._drop(each.tenant, each.name)

    def _drop(self, tenant: TenantId, name: str) -> None:
        dropped = self._known[tenant].pop(name)
        self._unsaved.pop(dropped.user, None)

    def forget(self, tenant: TenantId) -> None:
        """Drop the credentials of a deleted tenant."""
        for each in self._known.pop(tenant, {}).values():
            self._unsaved.pop(each.user, None)
