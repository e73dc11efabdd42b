"""Memory: kept bytes by hand, peaks by hand and against the allocator, the model left as it was."""

import pytest
import timm
import torch
from torch import nn

import stm_lab
from stm_lab.measure import memory
from stm_lab.util.errors import UserError

IMAGES = torch.rand(4, 3, 32, 32)
SMALL = 4096  # bytes: numbers and shapes beside the tensors that are counted


@pytest.mark.parametrize(
    ("model", "floats"),
    [
        (nn.Conv2d(3, 5, 1), 3 * 1024),  # its input, for the weights' gradient
        (nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1)), 3 * 1024 + 5 * 1024),  # ReLU's output once
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 7)), 3072),  # a view keeps what it looks at
        (nn.Sequential(nn.Sigmoid(), nn.Flatten(), nn.Identity()), 0),  # nothing to learn, nothing kept
    ],
)
def test_what_autograd_keeps_by_hand(model, floats):
    assert memory(model, IMAGES, batch_size=4).activations == 4 * 4 * floats  # images, bytes of a float


def test_parts_add_up_and_grow_with_the_batch():
    model = stm_lab.build_model("halo", "nano")
    small, large = (memory(model, batch_size=n, image_size=32) for n in (2, 4))
    for result in (small, large):
        for by in ("role", "stage"):
            *rows, total = result.rows(by)
            assert sum(row["activations"] for row in rows) == total["activations"] == result.activations
    assert small.weights == large.weights == sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert 1.9 < large.activations / small.activations <= 2


class Wide(nn.Module):
    """Four times its input for a moment, and one number in the end."""

    def forward(self, x):
        return torch.cat([x, x, x, x]).sum()


def test_forward_peak_by_hand():
    result = memory(Wide(), IMAGES, batch_size=4)
    assert 4 * IMAGES.nbytes <= result.forward_peak < 4 * IMAGES.nbytes + SMALL


def test_training_peak_by_hand():
    """A linear layer's backward pass holds the gradient of its weights, and those alone."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2048, bias=False))
    result = memory(model, IMAGES, batch_size=4)
    weights = 4 * 3072 * 2048
    assert weights <= result.training_peak < weights + 4 * (4 * 4 * 2048) + SMALL
    assert result.weights == weights


@pytest.mark.parametrize("name", ["unified_swin_nano", "unified_dcn_v3_nano", "test_vit", "test_resnet"])
def test_orders_that_must_hold(name):
    model = timm.create_model(name)
    result = memory(model, batch_size=2, image_size=64 if "unified" in name else None)
    assert result.forward_peak < result.training_peak
    assert result.training_peak > result.activations - 2 * 3 * 4 * 224**2  # the images are kept, but were there before


def test_the_model_is_left_alone():
    model = stm_lab.build_model("identity", "nano").eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    memory(model, batch_size=2)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_refuses_and_says_how_it_measured():
    with pytest.raises(UserError, match="expected batch_size >= 1"):
        memory(nn.Conv2d(3, 4, 1), batch_size=0)
    result = memory(nn.Conv2d(3, 4, 1), IMAGES, batch_size=1)
    assert "allocator" in result.method
    assert result.rows()[-1]["role"] == "total"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_peaks_on_cuda():
    result = memory(Wide(), IMAGES, device="cuda", batch_size=4)
    assert 4 * IMAGES.nbytes <= result.forward_peak < 5 * IMAGES.nbytes
