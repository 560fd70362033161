"""Rosettes, played as fast as the scanner allows."""

import math

import numpy as np
from scipy.integrate import cumulative_simpson

from trajdesign.acquisition import Acquisition
from trajdesign.errors import ConfigError
from trajdesign.scanner import Scanner
from trajdesign.trajectories.design import Bounds, feasible, how_many, require_2d, turned
from trajdesign.trajectories.traversal import Curve, Fastest
from trajdesign.trajectory import Trajectory, n_points


def rosette(acquisition: Acquisition, scanner: Scanner, *, petals: int | None = None, turns: float = 0.5) -> Trajectory:
    """Return rosettes: loops from the centre to k_max and back, one after the other.

    The path of one shot is ``k_max * sin(pi * petals * tau) * exp(2i * pi * turns * tau)``, tau from 0 to 1; see Noll,
    IEEE TMI 1997, doi:10.1109/42.611345. The next one is rotated by ``2 * pi / n_shots``. Along it the speed is the
    largest under the gradient limit, the receiver's Nyquist limit and the vector norm of the slew rate (which implies
    the limits of each axis). Where k_max differs between the axes, the pattern of the larger one is shrunk along the
    other. It is 2D.

    Parameters
    ----------
    petals
        Petals of one shot. By default as many as the readout has time for, and not more than put the tips of all
        shots 1/FOV apart; fewer are played slower, to fill the readout.
    turns
        Turns of the axis of the petals over the shot, 0 to 100; more makes rounder petals. The nearest number is
        taken that spreads the tips of the petals of all shots evenly over the circle.
    """
    require_2d("rosette", acquisition)
    if not 0 <= turns <= 100:
        raise ConfigError(f"rosette: turns is {turns:g}; it lies between 0 and 100.")
    radius, bounds = max(acquisition.k_max), Bounds.of(acquisition, scanner)

    def shot(petals: int) -> Fastest:
        even = _even_turns(petals, acquisition.n_shots, turns)
        return Fastest(_curve(radius, petals, even), bounds, from_rest=False)

    steps = n_points(acquisition, scanner) - 1
    available = steps * scanner.gradient_raster

    def duration(petals: int) -> float:
        # to the edge and back at full speed; what takes too long even so is not worth a design
        least = petals * 2 * radius / bounds.speed
        return least if least > available else shot(petals).duration

    most = math.ceil(math.pi * max(acquisition.matrix) / acquisition.n_shots)
    petals = how_many("rosette", "petals", petals, most, duration, available)
    k = turned(shot(petals).play(np.linspace(0, 1, steps + 1)), 2 * math.pi, acquisition)
    return feasible(k, acquisition, scanner, "rosette", "a shot")


def _even_turns(petals: int, n_shots: int, turns: float) -> float:
    """Return the turns nearest to `turns`, but not 0, at which the tips of all petals are spread evenly.

    From one petal to the next the axis turns by 2 pi turns / petals, and the sine changes its sign. The tips of
    all shots are even if that is m steps of 2 pi / (petals n_shots), m without a common divisor with petals.
    """
    straight = petals * n_shots / 2
    wanted = straight + turns * n_shots
    near = range(math.floor(straight) + 1, math.ceil(wanted) + 2 * petals + 1)
    steps = min((m for m in near if math.gcd(m, petals) == 1), key=lambda m: abs(m - wanted))
    return (steps - straight) / n_shots


def _curve(radius: float, petals: int, turns: float) -> Curve:
    """Return ``radius * sin(pi * petals * tau) * exp(2i * pi * turns * tau)`` for tau from 0 to 1."""
    beat, omega = math.pi * petals, 2 * math.pi * turns
    tau = np.linspace(0, 1, 1 + petals * (400 + 20 * petals))
    sine, cosine, direction = np.sin(beat * tau), np.cos(beat * tau), np.exp(1j * omega * tau)
    rate = radius * (beat * cosine + 1j * omega * sine) * direction
    change = radius * (2j * omega * beat * cosine - (beat**2 + omega**2) * sine) * direction
    arc = cumulative_simpson(np.abs(rate), dx=tau[1], initial=0)
    curvature = np.abs((rate.conj() * change).imag) / np.abs(rate) ** 3
    return Curve(arc, radius * sine * direction, rate / np.abs(rate), curvature)
