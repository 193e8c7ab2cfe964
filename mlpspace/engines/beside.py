"""Something that is looked after in a thread of its own while an engine works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(look: Callable[[threading.Event], None]) -> Iterator[None]:
    """Within it `look` runs, which is given what is set at the end, and which then has to return."""
    ended = threading.Event()
    thread = threading.Thread(target=look, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
