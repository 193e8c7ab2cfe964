"""Where a dataset lives, as a command line says it."""

from __future__ import annotations

import os
from typing import Any

import click


class Place(click.ParamType):
    """`NAME=PATH`."""

    name = "NAME=PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, sign, path = str(value).partition("=")
        if not (sign and name and path):
            self.fail(f'"{value}" is not NAME=PATH, such as cifar10=~/data/cifar10.', param, ctx)
        return name, os.path.expanduser(path)  # Path's raises for ~nobody
