"""Shots that are turned copies of one share its shapes in a file of Pulseq 1.5.1."""

import math

import numpy as np
import pytest

import trajdesign as td
from trajdesign.acquisition import Acquisition
from trajdesign.exporting.proof import export
from trajdesign.pulseq.file_rules import inspect
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.reader.parser import parse
from trajdesign.pulseq.rotations import with_rotations, without_rotations
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.cartesian import cartesian
from trajdesign.trajectories.inits.planes import planes
from trajdesign.trajectories.inits.radial import radial

FILM = Acquisition((0.2, 0.2), (32, 32), 3 * 4, 300, 8e-6, 4)
STACK = Acquisition((0.2, 0.2, 0.08), (32, 32, 4), 3 * 4, 300, 8e-6)


def golden(acquisition, pattern):
    return planes(acquisition, Scanner(), pattern={"kind": pattern}, turn="golden")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return both versions of the file of each trajectory, and the trajectory."""
    folder, found = tmp_path_factory.mktemp("turned"), {}
    trajectories = {
        "film": golden(FILM, "spiral"),
        "stack": golden(STACK, "radial"),
        "spokes": radial(Acquisition((0.2, 0.2), (32, 32), 8, 300, 8e-6), Scanner()),
    }
    for name, trajectory in trajectories.items():
        paths = [folder / f"{name}-{version}.seq" for version in ("1.5.0", "1.5.1")]
        reports = [export(trajectory, path, options={"pulseq_version": path.stem.split("-")[1]}) for path in paths]
        found[name] = trajectory, paths, reports
    return found


@pytest.mark.parametrize(("name", "n_shapes"), [("film", 1), ("stack", 4), ("spokes", 1)])
def test_one_shape_is_left_and_every_reader_plays_what_was_played_before(files, name, n_shapes):
    # of a stack those of partitions with other gradients along z have other bridges
    _, (before, after), (plain, turned) = files[name]
    tables = parse(after.read_bytes(), signed=True, larmor=math.nan)
    assert (tables.version, turned["version"]) == ("1.5.1", "1.5.1")
    assert tables.definitions["RequiredExtensions"] == "ROTATIONS"
    readouts = tables.blocks[tables.blocks[:, 6] > 0]
    assert len({tuple(pair) for pair in readouts[:, 3:5].tolist()}) == n_shapes
    assert len(tables.shapes) < len(parse(before.read_bytes(), signed=True, larmor=math.nan).shapes) / 2
    assert after.stat().st_size < 0.6 * before.stat().st_size
    # export has read both back; pypulseq, which turns them itself, leaves out an axis that plays a millionth
    assert turned["k_error_fov_by_reader"]["seqfile"] < 1e-6
    assert turned["k_error_fov_by_reader"]["pypulseq"] < 5e-5
    ours, theirs = player.read(before), player.read(after)
    fov = np.array(ours.numbers("FOV"))
    assert np.abs((np.stack(ours.k) - np.stack(theirs.k)) * fov).max() < 1e-5
    for key in ("max_gradient", "max_slew", "duration", "te", "tr"):
        assert turned[key] == pytest.approx(plain[key], rel=1e-5)
    assert ours.labels.keys() == theirs.labels.keys()
    for label, values in ours.labels.items():
        np.testing.assert_array_equal(theirs.labels[label], values)


def test_the_angles_in_the_file_are_those_of_the_pattern(files):
    trajectory, (_, path), _ = files["film"]
    content, angles = without_rotations(path.read_bytes())
    tables = parse(content, signed=False, larmor=math.nan)
    shots = np.flatnonzero(tables.blocks[:, 6] > 0)
    found = [angles.get(int(place), 0.0) for place in shots]
    k = trajectory.points.numpy() @ [1, 1j]
    wanted = [float(np.angle(np.vdot(k[0], of_shot))) for of_shot in k]
    # the first of all blocks that play it, a dummy, is the one that is not turned
    apart = [abs(math.remainder(a - b - found[0], 2 * math.pi)) for a, b in zip(found, wanted, strict=True)]
    assert max(apart) < 1e-6
    assert len(angles) >= len(k) - 1
    assert tables.version == "1.5.0"
    assert "ROTATIONS" not in content.decode()


def test_a_file_without_turned_copies_keeps_its_shapes(tmp_path):
    lines = cartesian(Acquisition((0.2, 0.2), (16, 16), 16, 300, 8e-6), Scanner())
    for version in ("1.5.0", "1.5.1"):
        export(lines, tmp_path / f"{version}.seq", options={"pulseq_version": version})
    plain, newer = (
        parse((tmp_path / f"{v}.seq").read_bytes(), signed=True, larmor=math.nan) for v in ("1.5.0", "1.5.1")
    )
    assert newer.version == "1.5.1"
    assert "RequiredExtensions" not in newer.definitions
    np.testing.assert_array_equal(newer.blocks, plain.blocks)
    assert newer.tables == plain.tables
    assert newer.shapes.keys() == plain.shapes.keys()


def test_almost_turned_is_not_turned(tmp_path):
    spokes = radial(Acquisition((0.2, 0.2), (32, 32), 4, 300, 8e-6), Scanner())
    points = spokes.points.clone()
    points[2] *= 1 - 3e-5
    report = export(spokes.with_points(points), tmp_path / "x.seq", options={"pulseq_version": "1.5.1"})
    tables = parse((tmp_path / "x.seq").read_bytes(), signed=True, larmor=math.nan)
    readouts = tables.blocks[tables.blocks[:, 6] > 0]
    assert len({tuple(pair) for pair in readouts[:, 3:5].tolist()}) == 2
    assert report["max_k_error_fov"] < 1e-5


def test_a_scan_of_the_file_gives_the_same_image(files, tmp_path):
    _, paths, _ = files["spokes"]
    before, after = (td.scan(path, out=tmp_path / path.stem).image for path in paths)
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())


def test_turning_twice_changes_nothing_and_every_rule_holds(files):
    for _, (before, after), _ in files.values():
        content, md5 = with_rotations(before.read_bytes())
        assert content == after.read_bytes()
        assert md5 == player.read(after).md5
        broken = [rule.name for rule in inspect(player.read(after), Scanner()) if not rule.ok and not rule.is_advice]
        assert broken == []
