"""A virtual scan of a written Pulseq file: what its ADC samples of an object, and the image of that."""

import io
import math
from collections.abc import Mapping, Sequence
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
from trajdesign.errors import ConfigError
from trajdesign.files.atomic import atomic_path
from trajdesign.learning.results import to_json
from trajdesign.learning.trained import TrainedRun
from trajdesign.measuring import departure, raw_data, solving
from trajdesign.measuring.heartbeats import Heartbeats, require_free
from trajdesign.measuring.reception import Reception, refocused, stacked, thickness, turns
from trajdesign.measuring.scan_facts import CallFacts, ScanFacts, Scores
from trajdesign.measuring.scanned_file import ScannedFile
from trajdesign.physics.response import Response
from trajdesign.pulseq.response import left_out_of_file
from trajdesign.reconstruction import metrics
from trajdesign.reconstruction.coils import root_sum_of_squares
from trajdesign.reporting import drawing, plots
from trajdesign.trajectories.fitting import fit_residual
from trajdesign.trajectories.formats import mrd

_FILES = ("image.npy", "reconstruction.png", "raw.h5", "scan.json")


#: What the images of a scan are called where people read: that of the file, and what the run makes of the same object.
LABELS = {"image": "scan of the file", "promised": "the run's own k"}


@dataclass(frozen=True)
class Scanned:
    """What a virtual scan shows.

    Parameters
    ----------
    image
        Reconstruction of what the file sampled (y, x), real; of a volume (z, y, x), of a film (frame, y, x), as all
        others.
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
    beats: Path | str | None = None,
    overwrite: bool = False,
) -> Scanned:
    """Scan an object with a Pulseq file, as our own reader plays it, and reconstruct what was sampled.

    With a run its own network reconstructs, as in its test: for the run's trajectory, because that is what a site would
    reconstruct with. So a file that does not play it shows. Without a run the image is the root sum of squares of the
    density-compensated adjoint at the file's k.

    The object is a thin slice, or a volume; its voxels are points, as in training, and the physics is that of
    `trajdesign.encoding.voxel_signal.signal`, on the path of `trajdesign.pulseq.coherence`. The receiver's gain makes
    up for the decay until the echo, because networks know images of one brightness. Noise scans and
    calibration (label ``REF``) are no part of the image. The labels ``LIN`` and ``SLC`` say of which shot and slice an
    ADC event is; events of one shot are averaged. The same object lies in every slice; the worst image is shown. The
    slices of a stack (label ``PAR``) are images of the data that follow each other, at least four.

    Whether it is a volume or a film the run says; without one a volume is a file whose k along z covers the slab, and a
    film one with frames (label ``PHS``). Each shot of a film sees the object as it is in its frame, whenever it is
    played; calibration sees the mean of all frames.

    Parameters
    ----------
    path
        The ``.seq`` file.
    out
        Folder to write: ``image.npy``, ``reconstruction.png`` with the map of errors, ``raw.h5`` (ISMRMRD, as of a
        scanner: every ADC event in the order in which it is played, noise scans and calibration too, and k as read from
        the file) and ``scan.json``.
    object
        ``phantom``, or a file for the data source of the run (without one ``images``, for volumes and films
        ``volumes``), scaled to the field of view as in training; of several slices the one in the middle.
    run
        Run folder; its last training is taken.
    n_coils
        Number of coils, by default that of the data source.
    t2_star
        T2* of all voxels, s; no decay without it. A spin echo refocuses it all but for `t2`.
    t2
        T2 of all voxels, s, which is not refocused and at least T2*; infinite if None.
    off_resonance
        Of all voxels, or of each (y, x) or (z, y, x), Hz.
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
    beats
        Text file of the times of R waves, s, from the start of the Pulseq file, one a line. The heart of a film beats
        by them: each ADC event samples the frame in progress at its excitation, not that of its labels. Before the
        first R wave and after the last one beats are as long as the nearest. The raw data hold the time since the last
        one, as a scanner's do. The image of the scan itself is still sorted by labels; `reconstruct` sorts by beats.

    Raises
    ------
    InputError
        If a file cannot be read, has other axes or shots than the run; if the run or the object cannot be read.
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
        objects = _objects(object, file, n_coils, {} if trained is None else trained.config.data)
        scanned_object = objects[0] if file.stack is None else torch.stack(objects, dim=1)
        physics = Reception(file.played, t2_prime, t2, off_resonance, acting, _heart(beats, file))
        known = physics if response is None or trained is None else replace(physics, response=Response(own))
        facts: CallFacts = {
            "object": object,
            "beats": None if beats is None else str(beats),
            "run": None if run is None else str(run),
            "n_coils": len(scanned_object),
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
        promised = [None] * len(objects) if trained is None else _promised(trained, objects)
        _note_departures(facts, file, trained)
        scans, signals = list[Scanned](), list[Tensor]()
        receiver = _receiver(file, noise, noise_correlation)
        for one in _slices(file, scanned_object, physics, known, receiver, seed):
            signals.append(one.signal)
            scans.append(_compared(objects[one.number], one, acquisition, trained, promised[one.number], facts))
        scanned = _worst(scans)
        departure.judge(scanned.facts, file, None if trained is None else trained.trajectory)
        _write_raw(file, signals, scanned_object, physics, receiver, seed, to["raw.h5"])
        _write(scanned, acquisition, to)
    return scanned


def _heart(beats: Path | str | None, file: ScannedFile) -> Heartbeats | None:
    if beats is None:
        return None
    require_free(file.whole, file.acquisition.n_frames, file.path)
    return Heartbeats.read(beats)


def _receiver(file: ScannedFile, noise: float, correlation: float) -> raw_data.ReceiverNoise:
    level = noise * math.sqrt(file.slices[0].shape[1])  # of each event, so that the average's is as told
    return raw_data.ReceiverNoise(level, file.space, correlation)


def _note_departures(facts: CallFacts, file: ScannedFile, trained: TrainedRun | None) -> None:
    """Add to the facts how far k is from that of a run, and of slices how far their phase turns across them."""
    if trained is None:
        return
    facts["max_told_k_error_fov"] = file.from_trajectory(trained.trajectory)
    if file.space.n_dims == 2:
        facts["turns_across_slice"] = turns(file.played, file.path)


def _promised(trained: TrainedRun, objects: Sequence[Tensor]) -> list[Tensor | None]:
    """Return what a run makes of the object of each slice (1, 1, y, x); of one that they share, once."""
    found = {id(one): one for one in objects}
    images = {number: trained.promised(one) for number, one in found.items()}
    return [images[id(one)] for one in objects]


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
) -> list[_Slice]:
    """Return the slices; of `physics` the reconstruction knows what is in `known`.

    Of a stack `signal` is that of the partition of this number.
    """
    found = []
    for number, events in enumerate(file.slices):
        kspace, echo, gain = physics.sampled(coil_images, events, file.space)
        kspace = kspace + receiver.of(kspace.shape, seed + number)
        signal = kspace.flatten(1, 2).to(torch.complex64)
        kspace = known.demodulated(kspace, events).mean(dim=2)
        k = torch.from_numpy(stacked(file.played.k, events, file.acquisition.n_dims).mean(axis=1))
        found.append(_Slice(number, echo, kspace * gain, k, signal))
    if file.stack is None:
        return found
    partitions = torch.stack([one.kspace for one in found])[None]
    of_slices = torch.from_numpy(file.stack.slices(partitions.to(torch.complex64).numpy()))[0]
    return [one._replace(kspace=kspace) for one, kspace in zip(found, of_slices, strict=True)]


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
    encoding = solving.encoding_at(k, acquisition, torch.float64)
    return root_sum_of_squares(encoding.coil_images(encoding.weights * kspace[None])).float()


def _scores(image: Tensor, reference: Tensor) -> Scores:
    psnr, ssim = (float(metric(image, reference, 1.0)) for metric in (metrics.psnr, metrics.ssim))
    return {"psnr": psnr, "ssim": ssim, "nrmse": float(metrics.nrmse(image, reference))}


def _objects(object: str, file: ScannedFile, n_coils: int | None, data: Mapping[str, Any]) -> list[Tensor]:
    """Return what lies in each slice as the coils see it (coil, [z or frame,] y, x), from the source `data` if it fits.

    Slices have one object, those of a stack images that follow each other.
    """
    acquisition, n = file.acquisition, len(file.slices)
    is_phantom = object == "phantom"
    if not data or (data["kind"] == "phantom") != is_phantom:
        is_slice = acquisition.n_dims == 2 and acquisition.n_frames == 1
        data = {"kind": "phantom" if is_phantom else "images" if is_slice else "volumes"}
    given: dict[str, Any] = {} if is_phantom else {"train": [], "val": [], "test": [object]}
    if n_coils is not None:
        given["n_coils"] = n_coils
    slices = plugins.build("data", {**data, **given}, acquisition, "test")
    n_images: int = len(slices)  # type: ignore[arg-type]
    shifts = [0] * n if file.stack is None else range(-(n // 2), n - n // 2)
    found = {shift: slices[(n_images // 2 + shift) % n_images] for shift in shifts}
    return [found[shift] for shift in shifts]


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
    calibration = raw_data.calibration(file.whole, physics, coil_images, file.space, physics.response)
    seed += len(file.slices)
    readouts = raw_data.readouts(
        file.whole, file.played, file.space, file.slices, signals, calibration, receiver, seed,
        is_stack=file.stack is not None,
    )  # fmt: skip
    if physics.heart is not None:
        stamps = physics.heart.stamps(np.array([adc.first for adc in file.whole.adcs]))
        readouts = [replace(one, stamp=int(stamp)) for one, stamp in zip(readouts, stamps, strict=True)]
    scanner, thick = file.told.scanner(file.path), thickness(file.told, file.path)
    mrd.write(to, readouts, file.space, scanner, slice_thickness=thick)


def _write(scanned: Scanned, acquisition: Acquisition, to: dict[str, Path]) -> None:
    content = io.BytesIO()  # into a file numpy writes in a way that does not say that a disk is full
    np.save(content, scanned.image)
    to["image.npy"].write_bytes(content.getbuffer())
    images = {"image": scanned.image, "promised": scanned.promised}
    shown = {LABELS[name]: _picture(image, acquisition) for name, image in images.items() if image is not None}
    facts: Mapping[str, Any] = scanned.facts
    found = {label: facts[name] for name, label in LABELS.items() if label in shown}
    scores = {label: {"PSNR": one["psnr"], "SSIM": one["ssim"]} for label, one in found.items()}
    figure = plots.reconstructions(_picture(scanned.reference, acquisition), shown, scores)
    plots.save(figure, to["reconstruction.png"])
    to["scan.json"].write_text(to_json(scanned.facts) + "\n", encoding="utf-8", newline="\n")


def _picture(image: NDArray[np.floating], acquisition: Acquisition) -> NDArray[np.floating]:
    """Return what is shown of an image (y, x): of a volume the slice in the middle, of a film all frames."""
    if image.ndim == 2:
        return image
    return drawing.mosaic(image) if acquisition.n_frames > 1 else image[len(image) // 2]
