"""cufinufft as it is published, on the pretend accelerator: the same calls and refusals, computed by finufft.

`Plan` is that of 2.3 to 2.5; of the options, those that all of them take. ``test_cufinufft`` holds both against the
installed package, where there is one.
"""

import ctypes

import finufft
import numpy as np
import torch
from devices.pretend import NAME, Pretend

OPTIONS = (
    "upsampfac",
    "gpu_method",
    "gpu_sort",
    "gpu_binsizex",
    "gpu_binsizey",
    "gpu_binsizez",
    "gpu_obinsizex",
    "gpu_obinsizey",
    "gpu_obinsizez",
    "gpu_maxsubprobsize",
    "gpu_kerevalmeth",
    "gpu_spreadinterponly",
    "gpu_maxbatchsize",
    "gpu_device_id",
    "gpu_stream",
    "modeord",
)


class Plan:
    def __init__(self, nufft_type, n_modes, n_trans=1, eps=1e-6, isign=None, dtype="complex64", **kwargs):
        for option, value in kwargs.items():
            if option not in OPTIONS:
                raise TypeError(f"Invalid option '{option}'")
            if option == "gpu_stream" and not isinstance(value, ctypes.c_void_p):
                raise TypeError("gpu_stream is a pointer")
        self._type, self._n_modes, self._n_trans = nufft_type, tuple(n_modes), n_trans
        self._dtype = np.dtype(dtype)
        self._plan = finufft.Plan(nufft_type, self._n_modes, n_trans, eps, isign, dtype=dtype)

    def setpts(self, x, y=None, z=None, s=None, t=None, u=None):
        axes = [_numbers(axis, self._plan_real()) for axis in (x, y, z) if axis is not None]
        if any(axis.shape != (len(x),) for axis in axes) or len(axes) != len(self._n_modes):
            raise TypeError("one vector for each axis")
        self._n_points = len(x)
        self._plan.setpts(*axes)

    def execute(self, data, out=None):
        given = (self._n_points,) if self._type == 1 else self._n_modes
        if tuple(data.shape) not in {(self._n_trans, *given), given if self._n_trans == 1 else ()}:
            raise TypeError(f"Argument `data` must be of shape {(self._n_trans, *given)}")
        return Pretend(torch.from_numpy(self._plan.execute(_numbers(data, self._dtype))))

    def _plan_real(self):
        return np.dtype("float32" if self._dtype == np.complex64 else "float64")


def _numbers(x, dtype):
    if x.device.type != NAME:
        raise TypeError("Invalid GPU array implementation.")
    if str(x.dtype) != f"torch.{dtype}":
        raise TypeError(f"{x.dtype} was given, but {dtype} was expected.")
    if not x.is_contiguous():
        raise TypeError("Argument does not satisfy the following requirement: C")
    return x.held.numpy()
