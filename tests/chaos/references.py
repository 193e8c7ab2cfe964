"""Undisturbed searches, one for each space and seed: what the others are compared with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from chaos.figures import Row
from chaos.ordeal import Ordeal, new_place
from chaos.searches import trained

HERE = Path(__file__).parent
TRIALS = 16
LAST_RUNGS = {"rungs": 2, "whole": 0}


@dataclass(slots=True)
class References:
    """Each is searched once, on the inline engine."""

    _held: dict[tuple[str, int], Ordeal] = field(default_factory=dict)

    def of(self, name: str, seed: int, core: int = 0) -> Ordeal:
        """The search of `name`.yaml with that seed."""
        if (name, seed) not in self._held:
            place = new_place(HERE / f"{name}.yaml", ("--engine", "inline", "--seed", str(seed)), core=core)
            search = Ordeal(place, Row(), TRIALS, LAST_RUNGS[name])
            search.finish(400)
            epochs = [(seed, epoch) for seed, epoch, _ in trained(place.witnessed())]
            assert len(set(epochs)) == len(epochs), "it trained an epoch twice"
            self._held[name, seed] = search
        return self._held[name, seed]

    def clear(self) -> None:
        """Delete their folders."""
        for search in self._held.values():
            shutil.rmtree(search.place.folder)
