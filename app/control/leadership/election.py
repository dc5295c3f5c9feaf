"""Election: how an instance becomes active, stays active, and stops being active.

The rules are in `app.domain.leadership`. Renewal has its own loop: nothing else in the service can
delay it, except a blocked event loop.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import inf

import structlog

from app.catalog.database import CatalogAddress
from app.catalog.leadership_lock import Leadership
from app.catalog.migrate import check_revision, migrate
from app.control.leadership.trust import Trust
from app.domain.errors import (
    CatalogInUse,
    CatalogUnavailable,
    CatalogUnusable,
    PoolkeeperError,
)
from app.domain.leadership import (
    ABANDONED_AFTER,
    RENEWAL_INTERVAL,
    RENEWS_WITHIN,
    TRUST_SECONDS,
    Instance,
    InstanceState,
    LeadershipRecord,
    Takeover,
    namesake_refusal,
    refusal,
    refusal_among,
)

# In seconds: how often a standby tries, and how soon a failed renewal is tried again.
_TRY_INTERVAL = 0.5
_RETRY_INTERVAL = 0.25
# Longer than a renewal takes, which has its own deadline.
_SETTLE_DEADLINE = 5.0
# How often a stopping instance looks for the active one.
_FOLLOW_INTERVAL = 0.1
# An instance not seen for longer than this does not take over at once.
_SEEN_RECENTLY = 5.0
_STARTS_SOON = "The active instance has ended; another one is starting."


_log = structlog.get_logger(__name__)


class Election:
    """One instance's view of who is active, and its part in it.

    Attributes:
        keys: the fingerprint of this instance's present API keys.
        state: this instance's state.
        record: the catalog's latest record of the active instance; None before the first look.
        trouble: why the catalog could not be reached at the last try; None if it could.
        lost: why this instance had to stop; None if it did not have to.
        failovers: how often an instance took over from one that had failed.
    """

    def __init__(
        self,
        address: CatalogAddress,
        instance: Instance,
        trust: Trust,
        *,
        on_lost: Callable[[], None],
        keys: Callable[[], str] = str,
        has_orphans: Callable[[], bool] = bool,
    ) -> None:
        """Call *on_lost* once if this instance must stop.

        *has_orphans*: returns whether servers may have back-ends of this instance after its end.
        """
        self.instance = instance
        self.trust = trust
        self.keys = keys
        self.state = InstanceState.STANDBY
        self.record: LeadershipRecord | None = None
        self.trouble: str | None = None
        self.lost: PoolkeeperError | None = None
        self.failovers = 0
        self._on_change: Callable[[], None] = lambda: None
        self._address = address
        self._leadership = Leadership(address, instance)
        self._on_lost = on_lost
        self._has_orphans = has_orphans
        # Whether servers may still have back-ends of the previous instance.
        self._is_succeeding = False
        self._has_joined = False
        # Whether the last renewal could also record that this instance is running.
        self._is_registered = True
        # The last renewal, and since when each look found the same one, by this machine's clock.
        self._seen: tuple[str, float] | None = None
        # The last renewal, and the end of its writer's trust by `trust.clock`, computed when the
        # renewal is first seen: the catalog's clock may jump, for example in a failover.
        self._trusted: tuple[str, float] = ("", -inf)
        self._renewal: asyncio.Task[None] | None = None
        # Set at the next attempt to renew, or when this instance's state changes.
        self._progress = asyncio.Event()
        self._attempted_at = trust.clock()

    def __repr__(self) -> str:
        return f"<Election: {self.state}>"

    def notify_change(self, callback: Callable[[], None]) -> None:
        """Call *callback* when the active instance changes, or this instance's state."""
        self._on_change = callback

    # -- what the others do ------------------------------------------------------------------

    @property
    def epoch(self) -> int | None:
        """The epoch that this instance started; None while it is not active."""
        return self._leadership.epoch

    @property
    def active_url(self) -> str | None:
        """The URL of the active instance; None if there is none, or it is this one."""
        record = self.record
        is_elsewhere = record is not None and record.is_held and record.holder != self.instance.id
        return record.url if record is not None and is_elsewhere else None

    @property
    def active_instance(self) -> str:
        """Say in a sentence which instance is active."""
        url = self.active_url
        return _STARTS_SOON if url is None else f"The active instance is {url}."

    @property
    def is_serving(self) -> bool:
        """Whether this instance may answer requests, as far as known without waiting.

        After a pause of the process it may not, until it has checked that it is still active. An
        outage of the catalog is not a pause: it keeps working with the connections that it has.
        """
        return self.state is InstanceState.ACTIVE and not self._has_paused

    async def settle(self) -> bool:
        """Wait until it is known whether this instance may answer requests, and return that.

        It is unknown for a while after a pause, and while this instance is about to serve.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_DEADLINE):
                while self._is_unsettled:
                    await self._progress.wait()
        return self.is_serving

    @property
    def _is_unsettled(self) -> bool:
        is_paused = self.state is InstanceState.ACTIVE and self._has_paused
        return is_paused or self.state is InstanceState.ACTIVATING

    @property
    def _has_paused(self) -> bool:
        return self.trust.clock() - self._attempted_at > TRUST_SECONDS

    # -- how to become active ----------------------------------------------------------------

    async def win(self, *, patience: float) -> Takeover:
        """Become active within *patience* seconds; a killed instance's lock may last that long.

        Raises:
            CatalogInUse: another instance is active.
            CatalogUnavailable: the catalog could not be reached.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + patience
        while (takeover := await self.contend()) is None:
            if loop.time() >= give_up_at:
                await self._leadership.lock()  # this says whose it is
            await asyncio.sleep(_RETRY_INTERVAL)
        return takeover

    async def wait_to_win(self) -> Takeover:
        """Wait until no other instance is active, then become active.

        Raises:
            CatalogInUse: this instance must not take over from the active one.
            CatalogUnusable: this version does not know the catalog's schema.
        """
        while True:
            await asyncio.sleep(_TRY_INTERVAL)
            try:
                takeover = await self.contend()
            except CatalogUnavailable as error:
                if self.trouble is None:
                    _log.warning("catalog unavailable", reason=error.detail)
                self.trouble = error.detail
            else:
                self.trouble = None
                if takeover is not None:
                    return takeover

    async def contend(self) -> Takeover | None:
        """Become active if no other instance is; return None if one is.

        Raises:
            CatalogInUse: this instance must not take over from the active one.
            CatalogUnavailable: the catalog could not be reached.
            CatalogUnusable: this version does not know the catalog's schema.
        """
        record = await self._read()
        if record is not None:
            check_revision(record.schema)
            if reason := refusal(record, self.instance):
                raise CatalogInUse(reason)
        if self.instance.has_standbys:
            await self._join()
        if await self._leadership.try_lock():
            return await self._activate()
        if self.instance.has_standbys:
            if record is not None and record.is_held and record.url is None:
                await self._leadership.lock()  # this says whose it is
            await self._end_abandoned(record)
        return None

    async def _end_abandoned(self, record: LeadershipRecord | None) -> None:
        """End the connections of an active instance that, by two clocks, does not renew.

        The catalog's clock may have jumped. And if nobody could reach the catalog for a while, that
        instance may simply not have had its turn yet.
        """
        if record is None or record.holder is None or self._seen is None:
            return
        unchanged = asyncio.get_running_loop().time() - self._seen[1]
        if record.is_abandoned and unchanged >= RENEWS_WITHIN:
            _log.warning("ending the connections of an instance that does not renew")
            await self._leadership.end_connections(record.holder)

    async def _join(self) -> None:
        """Register this instance for the others, the first time after looking at them.

        Another instance with the same URL is noticed when it registers again, within 2 s.
        """
        if not self._has_joined:
            others = await self._leadership.others(within=ABANDONED_AFTER)
            if reason := refusal_among(others, self.instance):
                raise CatalogInUse(reason)
            self._has_joined = True
        await self._leadership.register(self.keys())
        if await self._leadership.has_namesake():
            raise CatalogInUse(namesake_refusal(self.instance))

    async def _read(self) -> LeadershipRecord | None:
        before = self.active_url
        # A failed look ends the series of looks that found the same renewal.
        seen, self._seen = self._seen, None
        self.record = await self._leadership.read()
        if self.record is not None:
            is_same = seen is not None and seen[0] == self.record.renewal
            now = asyncio.get_running_loop().time()
            self._seen = seen if is_same else (self.record.renewal, now)
            if self._trusted[0] != self.record.renewal:
                until = self.trust.clock() + self.record.trust_left
                self._trusted = (self.record.renewal, until)
        if self.active_url != before:
            self._on_change()
        return self.record

    async def _activate(self) -> Takeover:
        self.record = None
        self._become(InstanceState.ACTIVATING)
        try:
            # Before the tables change: a previous instance that lost the lock can write no more.
            takeover = await self._begin_epoch()
            await migrate(self._address, epoch=self.epoch)
            takeover = takeover or await self._begin_epoch()
            assert takeover is not None  # noqa: S101 - the migration made the table
            self.failovers = await self._leadership.count_failovers(int(takeover.is_failover))
        except BaseException:
            await self.resign()
            self._become(InstanceState.STANDBY)
            raise
        return takeover

    async def _begin_epoch(self) -> Takeover | None:
        started = self.trust.clock()
        takeover = await self._leadership.begin_epoch()
        if takeover is not None:
            self._is_succeeding = takeover.predecessor is not None
            if self._is_succeeding:
                left = max(takeover.trust_left, self._trusted[1] - self.trust.clock())
                takeover = replace(takeover, trust_left=left)
            self.trust.begin(after=takeover.trust_left)
            self._renewed(started)
            self._renewal = asyncio.create_task(self._renew(), name="leadership")
            self._renewal.add_done_callback(self._renewal_ended)
            _log.info(
                "leadership begins", epoch=takeover.epoch, trust_left=round(takeover.trust_left, 1)
            )
        return takeover

    def has_succeeded(self) -> None:
        """Note that the predecessor left nothing on servers except what `has_orphans` reports."""
        self._is_succeeding = False

    def begin_serving(self) -> None:
        """Note that this instance has loaded what it needs."""
        if self.lost is None:
            self._become(InstanceState.ACTIVE)

    # -- how to stay active ------------------------------------------------------------------

    async def renew_once(self) -> bool:
        """Tell the catalog that this instance is still active; return whether that succeeded.

        Raises:
            CatalogInUse: it is no longer active.
        """
        started = self.trust.clock()
        try:
            await self._leadership.renew()
        except CatalogUnavailable as error:
            if self.trouble is None:
                _log.warning("leadership not renewed", reason=error.detail)
            self.trouble = error.detail
            # After a pause, it may be the successor that ended the connection.
            if not self._has_paused:
                self._note_attempt(started)
            return False
        self.trouble = None
        self._renewed(started)
        await self._register()
        return True

    async def _register(self) -> None:
        """Register this instance for the others; a failure does not affect leadership."""
        try:
            await self._leadership.register(self.keys())
        except CatalogUnavailable as error:
            if self._is_registered:
                _log.warning("instance not registered", reason=error.detail)
            self._is_registered = False
        else:
            self._is_registered = True

    # -- how to stop being active ------------------------------------------------------------

    async def has_others(self) -> bool:
        """Whether another instance can take over at once, as far as the catalog knows."""
        try:
            return bool(await self._leadership.others(within=_SEEN_RECENTLY))
        except CatalogUnavailable:
            return False

    def begin_stopping(self) -> None:
        """From now on serve no more requests, and never become active again."""
        self._become(InstanceState.STOPPING)

    async def follow(self) -> None:
        """Keep track of the active instance, without end; this instance is not active."""
        while True:
            with suppress(CatalogUnavailable, CatalogUnusable):
                await self._read()
            await asyncio.sleep(_FOLLOW_INTERVAL)

    async def resign(self) -> None:
        """Stop renewing, and let another instance take over. Safe at any time, and to call twice.

        The other instance lends connections at once, unless servers may still have back-ends of
        this instance or of its predecessor.
        """
        self._become(InstanceState.STOPPING)
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
        self.trust.revoke()
        in_order = not (self._is_succeeding or self._has_orphans())
        await self._leadership.release(in_order=in_order)

    async def _renew(self) -> None:
        while True:
            succeeded = await self.renew_once()
            disconnected = self._leadership.disconnected
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEWAL_INTERVAL if succeeded else _RETRY_INTERVAL):
                    # An outage is shown at once: the instance that first takes the lock after it is
                    # active.
                    await (disconnected.wait() if succeeded else asyncio.Event().wait())

    def _renewal_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        self.lost = error if isinstance(error, PoolkeeperError) else CatalogInUse(repr(error))
        self.trust.revoke()
        self._become(InstanceState.STOPPING)
        _log.critical("leadership lost", reason=self.lost.detail)
        self._on_lost()

    def _renewed(self, started: float) -> None:
        self.trust.renew(started)
        self._note_attempt(started)

    def _note_attempt(self, started: float) -> None:
        if self.trust.clock() - started > TRUST_SECONDS:
            return  # the process paused in between: another instance may have taken over since
        self._attempted_at = self.trust.clock()
        self._note_progress()

    def _become(self, state: InstanceState) -> None:
        self.state = state
        self._note_progress()
        self._on_change()

    def _note_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()
