"""Scenes and the rooms they are in: data, programs, and short runs on recorded answers."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from byssus import ReplayMiss

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "scene"


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's module, with the answers that were recorded."""
    monkeypatch.syspath_prepend(ROOT)
    module = importlib.import_module("examples.scene.__main__")
    for name, value in module.RECORDED.items():
        monkeypatch.setenv(name, value)
    return module


def result(*arguments: str) -> dict[str, Any]:
    """What the example prints last."""
    done = subprocess.run(
        [sys.executable, "-m", "examples.scene", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def state() -> dict[str, str]:
    """The files of the example, as they are."""
    files = [file for file in FOLDER.iterdir() if file.is_file()]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_scenes_are_the_same_for_a_seed(scene: Any) -> None:
    one, same, other = (scene.draw_scenes(50, seed) for seed in (1, 1, 2))
    for part in ("images", "present", "names", "rooms"):
        assert torch.equal(getattr(one, part), getattr(same, part))
        assert not torch.equal(getattr(one, part), getattr(other, part))
    assert one.images.shape == (50, 10, 16, 16)
    assert one.images.dtype == torch.float32
    assert not one.images[~one.present].any()


def test_what_scenes_hold(scene: Any) -> None:
    """47 classes; 1 to 10 objects, most of them of the room; all rooms, classes, numbers occur."""
    assert len(set(scene.NAMES)) == 47
    assert len(scene.ROOMS) == 9
    drawn = scene.draw_scenes(4_000, 3)
    counts = drawn.present.sum(1)
    assert counts.unique().tolist() == list(range(1, 11))
    share = torch.bincount(drawn.rooms, minlength=9) / 4_000
    assert bool(((share > 0.09) & (share < 0.13)).all())
    rooms = drawn.rooms[:, None].expand(-1, 10)[drawn.present]
    names = drawn.names[drawn.present]
    own = torch.tensor([scene.ROOMS.index(scene.ROOM_OF.get(n, "gym")) for n in scene.NAMES])
    nothing = names >= 45
    assert (own[names] == rooms)[~nothing].double().mean() == pytest.approx(0.7 / 0.9, abs=0.02)
    assert nothing.double().mean() == pytest.approx(0.1, abs=0.01)
    assert int(torch.bincount(names).min()) > 200


def test_images_show_the_class(scene: Any) -> None:
    """Told the names, a network learns them; a single pixel says little."""
    torch.manual_seed(0)
    network = scene.network()
    training, test = scene.draw_scenes(600, 5), scene.draw_scenes(100, 6)
    images, names = training.images[training.present][:, None], training.names[training.present]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(3):
        for rows in torch.randperm(len(names)).split(64):
            loss = F.cross_entropy(network(images[rows]), names[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = network(test.images[test.present][:, None]).argmax(1)
    assert (found == test.names[test.present]).double().mean() > 0.95


def test_programs_differ_in_one_declaration(scene: Any) -> None:
    table, llm = ((FOLDER / scene.PROGRAMS[name]).read_text() for name in ("table", "llm"))
    lines = difflib.ndiff(table.splitlines(), llm.splitlines())
    changed = [line for line in lines if line[0] in "+-"]
    assert changed[0] == '- @blackbox("scenes.py:found_in")'
    assert changed[1] == "+ @llm("
    assert changed[-1] == "+ )"
    assert llm.replace("\n".join(line[2:] for line in changed[1:]), changed[0][2:]) == table


def test_the_model_is_told_nothing_of_the_objects(scene: Any) -> None:
    """The examples in the prompt are other objects, one a room."""
    box = scene.scallop("llm", 10, 0).ctx.blackboxes["found_in"]
    (request,) = box.question.requests("stove")
    shown = " ".join(message["content"] for message in request["messages"][:-1])
    assert not [name for name in scene.NAMES if f"a {name} " in shown]
    assert box.question.form.choices == scene.ROOMS


@pytest.mark.parametrize("program", ["table", "llm"])
def test_a_room_is_that_of_the_object_looked_at(scene: Any, program: str) -> None:
    """Against the sum over objects and names, with the gradient of each object's name."""
    module = scene.scallop(program, 10, 0)
    answers = torch.zeros(47, 9)
    scenes = scene.draw_scenes(6, 7)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 10, 47, generator=generator, requires_grad=True)
    names = logits.softmax(2) * scenes.present[..., None]
    looked_at = scenes.present / scenes.present.sum(1, keepdim=True)
    rooms = module(object=names, looked_at=looked_at).probs
    box = module.ctx.blackboxes["found_in"]
    assert box.calls == 47
    for i, outcome in enumerate(box.evaluate([(name,) for name in scene.NAMES])):
        for probability, (room,) in outcome:
            answers[i, scene.ROOMS.index(room)] = 1.0 if probability is None else probability
    if program == "llm":
        torch.testing.assert_close(answers.sum(1), torch.ones(47))
    expected = torch.einsum("bi,bin,nr->br", looked_at, names, answers)
    torch.testing.assert_close(rooms, expected, atol=1e-6, rtol=1e-5)
    gradients: list[Tensor] = []
    for probs in (rooms, expected):
        logits.grad = None
        probs.gather(1, scenes.rooms[:, None]).sum().backward(retain_graph=True)
        assert logits.grad is not None
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_one_call_for_a_whole_scene(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked about the names, each once; those that say nothing are left out."""
    names = torch.zeros(1, 10, 47)
    for position, name in enumerate(["toaster", "clock", "kettle", "toaster", "ball"]):
        names[0, position, scene.NAMES.index(name)] = 1
    module = scene.scallop("whole", 10, 0)
    with pytest.raises(ReplayMiss, match=r"There are kettle, toaster\. What type of room is most"):
        module(object=names)


def test_a_run_repeats_on_recorded_answers(
    scene: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In another process and in this one; and the answers stay as they are."""
    before = state()
    arguments = ["--replay", "--scenes", "300", "--epochs", "3", "--json"]
    one = result(*arguments)
    monkeypatch.setattr(sys, "argv", ["scene", *arguments])
    scene.main()
    same = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert one["weights"] == same["weights"]
    assert one["accuracy"] == same["accuracy"]
    assert one["calls"] == 47
    assert one["accuracy"] > 0.25
    assert state() == before


@pytest.mark.slow
@pytest.mark.parametrize("program", ["table", "llm"])
def test_rooms_are_learned(program: str) -> None:
    found = result("--replay", "--short", "--json", "--program", program)
    assert found["calls"] == 47
    assert found["accuracy"] > 0.8
    assert found["rooms of objects"] > 0.8
