"""Published networks built and counted, beside what was published and what their own code counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mlpspace.comparators import TimmMissing
from mlpspace.counts import counted
from mlpspace.nets import build, deploy
from mlpspace.papers.published import CLASSES, Paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a published network counts as we build it, in the form and part that its own code was measured in."""

    paper: Paper
    params: int | None = None  # None: not built
    macs: int | None = None
    missing: str = ""  # why it was not built

    @property
    def agrees(self) -> bool | None:
        """Are the counts those on record, to the unit? None: not built."""
        if self.params is None:
            return None
        return (self.params, self.macs) == (self.paper.params, self.paper.macs)


def prove(paper: Paper) -> Proof:
    """Build it on the meta device, as published, and count it there. A comparator needs timm."""
    try:
        with torch.device("meta"):
            network = build(paper.architecture, paper.resolution, CLASSES).eval()
            network = deploy(network) if paper.form == "merged" else network
    except TimmMissing as error:
        return Proof(paper=paper, missing=str(error))
    params, macs = counted(network, paper.resolution)
    if paper.part == "block":
        network.blocks = nn.Sequential()
        without = counted(network, paper.resolution)
        params, macs = params - without[0], macs - without[1]
    return Proof(paper=paper, params=params, macs=macs)
