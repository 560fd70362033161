"""Gyromagnetic ratios, range checks that catch a number in the wrong unit, and how near to a limit is still at it.

Everything inside the package is SI: m, s, T/m, T/m/s, Hz/T, and k in 1/m (cycles per metre).
"""

import math

from trajdesign.errors import ConfigError

# rad/s/T. 1H: CODATA 2022 free proton. Others: Harris et al., Pure Appl. Chem. 2001,
# doi:10.1351/pac200173111795. Magnitudes: the sign of rotation does not change which gradient moves k how far.
_GAMMA_RAD = {
    "1H": 2 * math.pi * 42.577478461e6,
    "2H": 4.10662791e7,
    "3He": 20.3801587e7,
    "7Li": 10.3977013e7,
    "13C": 6.728284e7,
    "17O": 3.62808e7,
    "19F": 25.18148e7,
    "23Na": 7.0808493e7,
    "31P": 10.8394e7,
    "129Xe": 7.452103e7,
}

#: Gyromagnetic ratio over 2 pi of each nucleus, in Hz/T.
GAMMA = {nucleus: gamma / (2 * math.pi) for nucleus, gamma in _GAMMA_RAD.items()}

# Tables differ by less for one nucleus (shielding, rounding), and the ratios of two by far more.
_SAME_NUCLEUS = 1e-3

_TIME_SLIPS = {1e-6: "us", 1e-3: "ms"}
_LENGTH_SLIPS = {1e-3: "mm", 1e-2: "cm"}
_TURN_SLIPS = {1 / (2 * math.pi): "rad", 1 / 360: "degrees"}

# quantity: (lowest plausible, highest plausible, unit, factors that slips are made of)
_PLAUSIBLE = {
    "max_gradient": (1e-3, 1.0, "T/m", {1e-3: "mT/m", 1e-2: "G/cm"}),
    "max_slew": (1.0, 5e3, "T/m/s", {1e3: "T/m/ms", 1e-3: "mT/m/s"}),
    "fov": (1e-3, 2.0, "m", _LENGTH_SLIPS),
    "dwell": (1e-7, 1e-3, "s", _TIME_SLIPS),
    "gradient_raster": (1e-7, 1e-3, "s", _TIME_SLIPS),
    "adc_raster": (1e-9, 1e-3, "s", _TIME_SLIPS),
    "rf_raster": (1e-9, 1e-3, "s", _TIME_SLIPS),
    "block_raster": (1e-9, 1e-3, "s", _TIME_SLIPS),
    "adc_dead_time": (0.0, 0.1, "s", _TIME_SLIPS),
    "rf_dead_time": (0.0, 0.1, "s", _TIME_SLIPS),
    "rf_ringdown_time": (0.0, 0.1, "s", _TIME_SLIPS),
    "t2": (1e-5, 100.0, "s", _TIME_SLIPS),
    "t2_star": (1e-5, 100.0, "s", _TIME_SLIPS),
    "te": (1e-4, 0.5, "s", _TIME_SLIPS),
    "tr": (1e-4, 10.0, "s", _TIME_SLIPS),
    "rr": (0.1, 5.0, "s", _TIME_SLIPS),
    "rf_duration": (5e-6, 2e-2, "s", _TIME_SLIPS),
    "flip_angle_deg": (0.3, 90.0, "degrees", {180 / math.pi: "rad"}),
    "slab": (1e-4, 1.0, "m", _LENGTH_SLIPS),
    "slice_thickness": (1e-4, 0.3, "m", _LENGTH_SLIPS),
    "slice_gap": (0.0, 0.1, "m", _LENGTH_SLIPS),
    "partition_thickness": (1e-4, 0.1, "m", _LENGTH_SLIPS),
    "spoiler_cycles": (0.0, 100.0, "turns of phase", _TURN_SLIPS),
    "crusher_cycles": (0.0, 100.0, "turns of phase", _TURN_SLIPS),
    "bridge_slew": (0.01, 1.0, "of the slew rate", {1e-2: "percent"}),
    "nerve_limit": (1e-3, 1.0, "of the limit", {1e-2: "percent"}),
    "band_limit": (1e-7, 0.1, "T/m", {1e-3: "mT/m", 1e-2: "G/cm"}),
    "n_dummies": (0, 10_000, "repetitions", {}),
    "n_slices": (1, 512, "slices", {}),
    "n_averages": (1, 1024, "averages", {}),
    "calibration": (0, 256, "lines", {}),
    "n_partitions": (1, 1024, "partitions", {}),
    "gamma": (1e6, 1e8, "Hz/T", {1e6: "MHz/T", 1 / (2 * math.pi): "rad/s/T"}),
}

# Parts of a limit, in the order of size: by how much a value may pass it, or how much a design leaves below it.

#: Rounding of double precision may add this part to a waveform that is exactly at a limit. A value that is a smaller
#: part of its limit is rounding alone, and shown as 0.
ROUNDING = 1e-9

#: The digits of a scanner file (float32 of the parts of the largest gradient, nine digits of text) may add this part.
WRITER_ROUNDING = 1e-6

#: A time this part of a raster beyond a multiple of it is that multiple.
RASTER_ROUNDING = 1e-6

#: The digits of a file of whatever origin (float32, or six of decimal text) may add this part.
FILE_ROUNDING = 1e-5

#: The projection stays this part below every limit, so that a waveform still keeps it when a file has rounded it.
PROJECTION_MARGIN = 1e-4

#: Dwell times are stored in whole ns, so a sequence exactly at the Nyquist speed may be this part beyond it.
DWELL_ROUNDING = 1e-3

#: A pattern that ends this part outside k_max, as rounding or a fit may leave it, is shrunk rather than refused.
EXTENT_ROUNDING = 1e-3

#: A bridge stays this part below the limits: room for a file's digits, and a tenth of it for those of the solver.
BRIDGE_MARGIN = 1e-3

#: A pattern is designed this part below the limits: room for files and for learning.
DESIGN_MARGIN = 0.02


def same_nucleus(gamma: float, other: float) -> bool:
    """Whether two gyromagnetic ratios over 2 pi are of one nucleus: within 0.1 %, as tables of one differ."""
    return math.isclose(gamma, other, rel_tol=_SAME_NUCLEUS)


def nucleus_of(gamma: float) -> str | None:
    """Return the key of `GAMMA` for a gyromagnetic ratio over 2 pi, Hz/T; None if it is of none."""
    return next((nucleus for nucleus, known in GAMMA.items() if same_nucleus(gamma, known)), None)


def plausible(quantity: str, value: float, at_most: float = math.inf) -> float:
    """Return `value` unchanged if it is a believable SI number for `quantity`; refuse it otherwise.

    It raises a `ConfigError` if it is not finite or outside the plausible range; the sentence names the likely slip.

    Parameters
    ----------
    quantity
        ``max_gradient``, ``max_slew``, ``fov``, ``dwell``, ``gamma``, a raster or dead time of the `Scanner`, a
        relaxation time, or an option of a sequence template.
    value
        The number, in SI.
    at_most
        A lower bound of the plausible range's end, where the use is special.
    """
    low, high, unit, slips = _PLAUSIBLE[quantity]
    high = min(high, at_most)
    if low <= value <= high:
        return value
    meant = [(name, value * factor) for factor, name in slips.items() if low <= value * factor <= high]
    hint = "; is it " + ". ".join(f"in {name}? Then write {si:g}" for name, si in meant) if meant else ""
    raise ConfigError(f"{quantity} is {value:g} {unit}, outside the plausible {low:g} to {high:g} {unit}{hint}.")
