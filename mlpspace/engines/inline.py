"""The inline engine: everything in this process, one trial after the other. For tests, debugging, and no Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from mlpspace.device import cores
from mlpspace.engines.worker import Worker
from mlpspace.measurement import Evaluate
from mlpspace.search import Search


def run(
    search: Search,
    *,
    device: str = "auto",
    interrupted: Callable[[], bool] = lambda: False,
    evaluate: Evaluate | None = None,
) -> None:
    """Run a search until it is done or `interrupted` says so; then the trial at work stays unfinished in the ledger.

    `evaluate` stands in for a worker, in tests.
    """
    events_of = evaluate or Worker(device, cores()).events
    while not interrupted() and (assignment := search.next_assignment()) is not None:
        number = assignment.trial
        with closing(events_of(assignment, search.measured_bounds(number))) as events:
            if all(search.report(number, event) and not interrupted() for event in events):
                search.completed(number)
