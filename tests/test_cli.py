"""The command line: the demo's options and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

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


_PROGRAMS = {
    "leaf.scl": """
        @llm("{{margin}} {{shape}}?", choices=["oak", "birch"])
        type leaf(bound margin: String, bound shape: String, species: String)
        rel margin = {0.5::("lobed"); 0.3::("entire"); 0.2::("serrate")}
        rel shape = {0.5::("oval"); 0.5::("ovate")}
        rel species(s) = margin(m) and shape(h) and leaf(m, h, s)
        query species
    """,
    "leaf.pl": """
        :- use_module(library(byssus)).
        :- llm('{{margin}} {{shape}}?', leaf, [+margin, +shape, -species],
               [choices([oak, birch])]).
        0.5::margin(lobed); 0.3::margin(entire); 0.2::margin(serrate).
        0.5::shape(oval); 0.5::shape(ovate).
        species(S) :- margin(M), shape(H), leaf(M, H, S).
        query(species(_)).
    """,
}


@pytest.mark.parametrize("name", _PROGRAMS)
def test_a_plan_says_how_many_calls_and_makes_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BYSSUS_LLM_MODEL", raising=False)  # so a call would be an error
    Path(name).write_text(_PROGRAMS[name])
    assert main(["run", "--plan", name]) == 0
    assert "black box leaf: at most 6 calls" in capsys.readouterr().out
    assert main(["run", name]) == 1
    assert "no model is named" in capsys.readouterr().err
    assert not Path(".byssus").exists()
