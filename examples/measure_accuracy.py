"""Measure both NUFFT kernels against the exact DFT in float64: values, image gradient, trajectory gradient.

python examples/measure_accuracy.py

Multi-coil, 2D, at the ADC samples of a disturbed radial trajectory. Prints the relative error of each operator and of
the chain adjoint(forward), and the mismatch of <A x, y> = <x, A^H y>.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trajdesign.acquisition import Acquisition
from trajdesign.encoding.nufft import nufft, nufft_adjoint, there, using
from trajdesign.encoding.operator import angular
from trajdesign.scanner import Scanner
from trajdesign.trajectories.inits.radial import radial

COILS = 4

Operator = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    acquisition = Acquisition(fov=(0.22, 0.22), matrix=(32, 30), n_shots=6, n_samples=128)
    trajectory = radial(acquisition, Scanner())
    omega = angular(trajectory).flatten(0, 1)
    omega = omega + 0.05 * torch.randn_like(omega)
    shape = acquisition.image_shape
    image = torch.randn(COILS, *shape, dtype=torch.complex128)
    samples = torch.randn(COILS, len(omega), dtype=torch.complex128)
    print(f"{'kernel':13}{'operator':18}{'value':>10}{'d/d input':>12}{'d/d trajectory':>16}")
    for name in there(torch.device("cpu")):
        for operator, ours, theirs, data in operators(shape, image, samples):
            with using(name):
                results = [derivatives(f, data, omega) for f in (ours, theirs)]
            errors = [float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True)]
            print(f"{name:13}{operator:18}{errors[0]:>10.1e}{errors[1]:>12.1e}{errors[2]:>16.1e}")
        with using(name):
            left = torch.vdot(nufft(image, omega).flatten(), samples.flatten())
            right = torch.vdot(image.flatten(), nufft_adjoint(samples, omega, shape).flatten())
        print(f"{name:13}{'adjoint dot test':18}{float((left - right).abs() / left.abs()):>10.1e}")


def operators(shape: tuple[int, ...], image: Tensor, samples: Tensor) -> list[tuple[str, Operator, Operator, Tensor]]:
    """Each operator's name, the kernel's version, the exact one, and what it acts on."""

    def adjoint(y: Tensor, omega: Tensor) -> Tensor:
        return nufft_adjoint(y, omega, shape)

    return [
        ("forward", nufft, exact, image),
        ("adjoint", adjoint, lambda y, w: exact_adjoint(y, w, shape), samples),
        (
            "adjoint(forward)",
            lambda x, w: adjoint(nufft(x, w), w),
            lambda x, w: exact_adjoint(exact(x, w), w, shape),
            image,
        ),
    ]


def derivatives(operator: Operator, data: Tensor, omega: Tensor) -> tuple[Tensor, ...]:
    """Value of an operator, and the gradients of a random real functional of it."""
    data, omega = data.clone().requires_grad_(), omega.clone().requires_grad_()
    value = operator(data, omega)
    generator = torch.Generator().manual_seed(1)
    probe = torch.randn(value.shape, dtype=value.dtype, generator=generator)
    return (value.detach(), *torch.autograd.grad((value * probe.conj()).real.sum(), (data, omega)))


def exact(image: Tensor, omega: Tensor) -> Tensor:
    """Forward transform by its defining sum."""
    return torch.einsum("jyx,cyx->cj", phases(omega, image.shape[1:]), image)


def exact_adjoint(samples: Tensor, omega: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Adjoint transform by its defining sum."""
    return torch.einsum("jyx,cj->cyx", phases(omega, shape).conj(), samples)


def phases(omega: Tensor, shape: tuple[int, ...]) -> Tensor:
    """exp(-i omega . n) at every point and pixel (point, y, x)."""
    y, x = (torch.arange(n, dtype=torch.float64) - n // 2 for n in shape)
    return torch.exp(-1j * (omega[:, 1, None, None] * y[:, None] + omega[:, 0, None, None] * x))


if __name__ == "__main__":
    main()
