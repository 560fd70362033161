"""Images as ISMRMRD (MRD) keeps them (Inati et al., MRM 2017, doi:10.1002/mrm.26089)."""

import contextlib
import io
import warnings
from typing import Any

from trajdesign.measuring.image_geometry import PlacedImages
from trajdesign.reconstruction.measured import LABELS
from trajdesign.units import GAMMA


def encoded(placed: PlacedImages) -> bytes:
    """Return the file: in its group ``dataset`` a header, and a series of images, ``image_0``, of each reconstruction.

    The position of an image is that of its pixel in the middle, n // 2. Images are numbered from 1, slice after slice
    and then frame after frame; the comment of an image is the label of its reconstruction.
    """
    geometry = placed.geometry
    with warnings.catch_warnings():  # the import turns every warning on for good
        import ismrmrd
    content = io.BytesIO()  # HDF5 ends the process where a disk is full
    with contextlib.closing(ismrmrd.Dataset(content)) as file:
        file.write_xml_header(_header(ismrmrd.xsd, placed).toXML("utf-8").encode())
        for series, (name, stack) in enumerate(placed.images.items()):
            meta = ismrmrd.Meta({"DataRole": "Image", "ImageComments": LABELS[name]})
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


def _header(xsd: Any, placed: PlacedImages) -> Any:
    """Return the header of one encoding; the field strength is left out where the raw file did not tell it."""
    geometry, protocol = placed.geometry, placed.protocol
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
            receiverChannels=placed.n_coils, systemFieldStrength_T=field, systemModel=system or None
        ),
        encoding=[encoding],
    )
