"""In a field that is known, what was scanned is reconstructed as if there were none."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from trajdesign.acquisition import Acquisition
from trajdesign.cli.app import app
from trajdesign.config import plugins
from trajdesign.encoding.operator import Encoding
from trajdesign.encoding.static_field import segments
from trajdesign.errors import ConfigError, InputError
from trajdesign.exporting.proof import export
from trajdesign.measuring import field_map, virtual_scan
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.reconstruct import reconstruct
from trajdesign.scanner import Scanner

N = 32
ACQUISITION = Acquisition((0.22, 0.22), (N, N), 8, 1000, 4e-6)


@pytest.fixture(scope="module", params=["gre_2d", "se_2d"])
def scanned(request, tmp_path_factory):
    """A folder with a file, its scan in a field and without one, and the map."""
    path = tmp_path_factory.mktemp(request.param)
    y, x = np.meshgrid(*[np.arange(N) - N // 2] * 2, indexing="ij")
    field = 250 * np.exp(-((y + 4) ** 2 + x**2) / 30) + 5.0 * x - 4.0 * y
    np.save(path / "map.npy", field)
    pattern = {"kind": "radial" if request.param == "se_2d" else "spiral"}
    options = {"sequence": {"kind": request.param, "n_dummies": 1}}
    export(plugins.build("init", pattern, ACQUISITION, Scanner()), path / "x.seq", options=options)
    for name, of_scan in (("field", field), ("none", 0.0)):
        virtual_scan.scan(path / "x.seq", out=path / name, n_coils=4, off_resonance=of_scan)
    return path


def image(path, scan, out, **options):
    return reconstruct(path / scan / "raw.h5", seq=path / "x.seq", out=path / out, overwrite=True, **options)


def distance(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_the_map_takes_the_field_away(scanned):
    wanted = image(scanned, "none", "a").images["cg_sense"]
    known = image(scanned, "field", "b", off_resonance=scanned / "map.npy")
    told = image(scanned, "field", "c")
    errors = [distance(of.images["cg_sense"], wanted) for of in (known, told)]
    residuals = [of.facts.residual["cg_sense"]["total"] for of in (known, told)]
    assert errors[0] < 0.07
    assert errors[0] < errors[1] / 2
    assert residuals[0] < 0.8 * residuals[1]
    assert known.facts.warnings == []
    ends = np.load(scanned / "map.npy")
    assert known.facts.off_resonance == pytest.approx((ends.min(), ends.max()))


def test_the_other_sign_makes_it_worse(scanned):
    np.save(scanned / "wrong.npy", -np.load(scanned / "map.npy"))
    wanted = image(scanned, "none", "a").images["cg_sense"]
    wrong, told = (image(scanned, "field", "d", off_resonance=path) for path in (scanned / "wrong.npy", None))
    assert distance(wrong.images["cg_sense"], wanted) > 1.2 * distance(told.images["cg_sense"], wanted)


def test_the_command_takes_it(scanned):
    words = [scanned / "field" / "raw.h5", "--seq", scanned / "x.seq", "--off-resonance", scanned / "map.npy"]
    done = CliRunner().invoke(app, ["reconstruct", *map(str, words), "--out", str(scanned / "e"), "--force"])
    assert done.exit_code == 0, done.output
    assert "--off-resonance" in (scanned / "e" / "reconstruct.json").read_text()


@pytest.mark.parametrize("n_coils", [1, 4])
def test_the_field_that_makes_the_image_sharp_is_found(n_coils):
    """A pattern of discs under a smooth field, by the exact terms of the encoding in that field."""
    n = 64
    acquisition = Acquisition((0.22, 0.22), (n, n), 16, 2000, 4e-6)
    y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) - n // 2] * 2, indexing="ij")
    wanted = 40 * torch.sin(x / 20) + 30 * y / 32
    head = (x**2 + y**2 < 26**2).double()
    object_ = head * (0.5 + 0.5 * (torch.cos(x / 1.7) * torch.cos(y / 2.1) > 0))
    spread = [torch.exp(-((x - 40 * np.cos(a)) ** 2 + (y - 40 * np.sin(a)) ** 2) / 60**2) for a in range(n_coils)]
    coil_images = (object_ * torch.stack(spread))[None].to(torch.complex128)
    spiral = plugins.build("init", {"kind": "spiral"}, acquisition, Scanner())
    times = torch.arange(2000, dtype=torch.float64) * 4e-6
    terms = segments(times, (-80, 80), tolerance=1e-6)
    encoding = Encoding(spiral, dtype=torch.float64, segments=terms)
    kspace = encoding.in_field(terms.maps(wanted[None])).forward(coil_images)[0].to(torch.complex64)
    found = field_map.estimated(kspace, Encoding(spiral), times)
    inside = (x**2 + y**2 < 22**2).numpy()
    errors = [float(np.sqrt(np.mean((of - wanted.numpy())[inside] ** 2))) for of in (found, 0.0)]
    assert errors[0] < errors[1] / 2


def test_the_field_of_a_film_is_found_by_all_frames():
    """Discs that flicker under a smooth field: no frame alone is sampled densely enough."""
    n, n_frames = 64, 4
    acquisition = Acquisition((0.22, 0.22), (n, n), 4 * n_frames, 2000, 4e-6, n_frames)
    pattern = {"kind": "planes", "pattern": {"kind": "spiral"}, "turn": "golden"}
    film = plugins.build("init", pattern, acquisition, Scanner())
    y, x = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) - n // 2] * 2, indexing="ij")
    wanted = 40 * torch.sin(x / 20) + 30 * y / 32
    head = (x**2 + y**2 < 26**2).double()
    object_ = head * (0.5 + 0.5 * (torch.cos(x / 1.7) * torch.cos(y / 2.1) > 0))
    beats = torch.stack([object_ * (1 + 0.2 * np.sin(frame) * (x > 0)) for frame in range(n_frames)])
    terms = segments(torch.arange(2000, dtype=torch.float64) * 4e-6, (-80, 80), tolerance=1e-6)
    encoding = Encoding(film, dtype=torch.float64, segments=terms)
    in_field = encoding.in_field(terms.maps(wanted[None])[:, :, None])
    kspace = in_field.forward(beats[None, None].to(torch.complex128))[0].to(torch.complex64)
    found = Assigned(kspace[None, None], acquisition)
    there, maps = field_map.in_field(found, [Encoding(film)], "auto")
    inside = (x**2 + y**2 < 22**2).numpy()
    errors = [float(np.sqrt(np.mean((of - wanted.numpy())[inside] ** 2))) for of in (maps[0], 0.0)]
    assert errors[0] < errors[1] / 2
    assert maps.shape == (1, n, n)
    assert there[0].acquisition.n_frames == n_frames


def test_the_field_of_a_volume_is_found():
    """Bars under a field that grows along z, sampled by a stack of spirals."""
    n, n_z = 48, 16
    acquisition = Acquisition((0.22, 0.22, 0.11), (n, n, n_z), 12 * n_z, 2000, 4e-6)
    pattern = {"kind": "planes", "pattern": {"kind": "spiral"}}
    stack = plugins.build("init", pattern, acquisition, Scanner())
    z, y, x = torch.meshgrid(*[torch.arange(m, dtype=torch.float64) - m // 2 for m in (n_z, n, n)], indexing="ij")
    wanted = 60 * z / n_z + 30 * torch.sin(x / 16)
    head = (x**2 + y**2 < 20**2).double()
    object_ = head * (0.5 + 0.5 * (torch.cos(x / 1.7) * torch.cos(y / 2.1) > 0))
    terms = segments(torch.arange(2000, dtype=torch.float64) * 4e-6, (-80, 80), tolerance=1e-6)
    encoding = Encoding(stack, dtype=torch.float64, segments=terms).in_field(terms.maps(wanted[None]))
    kspace = encoding.forward(object_[None, None].to(torch.complex128))[0].to(torch.complex64)
    _, maps = field_map.in_field(Assigned(kspace[None, None], acquisition), [Encoding(stack)], "auto")
    inside = (head > 0).numpy()
    errors = [float(np.sqrt(np.mean((of - wanted.numpy())[inside] ** 2))) for of in (maps, 0.0)]
    assert maps.shape == (n_z, n, n)
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize(("values", "words"), [
    (np.zeros((N, N + 1)), "shape"), (np.full((N, N), np.nan), "finite"), (np.full((N, N), 1e5), "rad/s"),
    (np.zeros((N, N), complex), "real"), (np.zeros((2, N, N)), "shape"),
])  # fmt: skip
def test_what_is_no_map_is_refused(scanned, values, words):
    np.save(scanned / "odd.npy", values)
    with pytest.raises(InputError, match=words):
        image(scanned, "field", "f", off_resonance=scanned / "odd.npy")


def test_a_map_of_an_image_that_is_shifted_is_refused(scanned):
    with pytest.raises(ConfigError, match="shifted"):
        image(scanned, "field", "g", off_resonance=scanned / "map.npy", shift=(0.01, 0.0))
