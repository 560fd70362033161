"""What the receiver sees of the magnetisation that the pulses of a file excite: its phase, and how long it dephased.

The path is the simplest: the last excitation, and every refocusing pulse since. An excitation of phase p leaves
magnetisation of phase p, counted so that a receiver at p sees a phase of 0; a refocusing pulse of phase r turns it into
``2 r - p + pi``. Phases are those of Pulseq's pulses and receivers, in which a spin at a higher field gains phase.
"""

import math

import numpy as np
from numpy.typing import NDArray

from trajdesign.pulseq.reader.events import Pulse
from trajdesign.pulseq.reader.kspace import Adc
from trajdesign.pulseq.reader.sequence import SeqFile

#: What six digits of a frequency in a file may turn a phase by, rad; it costs an image less than a hundredth.
TOLERANCE = 1e-2

#: What six digits in a file may make of pulses that are one: of the flip angle a part, of the place m, and Hz.
_SAME_FLIP, _SAME_PLACE, _SAME_FREQUENCY = 1e-3, 1e-5, 1.0


def received(file: SeqFile) -> tuple[NDArray[np.floating], ...]:
    """Return the phase of a signal from k = 0 as the receiver sees it, per ADC event (sample,), rad.

    Not a number before the first excitation, and where a file gives offsets in ppm of an unknown field.
    """
    return tuple(phase - _receiver(adc) for adc, phase in zip(file.adcs, _paths(file)[:, 0], strict=True))


def dephasing(file: SeqFile) -> tuple[NDArray[np.floating], ...]:
    """Return how long static fields turned the signal, per ADC event (sample,), s; refocusing reverses the sign."""
    constant = np.array([0.0, file.duration]), np.ones(2)
    return tuple(k[:, 0] for k in file.k_of([constant] * 3))


def slices(file: SeqFile) -> NDArray[np.integer]:
    """Return the number of each ADC event's slice (adc,): its label, or else by the frequency of its excitation."""
    return file.labels["SLC"] if "SLC" in file.labels else numbered(np.nan_to_num(_paths(file)[:, 1:2].round(3)))


def shots(file: SeqFile, n_of_frame: int) -> NDArray[np.integer]:
    """Return the number of each ADC event's shot (adc,): its label ``LIN``, or else its own number.

    In a film LIN counts the `n_of_frame` shots of a frame, and the label ``PHS`` the frames.
    """
    lines = file.labels.get("LIN", np.arange(len(file.adcs)))
    found: NDArray[np.integer] = lines + n_of_frame * file.label("PHS")
    return found


def echoes(file: SeqFile) -> NDArray[np.integer]:
    """Return a number of each ADC event (adc,), the same for those of one slice after as many refocusing pulses."""
    return numbered(np.stack([slices(file), _n_refocused(file)], axis=1))


def numbered(rows: NDArray) -> NDArray[np.integer]:
    """Return the number of the group of each row (row,): equal rows (row, value) are one group."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def groups_of(numbers: NDArray[np.integer], judged: NDArray[np.bool_]) -> list[NDArray[np.integer]]:
    """Return the members of each group among those that are judged, from the numbers of the groups of all (adc,)."""
    return [np.flatnonzero(judged & (numbers == number)) for number in np.unique(numbers[judged])]


def unlike_most(values: NDArray[np.floating], slack: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which rows (event, value) are not, within `slack` (value,), what most of them are."""
    unlike: NDArray[np.bool_] = (np.abs(values - values[most(np.round(values / slack))]) > slack).any(axis=1)
    return unlike


def most(values: NDArray) -> int:
    """Return the index of a row (event[, value]) that occurs most often."""
    _, first, counts = np.unique(values, axis=0, return_index=True, return_counts=True)
    return int(first[counts.argmax()])


def departures(file: SeqFile, groups: NDArray[np.integer]) -> NDArray[np.floating]:
    """Return how far the phase that the receiver sees departs from that of most events of its group (adc,), rad.

    A receiver whose frequency and phase shift the field of view does what it is meant to: such phases are linear in k.
    The result is not a number for noise and where `received` is none. `groups` has the group of each ADC event (adc,).
    """
    found, paths = np.full(len(file.adcs), np.nan), _paths(file)[:, 0]
    # at the sample nearest to the centre, where what shifts the field of view turns least
    k, phase = np.zeros((len(file.adcs), 3)), np.full(len(file.adcs), np.nan)
    for i, (adc, at) in enumerate(zip(file.adcs, file.k, strict=True)):
        nearest = int(np.square(at).sum(axis=1).argmin())
        k[i], phase[i] = at[nearest], paths[i] - _receiver(adc)[nearest]
    for events in groups_of(groups, np.isfinite(phase) & (file.label("NOISE") == 0)):
        centred = phase[events] + 2 * math.pi * k[events] @ _shift(file, events)
        found[events] = _from_most(centred)
        if len({file.adcs[i].event.phase for i in events}) > 1:
            flat = min((_from_most(_unsloped(centred, along)) for along in k[events].T), key=np.max)
            found[events] = np.where(flat.max() <= TOLERANCE, flat, found[events])
    return found


def drifts(file: SeqFile, events: NDArray[np.integer]) -> NDArray[np.floating]:
    """Return how far the receiver's frequency and modulation turn the signal during each ADC event (event,), rad.

    What shifts the field of view of all of them is left out.
    """
    seen, shift = received(file), _shift(file, events)
    return np.array([np.ptp(np.unwrap(seen[i] + 2 * math.pi * file.k[i] @ shift)) for i in events.tolist()])


def excited(file: SeqFile) -> NDArray[np.integer]:
    """Return the number of each ADC event's excitation among `SeqFile.excitations` (adc,); -1 before the first."""
    return _last(file, file.excitations)


def imaging(file: SeqFile) -> NDArray[np.bool_]:
    """Tell which ADC events sample the object for an image (adc,).

    No noise, no navigator, none for coil maps alone, none before a pulse.
    """
    return (excited(file) >= 0) & (file.label("NOISE") == 0) & (file.label("NAV") == 0) & ~file.is_calibration


def acting(file: SeqFile) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return each ADC event's excitation, and its last refocusing pulse, in `SeqFile.pulses` (adc,); -1 for none."""
    chosen = []
    for uses in ("eu", "r"):
        places = [n for n, (_, pulse) in enumerate(file.pulses) if pulse.use in uses]
        chosen.append(np.array([*places, -1])[_last(file, _centres(file)[places])])
    excitation, refocusing = chosen
    return excitation, np.where(refocusing > excitation, refocusing, -1)


def places(file: SeqFile) -> NDArray[np.floating]:
    """Return the middle of the slice that each ADC event samples (adc, 3), m, to a micrometre: 0 where none is excited.

    By the frequency and the gradient of the excitation.
    """
    found, (excitation, _) = np.zeros((len(file.adcs), 3)), acting(file)
    if file.pulses:
        found[excitation >= 0] = _kinds(file)[excitation[excitation >= 0], 1:4].round(6)
    return found


def _centres(file: SeqFile) -> NDArray[np.floating]:
    """Return the time of the centre of each pulse (pulse,), s."""
    return np.array([file.block_edges[i] + pulse.centre for i, pulse in file.pulses])


def _last(file: SeqFile, times: NDArray[np.floating]) -> NDArray[np.integer]:
    """Return the number of the last of `times` before each ADC event (adc,); -1 for none."""
    return np.searchsorted(times, [adc.first for adc in file.adcs], side="right") - 1


def uneven(file: SeqFile, groups: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Tell which ADC events' pulses play nothing, or not the flip angle, place or gradient of most in its group (adc,).

    Both the excitation and the last refocusing pulse, if any, count. The pulse's frequency and the gradient in its
    middle tell the place; noise, and what comes before any excitation, is left out, and calibration is a group of its
    own. The sign of the gradient counts where the label ``SET`` tells half pulses apart. As all pulses of a group have
    one shape, the root of the pulse's energy stands for the flip angle.
    """
    found = np.zeros(len(file.adcs), dtype=bool)
    if not file.pulses:
        return found
    halves, (excitation, refocusing), kinds = file.label("SET"), acting(file), _kinds(file)
    if not halves.any():
        kinds[:, 5:] = np.abs(kinds[:, 5:])
    if "SLC" not in file.labels and "SlicePositions" not in file.definitions:
        # slices of other planes may have one number
        kinds[:, 5:] = np.linalg.norm(kinds[:, 5:], axis=1, keepdims=True)
    keys = np.stack([groups, halves, file.is_calibration, _n_refocused(file)], axis=1)
    for pulse, columns in ((excitation, 3), (refocusing, 4)):
        judged = (pulse >= 0) & (excitation >= 0) & (file.label("NOISE") == 0)
        for events in groups_of(numbered(keys[:, :columns]), judged):
            found[events] |= _is_other(kinds[pulse[events]])
    return found


def _kinds(file: SeqFile) -> NDArray[np.floating]:
    """Return flip angle, place (m), or frequency (Hz) without one, and gradient of each pulse (pulse, 8)."""
    pulses = [pulse for _, pulse in file.pulses]
    flip = np.sqrt([pulse.energy for pulse in pulses])[:, None]
    frequency = np.nan_to_num([pulse.frequency for pulse in pulses])[:, None]
    g = file.gradient_at(file.pulse_spans.mean(axis=0))
    square = np.square(g).sum(axis=1, keepdims=True)
    place = np.where(square > 0, frequency * g / np.where(square > 0, square, 1.0), 0.0)
    return np.concatenate([flip, place, np.where(square > 0, 0.0, frequency), g], axis=1)


def _is_other(kinds: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Tell which rows of `_kinds` are not most of them, or of no flip angle (row,)."""
    flip, gradient = (max(_SAME_FLIP * float(np.abs(part).max()), 1e-12) for part in (kinds[:, 0], kinds[:, 5:]))
    slack = np.array([flip, *[_SAME_PLACE] * 3, _SAME_FREQUENCY, *[gradient] * 3])
    return unlike_most(kinds, slack) | (kinds[:, 0] == 0)


def _receiver(adc: Adc) -> NDArray[np.floating]:
    """Return the phase of the receiver at the samples of an ADC event (sample,), rad."""
    since = (np.arange(len(adc.times)) + 0.5) * adc.dwell
    turned = 2 * math.pi * adc.event.frequency * since
    return adc.event.phase + turned + (0.0 if adc.event.modulation is None else adc.event.modulation)


def _shift(file: SeqFile, events: NDArray[np.integer]) -> NDArray[np.floating]:
    """Return where the receiver's frequencies move the centre of the field of view to (3,), m."""
    frequencies = np.array([file.adcs[i].event.frequency for i in events])
    if not frequencies.any():
        return np.zeros(3)
    g = [(file.k[i][-1] - file.k[i][0]) / max(np.ptp(file.adcs[i].times), 1e-12) for i in events.tolist()]
    return np.linalg.lstsq(np.array(g), frequencies, rcond=1e-6)[0]


def _from_most(phase: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the distance of phases from the one that most of them are near, rad."""
    turned = np.exp(1j * phase)
    _, cells, counts = np.unique(np.round(turned / TOLERANCE), return_inverse=True, return_counts=True)
    return np.abs(np.angle(turned / turned[cells == counts.argmax()].mean()))


def _unsloped(phase: NDArray[np.floating], k: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return phases without the straight line in k along which they lie, if neighbours are less than pi apart."""
    order = np.argsort(k, kind="stable")
    line = np.unwrap(phase[order])
    slope = np.polyfit(k[order], line, 1)[0] if np.ptp(k) > 1e-9 else 0.0
    flat = np.empty_like(phase)
    flat[order] = line - slope * k[order]
    return flat


def _paths(file: SeqFile) -> NDArray[np.floating]:
    """Return phase (rad), frequency of the excitation (Hz) and number of refocusings of each ADC event (adc, 3)."""
    state, states = np.full(3, np.nan), [np.full(3, np.nan)]
    for _, pulse in file.pulses:
        if pulse.use in "eu":
            state = np.array([_phase(pulse), pulse.frequency, 0.0])
        elif pulse.use == "r":
            state = np.array([2 * _phase(pulse) - state[0] + math.pi, state[1], state[2] + 1])
        states.append(state)
    return np.array(states)[_last(file, _centres(file)) + 1]


def _n_refocused(file: SeqFile) -> NDArray[np.floating]:
    """Return the number of refocusing pulses since each ADC event's excitation (adc,); -1 without one."""
    return np.nan_to_num(_paths(file)[:, 2], nan=-1.0)


def _phase(pulse: Pulse) -> float:
    """Return the phase of a pulse at its centre, rad."""
    after = pulse.centre - pulse.delay
    shape = np.angle(pulse.amplitude[np.abs(pulse.times - after).argmin()])
    return float(shape) + pulse.phase + 2 * math.pi * pulse.frequency * after
