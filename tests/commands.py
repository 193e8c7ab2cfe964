"""A command as it is typed, run in this process."""

from __future__ import annotations

import sys

import pytest

from mlpspace import cli


def mlpspace(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    before = sys.argv
    sys.argv = ["mlpspace", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err
