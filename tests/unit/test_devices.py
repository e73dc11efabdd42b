"""Devices by name."""

import pytest
import torch

from stm_lab.util.devices import DEVICES, resolve_device
from stm_lab.util.errors import UserError


def machine(monkeypatch, *, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("has", "best"), [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda")])
def test_auto_takes_the_fastest_at_hand(monkeypatch, has, best):
    machine(monkeypatch, **has)
    assert resolve_device("auto") == resolve_device(None) == resolve_device() == torch.device(best)
    assert resolve_device(best) == torch.device(best)


def test_a_device_is_kept():
    assert resolve_device(torch.device("cuda:3")) == torch.device("cuda:3")


def test_what_is_not_there_is_said(monkeypatch):
    machine(monkeypatch)
    for name in ("cuda", "mps"):
        with pytest.raises(UserError, match=f"'{name}' is not available"):
            resolve_device(name)
    with pytest.raises(UserError, match="did you mean 'cuda'"):
        resolve_device("cudda")
    assert "auto" in DEVICES
