"""Images as ISMRMRD (MRD) keeps them (Inati et al., MRM 2017, doi:10.1002/mrm.26089)."""

import contextlib
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trajdesign.data.measured.measurement import Protocol
from trajdesign.measuring.image_geometry import ImageGeometry
from trajdesign.units import GAMMA


def encoded(
    images: Mapping[str, NDArray[np.float32]],
    geometry: ImageGeometry,
    protocol: Protocol,
    labels: Mapping[str, str],
    n_coils: int,
) -> bytes:
    """Return the file: in its group ``dataset`` a header, and a series of images, ``image_0``, of each reconstruction.

    The position of an image is that of its pixel in the middle, n // 2. Images are numbered from 1, slice after slice
    and then frame after frame.

    Parameters
    ----------
    images
        (frame, slice, y, x) by the name of the reconstruction.
    geometry
        Where they lie.
    protocol
        What the raw file told.
    labels
        What the reconstructions are called; the comment of an image is its label.
    n_coils
        That received.
    """
    with warnings.catch_warnings():  # the import turns every warning on for good
        import ismrmrd
    content = io.BytesIO()  # HDF5 ends the process where a disk is full
    with contextlib.closing(ismrmrd.Dataset(content)) as file:
        file.write_xml_header(_header(ismrmrd.xsd, geometry, protocol, n_coils).toXML("utf-8").encode())
        for series, (name, stack) in enumerate(images.items()):
            meta = ismrmrd.Meta({"DataRole": "Image", "ImageComments": labels[name]})
            for frame, slices in enumerate(stack):
                for number, pixels in enumerate(slices):
                    image = ismrmrd.Image.from_array(pixels[None], transpose=False)
                    image.image_type = ismrmrd.IMTYPE_MAGNITUDE
                    image.image_series_index, image.image_index = series, frame * len(slices) + number + 1
                    image.slice, image.repetition = number, frame
                    image.field_of_view = geometry.extent
                    image.position = tuple(geometry.at(*geometry.middle, number))
                    image.read_dir, image.phase_dir, image.slice_dir = map(tuple, geometry.directions.T)
                    image.attribute_string = meta.serialize()
                    file.append_image(f"image_{series}", image)
    return content.getvalue()


def _header(xsd: Any, geometry: ImageGeometry, protocol: Protocol, n_coils: int) -> Any:
    """Return the header of one encoding; the field strength is left out where the raw file did not tell it."""
    matrix = dict(zip("xyz", (*geometry.matrix, 1), strict=True))
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(**matrix),
        fieldOfView_mm=xsd.fieldOfViewMm(**dict(zip("xyz", geometry.extent, strict=True))),
    )
    encoding = xsd.encodingType(
        encodedSpace=space,
        reconSpace=space,
        encodingLimits=xsd.encodingLimitsType(),
        trajectory=xsd.trajectoryType.OTHER,
    )
    field, system = protocol.field_strength, "".join(filter(str.isprintable, protocol.system))
    frequency = round(GAMMA["1H"] * (field or 0))  # the format asks for it: 0 says that nobody knows
    return xsd.ismrmrdHeader(
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=frequency),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            receiverChannels=n_coils, systemFieldStrength_T=field, systemModel=system or None
        ),
        encoding=[encoding],
    )
