"""Architecture search and design-space exploration for MLP-style vision backbones.

The names below are what a notebook needs; each is imported when it is first used, so that `import mlpspace` is quick
and reading a study needs neither torch nor ray.

    space = mlpspace.load_space("spaces/hybrid.yaml")
    architecture = space.sample(numpy.random.default_rng(0))
    mlpspace.profile(architecture, resolution=32, classes=10).macs
    network = mlpspace.build(architecture, resolution=32, classes=10)
    mlpspace.build(mlpspace.papers.get("smlpnet_tiny"), resolution=224, classes=1000)
    mlpspace.Study("studies/run1").frame()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpspace import papers as papers
    from mlpspace import weights as weights
    from mlpspace.architecture import Architecture as Architecture
    from mlpspace.counts import Profile as Profile
    from mlpspace.counts import profile as profile
    from mlpspace.nets.deploy import deploy as deploy
    from mlpspace.nets.network import build as build
    from mlpspace.pareto import hypervolume as hypervolume
    from mlpspace.pareto import pareto_front as pareto_front
    from mlpspace.scaling import scaled as scaled
    from mlpspace.space import Space as Space
    from mlpspace.space import load_space as load_space
    from mlpspace.study import Study as Study

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "mlpspace.architecture",
    "Profile": "mlpspace.counts",
    "Space": "mlpspace.space",
    "Study": "mlpspace.study",
    "build": "mlpspace.nets.network",
    "deploy": "mlpspace.nets.deploy",
    "hypervolume": "mlpspace.pareto",
    "load_space": "mlpspace.space",
    "pareto_front": "mlpspace.pareto",
    "profile": "mlpspace.counts",
    "scaled": "mlpspace.scaling",
}
_MODULES = ("papers", "weights")

__all__ = [*sorted(_HOMES), *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"mlpspace.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
