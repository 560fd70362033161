"""Whether a scanned file plays a run, and what the gradient system's response makes of it, in sentences."""

import numpy as np
from numpy.typing import NDArray

from trajdesign.measuring.reception import MOST_TURNS
from trajdesign.measuring.scan_facts import ScanFacts
from trajdesign.measuring.scanned_file import ScannedFile
from trajdesign.physics.response import remark_on
from trajdesign.pulseq import coherence
from trajdesign.pulseq.reader import sequence
from trajdesign.trajectory import MAX_K_ERROR_FOV, Trajectory
from trajdesign.units import same_nucleus

#: How far the image may be from the run's own without a reason: k that an export may be off costs less.
_MOST_NRMSE = 1e-2


def judge(facts: ScanFacts, file: ScannedFile, wanted: Trajectory | None) -> None:
    """Add to the facts whether the file plays the run, if there is one, and what the scan does not show."""
    remark = None
    if wanted is not None:
        departure = _departure(file.told, file.slices, wanted, facts)
        facts["is_of_run"], facts["departure"] = departure is None, departure
        remark = _remark(facts) if departure is None else None
    facts["remark"] = " ".join(filter(None, (remark, remark_on(facts["left_out_rad"])))) or None


def _departure(
    played: sequence.SeqFile, slices: list[NDArray[np.integer]], wanted: Trajectory, facts: ScanFacts
) -> str | None:
    """Return one sentence that says why a file does not play a run, None if it does; k is as the file tells it."""
    path, run, scanner = facts["path"], facts["run"], wanted.scanner
    numbers = np.zeros(len(played.adcs), dtype=int)
    for number, events in enumerate(slices):
        numbers[events.ravel()] = number
    n_uneven = int(coherence.uneven(played, numbers).sum())
    nucleus, gamma = facts.get("nucleus", scanner.nucleus), facts.get("gamma", scanner.gamma)
    if nucleus != scanner.nucleus or not same_nucleus(gamma, scanner.gamma):
        return (
            f"{path} is for {nucleus} (gamma {gamma * 1e-6:.6g} MHz/T), {run} for {scanner.nucleus} "
            f"({scanner.gamma * 1e-6:.6g} MHz/T)."
        )
    if facts["max_told_k_error_fov"] > MAX_K_ERROR_FOV:
        return (
            f"k in {path} is up to {facts['max_told_k_error_fov']:.3g}/FOV from that of {run}, more than the "
            f"{MAX_K_ERROR_FOV:g}/FOV of an export: it is another run's, or does not play it."
        )
    if n_uneven:
        return (
            f"the excitations in {path} play nothing, or differ from the others of their slice in flip angle, "
            f"frequency or slice gradient, in {n_uneven} of {len(played.adcs)} ADC events: it does not play {run}."
        )
    if facts["max_k_error_fov"] > MAX_K_ERROR_FOV:  # by the response, which the image shows too
        events = np.arange(len(played.adcs))
        off = np.maximum(coherence.departures(played, numbers), coherence.drifts(played, events))
        if not off.max() <= coherence.TOLERANCE:
            return (
                f"the receiver in {path} departs from the phase of its excitations by up to {off.max():.3g} rad: it "
                f"does not play {run}."
            )
        return None
    physics = (facts["t2_star"], facts["t2"], facts["noise"], facts["beats"], *facts["off_resonance"])
    if not any(physics) and facts["response"] is None and facts["nrmse_to_promised"] > _MOST_NRMSE:
        return (
            f"the image of {path} is {facts['nrmse_to_promised']:.2%} (NRMSE) from what {run} makes of the same "
            f"object, more than {_MOST_NRMSE:.0%}, though k is the same: "
            "phase or frequency of its receiver or pulses is wrong."
        )
    return None


def _remark(facts: ScanFacts) -> str | None:
    """Return what the response does to a file that plays the run, if training did not reckon with it."""
    found = []
    if facts["max_k_error_fov"] > MAX_K_ERROR_FOV:
        found.append(f"moves k by up to {facts['max_k_error_fov']:.3g}/FOV from where it was trained")
    if facts.get("turns_across_slice", 0.0) > MOST_TURNS:
        found.append(
            f"turns the phase across the slice by up to {facts['turns_across_slice']:.3g} cycles, whose loss of signal "
            "a scan of a thin slice does not show"
        )
    if not found:
        return None
    response = "the run's response to the gradients before the readout, for which training takes smooth ones,"
    if facts["response"] is not None:
        response = "the response that is given"
    return f"{facts['path']} plays {facts['run']}, but {response} {' and '.join(found)}."
