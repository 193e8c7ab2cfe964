"""A size as the command line takes it."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class Size(click.ParamType):
    """Bytes: 2GB, 500 MB, 1.5TB, 0; a GB has 10^9."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        said = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)b?", str(value).strip().lower())
        if said is None or len(said[1]) > 18:
            self.fail(f'"{value}" is no size; write 500MB, 2GB or 1.5TB, or 0 for none.', param, ctx)
        return int(float(said[1]) * _UNITS[said[2]])
