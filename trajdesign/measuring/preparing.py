"""Samples as reconstructions take them: of coils that are equally noisy, maybe fewer, as bright as in training."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.measuring import noise
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.calibration import Calibration, transformed
from trajdesign.measuring.solving import Solver
from trajdesign.reconstruction.brightness import brightness


@dataclass(frozen=True, eq=False)
class Prepared:
    """Samples that are ready to be reconstructed.

    Parameters
    ----------
    kspace
        (frame, slice, coil, shot, sample), complex64.
    adjoints
        Its density-compensated adjoint images (1, coil, y, x) of each frame and slice.
    calibration
        Coil images of low resolution of each slice (1, coil, y, x), of any brightness; None each without a calibration.
    scale
        By what the samples were divided.
    is_white
        Whether a noise scan has told how to make the coils equally noisy.
    kept
        The part of the signal's power that the coils hold after compression.
    """

    kspace: Tensor
    adjoints: Sequence[Sequence[Tensor]]
    calibration: Sequence[Tensor | None]
    scale: float
    is_white: bool
    kept: float


def prepared(
    found: Assigned, encodings: Sequence[Encoding], calibration: Calibration | None = None, n_coils: int | None = None
) -> Prepared:
    """Prepare samples that are in their places: prewhiten, compress, and bring them to the brightness of training.

    Parameters
    ----------
    found, encodings
        The samples, and where those of each slice lie.
    calibration
        For coil maps: its coils are treated likewise.
    n_coils
        To how many virtual coils all are compressed; None for as they are.

    Raises
    ------
    InputError
        If noise scan or calibration have other coils than the measurement, or the samples are all zero.
    ConfigError
        If `n_coils` is more than there are, or none.
    """
    measured = found.kspace.shape[2]
    of_coils = {"noise scan": found.noise, "calibration": None if calibration is None else calibration.kspace[0]}
    for name, samples in of_coils.items():
        if samples is not None and len(samples) != measured:
            raise InputError(f"the {name} has {len(samples)} coils, the measurement {measured}.")
    if not found.kspace.abs().max() > 0:
        raise InputError("the raw data hold zeros alone.")
    matrix, kept = noise.whitening(found.noise), 1.0
    is_white = matrix is not None
    kspace = found.kspace if matrix is None else transformed(found.kspace, matrix)
    if n_coils is not None:
        compression, kept = _compression(kspace, n_coils)
        matrix = compression if matrix is None else compression @ matrix
        kspace = transformed(found.kspace, matrix)
    # the adjoint is linear: samples of any size are first brought near 1
    size = torch.exp2(torch.log2(kspace.abs().max()).ceil())
    adjoints = [
        [Solver(encoding, None).adjoint(one / size) for encoding, one in zip(encodings, frame, strict=True)]
        for frame in kspace
    ]
    scale = max(float(brightness(images)) for frame in adjoints for images in frame)
    for images in itertools.chain.from_iterable(adjoints):
        images /= scale
    low = None if calibration is None else calibration.coil_images(found.acquisition, matrix)
    return Prepared(
        kspace=kspace / (size * scale),
        adjoints=adjoints,
        calibration=[None] * len(encodings) if low is None else list(low.split(1)),
        scale=float(size * scale),
        is_white=is_white,
        kept=kept,
    )


def _compression(kspace: Tensor, n_coils: int) -> tuple[Tensor, float]:
    """Return the matrix (virtual, coil) that keeps most of the power of k-space, and the part of it that it keeps.

    Its rows are the first left singular vectors of all samples (Huang et al., MRI 2008, doi:10.1016/j.mri.2007.04.010).
    They are orthonormal, so that white noise stays white.
    """
    measured = kspace.shape[2]
    if not 1 <= n_coils <= measured:
        raise ConfigError(f"coils is {n_coils}; {measured} were measured, which can be compressed to 1 to {measured}.")
    samples = kspace.transpose(0, 2).reshape(measured, -1).to(torch.complex128)
    samples = samples / samples.abs().max()
    power, vectors = torch.linalg.eigh(samples @ samples.conj().T)
    return vectors.conj().T.flip(0)[:n_coils], float(power.flip(0)[:n_coils].sum() / power.sum())
