"""JSON as every tool reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(told: Any) -> str:
    """`told` as indented JSON; what is no number, such as the loss of a training that diverged, is null there."""
    return json.dumps(_finite(told), indent=2, allow_nan=False)


def _finite(told: Any) -> Any:
    if isinstance(told, float) and not math.isfinite(told):
        return None
    if isinstance(told, Mapping):
        return {key: _finite(value) for key, value in told.items()}
    return [_finite(value) for value in told] if isinstance(told, (list, tuple)) else told
