"""A virtual scan of a written Pulseq file: what its ADC samples of an object, and the image of that."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.config import plugins
from trajdesign.encoding.density import density_compensation
from trajdesign.encoding.nufft import nufft_adjoint
from trajdesign.encoding.operator import angles
from trajdesign.errors import ConfigError
from trajdesign.files.atomic import atomic_path
from trajdesign.learning.results import to_json
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import raw_data
from trajdesign.measuring.reception import (
    MOST_TURNS,
    Reception,
    ScannedFile,
    refocused,
    stacked,
    thickness,
    turns,
)
from trajdesign.measuring.scan_facts import CallFacts, ScanFacts, Scores
from trajdesign.physics.response import Response, remark_on
from trajdesign.pulseq import coherence
from trajdesign.pulseq.reader import sequence
from trajdesign.pulseq.response import left_out_of_file
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reporting import plots
from trajdesign.trajectories.fitting import fit_residual
from trajdesign.trajectories.formats import mrd
from trajdesign.trajectory import MAX_K_ERROR_FOV, Trajectory
from trajdesign.units import same_nucleus

#: How far the image may be from the run's own without a reason: k that an export may be off costs less.
_MOST_NRMSE = 1e-2

_FILES = ("image.npy", "reconstruction.png", "raw.h5", "scan.json")


#: What the images of a scan are called where people read: that of the file, and what the run makes of the same object.
LABELS = {"image": "scan of the file", "promised": "the run's own k"}


@dataclass(frozen=True)
class Scanned:
    """What a virtual scan shows.

    Parameters
    ----------
    image
        Reconstruction of what the file sampled (y, x), real.
    reference
        Root sum of squares of the object's coil images (y, x).
    promised
        What the run makes of the object on its own trajectory, without a file, decay, off-resonance and noise (y, x);
        None without a run.
    facts
        What ``scan.json`` holds: the numbers of the call and of the file, SI, and ``image``: ``psnr`` (dB), ``ssim``
        and ``nrmse`` against the reference. Of several slices, ``slice`` is the one that is shown, and
        ``nrmse_of_slices`` tells of each. With a run also ``promised``, the same of the promised image,
        ``nrmse_to_promised``, and how far k in the file is from the run's, in 1/FOV, before the response of the
        gradient system (``max_told_k_error_fov``) and after it (``max_k_error_fov``). ``is_of_run`` says whether the
        file plays the run; if not, ``departure`` is the sentence that says why. Else ``remark`` says what the response
        to the gradients before the readout changes, also the phase across the slice (``turns_across_slice``, cycles).
        It says too if concomitant fields turn spins by more than the scan simulates: ``left_out_rad`` is that phase.
    """

    image: NDArray[np.floating]
    reference: NDArray[np.floating]
    promised: NDArray[np.floating] | None
    facts: ScanFacts


@torch.no_grad()
def scan(
    path: Path | str,
    *,
    out: Path | str,
    object: str = "phantom",
    run: Path | str | None = None,
    n_coils: int | None = None,
    t2_star: float | None = None,
    t2: float | None = None,
    off_resonance: float | NDArray[np.floating] = 0.0,
    response: Mapping[str, Any] | None = None,
    noise: float = 0.0,
    noise_correlation: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
) -> Scanned:
    """Scan an object with a Pulseq file, as our own reader plays it, and reconstruct what was sampled.

    With a run its own network reconstructs, as in its test: for the run's trajectory, because that is what a site would
    reconstruct with. So a file that does not play it shows. Without a run the image is the root sum of squares of the
    density-compensated adjoint at the file's k.

    The object is a thin slice; its voxels are points, as in training, and the physics is that of
    `trajdesign.encoding.voxel_signal.signal`, on the path of `trajdesign.pulseq.coherence`. The receiver's gain makes
    up for the decay until the echo, because networks know images of one brightness. Noise scans and
    calibration (label ``REF``) are no part of the image. The labels ``LIN`` and ``SLC`` say of which shot and slice an
    ADC event is; events of one shot are averaged. The same object lies in every slice; the worst image is shown.

    Parameters
    ----------
    path
        The ``.seq`` file, 2D.
    out
        Folder to write: ``image.npy``, ``reconstruction.png`` with the map of errors, ``raw.h5`` (ISMRMRD, as of a
        scanner: every ADC event in the order in which it is played, noise scans and calibration too, and k as read from
        the file) and ``scan.json``.
    object
        ``phantom``, or a file for the data source of the run (``images`` without one), scaled to the field of view as
        in training; of several slices the one in the middle.
    run
        Run folder; its last training is taken.
    n_coils
        Number of coils, by default that of the data source.
    t2_star
        T2* of all voxels, s; no decay without it. A spin echo refocuses it all but for `t2`.
    t2
        T2 of all voxels, s, which is not refocused and at least T2*; infinite if None.
    off_resonance
        Of all voxels, or of each (y, x), Hz.
    response
        Table of the response of the gradient system that plays the file, as ``[response]`` of a run; empty for a
        perfect one, and by default the run's own. Of another one the run knows nothing when it reconstructs.
    noise, seed
        Standard deviation of the complex noise of a pixel in a fully sampled image of one coil, before any decay, and
        the seed of it; the object's brightest voxel is about 1. ADC events of another dwell time have more or less of
        it, as the bandwidth is.
    noise_correlation
        Of the noise of two neighbouring coils, from 0 to below 1; between coils i and j it is that to the power of
        ``|i - j|``.

    Raises
    ------
    InputError
        If the file cannot be read, is not 2D or does not fit the run; if the run or the object cannot be read.
    ConfigError
        If an option makes no sense.
    OutputError
        If the folder holds a scan already, and `overwrite` is false.
    """
    path, out = Path(path), Path(out)
    if not 0 <= noise < math.inf or seed < 0:
        raise ConfigError(f"noise is {noise:g}, seed {seed}: noise is finite, and neither is negative.")
    t2_prime = refocused(t2, t2_star)
    with ExitStack() as files:
        to = {name: files.enter_context(atomic_path(out / name, overwrite=overwrite)) for name in _FILES}
        trained = None if run is None else TrainedRun.load(run)
        own = {} if trained is None else trained.config.response
        acting = Response(own if response is None else response)
        file = ScannedFile.read(path, acting, None if trained is None else trained.trajectory.acquisition)
        acquisition = file.acquisition
        coil_images = _coil_images(object, acquisition, n_coils, {} if trained is None else trained.config.data)
        physics = Reception(file.played, t2_prime, t2, off_resonance, acting)
        known = physics if response is None or trained is None else replace(physics, response=Response(own))
        facts: CallFacts = {
            "object": object,
            "run": None if run is None else str(run),
            "n_coils": len(coil_images),
            **file.facts(),
            "t2_star": t2_star,
            "t2": t2,
            "noise": noise,
            "noise_correlation": noise_correlation,
            "seed": seed,
            "response": None if response is None else dict(response),
            "left_out_rad": left_out_of_file(file.told, acting, acquisition.fov),
            "off_resonance": [float(np.min(off_resonance)), float(np.max(off_resonance))],
        }
        promised = None if trained is None else trained.promised(coil_images)
        if trained is not None:
            facts["max_told_k_error_fov"] = file.from_trajectory(trained.trajectory)
            facts["turns_across_slice"] = turns(file.played, path)
        scans, signals = list[Scanned](), list[Tensor]()
        level = noise * math.sqrt(file.slices[0].shape[1])  # of each event, so that the average's is as told
        receiver = raw_data.ReceiverNoise(level, acquisition, noise_correlation)
        for of_slice in _slices(file, coil_images, physics, known, receiver, seed):
            signals.append(of_slice.signal)
            scans.append(_compared(coil_images, of_slice, acquisition, trained, promised, facts))
        scanned = _worst(scans)
        _judge(scanned.facts, file, None if trained is None else trained.trajectory)
        _write_raw(file, signals, coil_images, physics, receiver, seed, to["raw.h5"])
        _write(scanned, to)
    return scanned


def _judge(facts: ScanFacts, file: ScannedFile, wanted: Trajectory | None) -> None:
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
    physics = (facts["t2_star"], facts["t2"], facts["noise"], *facts["off_resonance"])
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
    if facts["turns_across_slice"] > MOST_TURNS:
        found.append(
            f"turns the phase across the slice by up to {facts['turns_across_slice']:.3g} cycles, whose loss of signal "
            "a scan of a thin slice does not show"
        )
    if not found:
        return None
    response = "the run's response to the gradients before the readout, which training takes to have died out,"
    if facts["response"] is not None:
        response = "the response that is given"
    return f"{facts['path']} plays {facts['run']}, but {response} {' and '.join(found)}."


class _Slice(NamedTuple):
    """A slice as it was sampled: its number, the time of its echo, s, k-space (coil, shot, sample), and its k.

    `signal` is what the receiver had in each ADC event (coil, event, sample).
    """

    number: int
    echo_time: float
    kspace: Tensor
    k: Tensor
    signal: Tensor


def _slices(
    file: ScannedFile,
    coil_images: Tensor,
    physics: Reception,
    known: Reception,
    receiver: raw_data.ReceiverNoise,
    seed: int,
) -> Iterator[_Slice]:
    """Yield the slices one after the other; of `physics` the reconstruction knows what is in `known`."""
    for number, events in enumerate(file.slices):
        kspace, echo, gain = physics.sampled(coil_images, events, file.acquisition)
        kspace = kspace + receiver.of(kspace.shape, seed + number)
        signal = kspace.flatten(1, 2).to(torch.complex64)
        kspace = known.demodulated(kspace, events).mean(dim=2)
        k = torch.from_numpy(stacked(file.played.k, events).mean(axis=1))
        yield _Slice(number, echo, kspace * gain, k, signal)


def _worst(scans: Sequence[Scanned]) -> Scanned:
    """Return the slice with the worst image, which tells the errors of all."""
    errors = [one.facts.get("nrmse_to_promised", one.facts["image"]["nrmse"]) for one in scans]
    scanned = scans[int(np.argmax(errors))]
    scanned.facts["nrmse_of_slices"] = errors
    return scanned


def _compared(
    coil_images: Tensor,
    sampled: _Slice,
    acquisition: Acquisition,
    trained: TrainedRun | None,
    promised: Tensor | None,
    facts: CallFacts,
) -> Scanned:
    """Reconstruct a slice, and compare the image with the object and with the promised image."""
    number, echo_time, kspace, k, _ = sampled
    reference = root_sum_of_squares(coil_images[None])
    image = _adjoint(kspace, k, acquisition) if trained is None else trained.reconstruct(kspace, coil_images)
    found: ScanFacts = {**facts, "slice": number, "echo_time": echo_time, "image": _scores(image, reference)}
    if trained is not None and promised is not None:
        found["promised"] = _scores(promised, reference)
        found["nrmse_to_promised"] = float(metrics.nrmse(image, promised))
        found["max_k_error_fov"] = fit_residual(trained.acting, k)[0]
    shown = None if promised is None else promised[0, 0].numpy()
    return Scanned(image[0, 0].numpy(), reference[0, 0].numpy(), shown, found)


def _adjoint(kspace: Tensor, k: Tensor, acquisition: Acquisition) -> Tensor:
    """Return the root sum of squares (1, 1, y, x) of the weighted adjoint of k-space (coil, shot, sample)."""
    omega = angles(k, acquisition).flatten(0, 1)
    weights = density_compensation(omega, acquisition.image_shape)
    images = nufft_adjoint(weights * kspace.flatten(1), omega, acquisition.image_shape)
    return root_sum_of_squares(images[None]).float()


def _scores(image: Tensor, reference: Tensor) -> Scores:
    psnr, ssim = (float(metric(image, reference, 1.0)) for metric in (metrics.psnr, metrics.ssim))
    return {"psnr": psnr, "ssim": ssim, "nrmse": float(metrics.nrmse(image, reference))}


def _coil_images(object: str, acquisition: Acquisition, n_coils: int | None, data: Mapping[str, Any]) -> Tensor:
    """Return the object as the coils see it (coil, y, x), from the data source `data` where that fits."""
    is_phantom = object == "phantom"
    if not data or (data["kind"] == "phantom") != is_phantom:
        data = {"kind": "phantom" if is_phantom else "images"}
    given: dict[str, Any] = {} if is_phantom else {"train": [], "val": [], "test": [object]}
    if n_coils is not None:
        given["n_coils"] = n_coils
    slices = plugins.build("data", {**data, **given}, acquisition, "test")
    return slices[len(slices) // 2]  # type: ignore[arg-type]


def _write_raw(
    file: ScannedFile,
    signals: list[Tensor],
    coil_images: Tensor,
    physics: Reception,
    receiver: raw_data.ReceiverNoise,
    seed: int,
    to: Path,
) -> None:
    """Write every ADC event as a scanner does, noise scans and calibration too."""
    calibration = raw_data.calibration(file.whole, physics, coil_images, file.acquisition, physics.response)
    seed += len(file.slices)
    readouts = raw_data.readouts(file.whole, file.played, file.slices, signals, calibration, receiver, seed)
    scanner, thick = file.told.scanner(file.path), thickness(file.told, file.path)
    mrd.write(to, readouts, file.acquisition, scanner, slice_thickness=thick)


def _write(scanned: Scanned, to: dict[str, Path]) -> None:
    content = io.BytesIO()  # into a file numpy writes in a way that does not say that a disk is full
    np.save(content, scanned.image)
    to["image.npy"].write_bytes(content.getbuffer())
    images = {"image": scanned.image, "promised": scanned.promised}
    shown = {LABELS[name]: image for name, image in images.items() if image is not None}
    facts: Mapping[str, Any] = scanned.facts
    found = {label: facts[name] for name, label in LABELS.items() if label in shown}
    scores = {label: {"PSNR": one["psnr"], "SSIM": one["ssim"]} for label, one in found.items()}
    plots.save(plots.reconstructions(scanned.reference, shown, scores), to["reconstruction.png"])
    to["scan.json"].write_text(to_json(scanned.facts) + "\n", encoding="utf-8", newline="\n")
