"""A random beating heart in its short axis."""

from dataclasses import dataclass

import numpy as np

from trajdesign.acquisition import Acquisition
from trajdesign.data.grid import fit_matrix, slice_shape
from trajdesign.data.phantoms.shapes import Field, blend, capsule, length, noise, smooth

# Each contrast has a relative signal of blood, myocardium, fat, muscle, liver, lung and bone.
_CONTRASTS = (
    (1.00, 0.36, 0.80, 0.24, 0.38, 0.05, 0.18),  # balanced
    (0.90, 0.48, 0.62, 0.40, 0.50, 0.07, 0.22),  # spoiled, with inflow
)

# It is drawn on so many times the matrix, and cut to the band that the matrix holds.
_FINER = 2


def heart(acquisition: Acquisition, generator: np.random.Generator) -> Field:
    """Return the magnitude (frame, y, x), float32, of one beat of a heart: anterior up, the left side right.

    The frames are equally far apart in time, and the first would follow the last: the beat has a period. All that moves
    does so by one smooth law. The chest fills the field of view.
    """
    chest = _place(acquisition, generator)
    beat = _beat(acquisition.n_frames, generator)
    signals = [value * generator.uniform(0.93, 1.07) for value in _CONTRASTS[generator.integers(len(_CONTRASTS))]]
    texture = noise(chest.x.shape, (1, 1), lambda f: 1 / (f + 0.01), generator)
    still = _paint_chest(chest, signals, texture.imag, generator)
    film = np.repeat(still[None], acquisition.n_frames, axis=0)
    _paint_aorta(film, chest, beat, signals, generator)
    _paint_heart(film, chest, beat, signals, generator)
    film *= (1 + smooth(chest.x.shape, 0.1, generator)) * (1 + 0.03 * texture.real)
    return np.maximum(fit_matrix(film, chest.pixel, acquisition), 0).astype(np.float32)


@dataclass(frozen=True)
class _Chest:
    """Where each pixel lies (y, x), mm from the middle of a chest of usual size, whatever the field of view."""

    y: Field
    """Towards the back."""
    x: Field
    """Towards the patient's left."""
    half: tuple[float, float]
    """Half height and width."""
    pixel: tuple[float, float]

    @property
    def edge(self) -> float:
        """How soft edges are."""
        return max(self.pixel)


def _place(acquisition: Acquisition, generator: np.random.Generator) -> _Chest:
    uniform = generator.uniform
    ny, nx = (_FINER * n for n in slice_shape(acquisition))
    half = (uniform(98, 115), uniform(140, 160))
    wide = acquisition.fov[0] / acquisition.fov[1]
    half_fov = max(half[0], half[1] / wide) / uniform(0.88, 0.94)
    pixel = (2 * half_fov / ny, 2 * half_fov * wide / nx)
    y, x = np.ix_(*(size * (np.arange(n) - n // 2 + uniform(-3, 3)) for n, size in zip((ny, nx), pixel, strict=True)))
    turn = uniform(-0.08, 0.08)
    bends = [smooth((ny, nx), 1.5, generator) for _ in range(2)]
    turned = y * np.cos(turn) - x * np.sin(turn), x * np.cos(turn) + y * np.sin(turn)
    y, x = ((axis + bend).astype(np.float32) for axis, bend in zip(turned, bends, strict=True))
    return _Chest(y, x, half, pixel)


def _beat(n_frames: int, generator: np.random.Generator) -> Field:
    """Return how far the heart is contracted in each frame (frame, 1, 1): 0 to 1 of a smooth periodic law of the time.

    It starts relaxed, contracts in about a third of the beat, and fills more slowly.
    """
    peak, skew, sharp = generator.uniform(0.3, 0.4), generator.uniform(0.3, 0.5), generator.uniform(1.2, 2.0)
    phase = 2 * np.pi * (np.arange(n_frames) / n_frames - peak)
    bump = np.exp(sharp * (np.cos(phase - skew * np.sin(phase) + skew * np.sin(phase) ** 2 / 2) - 1))
    least = np.exp(-2 * sharp)
    return ((bump - least) / (1 - least)).astype(np.float32)[:, None, None]


def _paint_chest(chest: _Chest, signals: list[float], texture: Field, generator: np.random.Generator) -> Field:
    """Return what does not move (y, x): fat, muscle, ribs, lungs and their vessels, spine and liver."""
    uniform = generator.uniform
    blood, _, fat, muscle, liver, lung, bone = signals
    y, x, edge = chest.y, chest.x, chest.edge
    bulge = ((np.abs(y) / chest.half[0]) ** 2.5 + (np.abs(x) / chest.half[1]) ** 2.5) ** 0.4
    depth = (1 - bulge) * (sum(chest.half) / 2)
    image = np.zeros_like(x)
    blend(image, fat * (1 + 0.05 * texture), depth, edge)
    skin = uniform(8, 20)
    blend(image, muscle * (1 + 0.1 * texture), depth - skin, edge)
    around = np.arctan2(y / chest.half[0], x / chest.half[1]) * uniform(14, 18) + uniform(0, 6)
    ribs = 3.5 - length((depth - skin - 9, 6 * (np.cos(around) - 0.6)))
    blend(image, bone, ribs, edge)
    inner = depth - skin - uniform(15, 20)
    lungs = np.minimum(inner, np.abs(x) - uniform(18, 24) - 14 * np.clip(-y / 60, 0, 1))
    blend(image, lung * (1 + 0.2 * texture), lungs, edge)
    dome = inner if uniform() < 0.5 else inner - 200
    blend(image, liver, np.minimum(dome, uniform(55, 65) - length((y - uniform(5, 25), x + uniform(75, 85)))), edge)
    spine = (uniform(-4, 4), chest.half[0] * uniform(0.5, 0.56))
    blend(image, bone * 1.6, 17 - length((x - spine[0], 1.15 * (y - spine[1]))), edge)
    blend(image, signals[3] * 0.9, 8 - length((x - spine[0], y - spine[1] - 25)), edge)
    for _ in range(24):
        at = (0.6 * chest.half[0] * uniform(-1, 1), 0.75 * chest.half[1] * uniform(-1, 1))
        run = (at[0] + generator.normal(0, 7), at[1] + generator.normal(0, 7))
        radius = uniform(1, 3)
        blend(image, 0.8 * blood, np.minimum(-capsule((y, x), at, run, radius, 0.6 * radius), lungs), edge)
    return image


def _paint_aorta(film: Field, chest: _Chest, beat: Field, signals: list[float], generator: np.random.Generator) -> None:
    """Draw the descending aorta, which widens a little in each beat, and the vena cava into `film`."""
    uniform = generator.uniform
    for place, radius, pulse in (
        ((chest.half[0] * 0.36, uniform(16, 22)), uniform(9, 12), 0.08),
        ((chest.half[0] * 0.22, -uniform(24, 32)), uniform(9, 12), -0.05),
    ):
        distance = length((chest.y - place[0], chest.x - place[1]))
        pulsing = radius * (1 + pulse * beat)
        blend(film, signals[3], pulsing + 1.5 - distance, chest.edge)
        blend(film, signals[0] * (1 - 0.1 * beat), pulsing - distance, chest.edge)


def _paint_heart(film: Field, chest: _Chest, beat: Field, signals: list[float], generator: np.random.Generator) -> None:
    """Draw both ventricles into `film`.

    The left one's wall keeps its area in the plane, but for the part that moves in from the long axis, so that it
    thickens while the pool shrinks. The whole heart shifts and turns a little in every beat.
    """
    uniform = generator.uniform
    blood, wall, fat, *_ = signals
    edge = chest.edge
    turn = uniform(-0.3, 0.3) + uniform(0.06, 0.16) * beat
    y = chest.y - (uniform(-22, -12) + uniform(1, 3) * beat)
    x = chest.x - (uniform(22, 32) - uniform(1, 4) * beat)
    y, x = y * np.cos(turn) - x * np.sin(turn), x * np.cos(turn) + y * np.sin(turn)

    pool = uniform(22, 27)
    thick = uniform(8, 11)
    pool_now = pool * (1 - uniform(0.28, 0.42) * beat)
    area = ((pool + thick) ** 2 - pool**2) * (1 + uniform(0.05, 0.2) * beat)
    outer = np.sqrt(pool_now**2 + area)
    long = uniform(1.0, 1.1)
    angle = np.arctan2(y, x)
    waves = sum(uniform(-0.03, 0.03) * np.cos(n * angle + uniform(0, 6.3)) for n in (2, 3, 4))
    radius = length((y / long, x)) * (1 + waves)

    # the right ventricle is a crescent on the left one's side
    right_half = (uniform(33, 40), uniform(36, 44))
    shrinks = 1 - uniform(0.14, 0.25) * beat
    right_x = x + pool + thick + uniform(2, 8) - 6 * beat
    right = (1 - length((y / right_half[0], right_x / right_half[1]))) * right_half[0] - (1 - shrinks) * 30
    right = np.minimum(right, 1.2 * (pool + thick) - right_x - 30)
    rv_wall = uniform(3, 4.5) * (1 + 0.3 * beat)
    heart = np.maximum(outer - radius, right + rv_wall)
    blend(film, fat, heart + uniform(2, 5), edge)
    blend(film, wall, heart, edge)
    blend(film, blood, np.minimum(right, radius - outer), edge)
    blend(film, blood * (1 - 0.06 * beat), pool_now - radius, edge)
    for side in (uniform(0.5, 0.9), uniform(2.2, 2.7)):
        size = uniform(3.5, 5.5) * (1 + 0.15 * beat)
        reach = pool_now - 0.8 * size
        muscle = size - length((y - long * reach * np.sin(side), x - reach * np.cos(side)))
        blend(film, wall, np.minimum(muscle, outer - radius), edge)
