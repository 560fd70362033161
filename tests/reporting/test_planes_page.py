"""The page of a volume, which turns, and of a film, which plays frame after frame."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from pages import data_of, decoded, invented, pixels, value
from scipy.spatial.transform import Rotation

from trajdesign.acquisition import Acquisition
from trajdesign.learning.examples import Example
from trajdesign.reporting import webpage
from trajdesign.reporting.webpage import render
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.planes import planes

STACK = Acquisition((0.2, 0.2, 0.08), (32, 32, 4), 3 * 4, 200, 8e-6)
FILM = Acquisition((0.2, 0.2), (32, 32), 3 * 5, 200, 8e-6, 5)
K_SPACE = "#columns > div:nth-child(2) canvas.square"


def contents(acquisition):
    turned = planes(acquisition, Scanner(), pattern={"kind": "radial"}, turn="golden")
    return invented(turned)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Return the contents and the page of a stack and of a film."""
    folder, found = tmp_path_factory.mktemp("planes"), {}
    for name, acquisition in (("stack", STACK), ("film", FILM)):
        found[name] = contents(acquisition), folder / f"{name}.html"
        found[name][1].write_text(render(found[name][0]), encoding="utf-8")
    return found


@pytest.fixture
def stack(chromium, pages):
    yield from opened(chromium, pages["stack"][1])


@pytest.fixture
def film(chromium, pages):
    yield from opened(chromium, pages["film"][1])


def opened(chromium, path):
    chromium.open(path.as_uri())
    yield chromium
    assert chromium.complaints == []
    assert all(address.startswith(("file:", "data:")) for address in chromium.requests)


def choose(page, selector, number):
    """Set a control as a user does."""
    page.run(
        f"(() => {{ const it = document.querySelector({json.dumps(selector)}); it.value = {number};"
        "it.dispatchEvent(new Event('input')); })()"
    )
    page.settle()


# ---- what stands in the page


@pytest.mark.parametrize("name", ["stack", "film"])
def test_every_slice_or_frame_is_there_as_bright_as_beside_the_others(pages, name):
    of, path = pages[name]
    data, example = data_of(path.read_text(encoding="utf-8")), of.examples["learned"]
    n, top = len(example.reference), example.reference.max()
    assert data["planes"] == list(range(n))
    for part, wanted in (("network", example.images["network"]), ("adjoint", example.images["adjoint"])):
        shown = np.array([decoded(address)[..., 0] for address in data["examples"][1][part]])
        np.testing.assert_allclose(shown, np.clip(wanted / top, 0, 1), atol=0.6 / 255)
    shown = np.array([decoded(address)[..., 0] for address in data["reference"]])
    np.testing.assert_allclose(shown, example.reference / top, atol=0.6 / 255)
    assert len({len(data["examples"][i]["error"]) for i in (0, 1)} | {n}) == 1


def test_of_many_slices_some_are_shown_evenly_and_the_page_says_so():
    of = contents(STACK)

    def examples(n, side):
        reference = np.random.default_rng(0).random((n, side, side))
        example = replace(
            of.examples["fixed"], reference=reference, images={"adjoint": reference, "network": reference}
        )
        return {"fixed": example, "learned": example}

    text = render(replace(of, examples=examples(50, 8)))
    shown = data_of(text)["planes"]
    assert len(shown) == 17
    assert set(np.diff(shown)) == {3}
    assert "of 50 slices, of which 17 are shown." in text
    assert "of 4 slices." in render(of)
    # noise does not compress: a byte a pixel, 4/3 of that as text
    large = examples(10, 256)
    text = render(replace(of, examples=large))
    shown = data_of(text)["planes"]
    assert len(shown) == 5
    assert len(text.encode()) < 2**22 * 1.5 + len(render(of).encode())
    alone = Example(of.examples["fixed"].trajectory, np.zeros((1, 3000, 3000)), {}, {})
    assert webpage._shown_planes({"fixed": alone}) == [0]


def test_of_many_shots_some_are_shown_evenly_with_the_worst_ones_and_the_page_says_so():
    n_shots, n_frames = 500, 2
    of = contents(replace(FILM, n_shots=n_frames * n_shots, n_frames=n_frames))
    text = render(of)
    data = data_of(text)
    worst = {finding.shot % n_shots for found in of.findings.values() for finding in found}
    numbers = [
        int(n)
        for n in re.findall(r'<option value="\d+">(\d+)</option>', text.split('id="shot"')[1].split("</select>")[0])
    ]
    first = [n for n in numbers if n < n_shots]
    assert numbers == [*first, *(n_shots + n for n in first)]
    evenly = [n for n in first if n not in worst]
    assert worst <= set(first)
    assert 100 < len(evenly) < n_shots / 2
    assert len(set(np.diff(evenly))) <= 2  # one step, and twice that around a worst one that was in it
    assert f"Of {n_frames * n_shots} shots {len(numbers)} are shown" in text
    for shown in data["trajectories"]:
        np.testing.assert_allclose(
            np.array(shown["k_adc"]).transpose(0, 2, 1), of.trajectories["fixed"].k_adc[numbers], rtol=5e-6, atol=1e-12
        )
    assert len(text) < 16 * 2**20
    places = {int(shot): int(place) for place, shot in re.findall(r'data-shot="(\d+)"[^>]*>\s*shot&nbsp;(\d+),', text)}
    assert places == {n: numbers.index(n) for n in places}
    assert places
    assert {theme: len(colours) for theme, colours in data["shot_colours"].items()} == dict.fromkeys(
        ("light", "dark"), len(first)
    )
    assert "shots are shown" not in render(contents(FILM))


def test_frames_have_the_same_colours_dark_to_light(pages):
    data = data_of(pages["film"][1].read_text(encoding="utf-8"))
    assert data["n_frames"] == 5
    assert {theme: len(colours) for theme, colours in data["shot_colours"].items()} == {"light": 3, "dark": 3}
    assert len(data_of(pages["stack"][1].read_text(encoding="utf-8"))["shot_colours"]["light"]) == 12


# ---- a volume


@pytest.mark.parametrize(("turn", "tilt"), [(0, 0), (-90, 90), (-55, 25), (140, -70)])
def test_k_space_is_seen_from_where_the_sliders_say(stack, pages, turn, tilt):
    k = pages["stack"][0].trajectories["fixed"].k_adc
    shot, sample = 7, 31
    choose(stack, "#turn", turn)
    choose(stack, "#tilt", tilt)
    stack.run(f"move({shot}, {sample})")
    # a viewer on the x axis, y to the right and z up, after the object turned the other way
    _, right, up = Rotation.from_euler("zy", [-turn, tilt], degrees=True).apply(k[shot, sample].numpy())
    point = json.dumps([[v] for v in k[shot, sample].tolist()])
    seen = stack.run(f"seen({point}).map(([v]) => v)")
    np.testing.assert_allclose(seen, [right, up], atol=1e-3)
    # the red dot is where that point lies between the ends of the picture
    width, height = stack.run("[columns[1].k.clientWidth, columns[1].k.clientHeight]")
    side, far = min(width, height) - 16, 1.06 * np.linalg.norm(STACK.k_max)
    wanted = width / 2 + right / far * side / 2, 8 + side / 2 - up / far * side / 2
    red = stack.run("ink.bad.match(/[0-9]+/g).map(Number)")
    is_red = (np.abs(255 * pixels(stack, K_SPACE)[..., :3] - red) < 3).all(axis=-1)
    place = np.argwhere(is_red).mean(axis=0)[::-1] + 0.5
    np.testing.assert_allclose(place, wanted, atol=0.6)


def test_a_view_looks_the_same_however_it_was_turned_to(stack):
    def view(turn, tilt, shot=5, sample=61):
        stack.run(f"$('turn').value = {turn}; $('tilt').value = {tilt}; move({shot}, {sample})")
        return pixels(stack, K_SPACE)

    first = view(-55, 25)
    assert (view(-54, 25) != first).any()
    assert (view(-55, 26) != first).any()
    for sample in range(62, 200, 20):
        view(-55 + sample, 10, 6, sample)
    np.testing.assert_array_equal(view(-55, 25), first, err_msg="turned back")
    stack.open(stack.run("location.href"))
    assert (value(stack, "#turn"), value(stack, "#tilt")) == ("-55", "25")
    np.testing.assert_array_equal(view(-55, 25), first, err_msg="drawn first")


def test_k_space_turns_with_the_pointer_and_from_the_keyboard(stack):
    x, y, moved = stack.run(
        "(() => { const it = columns[0].k; it.scrollIntoView({block: 'center'});"
        "const box = it.getBoundingClientRect(); return [box.left + 200, box.top + 200, now.sample]; })()"
    )
    for kind, right, down in (("mousePressed", 0, 0), ("mouseMoved", 30, 10), ("mouseMoved", 60, 20)):
        buttons = {"button": "left", "buttons": 1, "clickCount": 1}
        stack.ask("Input.dispatchMouseEvent", type=kind, x=x + right, y=y + down, **buttons)
    stack.ask("Input.dispatchMouseEvent", type="mouseReleased", x=x + 60, y=y + 20, button="left", clickCount=1)
    # what is in front follows to the right, and what is above comes into view
    assert (value(stack, "#turn"), value(stack, "#tilt")) == ("-85", "35")
    assert stack.run("now.sample") == moved
    # a pointer that was pressed elsewhere turns nothing
    stack.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x + 90, y=y + 40, button="left", buttons=1)
    assert (value(stack, "#turn"), value(stack, "#tilt")) == ("-85", "35")
    before = pixels(stack, K_SPACE)
    stack.run("document.querySelector('#turn').focus()")
    stack.press("ArrowRight", 39)
    assert value(stack, "#turn") == "-84"
    assert (pixels(stack, K_SPACE) != before).any()


def test_the_three_axes_of_a_volume_have_numbers_and_colours(stack, pages):
    k = pages["stack"][0].trajectories["fixed"].k_adc[4, 50]
    stack.run("move(4, 50)")
    text = stack.run("document.querySelector('.readout').textContent").replace("\u2212", "-")
    assert text.startswith(f"k = ({', '.join(f'{v:z.1f}' for v in k.tolist())}) 1/m")
    assert len(set(stack.run("[ink.x, ink.y, ink.z, ink.one, ink.two]"))) == 5
    assert stack.run("document.querySelectorAll('#trajectories .ink-z').length") == 1


# ---- a film


def test_the_shots_of_a_frame_are_in_front(film, pages):
    k = pages["film"][0].trajectories["fixed"].k_adc.numpy()
    frames = {}
    for frame in (1, 3):
        choose(film, "#frame", frame)
        assert film.run("now.shot") == 3 * frame + 2
        scale, zero = film.run("[columns[1].kAxes.X(1) - columns[1].kAxes.X(0), columns[1].kAxes.X(0)]")
        across = film.run("columns[1].kAxes.Y(0)")
        picture = pixels(film, K_SPACE)
        shown = picture[..., 3] * (1 - picture[..., :3].mean(axis=-1))  # on white
        # near the ends of the spokes, where they are apart; not on the dot
        ends = k[:, [12, 20, 170, 180]]
        columns, rows = (zero + scale * ends[..., 0]).astype(int), (across - scale * ends[..., 1]).astype(int)
        near = [shown[rows + i, columns + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        frames[frame] = np.max(near, axis=0).min(axis=1)
    for frame, other in ((1, 3), (3, 1)):
        of, others = slice(3 * frame, 3 * frame + 3), slice(3 * other, 3 * other + 3)
        assert frames[frame][of].min() > 2 * frames[frame][others].max()


def test_a_frame_looks_the_same_however_it_was_reached(film):
    choose(film, "#frame", 2)
    first = pixels(film, K_SPACE)
    film.run("move(0, 0)")
    for shot in range(9):
        film.run(f"move({shot}, 199)")
    assert value(film, "#frame") == "2"
    np.testing.assert_array_equal(pixels(film, K_SPACE), first, err_msg="played")
    film.run("document.querySelector('#frame').focus()")
    film.press("ArrowDown", 40)
    assert film.run("now.shot") == 11, "the same shot of the next frame"
    assert (pixels(film, K_SPACE) != first).any()
    film.press("ArrowUp", 38)
    np.testing.assert_array_equal(pixels(film, K_SPACE), first, err_msg="from the keyboard")


def test_pictures_step_and_play_together(film):
    def shown():
        return film.run("[...document.querySelectorAll('#images img')].map((image) => image.src)")

    def wanted(at):
        return film.run(
            f"[data.reference[{at}], ...['network', 'error'].flatMap((part) => data.examples.map("
            f"(one) => one[part][{at}]))]"
        )

    assert shown() == wanted(2), "it begins in the middle"
    film.run("document.querySelector('#plane').focus()")
    film.press("End", 35)
    assert shown() == wanted(4)
    assert film.run("$('plane-text').textContent") == "4"
    # an eighth of a second is a frame; after the last one comes the first
    play = "planes.last = 1000; planes.playing = true; tickPlanes({}); planes.playing = false; planes.at"
    assert film.run(play.format(1125)) == 0
    assert film.run(play.format(1100)) == 0
    assert film.run(play.format(1375)) == 3
    assert shown() == wanted(3)
    film.click("#planes-play")
    assert "Pause" in film.run("$('planes-play').textContent")
    film.click("#planes-play")
    assert film.run("planes.playing") is False
    choose(film, "#view", "'adjoint'")
    assert film.run("[...document.querySelectorAll('#images img')][1].src === data.examples[0].adjoint[planes.at]")


@pytest.mark.parametrize("name", ["stack", "film"])
def test_it_fits_a_narrow_window_and_all_that_takes_input_has_a_name(chromium, pages, name):
    chromium.open(pages[name][1].as_uri(), width=360, dark=True)
    assert chromium.run("document.documentElement.scrollWidth") <= 360
    unnamed = (
        "[...document.querySelectorAll('button, select, input, canvas')].filter("
        "(e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert chromium.run(unnamed) == []
    assert chromium.complaints == []
