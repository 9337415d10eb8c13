"""Guarantees of the optimizers: Muon is torch's, whatever the ranks; state goes by name, and no other model's fits."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from data_curation.artifact import Artifact
from data_curation.place import Place
from data_curation.settings import InputError
from tests.training.phases import config, losses, published
from training import optimizers
from training.pretrain import pretrain

SHAPES = [(24, 16), (16, 24), (24, 16), (5, 16), (24, 16)]
"""The fourth lies unevenly on two ranks, and three matrices do not go evenly to them."""


class Small(nn.Module):
    """Matrices, an embedding and a norm, as a decoder names them."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.matrices = nn.ParameterList(torch.randn(shape, generator=random) for shape in SHAPES)
        self.embed_tokens = nn.Parameter(torch.randn(30, 16, generator=random))
        self.norm = nn.Parameter(torch.ones(16))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, number: int, first: int = 0) -> None:
    """Optimizer steps on random gradients, the same for equal steps."""
    for step in range(first, first + number):
        random = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape, generator=random)
            shares = getattr(parameter, "placements", None)
            parameter.grad = gradient if shares is None else distribute_tensor(gradient, parameter.device_mesh, shares)
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        optimizer.step()


def test_matrices_get_the_steps_of_torch_and_the_rest_those_of_adamw() -> None:
    """torch.optim.Muon scaled to AdamW's updates, but for its bfloat16; AdamW to the bit, without decay."""
    ours, theirs, plain = Small(), Small(), Small()
    steps(ours, optimizers.build(config(optimizer="muon"), ours), 5)
    muon = torch.optim.Muon(theirs.matrices.parameters(), lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    steps(theirs, muon, 5)
    steps(plain, torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.95), weight_decay=0.0, fused=True), 5)
    for one, other, start in zip(ours.matrices, theirs.matrices, Small().matrices, strict=True):
        assert (one - other).norm() <= 0.02 * (other - start).norm()
        assert float((one - start).detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.05, rel=0.5)
    assert torch.equal(ours.embed_tokens, plain.embed_tokens) and torch.equal(ours.norm, plain.norm)


@pytest.mark.parametrize("shape", [(40, 40), (40, 12), (12, 40)])
def test_the_iteration_leaves_directions_and_evens_sizes(shape: tuple[int, int]) -> None:
    """Singular vectors stay, singular values come near 1 (0.68 to 1.13 in Jordan et al. 2024)."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ optimizers.iterated(matrix[None])[0] @ v.T
    assert (turned - turned.diag().diag()).abs().max() < 1e-4
    kept = turned.diag()[values > 0.05 * values.norm()]
    assert len(kept) > 5 and float(kept.min()) > 0.6 and float(kept.max()) < 1.25


def _rank(rank: int, folder: Path, shape: tuple[int, ...]) -> None:
    os.environ |= {"MASTER_ADDR": "localhost"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model, mesh = Small(), init_device_mesh("cpu", shape)
    placements = [Replicate()] * (len(shape) - 1) + [Shard(0)]
    for module in (model, model.matrices):
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, placements)))
    optimizer = optimizers.build(config(optimizer="muon"), model)
    optimizers.set_state(model, optimizer, torch.load(folder / "state.pt"))
    steps(model, optimizer, 2, first=1)
    whole = {name: parameter.full_tensor().detach() for name, parameter in model.named_parameters()}
    states = optimizers.state_of(model, optimizer)
    state = {name: getattr(tensor, "full_tensor", lambda t=tensor: t)() for name, tensor in states.items()}
    if rank == 0:
        torch.save([whole, state], folder / "two.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(2,), (2, 1)], ids=["shares", "replicas"])
def test_two_ranks_go_on_from_the_state_of_one(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Shares on two ranks, uneven ones too, or replicas get the steps and the state that one rank gives the whole."""
    model = Small()
    optimizer = optimizers.build(config(optimizer="muon"), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # at a learning rate of 0: a state, and the model as it was
    torch.save(optimizers.state_of(model, optimizer), tmp_path / "state.pt")
    steps(model, optimizer, 2, first=1)
    mp.spawn(_rank, (tmp_path, shape), nprocs=2)  # type: ignore[no-untyped-call]
    whole, state = torch.load(tmp_path / "two.pt")
    torch.testing.assert_close(whole, {name: p.detach() for name, p in model.named_parameters()}, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, optimizers.state_of(model, optimizer), rtol=1e-5, atol=1e-6)


def test_the_state_of_another_optimizer_is_refused() -> None:
    """AdamW's moments do not become Muon's momentum in silence."""
    model = Small()
    adamw, muon = (optimizers.build(config(optimizer=name), model) for name in ("adamw", "muon"))
    steps(model, adamw, 1)
    with pytest.raises(InputError, match="belongs to another model or another optimizer"):
        optimizers.set_state(model, muon, optimizers.state_of(model, adamw))


def test_muon_carries_over_between_phases_and_ranks(
    shards: Artifact, tokenizer: Artifact, new_place: Callable[..., Place]
) -> None:
    """Its momentum is part of the state that the next phase starts from; two ranks give the curve of one."""
    chosen = config(optimizer="muon")
    one, two = new_place("one"), new_place("two", ranks=2)
    for place in (one, two):
        pretrain(chosen.run_of(0), shards, tokenizer, None, place)
    assert losses(two) == pytest.approx(losses(one), rel=2e-5)
    from safetensors.numpy import load_file

    moments = load_file(published(two).folder("state", two.scratch) / "optimizer.safetensors")
    assert "model.layers.0.mlp.up_proj.weight.momentum" in moments
    assert "model.embed_tokens.weight.exp_avg" in moments
    after = [new_place("after-one"), new_place("after-two")]
    for place, before in zip(after, (one, two), strict=True):
        pretrain(chosen.run_of(1), shards, tokenizer, published(before), place)
    assert losses(after[1]) == pytest.approx(losses(after[0]), rel=2e-5)
