import pytest
from pypulseq.utils.siemens.readasc import readasc

from trajdesign.errors import InputError
from trajdesign.physics.siemens_asc import read_asc, value

TEXT = """### ASCCONV BEGIN ###
asCOMP[0].tName = "MP_GPA_EXAMPLE"
a.b[0] = 1
a.b[1] = -2.5e-3   # a comment
c = 3.0  // another
not an assignment
d = 0x1F
### ASCCONV END ###
a.b[0] = 7
"""


def test_numbers_are_those_of_another_reader(tmp_path):
    path = tmp_path / "one.asc"
    path.write_text(TEXT.replace("d = 0x1F\n", ""))
    theirs = readasc(path)[0]
    assert read_asc(path) == {"a.b[0]": 1, "a.b[1]": -2.5e-3, "c": 3}
    assert theirs["a"]["b"] == {0: 1, 1: -2.5e-3}
    assert theirs["c"] == 3


def test_what_is_no_number_is_left_out_and_line_ends_do_not_matter(tmp_path):
    path = tmp_path / "one.asc"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode("latin-1") + b"\xe4")
    assert read_asc(path) == {"a.b[0]": 1, "a.b[1]": -2.5e-3, "c": 3}


def test_included_files_are_part_of_it(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "main.asc").write_text('x = 1\n$INCLUDE "part/safety.asc"\n$INCLUDE more.asc\n')
    (tmp_path / "part" / "safety.asc").write_text("y = 2\n")
    (tmp_path / "more.asc").write_text("z = 3\n")
    assert read_asc(tmp_path / "main.asc") == {"x": 1, "y": 2, "z": 3}
    (tmp_path / "more.asc").write_text("$INCLUDE main.asc\n")
    with pytest.raises(InputError, match=r"main\.asc includes itself"):
        read_asc(tmp_path / "main.asc")
    (tmp_path / "more.asc").unlink()
    with pytest.raises(InputError, match=r"more\.asc does not exist"):
        read_asc(tmp_path / "main.asc")


def test_damaged_numbers_and_missing_keys_are_named(tmp_path):
    path = tmp_path / "one.asc"
    path.write_text("a = 1\nb = 1.2.3\n")
    with pytest.raises(InputError, match=r"b is '1\.2\.3'"):
        read_asc(path)
    assert value({"b": 2.0, "c": 3.0}, path, "a", "b", "c") == 2
    with pytest.raises(InputError, match=r"one\.asc lacks the key a; give the gradient system's main"):
        value({}, path, "a", "b")
