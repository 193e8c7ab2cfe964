"""The networks: modules, `build`, and the deployed form."""

from mlpspace.nets.deploy import deploy
from mlpspace.nets.network import build

__all__ = ["build", "deploy"]
