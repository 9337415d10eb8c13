"""How a phase goes through its model: kernels, numbers, rows of a pass, what is computed again; what cannot be."""

import logging
import math
from typing import Any

import torch

from data_curation.place import Place
from data_curation.settings import ConfigError
from training import parallel
from training.attention import kernel_for
from training.decoder import Decoder
from training.float8 import UNIT
from training.layout import BLOCK
from training.memory import Load, Passes, Recompute, passes
from training.norms import fusion_for
from training.parallel import Ranks
from training.pretrain import PhaseRun

CPU_TOKENS = 2048  # of one pass on a CPU: more fall out of its caches
GPU_TOKENS = 32 * 1024
log = logging.getLogger("tokenmill")


def passes_of(run: PhaseRun, model: Any, ranks: Ranks, device: torch.device, place: Place) -> Passes:
    """Rows of a pass, and what each layer computes again on its way back."""
    resources = place.resources
    rows = run.tokens_per_step // run.phase.seq_len // ranks.replicas
    parameters = sum(one.numel() for one in model.parameters()) / parallel.shares(ranks, resources.shard_ranks)
    shared = ranks.context.ranks if ranks.context else 1
    size = 4 if run.dtype == "float32" else 2
    load = Load(model.config, parameters, run.phase.seq_len // shared, shared, size)
    cpu = device.type == "cpu"
    tokens = resources.micro_batch_tokens or (CPU_TOKENS if cpu else GPU_TOKENS)
    memory = math.inf if cpu else torch.cuda.get_device_properties(device).total_memory
    if run.recompute != "auto":
        found = passes(load, rows, tokens, math.inf)
        each: list[Recompute] = [run.recompute] * len(found.recompute)
        return Passes(found.rows, each, load.bytes(found.rows, each))
    # GPUs may differ, and ranks with other numbers of passes would wait for each other until they are ended.
    found = ranks.of_first(lambda: passes(load, rows, tokens, memory, smaller=resources.micro_batch_tokens is None))
    again = sum(one != "none" for one in found.recompute)
    if again and ranks.rank == 0:
        log.info(
            "%s: %d of %d layers are computed again on the way back, so that a pass of %d tokens takes about %.0f GB",
            place.name, again, len(found.recompute), found.rows * load.row, found.bytes / 1e9,
        )  # fmt: skip
    return found


def decoder_for(run: PhaseRun, model: Any, device: torch.device, recompute: Recompute | list[Recompute]) -> Decoder:
    """On a CPU eager: compiling would take longer than a small training."""
    cpu = device.type == "cpu"
    if cpu and run.attention not in ("auto", "sdpa"):
        raise ConfigError(f"pretrain.attention is {run.attention}, which needs a GPU: use auto or sdpa")
    kernel = kernel_for(device, run.attention, run.phase.seq_len)
    if run.dtype == "float8":
        _check_float8(run, model, device)
    dtype = torch.float32 if run.dtype == "float32" else torch.bfloat16
    return Decoder(model, dtype, kernel, recompute, not cpu, fusion_for(device, run.fusion), run.dtype == "float8")


def _check_float8(run: PhaseRun, model: Any, device: torch.device) -> None:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (9, 0):
        raise ConfigError("pretrain.dtype is float8, which needs a GPU of compute capability 9.0 or more: use bfloat16")
    if run.phase.seq_len % UNIT:
        raise ConfigError(
            f"pretrain.phases[{run.index}].seq_len is {run.phase.seq_len}: with pretrain.dtype float8 give a multiple "
            f"of {UNIT}"
        )
    for name, parameter in model.model.layers.named_parameters():
        if parameter.ndim == 2 and any(size % UNIT for size in parameter.shape):
            shape = " by ".join(map(str, parameter.shape))
            raise ConfigError(
                f"pretrain.dtype is float8, but {name} is {shape}: products in 8 bits need multiples of {UNIT}: "
                "change the sizes in pretrain.model or use bfloat16"
            )


def check_rows(run: PhaseRun, ranks: Ranks) -> None:
    """Raises ConfigError if the rows of a step do not go evenly to the ranks."""
    rows = run.tokens_per_step // run.phase.seq_len
    if rows % ranks.replicas:
        among = f"{ranks.world}" + (f", {ranks.context.ranks} to a row" if ranks.context else "")
        raise ConfigError(
            f"run.resources.ranks is {among}: a step of {rows} rows of {run.phase.seq_len} tokens does not go evenly "
            "to them: change pretrain.tokens_per_step or the ranks"
        )


def check_length(run: PhaseRun, ranks: Ranks, decoder: Decoder) -> None:
    """Raises ConfigError if ranks that share a row cannot have equal chunks of it."""
    block = BLOCK if decoder.kernel == "flex" else UNIT if decoder.float8 else 1
    unit = 2 * ranks.context.ranks * block if ranks.context else 1
    if run.phase.seq_len % unit:
        raise ConfigError(
            f"run.resources.context_ranks is {ranks.world // ranks.replicas}: rows of {run.phase.seq_len} tokens are "
            f"no whole number of {unit}: change the phase's seq_len or the ranks"
        )
