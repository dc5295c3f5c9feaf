"""Executes a plan: tenants in parallel, the steps of each tenant in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import TOO_MANY_REQUESTS
from itertools import groupby
from operator import attrgetter
from threading import Event, Lock

from app.cli.client.api_client import ApiError
from app.cli.client.exit_status import ExitStatus
from app.cli.client.manifest import Stage, Step, Verb
from app.cli.client.parallel_requests import patiently, work_in_parallel

# After this many tenants in a row fail for the same reason, the others would fail, too.
_MOST_ALIKE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A step that the service refused."""

    tenant: str
    step: Verb
    reason: str

    @property
    def cause(self) -> str:
        """The reason, which is the same for all tenants that it applies to."""
        return self.reason.replace(self.tenant, "…")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The result for each tenant; its id is in one of the lists.

    Attributes:
        created, changed, deleted: one whose later step failed is in *failed*, too.
        unanswered: a request for it got no response, so it is unknown whether it was changed.
        unfinished: some or all of its steps were not tried.
        stopped: why the rest was not tried, and what to do; None if everything was tried.
    """

    created: list[str]
    changed: list[str]
    deleted: list[str]
    unchanged: list[str]
    failed: list[Failure]
    unanswered: list[str]
    unfinished: list[str]
    stopped: str | None


class Execution:
    """The execution of steps; it knows at any moment the result of each.

    After a failed step, the other steps of its tenant are skipped. If several tenants in a row fail
    in the same way, all would fail: then, and if the service is unreachable or refuses the API key,
    the rest is not tried.
    """

    def __init__(
        self, execute: Callable[[Step], object], *, on_end: Callable[[Step], object]
    ) -> None:
        """Call *execute* in several threads, which raises `ApiError`; *on_end* after each step."""
        self._execute = execute
        self._on_end = on_end
        self._stop = Event()
        self._lock = Lock()
        self._done: set[Step] = set()
        self._sent: set[Step] = set()
        self._failures: dict[str, Failure] = {}
        self._latest_cause: str | None = None
        self._alike = 0
        self._stopped: tuple[str, ExitStatus | None] | None = None

    @property
    def exit_status(self) -> int:
        """The command's exit status; 0 if every step was executed."""
        if self._stopped and self._stopped[1]:
            return self._stopped[1]
        if self._failures:
            return ExitStatus.PARTIAL if self._done else ExitStatus.REFUSED
        return 0

    def run(self, steps: Sequence[Step], *, threads: int) -> None:
        """Execute all *steps*, those of *threads* tenants at a time; Ctrl-C stops it."""
        by_stage = sorted(steps, key=attrgetter("stage", "tenant"))
        try:
            for stage, due in groupby(by_stage, attrgetter("stage")):
                tenants = [list(each) for _, each in groupby(due, attrgetter("tenant"))]
                # One at a time and by tenant id, so that the same tenants fit into a budget each
                # time.
                count = 1 if stage is Stage.RAISE_MIN_SIZE else threads
                work_in_parallel(self._run_tenant, tenants, threads=count, stop=self._stop)
        except KeyboardInterrupt:
            self._stop_for("Interrupted. Run the command again.", ExitStatus.INTERRUPTED)

    def summarize(self, steps: Sequence[Step], unchanged: list[str]) -> Summary:
        lists: dict[str, list[str]] = {
            name: [] for name in ("created", "changed", "deleted", "unanswered", "unfinished")
        }
        for tenant, own in groupby(sorted(steps, key=attrgetter("tenant")), attrgetter("tenant")):
            planned = set(own)
            if tenant not in self._failures:
                lists[self._fate(planned)].append(tenant)
            elif done := self._done & planned:
                lists[_outcome(done)].append(tenant)
        failed = [self._failures[tenant] for tenant in sorted(self._failures)]
        reason = self._stopped[0] if self._stopped else None
        return Summary(**lists, failed=failed, unchanged=unchanged, stopped=reason)

    def _fate(self, steps: set[Step]) -> str:
        if not self._sent.isdisjoint(steps):
            return "unanswered"
        if not self._done.issuperset(steps):
            return "unfinished"
        return _outcome(steps)

    def _run_tenant(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if self._stop.is_set() or step.tenant in self._failures:
                return
            self._sent.add(step)
            try:
                patiently(partial(self._execute, step), self._stop)
            except ApiError as error:
                self._failed(step, error)
                return
            self._done.add(step)
            self._sent.discard(step)
            self._on_end(step)
        with self._lock:
            self._alike = 0

    def _failed(self, step: Step, error: ApiError) -> None:
        if error.exit_status is ExitStatus.UNREACHABLE:
            # It is unknown whether the service did it.
            self._stop_for(f"{error} Run the command again.", ExitStatus.UNREACHABLE)
            return
        if error.http_status == TOO_MANY_REQUESTS:  # stopped before its turn
            self._sent.discard(step)
            return
        failure = Failure(tenant=step.tenant, step=step.verb, reason=str(error))
        with self._lock:
            self._sent.discard(step)
            self._failures[step.tenant] = failure
            self._alike = self._alike + 1 if failure.cause == self._latest_cause else 1
            self._latest_cause = failure.cause
            is_repeated = self._alike >= _MOST_ALIKE
        self._on_end(step)
        if error.exit_status is ExitStatus.FORBIDDEN:
            self._stop_for("The API key is refused. Use another one.", ExitStatus.FORBIDDEN)
        elif is_repeated:
            self._stop_for(
                f"{_MOST_ALIKE} tenants in a row failed for the same reason. Remove the cause and "
                "run the command again.",
                None,
            )

    def _stop_for(self, reason: str, exit_status: ExitStatus | None) -> None:
        with self._lock:
            self._stopped = self._stopped or (reason, exit_status)
        self._stop.set()


def _outcome(done: set[Step]) -> str:
    """The list for a tenant with these steps."""
    verbs = {step.verb for step in done}
    names = {Verb.CREATE: "created", Verb.DELETE: "deleted"}
    return next((name for verb, name in names.items() if verb in verbs), "changed")
