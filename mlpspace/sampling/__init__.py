"""Which candidate next. `make` gives a sampler by name; `mlpspace.sampling.base` says what one is."""

from __future__ import annotations

from mlpspace.domain import Domain
from mlpspace.sampling.base import Observation, Sampler, Suggestion

__all__ = ["Observation", "Sampler", "Suggestion", "make"]


def make(name: str, domain: Domain, *, seed: int) -> Sampler:
    """The sampler of a name that a space file may say, or of "module:Class".

    Raises:
        UserError: there is no such class; the text says what there is.
    """
    if ":" in name:
        from mlpspace.sampling import custom

        return custom.Guarded(name, domain, seed=seed)
    if name == "default":
        from mlpspace.sampling.default import Default

        return Default(domain, seed=seed)
    from mlpspace.sampling import optuna_samplers

    kinds = {"tpe": optuna_samplers.Tpe, "nsga2": optuna_samplers.Nsga2, "random": optuna_samplers.Random}
    return kinds[name](domain, seed=seed)
