"""The command line: the demo's options and what it prints."""

from __future__ import annotations

import json

import pytest

from byssus import ByssusError
from byssus.cli import main
from byssus_problog import demo


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_PAIRS", 6_400)
    monkeypatch.setattr(demo, "_HELD_OUT_PAIRS", 640)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("provenance", ["exact", "sampled", "mixed", "auto"])
def test_the_demo_learns(provenance: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A part of an epoch is enough to be far from guessing, which is right in a tenth."""
    assert main(["demo", "--epochs", "1", "--provenance", provenance, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result) == {
        "sum_accuracy",
        "digit_accuracy",
        "blackbox_calls",
        "step_ms",
        "seconds",
    }
    assert result["sum_accuracy"] > 0.3
    assert result["step_ms"] > 0


def test_a_missing_requirement_is_a_message_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(**_: object) -> None:
        raise ByssusError("the demo needs mlxtend")

    monkeypatch.setattr(demo, "run", run)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "byssus: the demo needs mlxtend\n"


@pytest.mark.parametrize("arguments", [["demo", "--epochs", "-1"], ["demo", "--epochs", "x"], []])
def test_bad_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == 2
