"""How a proxy is trained: the recipe of a fidelity. Its fields are the dimensions that `fidelity.recipe` may name."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Any

from mlpspace.fields import Checked, OneOf, Real, Whole, takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation(Checked):
    """What is done to a training image, drawn anew for each image of each batch."""

    shift: int = takes(Whole(0, 64), 2)  # at most so many pixels in each direction, the border filled with zeros
    flip: str = takes(
        OneOf(("auto", "always", "never")), "auto"
    )  # left-right, half of the images; auto: where it makes sense
    cutout: int = takes(Whole(0, 512), 0)  # side of a square that is blanked, in pixels; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Checked):
    """Optimizer, one-cycle schedule, batch, regularisation."""

    optimizer: str = takes(OneOf(("adamw", "sgd")), "adamw")
    lr: float = takes(Real(0.0, 100.0, above=True), 3e-3)  # at the top of the schedule
    weight_decay: float = takes(Real(0.0, 10.0), 0.05)
    warmup: float = takes(Real(0.0, 1.0), 0.2)  # share of the steps until the top; cosine down to zero after it
    batch: int = takes(Whole(2, 65536), 128)  # of one image BatchNorm has no variance
    label_smoothing: float = takes(Real(0.0, 0.9), 0.1)
    augmentation: Augmentation = Augmentation()

    @functools.lru_cache(maxsize=256)  # noqa: B019 - a search asks several times a trial, mostly of the same
    def to_json(self) -> str:
        """One line of JSON, keys sorted: two equal recipes give one text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """The recipe that `to_json` wrote.

        Raises:
            ValueError: the text is none.
        """
        try:
            told: dict[str, Any] = json.loads(text)
            return Recipe(**{**told, "augmentation": Augmentation(**told["augmentation"])})
        except (TypeError, KeyError, RecursionError) as error:  # of an unknown field, or one that is not there
            raise ValueError(f"not a recipe: {error}") from None
