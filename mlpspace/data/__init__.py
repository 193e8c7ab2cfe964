"""Datasets as tensors on the device.

`catalog` is light and is what the space reader and the command line use; the names below bring torch with them, so
each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpspace.data.batch import augment as augment
    from mlpspace.data.batch import normalised as normalised
    from mlpspace.data.dataset import Dataset as Dataset
    from mlpspace.data.dataset import load as load
    from mlpspace.data.dataset import loading as loading

_HOMES = {
    "Dataset": "mlpspace.data.dataset",
    "load": "mlpspace.data.dataset",
    "loading": "mlpspace.data.dataset",
    "normalised": "mlpspace.data.batch",
    "augment": "mlpspace.data.batch",
}

__all__ = ["Dataset", "augment", "load", "loading", "normalised"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
