"""The page of measured data: its verdict, that a user's words stay words, and what it does in a browser."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from pages import HOSTILE, Reader, data_of

from trajdesign.reconstruction.measured import LABELS, Facts, Reconstructed
from trajdesign.reporting.measured import overview
from trajdesign.reporting.measured_page import render

N_SHOTS, N_PARTS = 5, 4


def parts(level):
    return {
        "total": level,
        "of_shots": [level * (1 + shot / 10) for shot in range(N_SHOTS)],
        "over_time": [level * (1 + part / 5) for part in range(N_PARTS)],
    }


def shown(shape=(2, 3, 8, 12), names=tuple(LABELS), **facts):
    """Return random images of a shape with facts that no measurement has."""
    rng = np.random.default_rng(0)
    images = {name: rng.random(shape).astype(np.float32) * 10.0**i for i, name in enumerate(names)}
    known = {
        "raw": f"folder/{HOSTILE}",
        "kind": "twix",
        "noise_scan": None,
        "shift": (0.0, 0.0),
        "rotate": 0.0,
        "kept_by_compression": 0.98,
        "run": "runs/brain",
        "stage": "learned",
        "seq": "x.seq",
        "is_export": True,
        "k": None,
        "command": f"trajdesign reconstruct '{HOSTILE}' --out o --force",
        "dicom": None,
        "n_frames": shape[0],
        "n_slices": shape[1],
        "n_averages": 2,
        "n_coils": 32,
        "n_virtual_coils": 12,
        "coil_maps": {"cg_sense": "espirit", "network": None, "calibration": HOSTILE, "lines": 24},
        "response": {"kind": "girf", "path": HOSTILE},
        "dwell": 5e-6,
        "off_resonance": (-80.0, 120.0),
        "dwell_of_raw": 2e-6,
        "n_shots": N_SHOTS,
        "n_samples": 400,
        "oversampling": 2,
        "readout": 4e-3,
        "matrix": (shape[3], shape[2]),
        "fov": (0.24, 0.16),
        "n_noise_samples": 512,
        "system": HOSTILE,
        "gating": None,
        "delay": {"axes": [0.0, 0.0], "by": None},
        "brightness": 2.0**-7,
        "prewhitened": True,
        "residual": {name: parts(0.05 * (i + 1)) for i, name in enumerate(names)},
        "promised": {name: 0.02 for name in names if name != "adjoint"},
        "promised_parts": {name: parts(0.02) for name in names if name != "adjoint"},
        "noise": 0.0312,
        "noise_parts": {name: parts(0.0312)[name] for name in ("of_shots", "over_time")},
        "warnings": [],
    }
    return Reconstructed(images, Facts(**known | facts))


DELAY = {
    "axes": [2.25e-6, 3e-6],
    "by": "sharpness",
    "tried": [1e-6 * late for late in range(-8, 9)],
    "criterion": [70.0 - (late == 3) for late in range(-8, 9)],
}


def pixels(source):
    return imread(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))[..., 0]


def test_pictures_are_the_images_of_every_slice_and_frame():
    of = shown()
    data = data_of(render(of))
    assert [one["label"] for one in data["images"]] == list(LABELS.values())
    assert data["aspect"] == 1.5
    for one, stack in zip(data["images"], of.images.values(), strict=True):
        found = np.array([[pixels(source) for source in frame] for frame in one["pictures"]])
        # one scale of all slices and frames, so that they are as bright as they are beside each other
        np.testing.assert_allclose(found, stack / stack.max(), atol=0.6 / 255)


def test_what_is_drawn_is_what_was_found():
    of = shown(delay=DELAY)
    data = data_of(render(of))
    for one, name in zip(data["residual"], LABELS, strict=True):
        for key in ("of_shots", "over_time"):
            assert one["found"][key] == pytest.approx(of.facts.residual[name][key])
            if name != "adjoint":
                assert one["promised"][key] == pytest.approx(of.facts.promised_parts[name][key])
    assert data["residual"][2]["promised"] is None
    assert data["noise"]["of_shots"] == pytest.approx(of.facts.noise_parts["of_shots"])
    assert data["delay"]["tried"] == pytest.approx(DELAY["tried"])
    assert data["readout"] == 4e-3


def test_warnings_come_first():
    warnings = ["shot 3 is missing: its samples are all zero.", f"coil {HOSTILE} sees nothing"]
    text = render(shown(warnings=warnings))
    reader = Reader(text)
    assert [found for found in reader.texts["li"] if found.startswith("Warning")] == [f"Warning: {w}" for w in warnings]
    assert text.index(warnings[0]) < text.index('id="images"')
    assert "Nothing in the data speaks against" not in text
    assert "Nothing in the data speaks against k, the shots or the coils." in render(shown())


def test_the_facts_are_told():
    def told(**facts):
        reader = Reader(render(shown(**facts)))
        (table,) = reader.texts["tbody"]
        return table

    table = told()
    for word in ("runs/brain", "learned", "x.seq", "3.12% of the data", "512 samples a coil", "2 × 3", "0.007812 in",
                 "32, compressed to 12", "its protocol, 2 µs", "24 lines of", "measured 2 times",
                 "all coils made equally noisy", "4 ms"):  # fmt: skip
        assert word in table
    assert "Gradients actas told" in table
    assert "in the folder dicom" in table
    assert "no DICOM is written: x." in told(dicom="no DICOM is written: x.")
    assert "2.25 µs (x) and 3.00 µs (y) later than told, by sharpness" in told(delay=DELAY)
    assert "an export of the run, by" in table
    assert "by its signature no export" in told(is_export=False)
    assert "signature" not in told(is_export=None)
    without = told(run=None, stage=None, n_noise_samples=0)
    assert "Run" not in without
    assert "noise scan" not in without


def test_what_a_user_named_stays_text():
    text = render(shown(warnings=[HOSTILE]))
    reader = Reader(text)
    assert HOSTILE not in text
    assert reader.texts["h1"] == [HOSTILE.rpartition("/")[2]]
    assert reader.texts["pre"] == [f"trajdesign reconstruct '{HOSTILE}' --out o --force"]
    assert [attributes for tag, attributes in reader.elements if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]


def test_the_page_loads_nothing():
    text = render(shown(delay=DELAY))
    assert "://" not in text
    reader = Reader(text)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in reader.elements}
    for tag, attributes in reader.elements:
        for key in ("src", "href", "action", "poster", "srcset", "data"):
            assert attributes.get(key, "#").startswith("#"), (tag, key)
    (policy,) = [a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_of_too_many_images_some_are_shown():
    of = shown(shape=(300, 20, 64, 64), names=("cg_sense", "adjoint"))
    text = render(of)
    data = data_of(text)
    assert data["slices"] == list(range(20))
    assert 40 <= len(data["frames"]) <= 51  # of 2**23 pixels
    steps = np.diff(data["frames"])
    assert (steps == steps[0]).all()
    assert 300 - 1 - data["frames"][-1] <= steps[0]
    assert f"Shown are {len(data['frames'])} of 300 frames and 20 of 20" in " ".join(text.split())
    assert len(text.encode()) < 2**24


def test_black_images_and_data_without_noise_are_drawn():
    of = shown(noise=0.0, noise_parts={"of_shots": [0.0] * N_SHOTS, "over_time": [0.0] * N_PARTS})
    of = replace(of, images={name: 0 * image for name, image in of.images.items()})
    assert pixels(data_of(render(of))["images"][0]["pictures"][0][0]).max() == 0
    figure = overview(of)
    assert len(figure.axes) == 3 + 2


def test_the_picture_has_the_same_lines():
    of = shown(delay=DELAY)
    figure = overview(of)
    shots, times, delay = figure.axes[3:]
    found = {line.get_label(): line.get_ydata() for line in shots.lines}
    for name, label in LABELS.items():
        np.testing.assert_allclose(found[label], 100 * np.array(of.facts.residual[name]["of_shots"]))
    np.testing.assert_allclose(found["noise"], 100 * np.array(of.facts.noise_parts["of_shots"]))
    assert len(shots.lines) == 3 + 2 + 1
    np.testing.assert_allclose(times.lines[0].get_xdata(), [0.5, 1.5, 2.5, 3.5])
    assert [line.get_xdata()[0] for line in delay.lines[1:]] == pytest.approx([2.25, 3.0])


# ---- in a browser


@pytest.fixture(params=["light", "dark"])
def opened(chromium, tmp_path, request):
    (tmp_path / "reconstruction.html").write_text(render(shown(delay=DELAY)), encoding="utf-8")
    chromium.complaints.clear()
    chromium.requests.clear()
    chromium.open((tmp_path / "reconstruction.html").as_uri(), dark=request.param == "dark")
    yield chromium
    assert chromium.complaints == []
    assert all(address.startswith(("file:", "data:")) for address in chromium.requests)


def sources(opened):
    return opened.run("[...document.querySelectorAll('#pictures img')].map((image) => image.src)")


def test_sliders_go_through_slices_and_frames(opened):
    data = opened.run("data.images")
    assert sources(opened) == [one["pictures"][0][1] for one in data], "the middle slice of the first frame"
    opened.run("document.querySelector('#slice').focus()")
    opened.press("ArrowRight", 39)
    opened.run("document.querySelector('#frame').focus()")
    opened.press("ArrowRight", 39)
    assert sources(opened) == [one["pictures"][1][2] for one in data]
    texts = "['slice', 'frame'].map((name) => document.querySelector(`#${name}-text`).textContent)"
    assert opened.run(texts) == ["2", "1"]
    assert opened.run("document.querySelector('#pictures img').alt") == "network, slice 2, frame 1"
    shape = opened.run("(() => { const { width, height } = document.querySelector('#pictures img')"
                       ".getBoundingClientRect(); return width / height; })()")  # fmt: skip
    assert shape == pytest.approx(1.5, rel=0.01), "as the field of view"
    opened.run("document.querySelector('#bright').focus()")
    opened.press("End", 35)
    assert opened.run("document.querySelector('#pictures img').style.filter") == "brightness(16)"


def test_every_plot_is_drawn_and_everything_has_a_name(opened):
    for canvas in ("#shots-plot", "#time-plot", "#delay-plot"):
        source = opened.run(f"document.querySelector({json.dumps(canvas)}).toDataURL()")
        shot = imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        colours = np.unique(np.rint(255 * shot[shot[..., 3] == 1]).astype(int)[:, :3], axis=0)
        ink = np.array(opened.run("['one', 'x'].map((name) => ink[name].match(/[0-9]+/g).map(Number))"))
        for wanted in ink:
            assert np.abs(colours - wanted).max(axis=1).min() <= 20, f"a line of its colour in {canvas}"
    unnamed = (
        "[...document.querySelectorAll('button, select, input, canvas, img')].filter("
        "(e) => !(e.ariaLabel || e.alt || e.textContent.trim() || e.labels?.[0]?.textContent.trim()))"
        ".map((e) => e.outerHTML)"
    )
    assert opened.run(unnamed) == []


def test_the_colours_are_those_that_the_user_prefers(opened):
    light = opened.run("matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
    shown_in = opened.run("getComputedStyle(document.querySelector('section')).backgroundColor")
    assert (shown_in == "rgb(255, 255, 255)") == (light == "light")
    opened.click("#theme")
    assert opened.run("getComputedStyle(document.querySelector('section')).backgroundColor") != shown_in


def test_a_narrow_window_needs_no_scrolling_sideways(chromium, tmp_path):
    (tmp_path / "x.html").write_text(render(shown(delay=DELAY, warnings=["x" * 200])), encoding="utf-8")
    chromium.open((tmp_path / "x.html").as_uri(), width=360)
    assert chromium.run("document.documentElement.scrollWidth") <= 360
    assert chromium.pdf().startswith(b"%PDF-")


def test_one_image_has_no_sliders_of_slices_and_frames(chromium, tmp_path):
    (tmp_path / "x.html").write_text(render(shown(shape=(1, 1, 8, 8), names=("cg_sense", "adjoint"))), encoding="utf-8")
    chromium.complaints.clear()
    chromium.open((tmp_path / "x.html").as_uri())
    assert len(sources(chromium)) == 2
    assert chromium.run("document.querySelectorAll('input').length") == 1
    assert chromium.complaints == []
