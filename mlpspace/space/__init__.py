"""The space language: a YAML file -> Space; points <-> architectures."""

from mlpspace.space.reader import load_space, read_space
from mlpspace.space.space import NotInSpace, Space

__all__ = ["NotInSpace", "Space", "load_space", "read_space"]
