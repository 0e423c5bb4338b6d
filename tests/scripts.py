"""Scripts of the examples: run, and compared."""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def result(script: Path, *arguments: object) -> dict[str, Any]:
    """What a script prints last under `--json`, run in its own folder."""
    done = subprocess.run(
        [sys.executable, script.name, "--json", *map(str, arguments)],
        cwd=script.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def changes(theirs: Path, ours: Path) -> list[str]:
    """The lines in which two scripts differ, with a sign."""
    lines = difflib.ndiff(theirs.read_text().splitlines(), ours.read_text().splitlines())
    return [line for line in lines if line[0] in "+-"]
