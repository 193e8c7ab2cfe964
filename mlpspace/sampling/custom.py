"""Anybody's sampler: `mlpspace search FILE --sampler module:Class`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mlpspace.domain import Domain
from mlpspace.errors import UserError
from mlpspace.sampling.base import Observation, Sampler, Suggestion


class SamplerError(UserError):
    """A sampler that cannot be loaded; the text says why."""


def load(text: str) -> type[Sampler]:
    """The class that "module:Class" names. The current folder is searched as well.

    Raises:
        SamplerError: the module cannot be imported, does not have it, or it is no sampler.
    """
    name, _, attribute = text.partition(":")
    if not name or not attribute:
        raise SamplerError(
            f'"{text}" is not module:Class, such as my_sampler:Greedy for class Greedy in my_sampler.py.'
        )
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever the user's code raises
        raise SamplerError(
            f'sampler "{text}": module {name} cannot be imported: {type(error).__name__}: {error}\n'
            "  A module of this name is looked for in the current folder and among the installed packages."
        ) from error
    finally:
        sys.path.remove("")
    found = getattr(module, attribute, None)
    if found is None:
        classes = sorted(name for name, value in vars(module).items() if _is_sampler(value) and value is not Sampler)
        told = f"It has the samplers {', '.join(classes)}." if classes else "It has no class with a method suggest."
        raise SamplerError(f'sampler "{text}": module {name} has no {attribute}. {told}')
    if not _is_sampler(found):
        raise SamplerError(
            f'sampler "{text}": {attribute} is no class with a method suggest(number, draw, seen).\n'
            "  Derive it from mlpspace.sampling.Sampler, whose docstrings say what it gets and gives."
        )
    kind: type[Sampler] = found
    return kind


class Guarded(Sampler):
    """Somebody's sampler, whose mistakes are told as theirs."""

    def __init__(self, name: str, domain: Domain, *, seed: int) -> None:
        super().__init__(domain, seed=seed)
        self._name = name
        self._theirs: Any = self._told(lambda: load(name)(domain, seed=seed), "when it was made")

    def suggest(self, number: int, draw: int, seen: Sequence[Observation]) -> Suggestion:
        found = self._told(lambda: self._theirs.suggest(number, draw, seen), f"in suggest, for trial {number}")
        if not isinstance(found, Suggestion):
            raise SamplerError(
                f'sampler "{self._name}": suggest gave {type(found).__name__} for trial {number}, not a Suggestion.'
            )
        return found

    def worth(self, trial: Observation, seen: Sequence[Observation]) -> str | None:
        if not hasattr(self._theirs, "worth"):
            return None
        reason: str | None = self._told(lambda: self._theirs.worth(trial, seen), f"in worth, of trial {trial.number}")
        return reason

    def _told(self, call: Callable[[], Any], where: str) -> Any:
        try:
            return call()
        except SamplerError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise SamplerError(
                f'sampler "{self._name}" failed {where}: {type(error).__name__}: {error}\n'
                "  Nothing that was measured is lost: the same command goes on."
            ) from error


def _is_sampler(value: object) -> bool:
    return isinstance(value, type) and callable(getattr(value, "suggest", None))
