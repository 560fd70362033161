"""Raw data of ISMRMRD's layout, whose parts may be replaced."""

import h5py
import ismrmrd.hdf5
import numpy as np

HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientID>p1</patientID></subjectInformation><encoding><trajectory>cartesian</trajectory>
<encodedSpace><matrixSize><x>16</x><y>{n_lines}</y></matrixSize><fieldOfView_mm><x>220</x><y>220</y></fieldOfView_mm>
</encodedSpace><reconSpace><fieldOfView_mm><x>220</x><y>220</y></fieldOfView_mm></reconSpace>
</encoding></ismrmrdHeader>"""


def acquisitions(n_coils=2, n_lines=16, **fields):
    """Return one line of 16 samples each, of a slice; fields of their heads may be given."""
    rows = np.zeros(n_lines, dtype=ismrmrd.hdf5.acquisition_dtype)
    heads = rows["head"]
    heads["number_of_samples"], heads["active_channels"], heads["center_sample"] = 16, n_coils, 8
    heads["idx"]["kspace_encode_step_1"] = np.arange(n_lines)
    for name, value in fields.items():
        heads[name] = value
    draw = np.random.default_rng(0)
    for i in range(n_lines):
        rows["data"][i] = draw.standard_normal(2 * n_coils * 16).astype(np.float32)
        rows["traj"][i] = np.zeros(0, np.float32)
    return rows


def write(path, rows=None, header="", **options):
    """Write a file; a row is a chunk, as the library in C writes them."""
    rows = acquisitions() if rows is None else rows
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset(
            "xml", data=np.array([header or HEADER.format(n_lines=16)], dtype=object), dtype=h5py.string_dtype()
        )
        group.create_dataset("data", data=rows, **{"maxshape": (None,), "chunks": (1,), **options})
    return path


def lying(path, *, n=None, collection=None, number=None, of=3, **options):
    """Write a file in which the reference to the samples of an acquisition, or of all, is another one."""
    write(path, **options)
    with h5py.File(path) as file:
        data = file["dataset"]["data"]
        at = data.id.get_type().get_member_offset(2)
        places = [data.id.get_chunk_info(i).byte_offset + at for i in range(len(data))]
    content = bytearray(path.read_bytes())
    for i in range(len(places)) if of is None else [of]:
        for place, size, value in ((0, 4, n), (4, 8, collection), (12, 4, number)):
            if value is not None:
                start = places[i] + place
                content[start : start + size] = value.to_bytes(size, "little")
    path.write_bytes(content)
