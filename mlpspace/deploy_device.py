"""The device that networks are going to run on, where a space file names one: objectives.throughput.device.

Throughput and memory are measured there and nowhere else; which device trains is another question. torch is loaded only
by what asks this machine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlpspace.errors import UserError

if TYPE_CHECKING:
    import torch


class DeviceMissing(UserError):
    """The device that networks are to be measured on is not here; another worker may have it."""


@dataclass(frozen=True, slots=True)
class Devices:
    """What a machine has, each with the name that its measurements are labelled with (`device.describe`)."""

    cpu: str
    gpus: tuple[str, ...] = ()

    def named(self, word: str) -> list[str]:
        """Those that `word` may mean: it is "cpu", or the name, or else whole words of it, in any capitals and spaces.

        "A10" is no word of an A100's name; all of "RTX 3080" is in that of an RTX 3080 Ti, too.
        """
        if word.casefold() == "cpu":
            return [self.cpu]
        names = dict.fromkeys((*self.gpus, self.cpu))
        return [name for name in names if _bare(name) == _bare(word)] or list(filter(_holding(word), names))

    def all_have(self, device: str, *, on_gpus: bool) -> bool:
        """Whether each worker of this machine can measure on `device`, a name of it.

        Args:
            on_gpus: each worker has a GPU of its own, any of them; else all see all GPUs.
        """
        if device == self.cpu:
            return True
        return bool(self.gpus) and all(gpu == device for gpu in self.gpus) if on_gpus else device in self.gpus


def _bare(name: str) -> str:
    return "".join(name.split()).casefold()


def _holding(word: str) -> Callable[[str], object]:
    """Tells whether a name has `word` in it, and neither a letter nor a digit beside it that goes on with it."""
    bare = _bare(word)
    before, after = (r"(?<![^\W_])" * bare[:1].isalnum(), r"(?![^\W_])" * bare[-1:].isalnum())
    pattern = re.compile(before + r"\s*".join(map(re.escape, bare)) + after)
    return lambda name: pattern.search(name.casefold())


def meant(word: str, machines: Iterable[Devices], others: Iterable[Devices] = ()) -> str:
    """The name of the one device that `word` means on these machines; only if it is on none of them, on the `others`.

    Raises:
        DeviceMissing: it is on none.
        UserError: it means several, whose throughputs would not compare.
    """
    machines, others = list(machines), list(others)
    for group in (machines, others):
        found = dict.fromkeys(name for machine in group for name in machine.named(word))
        exact = [name for name in found if _bare(name) == _bare(word)]
        if len(exact or found) == 1:
            return next(iter(exact or found))
        if found:
            raise UserError(
                f'objectives.throughput.device "{word}" is not one device here, and what was measured on two does not'
                f" compare:\n{_listed(found)}\n  Write as much of a name as tells it from the others."
            )
    have = Counter(name for machine in (*machines, *others) for name in {machine.cpu, *machine.gpus})
    raise DeviceMissing(
        f'objectives.throughput.device "{word}" is not here. There is:\n{_listed(have)}\n'
        "  Write a part of such a name, or cpu; search where that device is, with --address for a cluster; or leave"
        " `device` out,\n  to measure on the device that trains."
    )


def _listed(names: Iterable[str]) -> str:
    counts = names if isinstance(names, Counter) else Counter(dict.fromkeys(names, 1))
    return "\n".join(f"    {name}{f', on {n} machines' if n > 1 else ''}" for name, n in sorted(counts.items()))


def devices_here() -> Devices:
    """What this machine has, as far as this process may see it."""
    import torch

    from mlpspace.device import describe

    return Devices(describe(torch.device("cpu")), tuple(describe(gpu) for gpu in _gpus()))


def measuring_device(word: str | None, own: torch.device) -> torch.device:
    """The device that this process measures on.

    Args:
        word: a name as a space file gives it; None: `own` is meant.
        own: the device that it trains on, which comes first if it is meant.

    Raises:
        DeviceMissing: this process does not see such a device.
        UserError: it sees several that are meant, none of which is its own.
    """
    import torch

    from mlpspace.device import describe

    if word is None:
        return own
    here = devices_here()
    if describe(own) in here.named(word):
        return own
    name = meant(word, [here])
    return next(device for device in (*_gpus(), torch.device("cpu")) if describe(device) == name)


def _gpus() -> list[torch.device]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cuda", index) for index in range(count)]
