"""Siemens raw data, written byte by byte from the layout of the measurement data headers (MDH) of VB17 and VD11."""

import struct
from dataclasses import dataclass

import numpy as np

#: Bits of the evaluation mask.
END, FEEDBACK, SYNC, PHASE_CORRECTION, CALIBRATION, REVERSED, NOISE = (
    1 << 0,
    1 << 1,
    1 << 5,
    1 << 21,
    1 << 22,
    1 << 24,
    1 << 25,
)

TEXT = """### ASCCONV BEGIN ###
tProtocolName                            = "pulseq"
sRXSPEC.alDwellTime[0]\t = \t{dwell_ns}
sSliceArray.asSlice[0].dThickness        = 4
sSliceArray.asSlice[0].dPhaseFOV         = 180
sSliceArray.asSlice[0].dReadoutFOV       = 220.5
### ASCCONV END ###
\0"""
DICOM = """<ParamString."Manufacturer">  { "SIEMENS"  }
<ParamString."ManufacturersModelName">  { "Prisma"  }
<ParamString."SoftwareVersions">  { "syngo MR E11"  }
<ParamString."tPatientPosition">  { "HFS"  }
<ParamDouble."flMagneticFieldStrength">  { <Precision> 6  2.893620  }
<ParamDouble."flReadoutOSFactor">  { <Precision> 6  2.000000  }
\0"""


@dataclass
class Block:
    """An ADC event with samples (coil, sample), or with bytes instead of samples what is no event."""

    samples: np.ndarray | bytes
    mask: int = 8
    cut: tuple[int, int] = (0, 0)
    position: tuple[float, float, float] = (0, 0, 0)
    quaternion: tuple[float, float, float, float] = (1, 0, 0, 0)


def text(dwell_ns=4000, **parts):
    """Return the text of a measurement, with its length in front, which a VB file starts with."""
    body = b""
    for name, part in {"MeasYaps": TEXT.format(dwell_ns=dwell_ns), "Dicom": DICOM, **parts}.items():
        body += name.encode() + b"\0" + struct.pack("<I", len(part)) + part.encode("latin-1")
    body += bytes(max(0, 10_240 - 8 - len(body)))
    return struct.pack("<II", 8 + len(body), 2 + len(parts)) + body


def head(block, number, length, n_coils, n_samples, *, is_vb, uid, coil=0):
    """Return the head of a block of VD and later, or of a channel of VB."""
    first = struct.pack("<IiIII", length, uid, number, 1000 + number, 2000 + number)
    counters = struct.pack("<14H", *[7] * 14)  # of no use: every event claims the same line
    sizes = struct.pack("<QHH", block.mask, n_samples, n_coils) + counters + struct.pack("<HH", *block.cut)
    place = struct.pack("<HHfIHH", n_samples // 2, 0, 0.0, 0, 0, 0)
    where = struct.pack("<3f4f", *block.position, *block.quaternion)
    if is_vb:
        found = first + sizes + place + struct.pack("<8H", *[0] * 8) + where + struct.pack("<HH", coil, 0)
        assert len(found) == 128
    else:
        system = struct.pack("<HH4i", 0, 0, 0, 0, 0, 0)
        found = first + system + sizes + place + where + struct.pack("<28HHHI", *[0] * 28, 0, 0, 0)
        assert len(found) == 192
    return found


def measurement(blocks, *, is_vb=False, uid=87, ends=True, **parts):
    """Return a measurement: its text, its blocks and the one that ends it."""
    content = text(**parts)
    own, per_coil = (0, 128) if is_vb else (192, 32)
    end = [Block(np.zeros((1, 16)) if is_vb else np.zeros((0, 0)), END)] if ends else []
    for number, block in enumerate([*blocks, *end], 1):
        if isinstance(block.samples, bytes):
            length = own + (128 if is_vb else 0) + len(block.samples)
            content += head(block, number, length, 0, 0, is_vb=is_vb, uid=uid) + block.samples
            continue
        n_coils, n_samples = block.samples.shape
        length = own + n_coils * (per_coil + 8 * n_samples)
        words = {"is_vb": is_vb, "uid": uid}
        if not is_vb:
            content += head(block, number, length, n_coils, n_samples, **words)
        for coil, samples in enumerate(block.samples):
            if is_vb:
                content += head(block, number, length, n_coils, n_samples, coil=coil, **words)
            else:
                content += struct.pack("<IiIiIIHHI", 2 + ((32 + 8 * n_samples) << 8), uid, number, 0, 0, 0, coil, 0, 0)
            content += samples.astype("<c8").tobytes()
    return content + bytes(0 if is_vb else 160)


def write(path, blocks, *, is_vb=False, before=(), **options):
    """Write a file of one measurement, or of VD also those that were made before it, as lists of blocks."""
    scans = [measurement(b, is_vb=is_vb, uid=10 + i, dwell_ns=9000) for i, b in enumerate(before)]
    scans.append(measurement(blocks, is_vb=is_vb, **options))
    if is_vb:
        assert len(scans) == 1
        path.write_bytes(scans[0])
        return path
    directory, content = struct.pack("<II", 0, len(scans)), b""
    for number, scan in enumerate(scans):
        directory += struct.pack("<IIQQ64s64s", number, number, 10_240 + len(content), len(scan), b"x" * 32, b"pulseq")
        content += scan + bytes(-len(scan) % 512)
    path.write_bytes(directory.ljust(10_240, b"\0") + content)
    return path


def samples(n_events, n_coils=3, n_samples=7, seed=0):
    """Return random samples (event, coil, sample)."""
    parts = np.random.default_rng(seed).standard_normal((2, n_events, n_coils, n_samples))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)
