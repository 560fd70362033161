"""Whether images explain what was measured, in numbers and sentences."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.measuring import consistency, delays, noise
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.consistency import Residual
from trajdesign.measuring.places import k_and_dwell, near_one
from trajdesign.reconstruction.measured import Noise


def noise_part(found: Assigned, kspace: Tensor, scale: float, *, is_white: bool) -> float:
    """Return ||n|| / ||y||, the part of the data that is noise, by the noise scan or else by the data themselves."""
    power = float(kspace.abs().square().double().mean())
    if is_white and found.noise is not None:
        dwell = found.acquisition.dwell / found.oversampling
        variance = noise.variance(found.noise, found.noise_dwell, dwell) / found.n_averages / scale**2
        variance /= 1 if found.stack is None else found.kspace.shape[1]  # slices are means over all partitions
    else:
        of_slices = [noise.estimated_variance(one) for frame in kspace for one in frame]
        variance = sum(of_slices) / len(of_slices)
    return math.sqrt(min(1.0, variance / power))


def noise_parts(kspace: Tensor, level: float, n_parts: int) -> Noise:
    """Return which part of each shot, ``of_shots``, and of each time in the readout, ``over_time``, is noise.

    Noise is the same everywhere, `level` of all data; of parts with little signal it is more.
    """
    power = kspace.abs().square().double().mean((0, 1, 2))
    times = torch.stack([part.mean() for part in power.mean(0).chunk(n_parts)])
    of_shots, over_time = (
        (level * (power.mean() / part).sqrt()).clamp(max=1.0).tolist() for part in (power.mean(1), times)
    )
    return {"of_shots": of_shots, "over_time": over_time}


def warnings(
    found: Assigned,
    encodings: Sequence[Encoding],
    sums: Mapping[str, Residual],
    promised: Mapping[str, Residual],
    level: float,
) -> list[str]:
    """Return what is wrong with the data, one sentence each."""
    every, middle = found.kspace.flatten(0, 1), found.kspace.shape[1] // 2
    sentences = [
        f"coil {coil} sees nothing: it receives no more at the centre of k-space than at its edge; is it dead, or "
        "unplugged?"
        for coil in consistency.blind_coils(every, encodings[0].omega.double())
    ]
    sentences += [f"shot {shot} is missing: its samples are all zero." for shot in consistency.silent_shots(every)]
    residual, promise = sums["cg_sense"], promised["cg_sense"]
    if consistency.is_too_large(residual, promise, level):
        shots = consistency.outstanding(residual, level)[:8]
        which = f" Worst are the shots {', '.join(map(str, shots))} (counted from 0)." if shots else ""
        sentences.append(
            f"CG-SENSE leaves {residual.total:.1%} of the data unexplained; of data that its image gives itself it "
            f"leaves {promise.total:.1%}, and noise is {level:.1%}: k is not as it is taken to be (a delay, another "
            "order of the shots, another gradient system), the object moved or is larger than the field of view, or "
            f"the field is off.{which}"
        )
    late = None
    if found.is_timed and consistency.is_too_large(residual, promise, level, consistency.ORDINARY):
        k, dwell = k_and_dwell(found, encodings[middle])
        one = near_one(found.kspace[0, middle])
        late = delays.suspected(one, k, found.acquisition, dwell, found.view.centre)
    if late is not None and abs(late) > delays.SUSPICIOUS:
        sentences.append(
            f"the data agree best with gradients that act about {abs(late) * 1e6:.1f} us "
            f"{'later' if late > 0 else 'earlier'} than they are taken to: find the delay of each axis with delay auto."
        )
    return sentences
