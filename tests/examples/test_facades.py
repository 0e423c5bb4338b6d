"""Building fronts and grids of digits, what is measured of completed ones, and the baselines."""

from __future__ import annotations

import importlib
import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from byssus.structure import Completion, Loop

ROOT = Path(__file__).parents[2]
COUNT = 60


@pytest.fixture(scope="module")
def modules() -> Any:
    """The example's modules, in one namespace."""
    sys.path.insert(0, str(ROOT))
    names = ("facades", "measures", "baselines", "png", "__main__")
    yield {name: importlib.import_module(f"examples.facades.{name}") for name in names}
    sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def facades(modules: Any) -> Any:
    return modules["facades"]


@pytest.fixture(scope="module")
def both(facades: Any) -> Any:
    """Pictures of both kinds."""
    generator = torch.Generator().manual_seed(0)
    digits = (torch.rand(200, 1, 28, 28, generator=generator), torch.arange(200) % 10)
    return {
        "facades": facades.draw_facades(COUNT, 1),
        "digits": facades.draw_digits(COUNT, 1, digits),
    }


@pytest.fixture(params=["facades", "digits"])
def pictures(both: Any, request: pytest.FixtureRequest) -> Any:
    return both[request.param]


def by_hand(program: tuple[tuple[int, ...], ...]) -> Tensor:
    """What a program draws, cell by cell."""
    labels = torch.full((15, 15), -1)
    for top, bottom, down, left, right, across, kind in program:
        for row in range(top, bottom, down):
            for column in range(left, right, across):
                labels[row, column] = kind
    return labels


def test_pictures_are_the_same_for_a_seed(facades: Any) -> None:
    one, same, other = (facades.draw_facades(5, seed) for seed in (1, 1, 2))
    for part in ("images", "labels", "tiles"):
        assert torch.equal(getattr(one, part), getattr(same, part))
        assert not torch.equal(getattr(one, part), getattr(other, part))
    assert one.programs == same.programs != other.programs


def test_digits_are_the_same_for_a_seed(facades: Any) -> None:
    digits = (torch.rand(50, 1, 28, 28), torch.arange(50) % 10)
    one, same, other = (facades.draw_digits(5, seed, digits) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images)
    assert not torch.equal(one.images, other.images)


def test_shapes(both: Any) -> None:
    for name, channels, kinds in (("facades", 3, 5), ("digits", 1, 10)):
        found = both[name]
        assert found.images.shape == (COUNT, channels, 120, 120)
        assert found.images.dtype == torch.float32
        assert 0 <= found.images.min() < found.images.max() <= 1
        assert found.labels.shape == (COUNT, 15, 15)
        assert found.tiles.shape == (COUNT, kinds + 1, channels, 8, 8)
        assert -1 <= found.labels.min() < found.labels.max() < kinds
        some = found[2:5]
        assert len(some.programs) == 3
        assert torch.equal(some.images, found.images[2:5])


def test_programs_draw_most_cells(pictures: Any) -> None:
    """No loop leaves the grid, and irregular cells are few."""
    for program, drawn in zip(pictures.programs, pictures.drawn, strict=True):
        assert torch.equal(by_hand(program), drawn)
        for top, bottom, down, left, right, across, _ in program:
            assert 0 <= top < bottom <= 15
            assert 0 <= left < right <= 15
            assert down >= 1 <= across
    drawn = pictures.drawn >= 0
    irregular = pictures.labels != pictures.drawn
    assert not irregular[~drawn].any()
    assert 0.01 < irregular[drawn].double().mean() < 0.08
    assert (pictures.labels[irregular] == -1).any()
    assert (pictures.labels[irregular] >= 0).any()


def test_digits_repeat(both: Any) -> None:
    """Each loop draws a digit of its own, and no loop draws over another."""
    for program in both["digits"].programs:
        assert 1 <= len(program) <= 4
        assert len({loop[-1] for loop in program}) == len(program)
        alone = sum(int((by_hand((loop,)) >= 0).sum()) for loop in program)
        assert alone == int((by_hand(program) >= 0).sum())


def test_images_show_their_cells(modules: Any, pictures: Any) -> None:
    """Cut, named and joined again; noise and light are small against what tells kinds apart."""
    facades = modules["facades"]
    cut = facades.cells(pictures.images)
    assert cut.shape == (COUNT, 15, 15, pictures.images.shape[1], 8, 8)
    assert torch.equal(cut[3, 2, 5], pictures.images[3, :, 16:24, 40:48])
    assert torch.equal(facades.joined(cut), pictures.images)
    named = modules["measures"].named(pictures.images, pictures.tiles)
    assert (named == pictures.labels).double().mean() > 0.999


@pytest.mark.parametrize("where", ["right", "bottom", "block"])
def test_a_third_is_hidden(facades: Any, where: str) -> None:
    mask = facades.seen(where, 30, seed=1)
    hidden = (~mask).sum((1, 2))
    assert bool(((hidden >= 72) & (hidden <= 80)).all())
    for grid in ~mask:  # a rectangle
        rows, columns = grid.any(1), grid.any(0)
        assert torch.equal(grid, rows[:, None] & columns)
    if where == "block":
        assert torch.equal(mask, facades.seen(where, 30, seed=1))
        assert not torch.equal(mask, facades.seen(where, 30, seed=2))
    else:
        assert bool((hidden == 75).all())
        assert not (mask[0, :, -5:] if where == "right" else mask[0, -5:]).any()
    wide = facades.pixels(mask)
    assert wide.shape == (30, 1, 120, 120)
    assert torch.equal(wide[:, 0, 4::8, 4::8], mask)


def test_only_known_masks(facades: Any) -> None:
    with pytest.raises(ValueError, match="where='left': give 'right', 'bottom' or 'block'"):
        facades.seen("left", 3)


def test_measures(modules: Any, pictures: Any) -> None:
    facades, measures = modules["facades"], modules["measures"].measures
    mask = facades.seen("block", COUNT, 3)
    regular = pictures.rendered(pictures.drawn)
    truth = measures(pictures.images, pictures, mask)
    assert truth["pixels"] == 0
    assert truth["cells"] < 0.001
    assert 0.9 < truth["structure"] < 1
    found = measures(regular, pictures, mask)
    assert found["structure"] == 1
    irregular = (pictures.labels != pictures.drawn)[~mask].double().mean().item()
    assert found["cells"] == pytest.approx(irregular)
    wrong = (regular - pictures.images).square()
    hidden = ~facades.pixels(mask).expand_as(wrong)
    assert found["pixels"] == pytest.approx(wrong[hidden].mean().item(), rel=1e-4)
    # What is seen does not count, whatever a method makes of it.
    spoiled = torch.where(hidden, regular, 0.5)
    assert measures(spoiled, pictures, mask) == pytest.approx(found)


def test_nothing_drawn(modules: Any, pictures: Any) -> None:
    """The background everywhere: no structure."""
    mask = modules["facades"].seen("right", COUNT)
    blank = pictures.rendered(torch.full_like(pictures.labels, -1))
    assert torch.equal(blank[3, :, 8:16, 64:72], pictures.tiles[3, -1])
    found = modules["measures"].measures(blank, pictures, mask)
    assert found["structure"] == 0
    assert found["cells"] == pytest.approx((pictures.labels >= 0)[~mask].double().mean().item())


def test_the_nearest_picture(modules: Any, pictures: Any) -> None:
    facades = modules["facades"]
    mask = facades.seen("block", COUNT, 5)
    given = facades.pixels(mask)
    # Whatever is in the hole does not matter.
    masked = torch.where(given, pictures.images, 0.123)
    known = pictures.images
    assert torch.equal(modules["baselines"].nearest(masked, mask, known), known)
    found = modules["baselines"].nearest(masked[:5], mask[:5], known[5:])
    for image, hole, completed in zip(masked[:5], given[:5], found, strict=True):
        distances = [((image - other) * hole).square().sum() for other in known[5:]]
        other = known[5 + int(torch.stack(distances).argmin())]
        assert torch.equal(completed, torch.where(hole, image, other))


def test_loops_run_on(modules: Any, facades: Any) -> None:
    """With nothing learned; whatever is in the hole does not matter."""
    pictures = facades.draw_facades(10, 4)
    mask = facades.seen("right", 10)
    masked = torch.where(facades.pixels(mask), pictures.images, 0.123)
    completed = modules["baselines"].extended(masked, mask)
    assert torch.equal(completed[:, :, :, :80], pictures.images[:, :, :, :80])
    assert modules["measures"].measures(completed, pictures, mask)["structure"] > 0.6


def test_the_autoencoder_learns(modules: Any, both: Any) -> None:
    """In seconds only what walls look like; it never sees what it has to complete."""
    pictures, facades = both["facades"], modules["facades"]
    said: list[str] = []
    model = modules["baselines"].train(pictures.images[:20], epochs=10, seed=0, say=said.append)
    losses = [float(text.split()[3]) for text in said]
    assert len(losses) == 10
    assert losses[-1] < 0.9 * losses[0]
    mask = facades.seen("right", 20)
    test = pictures[40:60]
    given = facades.pixels(mask)
    completed = model.complete(test.images, mask)
    assert completed.shape == test.images.shape
    assert torch.equal(completed * given, test.images * given)
    spoiled = torch.where(given, test.images, 0.9)
    assert torch.allclose(model.complete(spoiled, mask), completed, atol=1e-5)
    grey = torch.where(given, test.images, 0.5)
    measure = modules["measures"].measures
    found, none = (measure(image, test, mask)["pixels"] for image in (completed, grey))
    assert found < none


def decoded(file: Path) -> Tensor:
    """The image in a PNG file, as its standard says; checksums and all."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        (check,) = struct.unpack(">I", data[at + 8 + size : at + 12 + size])
        assert check == zlib.crc32(name + content)
        parts[name] = content
        at += 12 + size
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">2I5B", parts[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    lines = torch.frombuffer(bytearray(zlib.decompress(parts[b"IDAT"])), dtype=torch.uint8)
    lines = lines.view(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].view(height, width, {0: 1, 2: 3}[colour]).permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_png(modules: Any, tmp_path: Path, channels: int) -> None:
    image = torch.linspace(-0.1, 1.1, channels * 5 * 7).view(channels, 5, 7)
    modules["png"].write_png(tmp_path / "a.png", image)
    assert torch.equal(decoded(tmp_path / "a.png"), (image.clamp(0, 1) * 255).round().byte())
    with pytest.raises(ValueError, match="an image with 2 channels: give one with 1 or 3"):
        modules["png"].write_png(tmp_path / "b.png", torch.zeros(2, 5, 7))


def test_sheet(modules: Any) -> None:
    rows = [[torch.full((3, 10, 20), (2 * i + j) / 4) for j in range(2)] for i in range(2)]
    sheet = modules["png"].sheet(rows)
    assert sheet.shape == (3, 2 * (10 + 16), 2 * (20 + 16))
    assert torch.equal(sheet[:, 26 + 8 : 26 + 18, 36 + 8 : 36 + 28], rows[1][1])
    assert bool((sheet[:, :8] == 1).all())


@pytest.fixture
def result(
    modules: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """What the example prints last, given arguments."""

    def run(*arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["facades", "--json", *map(str, arguments)])
        modules["__main__"].main()
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return run


SMALL = ("--short", "--pictures", 30, "--test-pictures", 9, "--epochs", 1)
METHODS = {"nearest", "autoencoder", "extended", "one program", "programs", "structure"}


def test_a_short_run_measures(result: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = result(*SMALL, "--sheet", tmp_path / "sheet.png")
    assert set(found["measures"]) == {*METHODS, "nothing", "truth"}
    assert set(found["errors"]) == METHODS
    for table in found["measures"].values():
        assert set(table) == {"right", "bottom", "block"}
    for method, error in found["errors"].items():
        mean = sum(row["pixels"] for row in found["measures"][method].values()) / 3
        assert mean == pytest.approx(error)
    for where in ("right", "bottom", "block"):
        nothing, truth = (found["measures"][name][where] for name in ("nothing", "truth"))
        assert nothing["structure"] == 0
        assert truth["structure"] == 1
        assert truth["pixels"] < nothing["pixels"]
    errors = found["errors"]
    assert found["baseline_error"] == min(errors["nearest"], errors["autoencoder"])
    assert found["structure_error"] == errors["structure"] < found["baseline_error"]
    assert errors["programs"] < errors["one program"]
    assert found["synthesis_recovered"] == 1
    assert decoded(tmp_path / "sheet.png").shape == (3, 8 * 136, 8 * 136)


def test_a_run_on_digits(result: Callable[..., dict[str, Any]], digits: Path) -> None:
    found = result(*SMALL, "--data", "digits", "--mnist", digits)
    assert found["data"] == "digits"
    assert 0 < found["baseline_error"] < 1


def test_programs_that_are_found_again(modules: Any, both: Any) -> None:
    """With no more loops; a single cell is no repetition."""
    recovered = modules["measures"].recovered
    for pictures in both.values():
        assert recovered(pictures) > 0.95
    facades = both["facades"]
    single = (((3, 4, 1, 5, 6, 1, 0),),) * COUNT
    parts = (facades.images, single, facades.labels, facades.tiles)
    assert recovered(modules["facades"].Pictures(*parts)) == 0


def test_what_made_pictures_are_like(modules: Any, both: Any) -> None:
    pictures = both["facades"]
    background = torch.full((2, 1, 15, 15), 3)
    background[1, 0, ::2] = 5  # 8 of 15 rows, which are most
    wall, rows = Loop(0, 15, 1, 0, 15, 1, 3), Loop(0, 15, 2, 0, 15, 1, 5)
    nothing = torch.zeros(2, 15, 15, dtype=torch.bool)
    new = Completion(
        [[(wall,)], [(wall, rows)]],
        background,
        torch.zeros(2, 8, 3, 8, 8),
        torch.zeros(2, 15, 15, 3, 8, 8),
        nothing,
        torch.ones(2, 1),
    )
    found = modules["measures"].made(new, pictures)
    assert found["loops"] == 0.5
    assert found["drawn"] == pytest.approx(7 / 30)
    assert found["new"] == 1
    assert found["real_loops"] == sum(map(len, pictures.programs)) / COUNT
    assert found["real_drawn"] == (pictures.drawn >= 0).double().mean()
    learned = Completion(
        [[(wall,)]] * COUNT,
        pictures.drawn[:, None] + 1,
        torch.zeros(COUNT, 8, 3, 8, 8),
        torch.zeros(COUNT, 15, 15, 3, 8, 8),
        torch.zeros(COUNT, 15, 15, dtype=torch.bool),
        torch.ones(COUNT, 1),
    )
    assert modules["measures"].made(learned, pictures)["new"] == 0


def test_programs_that_draw_are_corrected(modules: Any, both: Any) -> None:
    """A completing network begins with what programs draw, and is told how sure they are."""
    pictures, baselines = both["facades"][:20], modules["baselines"]
    mask = modules["facades"].seen("right", 20)
    labels = pictures.labels[:, None].expand(-1, 4, -1, -1) % 6
    drawn = Completion(
        [[()] * 4] * 20,
        labels,
        pictures.tiles,
        modules["facades"].cells(pictures.images),
        mask,
        torch.ones(20, 4),
    )
    model = baselines.Autoencoder(3)
    measure = modules["measures"].measures
    with_, without = (
        measure(model.complete(pictures.images, mask, what), pictures, mask)["pixels"]
        for what in (drawn, None)
    )
    assert with_ < 0.2 * without  # before anything is learned
    said: list[str] = []
    learned = baselines.train(pictures.images, drawn, epochs=2, seed=0, say=said.append)
    assert len(said) == 2
    found = learned.complete(pictures.images, mask, drawn)
    assert torch.equal(found[:, :, :, :80], pictures.images[:, :, :, :80])
    assert measure(found, pictures, mask)["pixels"] < 0.2 * without
