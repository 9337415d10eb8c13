"""torchtitan's side of benchmarks/pretrain.py: its Trainer and its transformers backend, by our clock.

torchtitan 0.2.2 is the last release that runs on torch 2.11, and not with transformers 5.17; the folder of --torchtitan
holds it with transformers 4.57.1, whose huggingface_hub is below 1, and datasets for that. Its own are: model wrapper,
mixed precision (autocast; or FSDP2 on a mesh of one GPU, as its later releases do it always), torch.compile of every
block and of the loss, fused AdamW, clipping, schedule, training step and its order of attention kernels, cuDNN first;
nothing is recomputed. Ours are: sizes, first weights, batch and clock. Its loss is read at the first and the last step
only, ours at each.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from benchmarks.pretrain_engines import Clock, _model, _tokens  # pyright: ignore[reportPrivateUsage]
from benchmarks.pretrain_rows import Row

BACKEND = "torchtitan.experiments.transformers_modeling_backend"


@dataclass
class Meter:
    """What torchtitan's Trainer asks of its metrics; keeps the losses of the first and the last step."""

    last: int
    color: Any
    losses: dict[int, float] = field(default_factory=dict)
    num_flops_per_token: float = 0.0
    ntokens_since_last_log: int = 0
    data_loading_times: list[float] = field(default_factory=list)
    device_name: str = ""
    max_reserved_gib: float = 0.0
    max_reserved_pct: float = 0.0

    @property
    def device_memory_monitor(self) -> "Meter":
        """This too: memory is measured by benchmarks/pretrain.py."""
        return self

    def get_peak_stats(self) -> "Meter":
        """The zeros above."""
        return self

    def should_log(self, step: int) -> bool:
        """Whether the loss is wanted."""
        return step in (1, self.last)

    def log(self, step: int, mean: float, *_: Any, **__: Any) -> None:
        """Keep the loss."""
        self.losses[step] = float(mean)


def torchtitan(row: Row, clock: Clock) -> None:
    """Run torchtitan's training step by the clock."""
    import torch
    from torch.nn.attention import sdpa_kernel

    if not torch.cuda.is_available():
        # Where it finds no accelerator it takes CUDA; a dry run is on the CPU.
        torch._utils._get_available_device_type = lambda: "cpu"  # type: ignore[reportPrivateUsage]
    from torchtitan.models.attention import ScaledDotProductAttentionWrapper  # type: ignore[reportMissingImports]

    model, meter = _model(row, "sdpa"), Meter(clock.ticks, None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(row, model.config, meter, folder)
        _copy(model, trainer.model_parts[0].model)
        del model
        batches = trainer.batch_generator(trainer.dataloader)
        with sdpa_kernel(ScaledDotProductAttentionWrapper().sdpa_backends, set_priority=True):
            clock.begin = time.monotonic()
            for step in range(1, clock.ticks + 1):
                trainer.step = step
                trainer.train_step(batches)
                clock.tick(meter.losses.get(step))
    torch.distributed.destroy_process_group()


def _trainer(row: Row, config: Any, meter: Meter, folder: str) -> Any:
    """Its Trainer, by settings of its command line."""
    from torchtitan.config import ConfigManager  # type: ignore[reportMissingImports]
    from torchtitan.protocols.train_spec import register_train_spec  # type: ignore[reportMissingImports]
    from torchtitan.tools.utils import NoColor  # type: ignore[reportMissingImports]

    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    meter.color = NoColor()
    spec = replace(
        import_module(BACKEND).get_train_spec(), model_args={"": _arguments(row)}, build_tokenizer_fn=None,
        build_dataloader_fn=lambda **_: _batches(row), build_metrics_processor_fn=lambda *_: meter,
    )  # fmt: skip
    register_train_spec("bench", spec)
    settings = {
        "job.custom_config_module": f"{BACKEND}.job_config", "job.dump_folder": folder, "hf_transformers.model": folder,
        "model.name": "bench", "model.flavor": "", "training.local_batch_size": row.rows, "training.seq_len": row.width,
        "training.steps": meter.last, "optimizer.lr": 1e-4, "optimizer.weight_decay": 0.1, "optimizer.beta2": 0.95,
        "lr_scheduler.warmup_steps": 0, "lr_scheduler.min_lr_factor": 1.0, "activation_checkpoint.mode": "none",
        "comm.trace_buf_size": 0,
    }  # fmt: skip
    given = [f"--{name}={value}" for name, value in settings.items()]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    return _trainer_class(row)(ConfigManager().parse_args([*given, "--compile.enable"]))


def _trainer_class(row: Row) -> type:
    from torchtitan.distributed import ParallelDims  # type: ignore[reportMissingImports]
    from torchtitan.train import Trainer  # type: ignore[reportMissingImports]

    class OneGpu(ParallelDims):  # type: ignore[reportUntypedBaseClass]
        """Without it one GPU has no mesh for FSDP."""

        fsdp_enabled = True

        def _mesh_exist(self, name: str, degree: int) -> bool:
            return name == "fsdp" or super()._mesh_exist(name, degree)

    class Sharded(Trainer):  # type: ignore[reportUntypedBaseClass]
        def init_distributed(self) -> Any:
            dimensions = super().init_distributed()
            dimensions.__class__ = OneGpu
            return dimensions

    return Sharded if row.fully_shard else Trainer


def _arguments(row: Row) -> Any:
    """Its settings of the model; it derives the inner width and the heads' from others, where we give them."""
    backend = import_module(BACKEND)

    class Arguments(backend.HFTransformerModelArgs):
        def update_from_config(self, job_config: Any) -> Any:
            super().update_from_config(job_config)
            self.intermediate_size, self.head_dim = row.inner, 128
            return self

    return Arguments(
        titan_dense_args=backend.TitanDenseModelArgs(
            dim=row.hidden, n_layers=row.layers, n_heads=row.heads, n_kv_heads=row.kv_heads
        )
    )


def _copy(ours: Any, theirs: Any) -> None:
    """The same first weights, and the rotary frequencies, which it leaves unset in a model made on no device."""
    import torch
    from torch.distributed.tensor import DTensor

    with torch.no_grad():
        for kind in ("named_parameters", "named_buffers"):
            wanted = dict(getattr(ours, kind)())
            found = {name.replace("._orig_mod", ""): one for name, one in getattr(theirs, kind)()}
            if wanted.keys() != found.keys():
                raise ValueError(f"torchtitan's model has other {kind}: {sorted(wanted.keys() ^ found.keys())}")
            for name, one in found.items():
                (one.to_local() if isinstance(one, DTensor) else one).copy_(wanted[name])


def _batches(row: Row) -> Iterator[tuple[dict[str, Any], Any]]:
    """The same batch for ever."""
    from torch.nn.functional import pad

    tokens = _tokens(row)
    labels = pad(tokens, (0, 1), value=-100)[:, 1:].contiguous()
    while True:
        yield {"input": tokens}, labels
