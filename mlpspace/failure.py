"""What went wrong with a network, as its trial tells it."""

from __future__ import annotations

import traceback

from mlpspace.measurement import Failure
from mlpspace.memory import out_of_memory


def failure_of(error: Exception) -> Failure:
    """ "out of memory", or "error" and where."""
    reason = "out of memory" if out_of_memory(error) else "error"
    cause = error.__cause__
    raised = cause if cause is not None and cause.__traceback__ is not None else error
    where = traceback.extract_tb(raised.__traceback__)[-1]
    return Failure(reason, f"{type(error).__name__}: {error} ({where.filename}:{where.lineno}, in {where.name})")
