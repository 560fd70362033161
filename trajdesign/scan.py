"""A virtual scan of a written Pulseq file: what its ADC samples of an object, and the image of that."""

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trajdesign import metrics, plots, plugins, sampled, seqfile
from trajdesign.acquisition import Acquisition
from trajdesign.config import Config
from trajdesign.density import density_compensation
from trajdesign.encoding import Encoding
from trajdesign.errors import ConfigError, InputError
from trajdesign.evaluation import draw_seeds, from_adjoint
from trajdesign.exporters import mrd
from trajdesign.files import atomic_path
from trajdesign.interfaces import Reconstructor
from trajdesign.nufft import nufft_adjoint
from trajdesign.reconstructors.adjoint import root_sum_of_squares
from trajdesign.response import actual, k_of_file
from trajdesign.run import RunFolder, to_json
from trajdesign.scanner import Scanner
from trajdesign.seqfile import SeqFile
from trajdesign.signal import receiver_noise, signal
from trajdesign.trajectory import Trajectory, fit_residual

_FILES = ("image.npy", "reconstruction.png", "raw.h5", "scan.json")

#: Phase across the slice during a readout beyond which a file is taken for one of a volume, turns.
_MOST_TURNS = 0.05

_LARGEST_MATRIX = 4096


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
        and ``nrmse`` against the reference. With a run also ``promised``, the same of the promised image,
        ``nrmse_to_promised``, and ``max_k_error_fov``, how far k in the file is from the run's, in 1/FOV. Where the run
        knows the response of the gradient system, both are after it.
    """

    image: NDArray[np.floating]
    reference: NDArray[np.floating]
    promised: NDArray[np.floating] | None
    facts: dict[str, Any]


@torch.no_grad()
def scan(
    path: Path | str,
    *,
    out: Path | str,
    object: str = "phantom",
    run: Path | str | None = None,
    n_coils: int | None = None,
    t2_star: float | None = None,
    off_resonance: float | NDArray[np.floating] = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
) -> Scanned:
    """Scan an object with a Pulseq file, as `trajdesign.seqfile` plays it, and reconstruct what was sampled.

    With a run its own network reconstructs, as in its test: for the run's trajectory, because that is what a site
    would reconstruct with. So a file that does not play it shows. Without a run the image is the root sum of squares
    of the density-compensated adjoint at the file's k.

    The object is a thin slice at z = 0; its voxels are points, as in training, and the physics is that of
    `trajdesign.signal.signal`. The receiver's gain makes up for the decay until the echo, where all
    shots together are nearest to k = 0, because networks know images of one brightness. Noise scans are left out.

    Parameters
    ----------
    path
        The ``.seq`` file, 2D.
    out
        Folder to write: ``image.npy``, ``reconstruction.png`` with the map of errors, ``raw.h5`` (ISMRMRD: the signal
        of all coils in the order of the ADC events, and k as read from the file) and ``scan.json``.
    object
        ``phantom``, or a file for the data source of the run (``images`` without one), scaled to the field of view as
        in training; of several slices the one in the middle.
    run
        Run folder; its last training is taken.
    n_coils
        Number of coils, by default that of the data source.
    t2_star
        T2* of all voxels, s; no decay without it.
    off_resonance
        Of all voxels, or of each (y, x), Hz.
    noise
        Standard deviation of the complex noise of a pixel in a fully sampled image of one coil, before any decay; the
        object's brightest voxel is about 1.
    seed
        Of the noise.
    overwrite
        Whether an earlier scan may be replaced.

    Raises
    ------
    InputError
        If the file cannot be read, is not 2D or does not fit the run; if the run or the object cannot be read.
    ConfigError
        If an option makes no sense.
    OutputError
        If the folder holds a scan already.
    """
    path, out = Path(path), Path(out)
    if not 0 <= noise < math.inf or seed < 0:
        raise ConfigError(f"noise is {noise:g}, seed {seed}: noise is finite, and neither is negative.")
    with ExitStack() as files:
        to = {name: files.enter_context(atomic_path(out / name, overwrite=overwrite)) for name in _FILES}
        played = seqfile.read(path).without_noise()
        trained = None if run is None else _Trained.load(run)
        acquisition = _acquisition(played, path) if trained is None else trained.trajectory.acquisition
        played = replace(played, k=k_of_file(played, {} if trained is None else trained.config.response))
        k, times = _samples(played, acquisition, path)
        coil_images = _coil_images(object, acquisition, n_coils, {} if trained is None else trained.config.data)

        kspace = signal(coil_images, k, times, acquisition, t2_star=t2_star, off_resonance=off_resonance)
        kspace += receiver_noise(tuple(kspace.shape), noise, acquisition, seed)
        echo = float(times[:, k.square().sum((0, 2)).argmin()].mean())
        seen = kspace * (1.0 if t2_star is None else math.exp(echo / t2_star))
        facts = {
            "path": str(path),
            "md5": played.md5,
            "object": object,
            "run": None if run is None else str(run),
            "matrix": acquisition.matrix,
            "n_coils": len(coil_images),
            "n_shots": acquisition.n_shots,
            "n_samples": acquisition.n_samples,
            "duration": played.duration,
            **sampled.nucleus(played, path),
            "echo_time": echo,
            "t2_star": t2_star,
            "off_resonance": [float(np.min(off_resonance)), float(np.max(off_resonance))],
            "noise": noise,
            "seed": seed,
        }
        scanned = _compared(coil_images, seen, k, acquisition, trained, facts)
        of = Scanner(**sampled.nucleus(played, path))
        mrd.write(to["raw.h5"], kspace.numpy(), k.numpy(), acquisition, of, slice_thickness=_fov(played, path)[2])
        _write(scanned, to)
    return scanned


@dataclass(frozen=True)
class _Trained:
    """What a run has learned."""

    config: Config
    trajectory: Trajectory
    network: Reconstructor

    @classmethod
    def load(cls, run: Path | str) -> "_Trained":
        folder = RunFolder(run)
        config = folder.config()
        network = plugins.build("reconstructor", config.reconstructor)
        return cls(config, folder.load_stage(folder.stages()[-1], network), network.eval())

    def reconstruct(self, kspace: Tensor, coil_images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images (1, 1, y, x) from k-space (coil, shot, sample), and from what training would sample."""
        encoding = Encoding(actual(self.trajectory, self.config.response), normal=self.config.training.normal)
        seeds = draw_seeds(1, torch.Generator().manual_seed(self.config.seed))
        measured = encoding.coil_images(encoding.weights * kspace[None].to(coil_images.dtype))
        ideal = encoding.normal(coil_images[None])
        of_file, promised = (
            from_adjoint(images, coil_images[None], encoding, self.network, self.config, seeds).float()
            for images in (measured, ideal)
        )
        return of_file, promised


def _compared(
    coil_images: Tensor,
    kspace: Tensor,
    k: Tensor,
    acquisition: Acquisition,
    trained: _Trained | None,
    facts: dict[str, Any],
) -> Scanned:
    """Reconstruct k-space (coil, shot, sample), and compare the image with what it is of and what was promised."""
    reference = root_sum_of_squares(coil_images[None])
    if trained is None:
        image, promised = _adjoint(kspace, k, acquisition), None
        facts = facts | {"image": _scores(image, reference)}
    else:
        image, promised = trained.reconstruct(kspace, coil_images)
        facts = facts | {
            "image": _scores(image, reference),
            "promised": _scores(promised, reference),
            "nrmse_to_promised": float(metrics.nrmse(image, promised)),
            "max_k_error_fov": fit_residual(actual(trained.trajectory, trained.config.response), k)[0],
        }
    shown = None if promised is None else promised[0, 0].numpy()
    return Scanned(image[0, 0].numpy(), reference[0, 0].numpy(), shown, facts)


def _adjoint(kspace: Tensor, k: Tensor, acquisition: Acquisition) -> Tensor:
    """Return the root sum of squares (1, 1, y, x) of the weighted adjoint of k-space (coil, shot, sample)."""
    omega = (k * (2 * math.pi * torch.tensor(acquisition.voxel, dtype=torch.float64))).flatten(0, 1)
    weights = density_compensation(omega, acquisition.image_shape)
    images = nufft_adjoint(weights * kspace.flatten(1), omega, acquisition.image_shape)
    return root_sum_of_squares(images[None]).float()


def _scores(image: Tensor, reference: Tensor) -> dict[str, float]:
    psnr, ssim = (float(metric(image, reference, 1.0)) for metric in (metrics.psnr, metrics.ssim))
    return {"psnr": psnr, "ssim": ssim, "nrmse": float(metrics.nrmse(image, reference))}


def _coil_images(object: str, acquisition: Acquisition, n_coils: int | None, data: dict[str, Any]) -> Tensor:
    """Return the object as the coils see it (coil, y, x), from the data source `data` where that fits."""
    is_phantom = object == "phantom"
    if not data or (data["kind"] == "phantom") != is_phantom:
        data = {"kind": "phantom" if is_phantom else "images"}
    given: dict[str, Any] = {} if is_phantom else {"train": [], "val": [], "test": [object]}
    if n_coils is not None:
        given["n_coils"] = n_coils
    slices = plugins.build("data", {**data, **given}, acquisition, "test")
    return slices[len(slices) // 2]


def _samples(played: SeqFile, acquisition: Acquisition, path: Path) -> tuple[Tensor, Tensor]:
    """Return k (shot, sample, 2), 1/m, and the time since the excitation (shot, sample), s, of a file that fits."""
    wanted = (acquisition.n_shots, acquisition.n_samples)
    if played.adc_times.shape != wanted:
        raise InputError(
            f"{path} has (ADC events, samples) {played.adc_times.shape}, the run (shots, samples) {wanted}; "
            "is it the export of another run?"
        )
    turns = float(np.abs(played.k_adc[..., 2]).max()) * _fov(played, path)[2]
    if not turns <= _MOST_TURNS:
        raise InputError(
            f"{path} turns the phase across the slice by up to {turns:.3g} cycles during a readout, "
            f"a 2D sequence by at most {_MOST_TURNS}; volumes cannot be scanned."
        )
    last = np.searchsorted(played.excitations, played.adc_times, side="right") - 1
    return torch.from_numpy(played.k_adc[..., :2].copy()), torch.from_numpy(played.adc_times - played.excitations[last])


def _acquisition(played: SeqFile, path: Path) -> Acquisition:
    """Return the acquisition of a file: its field of view, and the smallest even matrix of square pixels for its k."""
    if not played.adc_times.size:
        raise InputError(f"{path} samples nothing: it has no ADC event.")
    fov = _fov(played, path)[:2]
    reach = float(np.abs(played.k_adc[..., :2]).max())
    matrix = tuple(2 * max(2, math.ceil(min(reach * extent, _LARGEST_MATRIX) - 1e-3)) for extent in fov)
    if max(matrix) > _LARGEST_MATRIX:
        raise InputError(f"{path} reaches {reach:.4g} 1/m; is the definition FOV, {fov} m, right?")
    n_shots, n_samples = played.adc_times.shape
    try:
        return Acquisition(fov, matrix, n_shots, n_samples, float(np.ptp(played.adc_times[0])) / max(1, n_samples - 1))
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None


def _fov(played: SeqFile, path: Path) -> tuple[float, float, float]:
    """Return the definition FOV: the field of view along x and y, and the slice thickness, m."""
    try:
        x, y, thickness = (float(extent) for extent in played.definitions.get("FOV", "").split())
    except ValueError:
        raise InputError(f"{path} lacks the definition FOV, three numbers in m.") from None
    return x, y, thickness


def _write(scanned: Scanned, to: dict[str, Path]) -> None:
    with to["image.npy"].open("wb") as stream:
        np.save(stream, scanned.image)
    images = {"image": scanned.image, "promised": scanned.promised}
    shown = {name: image for name, image in images.items() if image is not None}
    scores = {name: {"PSNR": scanned.facts[name]["psnr"], "SSIM": scanned.facts[name]["ssim"]} for name in shown}
    plots.save(plots.reconstructions(scanned.reference, shown, scores), to["reconstruction.png"])
    to["scan.json"].write_text(to_json(scanned.facts) + "\n", encoding="utf-8")
