"""A pretend accelerator: tensors that compute on the CPU, but live elsewhere and refuse to meet those of the CPU.

It is strict where CUDA is: tensors of both devices in one operation are an error, and so is what leaves the device
without being asked to, as ``.numpy()`` does. What its tensors hold is computed by the very kernels of the CPU, so that
numbers of both can be compared to rounding.
"""

import functools

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"


class _Module:
    """What torch asks of the module of a device."""

    _initialized = False

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def current_device(self):
        return 0

    def device_count(self):
        return 1

    def manual_seed_all(self, seed):
        pass

    def synchronize(self, *_):
        pass

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self):
        return False


class Pretend(torch.Tensor):
    """A tensor of the device, around the one of the CPU that holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real):
        facts = {"strides": real.stride(), "storage_offset": real.storage_offset(), "dtype": real.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, real.shape, device=torch.device(NAME, 0), **facts)

    def __init__(self, real):
        self.held = real

    def __repr__(self):
        return f"Pretend({self.held!r})"

    def __reduce_ex__(self, protocol):  # a file of `torch.save` is read back on the CPU, as with map_location
        return self.held.__reduce_ex__(protocol)

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def held(value):
    """Return the tensor of the CPU inside one of the device; anything else as it is."""
    return value.held if isinstance(value, Pretend) else value


def _wrapped(value):
    if not isinstance(value, torch.Tensor) or isinstance(value, Pretend):
        return value
    return Pretend(value.resolve_conj().resolve_neg())


def _run(func, args, kwargs):
    name = func._schema.name
    to = kwargs.pop("device", None)
    kwargs.pop("pin_memory", None)
    on_cpu = to is not None and torch.device(to).type == "cpu"
    if to is not None:
        kwargs["device"] = torch.device("cpu")
    if name != "aten::copy_":
        _require_one_device(func, args, kwargs)
    result = func(*tree_map(held, args), **tree_map(held, kwargs))
    if on_cpu:
        return result
    changed = next((a for a, s in zip(args, func._schema.arguments, strict=False) if _is_written(s)), kwargs.get("out"))
    if func._schema.is_mutable and isinstance(result, torch.Tensor):
        if isinstance(changed, Pretend) and changed.shape != changed.held.shape:
            raise NotImplementedError(f"{name} changes the shape of a tensor of {NAME}")
        return changed
    return tree_map(_wrapped, result)


def _is_written(argument):
    return argument.alias_info is not None and argument.alias_info.is_write


def _require_one_device(func, args, kwargs):
    """Refuse what CUDA refuses: of the CPU may be the places of an index, and a number, if it is only read."""
    name, schema = func._schema.name, func._schema.arguments
    if name in _INDEXING and isinstance(args[0], Pretend):
        args, schema = (args[0], *args[2:]), [schema[0], *schema[2:]]
    written = [value for value, argument in zip(args, schema, strict=False) if _is_written(argument)]
    for value in tree_flatten((args, kwargs))[0]:
        if not isinstance(value, torch.Tensor) or isinstance(value, Pretend):
            continue
        if value.dim() or name in _JOINING or any(value is other for other in written):
            raise RuntimeError(f"{name} meets tensors of {NAME} and of the CPU, of shape {tuple(value.shape)}")


_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_JOINING = {"aten::cat", "aten::stack", "aten::dot"}


@functools.cache
def device():
    """Return the device, which this process has from then on."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    for name in _MAKERS:
        _LIBRARY.impl(name, functools.partial(_made, getattr(torch.ops.aten, name.partition(".")[0])))
    _LIBRARY.impl("_copy_from", _copied)
    return torch.device(NAME, 0)


#: What makes a tensor of nothing; others end in these.
_MAKERS = ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye", "eye.m")
_MAKERS += ("linspace", "randperm.generator", "fft_fftfreq", "fft_rfftfreq")
_LIBRARY = torch.library.Library("aten", "IMPL", "PrivateUse1")  # what happens where no tensor is one of `Pretend`


def _made(make, *args, **kwargs):
    kwargs.pop("pin_memory", None)
    return Pretend(make(*args, **{**kwargs, "device": torch.device("cpu")}))


def _copied(source, target, non_blocking=False):
    held(target).copy_(held(source))
    return target


class Generator(torch.Generator):
    """One that makes for the device the random numbers of the CPU."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu" if torch.device(device).type == NAME else device)
