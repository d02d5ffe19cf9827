"""Promises 4 and 5: what of a model survives a rewrite, checkpoints first of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain import far
from torch import nn
from writing.nets import CIRCULAR, PARTIAL, REFLECT, Branchy, branchy_partial, picture

import padrewrite as pr

from .nets import large_and_small


class Test04WhatSurvives:
    """Class, names, hooks, parametrizations, forms of parameters, mode switching; in place also identity."""

    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, [*CIRCULAR, *PARTIAL]])
    def test_inplace_keeps_parameters_and_optimizer(self, passes: list[str]) -> None:
        net = Branchy()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        net(picture()).sum().backward()
        optimizer.step()
        ids, keys = [id(p) for p in net.parameters()], list(net.state_dict())
        new = pr.transform(net, passes, example_inputs=picture(), inplace=True)
        assert new is net
        assert isinstance(new, Branchy)
        assert [id(p) for p in net.parameters()] == ids
        assert list(net.state_dict()) == keys
        before = [p.detach().clone() for p in net.parameters()]
        optimizer.zero_grad()
        net(picture()).square().sum().backward()
        optimizer.step()
        assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters()))

    def test_hooks_fire_once_and_see_the_user_class(self) -> None:
        net, seen = Branchy().eval(), []
        for name, module in net.named_modules():
            module.register_forward_pre_hook(lambda m, a, n=name: seen.append(("pre", n)))  # pyright: ignore
            module.register_forward_hook(lambda m, a, o, n=name: seen.append(("post", n)))  # pyright: ignore
        net.stem.register_full_backward_hook(lambda m, i, o: seen.append(("back", "stem")))  # pyright: ignore
        net(picture().requires_grad_()).sum().backward()
        wanted, seen[:] = list(seen), []
        new = pr.transform(net, PARTIAL, example_inputs=picture(), inplace=True)
        seen.clear()  # recording runs the forward, hooks included
        new(picture().requires_grad_()).sum().backward()
        assert seen == wanted

    def test_modes_switch(self) -> None:
        net = Branchy()
        new: Any = pr.transform(net, PARTIAL, example_inputs=picture())
        assert new.training
        new(picture())
        assert new.norm.num_batches_tracked == 1
        assert net.norm.num_batches_tracked == 0
        assert far(new.eval()(picture()), branchy_partial(new, picture())) < 1e-5
        new(picture())
        assert new.norm.num_batches_tracked == 1
        torch.manual_seed(0)
        a = new.train()(picture())
        assert not torch.equal(a, new(picture())), "dropout is frozen"
        assert new.norm.num_batches_tracked == 3

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR])
    def test_dtype_and_frozen_parameters(self, dtype: torch.dtype, passes: list[str]) -> None:
        net = Branchy().eval().to(dtype)
        net.stem.requires_grad_(False)
        x = picture().to(dtype)
        new = pr.transform(net, passes, example_inputs=x)
        assert new(x).dtype == dtype
        assert [(n, p.dtype, p.requires_grad) for n, p in new.named_parameters()] == [
            (n, p.dtype, p.requires_grad) for n, p in net.named_parameters()
        ]

    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, REFLECT])
    def test_memory_format(self, passes: list[str]) -> None:
        net: Any = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)).to(
            memory_format=torch.channels_last
        )
        x = picture().contiguous(memory_format=torch.channels_last)
        new: Any = pr.transform(net, passes, example_inputs=x)
        assert new[1].weight.is_contiguous(memory_format=torch.channels_last)
        assert net(x).is_contiguous(memory_format=torch.channels_last)
        assert new(x).is_contiguous(memory_format=torch.channels_last)

    def test_meta(self) -> None:
        net = Branchy().eval().to("meta")
        new = pr.transform(net, PARTIAL, example_inputs=picture().to("meta"))
        assert all(p.is_meta for p in new.parameters())
        assert new(picture(height=20).to("meta")).shape == net(picture(height=20).to("meta")).shape
        real = new.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in [*real.parameters(), *real.buffers()]:
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
        assert far(real(picture()), branchy_partial(real, picture())) < 1e-5  # pyright: ignore


class Test05OriginalCheckpointsLoad:
    """Strictly, and into the original again."""

    @pytest.mark.parametrize("passes", [PARTIAL, CIRCULAR, REFLECT, [*CIRCULAR, *PARTIAL]])
    def test_both_ways(self, passes: list[str]) -> None:
        trained = Branchy().eval()
        new = pr.transform(Branchy().eval(), passes, example_inputs=picture())
        new.load_state_dict(trained.state_dict(), strict=True)
        fresh = pr.transform(trained, passes, example_inputs=picture())
        assert torch.equal(new(picture()), fresh(picture()))
        back = Branchy().eval()
        back.load_state_dict(new.state_dict(), strict=True)
        assert torch.equal(back(picture()), trained(picture()))
        assert list(new.state_dict()) == list(trained.state_dict())

    def test_of_replaced_and_added_layers_too(self) -> None:
        """Weights are carried over as by the rewrite itself; what is new adds nothing."""
        trained, passes = large_and_small(), ["separable-kernel{mid=2}", "boundary-refinement{at=2}"]
        new = pr.transform(large_and_small(), passes, example_inputs=picture())
        new.load_state_dict(trained.state_dict(), strict=True)
        fresh = pr.transform(trained, passes, example_inputs=picture())
        assert torch.equal(new(picture()), fresh(picture()))
        assert set(new.state_dict()) != set(trained.state_dict())
        again = pr.transform(large_and_small(), passes, example_inputs=picture())
        again.load_state_dict(new.state_dict(), strict=True)
        assert torch.equal(again(picture()), new(picture()))
