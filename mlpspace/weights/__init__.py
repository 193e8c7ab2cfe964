"""Weights of published networks, from the checkpoints of other implementations.

    network = mlpspace.build(mlpspace.papers.get("resmlp_s12"), resolution=224, classes=1000)
    network.load_state_dict(mlpspace.weights.load("resmlp_12_no_dist.pth", "resmlp_s12"))

`implementations` has the tables of what each calls our parts, and `forms` how its tensors lie otherwise.
"""

from mlpspace.weights.convert import convert
from mlpspace.weights.files import load

__all__ = ["convert", "load"]
