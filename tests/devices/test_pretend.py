"""The pretend accelerator refuses what CUDA refuses, and takes what CUDA takes."""

import pytest
import torch
from devices import pretend


@pytest.fixture
def there():
    return torch.arange(6.0, device=pretend.device()).view(2, 3)


@pytest.mark.parametrize(
    "operate",
    [
        lambda x: x + torch.ones(2, 3),
        lambda x: torch.ones(2, 3) * x.sum(),
        lambda x: torch.zeros(()).add_(x.sum()),
        lambda x: torch.stack([x.sum(), torch.zeros(())]),
        lambda x: torch.ones(6)[x[0].long()],
        lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1, 3)),
        lambda x: x.gather(0, torch.zeros(1, 3, dtype=torch.int64)),
        lambda x: torch.fft.fft(x).mul_(torch.ones(3)),
        lambda x: torch.nn.functional.linear(x, torch.ones(4, 3)),
        lambda x: torch.where(x > 0, x, torch.ones(2, 3)),
    ],
)
def test_both_devices_do_not_meet(there, operate):
    with pytest.raises(RuntimeError, match="meets tensors of pretend and of the CPU"):
        operate(there)


def test_what_leaves_the_device_unasked_is_refused(there):
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


def test_what_cuda_takes_is_taken(there):
    for result in (there + torch.tensor(1.0), there[:, torch.tensor([1, 0])], there * 2, there.new_tensor([1.0])):
        assert result.device.type == pretend.NAME
    assert torch.equal(there.cpu(), torch.arange(6.0).view(2, 3))
    assert there.tolist() == [[0, 1, 2], [3, 4, 5]]
    for made in (torch.zeros(3), torch.linspace(0, 1, 5), torch.eye(2), torch.arange(4), torch.fft.fftfreq(5)):
        moved = made.to(there.device)
        assert moved.shape == made.shape
        moved.copy_(made)


def test_gradients_and_an_optimizer_are_those_of_the_cpu(there):
    torch.manual_seed(0)
    losses = []
    for device in ("cpu", there.device):
        torch.manual_seed(0)
        layer = torch.nn.Conv2d(1, 2, 2).to(device)
        optimizer = torch.optim.Adam(layer.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            loss = layer(torch.arange(6.0, device=device).view(1, 1, 2, 3)).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == losses[1]
