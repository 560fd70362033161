"""The page of a run: its numbers, that a user's words stay words, and what it does in a browser."""

import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from pages import HOSTILE, Reader, data_of, decoded, invented, pixels, value

from trajdesign.acquisition import Acquisition
from trajdesign.config.models import load_config, with_profile
from trajdesign.config.toml import read_toml
from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.operator import angular
from trajdesign.encoding.psf import psf
from trajdesign.errors import ConfigError, InputError
from trajdesign.learning.optimize import optimize
from trajdesign.learning.results import Results
from trajdesign.learning.run_folder import RunFolder
from trajdesign.physics import limits
from trajdesign.reporting import report, webpage
from trajdesign.reporting.webpage import render
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.radial import radial
from trajdesign.trajectories.inits.spiral import spiral

SETTINGS = [
    f"name={json.dumps(HOSTILE)}",
    "acquisition={matrix=[32,32], n_shots=4, n_samples=128, dwell=8e-6}",
    "data={kind='phantom', n_train=4, n_val=2, n_test=3, n_coils=2}",
    "training={epochs=2, batch_size=2, validations=2}",
    "reconstructor={kind='unet', channels=4, levels=2}",
    "response={kind='eddy_currents', amplitudes=[0.01], time_constants=[1e-3]}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "a run; $HOME <b>"
    optimize(load_config(None, SETTINGS), path, device="cpu")
    return RunFolder(path)


@pytest.fixture(scope="module")
def page(run):
    report.write(run.path, run.path / "report.html")
    return (run.path / "report.html").read_text(encoding="utf-8")


def test_the_numbers_that_are_drawn_are_those_of_the_run(run, page):
    data = data_of(page)
    assert [t["label"] for t in data["trajectories"]] == ["fixed", "learned", "as it acts"]
    for shown, trajectory in zip(data["trajectories"], (run.trajectory("initial"), run.trajectory()), strict=False):
        for key in ("k_adc", "gradient", "slew"):
            wanted = getattr(trajectory, key).numpy()
            np.testing.assert_allclose(np.array(shown[key]).transpose(0, 2, 1), wanted, rtol=5e-6, atol=1e-12)
    trajectory = run.trajectory()
    start, step = data["times"]["adc"]
    np.testing.assert_allclose(start + step * np.arange(128), trajectory.adc_times, rtol=1e-5)
    # the last gradient sample is the first at or after the last ADC sample
    raster = data["times"]["gradient"][1]
    assert raster == trajectory.scanner.gradient_raster
    assert 0 <= (trajectory.gradient.shape[1] - 1) * raster - float(trajectory.adc_times[-1]) < raster
    assert data["times"]["slew"] == [raster / 2, raster]
    found = run.results().limits["constraints"]
    assert data["limits"]["slew"]["scanner"] == found["slew"]["limit"]
    assert data["limits"]["gradient"]["receiver"] == pytest.approx(found["receiver"]["limit"], rel=5e-6)
    steps = np.loadtxt(run.path / "history.csv", delimiter=",", skiprows=1, usecols=1)
    assert [x for curve in data["curves"] for x in curve["x"]] == steps.tolist()


def test_the_tables_are_those_of_the_run(run, page):
    results, reader = run.results(), Reader(page)
    cells = [text.strip() for text in reader.texts["td"]]
    for stage in ("fixed", "learned"):
        for key, form in (("psnr", ".2f"), ("ssim", ".4f"), ("nrmse", ".4f")):
            assert format(results.stages[stage].mean(key), form) in cells
    for finding in results.limits["constraints"].values():
        assert f"{finding['value']:.5g}" in cells
        assert f"{100 * finding['margin']:.2f} %" in cells
    report_of = psf(run.trajectory())
    assert f"{report_of.peak_side_lobe:.2f}" in cells
    config = reader.texts["pre"][-1]
    assert config == (run.path / "config.toml").read_text(encoding="utf-8")
    for command in reader.texts["pre"][:-1]:
        assert command.startswith("trajdesign ")
        assert "'" in command, "a path that a shell would split is quoted"
    assert "Wilcoxon p, 3 images" in page


def test_the_file_is_checked_against_the_scanner_of_the_run():
    table = {"max_gradient": 0.04, "max_slew": 150.0}
    for profile, option in (("siemens", ""), ("ge", "--profile ge ")):
        scanner = Scanner(**with_profile({"profile": profile, **table}))
        (check,) = [c for c in webpage.commands(Path("run"), scanner).values() if c.startswith("trajdesign check run/")]
        assert check == f"trajdesign check run/trajectory.seq {option}--max-gradient 0.04 --max-slew 150.0"


def test_a_broken_limit_is_said():
    trajectory = radial(Acquisition(matrix=(32, 32), n_shots=4, n_samples=400), Scanner())
    fast = trajectory.with_points(3 * trajectory.points)
    found = {"fixed": limits.check(trajectory), "learned": limits.check(fast)}
    text = render(replace(invented(trajectory), findings=found))
    n_broken = sum(not finding.ok for finding in found["learned"])
    assert f"{n_broken} broken" in text
    assert text.count("BROKEN") == n_broken
    assert "all kept" not in text
    assert "all kept" in render(invented(trajectory))


def test_what_a_user_named_stays_text(run, page):
    reader = Reader(page)
    title = f"{run.path.name} ({HOSTILE})"
    assert reader.texts["h1"] == [title]
    assert reader.texts["title"] == [f"{title} – trajdesign"]
    scripts = [attributes for tag, attributes in reader.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert not [attributes for _, attributes in reader.elements if any(key.startswith("on") for key in attributes)]
    assert HOSTILE not in page
    assert run.path.name not in page, "its <b> is escaped"


def test_the_page_loads_nothing(page):
    assert "://" not in page
    assert "@import" not in page
    reader = Reader(page)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in reader.elements}
    for tag, attributes in reader.elements:
        for key in ("src", "href", "action", "poster", "srcset", "data"):
            address = attributes.get(key, "data:")
            assert address.startswith(("data:image/png;base64,", "#")) or address == "data:", (tag, key)
    (policy,) = [a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_images_keep_their_values():
    trajectory = spiral(Acquisition(matrix=(32, 32), n_shots=4, n_samples=400), Scanner())
    contents = invented(trajectory)
    data = data_of(render(contents))
    example = contents.examples["learned"]
    top = example.reference.max()
    [shown] = map(decoded, data["examples"][1]["network"])
    np.testing.assert_allclose(shown[..., 0], np.clip(example.images["network"] / top, 0, 1), atol=0.6 / 255)
    # of a point spread function the first row is the top, where y is largest
    image, found = contents.psfs["learned"].image, data["psfs"][1]
    decibel = 20 * np.log10(np.maximum(image[::-1], 1e-12))
    wanted = matplotlib.colormaps["magma"](np.rint(255 * np.clip(decibel / 60 + 1, 0, 1)).astype(int))[..., :3]
    np.testing.assert_allclose(decoded(found["images"][0]["source"])[..., :3], wanted, atol=0.6 / 255)
    left, bottom, right, top = found["images"][0]["edges"]
    assert (right - left, top - bottom) == pytest.approx((0.44, 0.44))
    for axis in "xy":
        x, y = found["profiles"][axis]["x"], found["profiles"][axis]["y"]
        assert (np.diff(x) > 0).all()
        assert y[x.index(0)] == pytest.approx(1)
        assert -0.221 < x[0] < -0.219


def test_a_large_image_of_a_point_spread_function_keeps_its_peaks():
    values = np.full((1024, 1024), 1e-9)
    values[700, 301] = 1.0
    shown = webpage._psf_image(values, (1e-3, 1e-3))
    image = decoded(shown["source"])
    assert image.shape[:2] == (512, 512)
    assert [int(i) for i in np.argwhere(image[..., 0] > 0.5)[0]] == [511 - 350, 150]
    assert shown["edges"] == pytest.approx([-0.5125, -0.5125, 0.5115, 0.5115])


def test_sixteen_shots_of_a_thousand_samples_stay_below_3_mb():
    text = render(invented(spiral(Acquisition(n_shots=16, n_samples=1000), Scanner())))
    assert len(text.encode()) < 3e6


def test_a_page_of_a_run_that_learned_nothing_has_no_slider():
    contents = invented(radial(Acquisition(matrix=(32, 32), n_shots=1, n_samples=400), Scanner()))
    names = ("trajectories", "psfs", "findings", "examples")
    only = {name: dict(list(getattr(contents, name).items())[:1]) for name in names}
    text = render(replace(contents, **only, results=Results("", {"fixed": contents.results.last})))
    assert 'id="split"' not in text
    assert [t["label"] for t in data_of(text)["trajectories"]] == ["fixed"]


def test_on_paper(run, tmp_path):
    report.write(run.path, tmp_path / "report.PDF")
    written = (tmp_path / "report.PDF").read_bytes()
    assert written.startswith(b"%PDF-")
    # trajectories, waveforms, PSF, reconstruction, learning, response, after two pages of text, or three of a long path
    assert len(re.findall(rb"/Type /Page\b", written)) in (6 + 2, 6 + 3)


def test_what_cannot_be_written(run, tmp_path):
    with pytest.raises(ConfigError, match=r"\.html or \.pdf"):
        report.write(run.path, tmp_path / "report.docx")
    with pytest.raises(InputError, match="metrics"):
        report.write(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


# ---- in a browser


@pytest.fixture
def opened(chromium, run, page):
    chromium.open((run.path / "report.html").as_uri())
    yield chromium
    assert chromium.complaints == []
    assert all(address.startswith(("file:", "data:")) for address in chromium.requests)


def test_a_hostile_name_runs_nothing(opened):
    assert HOSTILE in opened.run("document.querySelector('h1').textContent")
    assert opened.run("document.scripts.length") == 2
    assert opened.run("document.querySelector('img[src=x]')") is None
    # even a script that got in by another way would not run
    opened.run("document.body.append(Object.assign(document.createElement('script'), {text: 'window.got_in = 1'}))")
    assert opened.run("window.got_in") is None
    assert any("Content Security Policy" in str(complaint) for complaint in opened.complaints)
    opened.complaints.clear()


def test_shots_play_in_order_and_at_the_speed_of_the_scanner(opened):
    # so slow that no machine is too slow to see the first shot
    slowness = "document.querySelector('#slowness')"
    opened.run(f"{slowness}.options[0].value = 1e6; {slowness}.value = 1e6")
    # all is played in the end; then play starts anew
    assert (value(opened, "#shot"), value(opened, "#time")) == ("3", "127")
    opened.click("#play")
    assert "Pause" in opened.run("document.querySelector('#play').textContent")
    places = [opened.run("4e6 * now.shot + now.sample") for _ in range(3) if opened.settle() is None]
    assert places == sorted(set(places)), "it moves on"
    assert opened.run("now.shot") == 0
    opened.click("#play")
    stopped = opened.run("[now.shot, now.sample]")
    opened.settle()
    assert opened.run("[now.shot, now.sample]") == stopped
    opened.run(f"{slowness}.value = 1000")
    # 256 ms slowed down 1000 times are 256 us, 32 samples of 8 us; the next shot follows the last sample
    play = "now.last = 1000; now.playing = true; tick(1256)"
    assert opened.run(f"move(1, 10); {play}; now.playing = false; now.sample") == pytest.approx(42)
    assert opened.run(f"move(1, 126); {play}; now.playing = false; now.shot") == 2
    assert opened.run(f"move(3, 126); {play}; now.playing") is False


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("zoom", [1, 8])
def test_a_moment_looks_the_same_however_it_was_reached(opened, theme, zoom):
    canvases = ("#columns > div:nth-child(1) canvas.square", "#columns > div:nth-child(2) canvas.low")

    def frame(shot, sample):
        opened.run(f"move({shot}, {sample})")
        return [pixels(opened, canvas) for canvas in canvases]

    opened.run(f"setTheme('{theme}'); document.querySelector('#zoom').value = {zoom}")
    first = frame(1, 61)
    for shown, again in zip(first, frame(1, 61), strict=True):
        np.testing.assert_array_equal(shown, again, err_msg="drawn twice")
    played = [frame(1, sample) for sample in range(62, 128, 3)]
    assert any((later[0] != first[0]).any() for later in played), "it moves"
    for shown, again in zip(first, frame(1, 61), strict=True):
        np.testing.assert_array_equal(shown, again, err_msg="dragged back")
    # what a page shows that was never played
    opened.open(opened.run("location.href"))
    opened.run(f"setTheme('{theme}'); document.querySelector('#zoom').value = {zoom}")
    for shown, again in zip(first, frame(1, 61), strict=True):
        np.testing.assert_array_equal(shown, again, err_msg="drawn first")
    red = opened.run("ink.bad.match(/[0-9]+/g).map(Number)")
    is_red = (np.abs(255 * first[0][..., :3] - red) < 3).all(axis=-1)
    assert 30 < is_red.sum() < 51, "one dot, of a radius of 4 pixels inside its edge, and no trail"


def test_no_edge_lies_in_a_point_spread_function(opened, run):
    (edge,) = {1e3 * min(map(abs, image["edges"])) for image in opened.run("data.psfs[0].images")[-1:]}
    reach = opened.run("(() => { const narrow = 3e3 * Math.max(...data.voxel), wide = 1e3 * widest;"
                       f" return 100 * Math.log(1.3 * {edge} / narrow) / Math.log(wide / narrow); }})()")  # fmt: skip
    opened.run(f"document.querySelector('#reach').value = {round(reach)}; drawPsfs()")
    half = float(opened.run("document.querySelector('#reach-text').textContent").split()[1])
    assert half > 1.2 * edge, "beyond the closest image"
    shown = pixels(opened, "#psfs canvas")[..., :3]
    box = opened.run("[58, document.querySelector('#psfs canvas').clientWidth - 10, 8]")
    left, right, top = map(int, box)
    middle, pixel = (left + right) / 2, 2 * half / (right - left)
    # the picture beside the exact sum, on and around the seam that was: colours of the map at the true decibels
    trajectory = run.trajectory("initial")
    k = trajectory.k_adc.double().numpy().reshape(-1, 2)
    spread = psf(trajectory)
    weights = density_compensation(
        angular(trajectory).double().flatten(0, 1), trajectory.acquisition.image_shape
    ).numpy()
    columns = np.arange(left + 4, right - 4)
    x = 1e-3 * (columns + 0.5 - middle) * pixel
    row = round(top + (right - left) / 2)
    y = -1e-3 * (row + 0.5 - (top + (right - left) / 2)) * pixel
    exact = np.abs(np.exp(2j * np.pi * (np.outer(x, k[:, 0]) + y * k[:, 1])) @ weights) / weights.sum()
    wanted = np.clip(20 * np.log10(exact) / 60 + 1, 0, 1)
    table = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    got = np.argmin(((shown[row, columns, None] - table) ** 2).sum(axis=-1), axis=-1) / 255
    near = np.abs(np.abs(1e3 * x) - edge) < 4 * pixel
    off = np.abs(got - wanted)[exact > 0.05]
    assert np.median(off) < 0.02
    assert np.abs(np.diff(got))[near[1:]].max() < 0.1, "no jump where the closest image ends"
    assert spread.detail_step[0] * 256 == pytest.approx(1e-3 * edge, rel=0.01)


def test_the_cursor_is_at_the_same_time_in_every_plot(opened, run):
    k = run.trajectory().k_adc
    place = opened.run("move(2, 40.5); drawK(columns[1])")
    np.testing.assert_allclose(place, k[2, 40:42].mean(dim=0), rtol=1e-4)
    text = opened.run("document.querySelectorAll('.readout')[1].textContent").replace("−", "-")
    assert f"k = ({place[0]:.1f}, {place[1]:.1f}) 1/m" in text
    seconds = 40.5 * 8e-6 + opened.run("data.times.adc[0]")
    nearest = round(seconds / 10e-6)
    norm = torch.linalg.vector_norm(run.trajectory().gradient[2, nearest])
    (shown,) = re.findall(r"gradient ([\d.]+) of", text)
    assert float(shown) == pytest.approx(1e3 * float(norm), rel=6e-3)
    # a click in a waveform moves it, and in k-space too
    box = opened.run("columns[0].gradientAxes.box")
    width, height = opened.run("[columns[0].gradient.clientWidth, columns[0].gradient.clientHeight]")
    opened.click("#columns > div:first-child canvas.low", x=(box["left"] + box["right"]) / 2 / width)
    assert opened.run("now.sample") == pytest.approx(63.5, abs=1.5)
    x, y = opened.run("[columns[1].kAxes.X(columns[1].trajectory.k_adc[2][0][100]),"
                      " columns[1].kAxes.Y(columns[1].trajectory.k_adc[2][1][100])]")  # fmt: skip
    width, height = opened.run("[columns[1].k.clientWidth, columns[1].k.clientHeight]")
    opened.click("#columns > div:nth-child(2) canvas.square", x=x / width, y=y / height)
    assert opened.run("now.sample") == pytest.approx(100, abs=2)


def test_the_worst_place_of_a_limit_is_one_click_away(opened, run):
    finding = run.results().limits["constraints"]["slew"]
    rows = opened.run("[...document.querySelectorAll('#limits tbody tr')].map((row) => row.innerText)")
    row = next(i for i, text in enumerate(rows, start=1) if text.startswith("slew") and "learned" in text)
    opened.click(f"#limits tbody tr:nth-child({row}) button")
    assert opened.run("now.shot") == finding["shot"]
    assert opened.run("seconds()") == pytest.approx(finding["time"], abs=8e-6)


def test_every_axis_has_numbers_to_read_its_scale_by(opened):
    # from limits of 10 to 100 mT/m, on axes with room for four
    tops = [1.12 * limit for limit in range(10, 101)]
    found = opened.run(f"{tops}.map((top) => ticks(-top, top, 4).map(([value]) => value))")
    assert all(3 <= len(values) <= 7 and 0 in values for values in found)
    assert opened.run("ticks(-44.8, 44.8, 4).map(([value]) => value)") == [-40, -20, 0, 20, 40]


def test_sliders_and_choices_work_from_the_keyboard(opened):
    opened.run("move(0, 50); document.querySelector('#time').focus()")
    opened.press("ArrowRight", 39)
    assert opened.run("now.sample") == 51
    assert opened.run("document.querySelector('#time').getAttribute('aria-valuetext')").startswith("shot 0, 0.4")
    opened.run("document.querySelector('#slowness').value = 4000; document.querySelector('#play').focus()")
    opened.press(" ", 32)
    assert opened.run("now.playing") is True
    opened.press(" ", 32)
    assert opened.run("now.playing") is False
    before = pixels(opened, "#psfs canvas"), pixels(opened, "#profile-plot")
    opened.run("document.querySelector('#reach').focus()")
    opened.press("End", 35)
    assert opened.run("document.querySelector('#reach-text').textContent") == "± 220 mm"
    after = pixels(opened, "#psfs canvas"), pixels(opened, "#profile-plot")
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    opened.run("document.querySelector('#split').focus()")
    opened.press("Home", 36)
    cut = opened.run("getComputedStyle(document.querySelector('#compare .left')).clipPath")
    assert cut.startswith("inset(0px 100%"), "nothing is left of the left image"
    opened.run("document.querySelector('#view').focus()")
    first = opened.run("document.querySelector('#compare img').src")
    opened.press("ArrowDown", 40)
    assert value(opened, "#view") == "adjoint"
    assert opened.run("document.querySelector('#compare img').src") != first
    # whatever takes input has a name
    unnamed = (
        "[...document.querySelectorAll('button, select, input, canvas')].filter("
        "(e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert opened.run(unnamed) == []


def test_dark_follows_the_wish_of_the_user_and_the_switch(opened):
    def colours():
        shown = opened.run("getComputedStyle(document.querySelector('section')).backgroundColor")
        canvas = pixels(opened, "#columns canvas.low")
        return shown, canvas[canvas[..., 3] == 1][:, :3].mean()

    light, light_ink = colours()
    assert light == "rgb(255, 255, 255)"
    opened.prefer("dark")
    opened.settle()
    dark, dark_ink = colours()
    assert dark != light
    assert dark_ink > light_ink, "what is drawn on dark is light"
    opened.click("#theme")
    assert colours() == (light, pytest.approx(light_ink))
    assert opened.run("document.querySelector('#theme').textContent") == "Dark", "it says what it brings"


def test_a_narrow_window_needs_no_scrolling_sideways_and_paper_is_light(chromium, run, page):
    chromium.open((run.path / "report.html").as_uri(), width=360, dark=True)
    assert chromium.run("document.documentElement.scrollWidth") <= 360
    cut = chromium.run(
        "[...document.querySelectorAll('#limits *, #export *')].filter((e) => e.scrollWidth > e.clientWidth + 1"
        " && getComputedStyle(e).display !== 'inline').map((e) => e.outerHTML)"
    )
    assert cut == [], "no cell and no command is cut off"
    box = "(e) => { const { left, right } = e.getBoundingClientRect(); return [left, right]; }"
    for left, right in chromium.run(f"[...document.querySelectorAll('#limits td, #limits th, pre')].map({box})"):
        assert 0 <= left <= right <= 360
    headings = chromium.run("[...document.querySelector('#limits tbody tr').cells].map("
                            "(e) => getComputedStyle(e, '::before').content)")  # fmt: skip
    assert headings[1:] == [f'"{name}"' for name in webpage.LIMIT_HEADINGS[1:]]
    assert chromium.pdf().startswith(b"%PDF-")
    assert chromium.complaints == []
    assert chromium.run("theme") == "dark", "printing leaves the page as it was"


def test_the_settings_shown_are_those_that_make_the_run_again(page, tmp_path):
    (tmp_path / "again.toml").write_text(Reader(page).texts["pre"][-1], encoding="utf-8")
    assert read_toml(tmp_path / "again.toml")["name"] == HOSTILE
