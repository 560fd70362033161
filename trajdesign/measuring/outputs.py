"""The files that a reconstruction leaves, all of them or none."""

import io
import json
import re
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Measurement
from trajdesign.errors import OutputError
from trajdesign.files import atomic
from trajdesign.learning.run_folder import to_json
from trajdesign.measuring import dicom_images, image_geometry, mrd_images
from trajdesign.measuring.assignment import Assigned
from trajdesign.measuring.image_geometry import PlacedImages
from trajdesign.reconstruction.measured import LABELS, Reconstructed
from trajdesign.reporting import measured_page, plots
from trajdesign.reporting.measured import overview

_OTHERS = ("image.npz", "images.h5", "reconstruction.png", "reconstruction.html", "reconstruct.json")
_DICOM = "dicom"
# Of this program, in a folder of its own for each reconstruction.
_DICOM_NAME = re.compile(r"(f\d+_)?s\d+\.dcm")


@dataclass(frozen=True)
class Outputs:
    """Temporary paths, whose files appear together when `files` is closed, and replace an earlier reconstruction."""

    out: Path
    files: ExitStack
    overwrite: bool
    paths: dict[str, Path] = field(default_factory=dict)

    def add(self, name: str) -> Path:
        """Return the temporary path of one more file."""
        of = self.files.enter_context(atomic.atomic_path(self.out / name, overwrite=self.overwrite))
        self.paths[name] = of
        return of

    def earlier(self) -> list[str]:
        """Return the names of files of an earlier reconstruction that this one does not replace."""
        found = [name for name in [*_nifti_names(), *_OTHERS] if (self.out / name).is_file()]
        for series in LABELS:
            folder = self.out / _DICOM / series
            found += [f"{_DICOM}/{series}/{path.name}" for path in folder.glob("*") if _DICOM_NAME.fullmatch(path.name)]
        return [name for name in found if name not in self.paths]

    def clear(self, error: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Remove, where all has gone well, what an earlier reconstruction alone had; and folders that are empty."""
        if error is None:
            for name in self.earlier():
                (self.out / name).unlink()
        for folder in [*(self.out / _DICOM / series for series in LABELS), self.out / _DICOM]:
            with suppress(OSError):  # not there, or not empty
                folder.rmdir()


def reserved(out: Path, files: ExitStack, *, with_network: bool, overwrite: bool) -> Outputs:
    """Return where files are to be written, which appear together when `files` is closed.

    Raises
    ------
    OutputError
        If the folder holds a reconstruction already, and it may not be replaced.
    """
    to = Outputs(out, files, overwrite)
    for folder in [out / _DICOM, *(out / _DICOM / series for series in LABELS)]:
        atomic.require_own(folder)
    if not overwrite and (there := to.earlier()):
        raise OutputError(f"{out / there[0]} exists already; pass --force to replace it.")
    files.push(to.clear)
    for name in [*_nifti_names(with_network=with_network), *_OTHERS]:
        to.add(name)
    return to


def write(to: Outputs, reconstructed: Reconstructed, found: Assigned, measured: Measurement) -> None:
    """Write every file, DICOM where `Facts.dicom` has no reason against it."""
    images, facts, geometry = reconstructed.images, reconstructed.facts, image_geometry.of_images(found, measured)
    placed = PlacedImages(images, geometry, measured.protocol, facts.n_coils)
    content = io.BytesIO()  # into a file numpy writes in a way that does not say that a disk is full
    affine = geometry.affine
    field = {} if found.off_resonance is None else {"off_resonance": found.off_resonance}
    arrays: dict[str, NDArray] = {"fov_m": np.array(found.acquisition.fov), "affine_mm": affine, **field, **images}
    np.savez(content, **arrays)  # type: ignore[arg-type]
    to.paths["image.npz"].write_bytes(content.getbuffer())
    for name, image in images.items():
        nifti = nibabel.Nifti1Image(image.transpose(3, 2, 1, 0).squeeze(-1) if len(image) == 1 else image.T, affine)
        nifti.header.set_xyzt_units("mm", "sec")
        to.paths[f"{name}.nii"].write_bytes(nifti.to_bytes())
    to.paths["images.h5"].write_bytes(mrd_images.encoded(placed))
    if facts.dicom is None:
        for name, of_dicom in dicom_images.encoded(placed):
            to.add(f"{_DICOM}/{name}").write_bytes(of_dicom)
    plots.save(overview(reconstructed, is_film=found.is_film), to.paths["reconstruction.png"])
    page = measured_page.render(reconstructed)
    to.paths["reconstruction.html"].write_text(page, encoding="utf-8", newline="\n")
    to.paths["reconstruct.json"].write_text(to_json(facts.tables()) + "\n", encoding="utf-8", newline="\n")


def command(asked: Mapping[str, Any]) -> str:
    """Return the command that reconstructs again, from the arguments of `trajdesign.measuring.reconstruct`."""
    words = [quote(str(asked["raw"]))]
    for name, value in asked.items():
        option = f"--{name.replace('_', '-')}"
        if name in ("raw", "overwrite") or not np.any(value):  # as without the option
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, (list, tuple, np.ndarray)):
            words += [option, ",".join(map(str, value))]
        elif isinstance(value, Mapping):  # the table of a plug-in
            words += [option, quote(str(value.get("kind", "none")))]
            for key, one in value.items():
                words += [] if key == "kind" else ["--set", quote(f"{name}.{key}={json.dumps(one)}")]
        else:
            words += [option, quote(str(value))]
    return " ".join(["trajdesign reconstruct", *words, "--force"])


def _nifti_names(*, with_network: bool = True) -> list[str]:
    return [f"{name}.nii" for name in LABELS if with_network or name != "network"]
