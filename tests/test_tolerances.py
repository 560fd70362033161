"""The table of tolerances: its order is what the limits rest on."""

import numpy as np

from trajdesign import tolerances


def test_the_table_is_in_the_order_of_size():
    values = [value for name, value in vars(tolerances).items() if name.isupper()]
    assert values == sorted(values)
    assert values[0] > 0
    assert values[-1] < 1


def test_each_tolerance_has_room_for_what_it_is_for():
    # half a unit in the last place: of doubles, of float32, of six digits whose first is 1
    assert np.finfo(np.float64).eps / 2 < tolerances.ROUNDING
    assert np.finfo(np.float32).eps / 2 < tolerances.WRITER_ROUNDING
    assert tolerances.FILE_ROUNDING > 0.5e-5
    # a dwell time of the fastest receivers, 1 us, in whole ns
    assert tolerances.DWELL_ROUNDING > 0.5e-9 / 1e-6
    # what keeps away from a limit still keeps it when a file has rounded it
    for left in (tolerances.PROJECTION_MARGIN, tolerances.BRIDGE_MARGIN, tolerances.DESIGN_MARGIN):
        assert left > 2 * tolerances.FILE_ROUNDING
