"""What it is worth to learn which lines to sample, and how: beside hand-made lines, simulated and measured.

Given are magnitude volumes to train and test on, which simulated coils see, and fully sampled k-space: ``kspace``
(coil, line, sample) of an ``.npz``, or HDF5 as of fastMRI. Of every pattern the rows are picked from all data, and
CG-SENSE reconstructs them, with coil maps from the central 24 x 24 samples: the same for all. Lines along x make each
column a problem of its own, so this takes FFTs alone. Of the hand-made patterns of a kind the best on the validation
images stands for all; test images and measured data choose nothing. Nothing is timed.

Two ways of learning are compared. ``greedy`` is the parameterization ``lines``. ``straight-through`` learns the
probability of every row by stochastic gradients, after LOUPE (Bahadir et al., TCI 2020, doi:10.1109/TCI.2020.3006727):
in each step as many rows as there is budget for are drawn, and the gradient of their mask goes to the probabilities.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import trajdesign as td
from benchmarks.common import RESULTS, Row, machine, say, table
from benchmarks.in_vivo import coil_images as measured_images
from benchmarks.in_vivo import head
from trajdesign.data.sources.fastmri import fastmri
from trajdesign.data.sources.images import images
from trajdesign.learning.parameterizations.lines import Lines
from trajdesign.reconstruction import coils
from trajdesign.reconstruction.sense import conjugate_gradients
from trajdesign.trajectories.inits.cartesian import cartesian

COLUMNS = {"shots": "lines", "pattern": "pattern", "options": "options", "val": "validation", "test": "test"}
#: As the reconstructor ``cg_sense`` has them.
_ITERATIONS, _REGULARIZATION = 10, 0.01
_POWERS, _CENTRES = (0.5, 1.0, 2.0, 3.0), (0.125, 0.25, 0.5)
_BATCH, _RATE = 2, 0.05


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Compare all patterns; returns the rows of the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--train", nargs="+", required=True, help="volumes, as data.train; their tops to validate on")
    options.add_argument("--test", nargs="+", required=True)
    options.add_argument("--measured", nargs="*", type=Path, default=[], metavar="FILE")
    options.add_argument("--matrix", type=int, default=128)
    options.add_argument("--shots", type=int, nargs="+", default=[32, 16])
    options.add_argument("--coils", type=int, default=8)
    options.add_argument("--noise", type=float, default=0.005, help="as training.noise")
    options.add_argument("--every", type=int, default=1, help="validate on one slice of so many")
    options.add_argument("--columns", type=int, default=16, help="as parameterization.n_columns")
    options.add_argument("--steps", type=int, default=300, help="of the straight-through gradients; 0 leaves them out")
    options.add_argument("--seeds", type=int, default=2, help="of hand-made random lines")
    options.add_argument("--name", default="lines", help="of the files of results")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    settings = options.parse_args(arguments)
    facts, rows = machine(), list[Row]()
    acquisition = td.Acquisition(matrix=(settings.matrix,) * 2, n_samples=500)
    splits = {
        split: images(acquisition, split, train=settings.train, test=settings.test, n_coils=settings.coils)
        for split in ("train", "val", "test")
    }
    # the noise of a line is the mean over its samples
    noise = settings.noise * math.sqrt(settings.matrix / acquisition.n_samples)
    every = {"val": settings.every, "test": 1}
    sets = {name: Scans(torch.stack([*splits[name]])[::gap], noise) for name, gap in every.items()}
    sets |= {path.stem: Scans(read(path, acquisition), 0.0, of_head=True) for path in settings.measured}
    for shots in settings.shots:
        asked = td.Acquisition(matrix=acquisition.matrix, n_samples=500, n_shots=shots)
        best = {}
        for name, table_ in hand_made(settings.seeds):
            found = rows_of(cartesian(asked, td.Scanner(), **table_))
            value = sets["val"].psnr(found)
            if value > best.get(name, (-math.inf,))[0]:
                best[name] = (value, table_, found)
        lines = Lines(cartesian(asked, td.Scanner()), n_columns=settings.columns)
        lines.choose(splits["train"], settings.noise)
        patterns = [(name, table_, found) for name, (_, table_, found) in best.items()]
        patterns.append(("learned, greedy", {}, rows_of(lines())))
        if settings.steps:
            learned = straight_through(torch.stack([*splits["train"]]), noise, shots, settings.steps)
            patterns.append(("learned, straight-through", {}, learned))
        for name, table_, found in patterns:
            said = ", ".join(f"{key} {value}" for key, value in table_.items() if key != "spacing")
            scores = {key: scans.psnr(found) for key, scans in sets.items()}
            rows.append({"shots": shots, "pattern": name, "options": said, **scores, "rows": found})
            say(f"{rows[-1]}")
        save(rows, [*sets][2:], facts, settings)
    return rows


def hand_made(n_seeds: int) -> list[tuple[str, Row]]:
    """Return the kind and the options of the init of every hand-made pattern."""
    equispaced = [{"spacing": "equispaced", "centre": centre} for centre in _CENTRES]
    drawn = [
        {"spacing": spacing, "power": power, "centre": centre, "seed": seed}
        for spacing, power, centre, seed in itertools.product(("random", "poisson"), _POWERS, _CENTRES, range(n_seeds))
    ]
    return [("uniform", {}), *((str(options["spacing"]), options) for options in equispaced + drawn)]


def rows_of(trajectory: td.Trajectory) -> list[int]:
    """Return the rows of the matrix on which straight lines lie, from 0."""
    acquisition = trajectory.acquisition
    rows = trajectory.points[:, 0, 1] * acquisition.fov[1] + acquisition.matrix[1] // 2
    return [round(row) for row in rows.tolist()]


def read(path: Path, acquisition: td.Acquisition) -> Tensor:
    """Return measured coil images (1, coil, y, x), their largest root sum of squares one."""
    if path.suffix != ".npz":
        return torch.stack([*fastmri(acquisition, "test", test=[str(path)])])
    with np.load(path) as file:
        found = torch.from_numpy(measured_images(file["kspace"]))[None]
    return (found / torch.linalg.vector_norm(found, dim=1).max()).to(torch.complex64)


class Scans:
    """Coil images (image, coil, y, x), of which lines are sampled, with noise of its own in each."""

    def __init__(self, coil_images: Tensor, noise: float, *, of_head: bool = False) -> None:
        self.reference = coils.root_sum_of_squares(coil_images)
        seeds = list(range(1, 1 + len(coil_images)))
        self.maps = coils.smooth_maps(coils.calibration_scan(coil_images, noise, seeds), coil_images.shape[2:])
        parts = torch.randn(*coil_images.shape, 2, generator=torch.Generator().manual_seed(0)) * noise / math.sqrt(2)
        self.kspace = transform(coil_images + torch.view_as_complex(parts))
        inside = [head(one.numpy()) if of_head else np.ones(one.shape, bool) for one in self.reference[:, 0]]
        self.inside = torch.from_numpy(np.stack(inside))[:, None]

    @torch.no_grad()
    def psnr(self, rows: Sequence[int]) -> float:
        """Return the mean PSNR, dB, of CG-SENSE of some rows; of measured data that of the head."""
        mask = torch.zeros(self.kspace.shape[2])
        mask[list(rows)] = 1
        values = []
        for part in torch.arange(len(self.kspace)).split(8):
            away = sense(self.kspace[part], self.maps[part], mask) - self.reference[part]
            squared = (away.square() * self.inside[part]).sum((1, 2, 3)) / self.inside[part].sum((1, 2, 3))
            values += (-10 * squared.log10()).tolist()
        return sum(values) / len(values)


def sense(kspace: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Return CG-SENSE (image, 1, y, x) of k-space along y, whose rows have the weights `mask` (row,)."""

    def normal(x: Tensor) -> Tensor:
        seen = back(mask[:, None] * transform(maps * x))
        return (maps.conj() * seen).sum(1, keepdim=True) + _REGULARIZATION * x

    combined = (maps.conj() * back(mask[:, None] * kspace)).sum(1, keepdim=True)
    return coils.root_sum_of_squares(maps * conjugate_gradients(normal, combined, _ITERATIONS))


def straight_through(coil_images: Tensor, noise: float, n_rows: int, steps: int) -> list[int]:
    """Return the most probable rows, of probabilities learned by the gradient of their mask."""
    n_all, generator = coil_images.shape[2], torch.Generator().manual_seed(0)
    score = torch.zeros(n_all, requires_grad=True)
    optimizer = torch.optim.Adam([score], lr=_RATE)
    for _ in range(steps):
        numbers = torch.randint(len(coil_images), (_BATCH,), generator=generator)
        scans = Scans(coil_images[numbers], noise)
        probability = rescaled(torch.sigmoid(5 * score), n_rows / n_all)
        drawn = probability - torch.rand(n_all, generator=generator)
        mask = torch.zeros(n_all).index_fill_(0, drawn.topk(n_rows).indices, 1.0)
        away = sense(scans.kspace, scans.maps, mask + probability - probability.detach()) - scans.reference
        loss = away.square().mean((1, 2, 3)).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return sorted(score.detach().topk(n_rows).indices.tolist())


def rescaled(probability: Tensor, part: float) -> Tensor:
    """Return probabilities with the mean `part`, as LOUPE makes them."""
    mean = probability.mean()
    if float(mean.detach()) >= part:
        return probability * part / mean
    return 1 - (1 - probability) * (1 - part) / (1 - mean)


def transform(values: Tensor) -> Tensor:
    """Return the orthonormal Fourier transform along y."""
    return _centred(torch.fft.fft, values)


def back(values: Tensor) -> Tensor:
    """Return the inverse of `transform`."""
    return _centred(torch.fft.ifft, values)


def _centred(fft: Callable[..., Tensor], values: Tensor) -> Tensor:
    return torch.fft.fftshift(fft(torch.fft.ifftshift(values, dim=2), dim=2, norm="ortho"), dim=2)


def save(rows: Sequence[Row], measured: Sequence[str], facts: Row, settings: argparse.Namespace) -> None:
    """Write the rows as JSON, and as a Markdown table."""
    columns = COLUMNS | {name: f"{name}, head" for name in measured}
    result = {"machine": facts, "settings": {key: str(value) for key, value in vars(settings).items()}}
    settings.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, "columns": columns, "rows": [*rows]}, indent=1)
    (settings.out / f"{settings.name}.json").write_text(text + "\n", encoding="utf-8", newline="\n")
    shown = [{key: f"{value:.2f}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    (settings.out / f"{settings.name}.md").write_text(table(columns, shown) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
