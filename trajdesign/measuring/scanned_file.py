"""A Pulseq file as a virtual scanner plays it: slices, a film of slices, a volume, or a stack of partitions."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trajdesign.acquisition import Acquisition
from trajdesign.errors import InputError
from trajdesign.measuring import partitions
from trajdesign.measuring.partitions import Stack
from trajdesign.measuring.reception import (
    acquisition_of,
    as_film,
    distance,
    require_axes,
    require_phases,
    slices_of,
    stacked,
)
from trajdesign.measuring.scan_facts import FileFacts, FilmFacts
from trajdesign.physics.response import Response
from trajdesign.pulseq.reader import player
from trajdesign.pulseq.reader.sequence import SeqFile
from trajdesign.pulseq.response import k_of_file
from trajdesign.trajectory import Trajectory

# Of a stack that is scanned; images have no fewer pixels along an axis.
_FEWEST_PARTITIONS = 4


@dataclass(frozen=True)
class ScannedFile:
    """A file that is scanned; see the module."""

    path: Path
    whole: SeqFile
    """Every ADC event."""
    told: SeqFile
    """The ADC events of the image alone, and their k as the file tells it."""
    played: SeqFile
    """The same events, and their k by the gradient that acts."""
    slices: list[NDArray[np.integer]]
    """The ADC events of each slice, of each partition of a stack, or of the volume (shot, repetition)."""
    acquisition: Acquisition
    """Of the images."""
    stack: Stack | None = None
    """What makes slices of partitions; None where there are none."""

    @classmethod
    def read(cls, path: Path, response: Response, acquisition: Acquisition | None) -> "ScannedFile":
        """Return a file, under a response of the gradient system, for an acquisition or by default that of its k.

        Raises
        ------
        InputError
            If it cannot be read, its shots or axes are not those of the acquisition, or it is a stack of films, or of
            fewer than 4 partitions.
        """
        whole = player.read(path)
        told = whole.for_image()
        every = np.ones(len(told.adcs), dtype=bool)
        told, n_frames = as_film(told, every, path, acquisition)
        told, is_stack = partitions.as_slices(told, every, path)
        slices = slices_of(told, path, acquisition, n_frames)
        acquisition = acquisition_of(told, slices[0], path, n_frames) if acquisition is None else acquisition
        stack = partitions.stack_of(told, slices, acquisition, path) if is_stack else None
        if stack is None:
            require_axes(told, path, acquisition)
        elif n_frames > 1 or len(slices) < _FEWEST_PARTITIONS:
            raise InputError(
                f"{path} has {len(slices)} partitions (label PAR) of {n_frames} frame(s); a stack that is scanned has "
                f"at least {_FEWEST_PARTITIONS}, of one."
            )
        require_phases(told, path)
        return cls(path, whole, told, replace(told, k=k_of_file(told, response)), slices, acquisition, stack)

    @property
    def space(self) -> Acquisition:
        """The acquisition of the object: of a stack all partitions together."""
        if self.stack is None:
            return self.acquisition
        n, of_slice = len(self.slices), self.acquisition
        return replace(of_slice, fov=(*of_slice.fov, n * self.stack.thickness), matrix=(*of_slice.matrix, n))

    def facts(self) -> FileFacts:
        """Return the numbers of the file."""
        n_frames = self.acquisition.n_frames
        film: FilmFacts = {"n_frames": n_frames} if n_frames > 1 else {}
        return {
            "path": str(self.path),
            "md5": self.told.md5,
            "matrix": self.acquisition.matrix,
            "n_slices": len(self.slices),
            "n_shots": self.acquisition.n_shots,
            "n_samples": self.acquisition.n_samples,
            "duration": self.told.duration,
            **self.told.nucleus(self.path),
            **film,
        }

    def from_trajectory(self, wanted: Trajectory) -> float:
        """Return the largest distance of k, as the file tells it, from that of a trajectory, 1/FOV."""
        n_dims = self.acquisition.n_dims
        return max(distance(stacked(self.told.k, one, n_dims), wanted.k_adc, self.acquisition) for one in self.slices)
