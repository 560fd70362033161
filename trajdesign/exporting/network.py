"""A run's reconstruction as a program that torch alone can load."""

import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from trajdesign.encoding.operator import Encoding
from trajdesign.errors import ConfigError
from trajdesign.files import untrusted
from trajdesign.files.atomic import atomic_path
from trajdesign.interfaces import Reconstructor
from trajdesign.learning.trained import TrainedRun
from trajdesign.reconstruction.brightness import brightness

#: What the program says of itself, as the extra file ``trajdesign.json``.
_INPUTS = {
    "kspace": "(batch, coil, shot, sample), complex64: what the ADC sampled on the run's trajectory.npz",
    "coil_maps": "(batch, coil, y, x), complex64: sensitivity maps, where the run had them from a prescan",
    "returns": "(batch, 1, y, x), float32: the magnitude image",
}


def export_network(run: Path | str, path: Path | str, *, stage: str | None = None, overwrite: bool = False) -> None:
    """Write a trained network, with the adjoint of its trajectory, as a program of ``torch.export`` (``.pt2``).

    ``torch.export.load(path).module()(kspace)`` is the image (batch, 1, y, x), float32, of k-space (batch, coil, shot,
    sample), complex64, of any brightness: each image is brought to that of training, and back. It needs no package but
    torch, and takes any number of images and coils. Where the run's coil maps come from a prescan
    (``training.coil_maps``), they are a second argument (batch, coil, y, x). Samples are transformed by exact sums.

    `run` is the folder of a finished run, `stage` by default what was trained last.

    Raises
    ------
    ConfigError
        If `path` ends otherwise, the run has no such stage, or is of volumes, films or known static fields.
    InputError
        If the run cannot be read.
    OutputError
        If the file exists and `overwrite` is false.
    """
    path = Path(path)
    if untrusted.ending(path) != ".pt2":
        raise ConfigError(f"{path}: a program of torch.export ends in .pt2.")
    trained = TrainedRun.load(run, stage)
    config, network = trained.config, trained.network
    if len(config.acquisition.image_shape) != 2 or config.training.knows_field:
        raise ConfigError(
            f"{run} was trained on volumes, films or known static fields; a program takes single slices without. "
            "trajdesign reconstruct does the others."
        )
    encoding = Encoding(trained.acting, normal="toeplitz")
    _ = encoding.transfer  # made once, not by the program
    network.requires_grad_(False).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    program = _Program(network, encoding)
    kspace = torch.ones(2, 2, *encoding.omega.shape[:2], dtype=torch.complex64)
    inputs = [kspace]
    if config.training.coil_maps != "self":
        inputs.append(torch.ones(2, 2, *config.acquisition.image_shape, dtype=torch.complex64))
    many = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        exported = torch.export.export(program, tuple(inputs), dynamic_shapes=tuple(many for _ in inputs))
    about = {**_INPUTS, "run": config.name, "stage": trained.stage, "matrix": config.acquisition.matrix}
    content = io.BytesIO()
    torch.export.save(exported, content, extra_files={"trajdesign.json": json.dumps(about)})
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content.getbuffer())


class _Program(nn.Module):
    """From k-space to the image, by operations that ``torch.export`` knows."""

    x: Tensor
    y: Tensor

    def __init__(self, network: Reconstructor, encoding: Encoding) -> None:
        super().__init__()
        self.network = network
        self.encoding = encoding
        # exp(i omega . n) is a product over the axes: two small matrices a shot
        pixels = [torch.arange(n) - n // 2 for n in encoding.acquisition.matrix]
        angles = [encoding.omega[..., axis, None].double() * n for axis, n in enumerate(pixels)]
        x, y = (torch.polar(torch.ones_like(angle), angle).to(torch.complex64) for angle in angles)
        self.register_buffer("x", x)
        self.register_buffer("y", y * encoding.weights[..., None])

    def forward(self, kspace: Tensor, coil_maps: Tensor | None = None) -> Tensor:
        """Return images (batch, 1, y, x) from k-space (batch, coil, shot, sample)."""
        shots = zip(kspace.unbind(2), self.x.unbind(0), self.y.unbind(0), strict=True)
        images = sum(((samples[..., None] * y).mT @ x for samples, x, y in shots), start=torch.zeros(()))
        encoding = self.encoding if coil_maps is None else self.encoding.with_maps(coil_maps)
        scale = brightness(images)
        return self.network(images / scale, encoding) * scale
