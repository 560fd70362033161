"""What a static field costs: training steps without one, blind to it, and with its map given.

They are those of `trajdesign.learning.step`, in turn, on the same images. Beside them the encoding alone, forward and
back by NUFFTs, with that of mri-nufft (`MRIFourierCorrected`), from the same field with as many terms. On a CPU what
counts is the time of the processor, of all threads together, which what else runs there changes less.
"""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import trajdesign as td
from benchmarks.common import Row, Size, alternate, machine, parse, parser, save, timing
from trajdesign.config import plugins
from trajdesign.encoding.operator import angular
from trajdesign.learning.step import Joint
from trajdesign.physics.field import StaticField
from trajdesign.runtime.processes import Ranks

COLUMNS = {
    "size": "size",
    "way": "way",
    "median_s": "median, s",
    "min_s": "least, s",
    "max_s": "largest, s",
    "ratio": "times the first of its kind",
}
FIELD = {"kind": "random", "amplitude": 50.0, "hot_spot": 50.0}
TRAININGS: dict[str, dict[str, Any]] = {
    "step without a field": {},
    "step, blind to it": {"field": FIELD},
    "step, map given": {"field": FIELD, "training": {"knows_field": True}},
}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the benchmark; returns the rows of its table."""
    options = parser(__doc__)
    options.add_argument("--terms", type=int, default=4, help="terms in time")
    settings = parse(options, arguments, Size(32, 4, 64, 2, 2))
    facts, size = machine(settings.device), settings.size
    generator = torch.Generator().manual_seed(0)
    shape = (size.batch, size.coils, size.matrix, size.matrix)
    images = torch.randn(shape, dtype=torch.complex64, generator=generator) / 10
    steps = {name: partial(_step, _joint(settings, tables), images) for name, tables in TRAININGS.items()}
    rows = _rows(steps, settings)
    rows += _rows(_encodings(settings, images[:1]), settings)
    save("field", rows, COLUMNS, settings, facts, f"{settings.terms} terms in time, {FIELD}.")
    return rows


def _rows(ways: dict[str, Any], settings: Any) -> list[Row]:
    """Return the times of ways, which take turns, and their ratio to the first."""
    calls = {name: lambda _, way=way: way() for name, way in ways.items()}
    clock = time.process_time if settings.device == "cpu" else time.perf_counter
    times = alternate(calls, settings.repeats, settings.device, clock=clock)
    first = timing(next(iter(times.values())))["median_s"]
    return [
        {"size": settings.size.label, "way": name, **timing(seconds), "ratio": timing(seconds)["median_s"] / first}
        for name, seconds in times.items()
    ]


def _config(settings: Any, tables: dict[str, Any]) -> td.Config:
    size = settings.size
    matrix = {"matrix": (size.matrix, size.matrix), "n_shots": size.shots, "n_samples": size.samples}
    training = {"batch_size": size.batch, "field_terms": settings.terms, **tables.get("training", {})}
    return td.Config(acquisition=matrix, init={"kind": "spiral"}, field=tables.get("field", {}), training=training)


def _joint(settings: Any, tables: dict[str, Any]) -> Joint:
    run = _config(settings, tables)
    initial = plugins.build("init", run.init, run.acquisition, run.scanner)
    return Joint(run, initial, "learned", 1000, Ranks(device=torch.device(settings.device)))


def _step(joint: Joint, images: Tensor) -> None:
    joint.step(images, range(len(images)), constrained=True)


def _encodings(settings: Any, images: Tensor) -> dict[str, Any]:
    """Return the encoding of coil images (1, coil, y, x) in a field, forward and back: ours and mri-nufft's."""
    import mrinufft
    from mrinufft.operators.off_resonance import MRIFourierCorrected

    run = _config(settings, TRAININGS["step, map given"])
    field = StaticField(run.field, run.acquisition, settings.terms)
    trajectory = plugins.build("init", run.init, run.acquisition, run.scanner)
    encoding = td.Encoding(trajectory, normal="chain", segments=field.segments).in_field(field.maps([0]))
    omega = angular(trajectory).flatten(0, 1).numpy().astype(np.float32)
    plain = mrinufft.get_operator("finufft")(omega, images.shape[2:], n_coils=images.shape[1], squeeze_dims=False)
    b0 = field.model.draw(0)[0].numpy().astype(np.float32)
    times = np.tile(field.segments.times.numpy().astype(np.float32), len(trajectory.points))
    corrected = MRIFourierCorrected(
        plain, b0_map=b0, readout_time=times, interpolator={"name": "svd", "L": settings.terms}
    )
    flat = images.numpy()

    def ours() -> Tensor:
        return encoding.coil_images(encoding.forward(images))

    return {"ours, forward and back": ours, "mri-nufft, forward and back": lambda: corrected.adj_op(corrected.op(flat))}


if __name__ == "__main__":
    main()
