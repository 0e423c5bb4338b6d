"""`problog byssus file.pl`, a task of ProbLog's command line: what `byssus run file.pl` does."""

from __future__ import annotations

from collections.abc import Sequence

from byssus import cli

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run a program; see `byssus run --help`.

    Returns:
        The exit status.
    """
    return cli.main(["run", *arguments])
