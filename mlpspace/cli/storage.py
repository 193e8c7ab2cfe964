"""The option `--storage`, and what becomes of a password in it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

import click

from mlpspace.address import Address, address_of, without_password

_HANDED_ON = "_MLPSPACE_STORAGE_PASSWORD"  # from this process to itself


class Storage(click.ParamType):
    """The address of a server."""

    name = "ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        told = address_of(str(value))
        password = os.environ.pop(_HANDED_ON, None)  # no worker needs it
        return told if told.password or not password else replace(told, password=password)


def start_again_without_password() -> None:
    """Whoever is on this machine sees a process's command (`ps`), and Ray writes it down. So where there is a password
    in it, this process becomes the same one without it, and finds it in its environment, which nobody else sees."""
    words, password = without_password(sys.orig_argv)
    typed = sys.argv[1:]
    if password is None or sys.orig_argv[len(sys.orig_argv) - len(typed) :] != typed:
        return  # nothing to hide, or nobody typed it
    os.environ[_HANDED_ON] = password
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *words[1:]])
