"""Every key of a DeepSpeed JSON: its type and range, or why it is refused.  tests/test_ds_keys.py
trains with each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from januslm.config import Refused, build, plain, setting

# What a DeepSpeed JSON must not say, and who says it instead.
OWNED = {
    "train_batch_size": "the run file as train.batch",
    "train_micro_batch_size_per_gpu": "the run file as train.batch and train.accumulate",
    "gradient_accumulation_steps": "the run file as train.accumulate",
    "gradient_clipping": "the run file as train.clip",
    "optimizer": "the run file as [optimizer]",
    "scheduler": "the run file as [schedule]",
    "steps_per_print": "the run file as train.log_every",
    "zero_force_ds_cpu_optimizer": "januslm/training/engine.py, which chooses the Adam",
    "zero_allow_untested_optimizer": "januslm/training/engine.py, which chooses the optimizer",
    "managed_gradient_accumulation": "januslm/training/engine.py, which counts micro batches",
    "gradient_allreduce_op": "januslm/training/engine.py, which normalises by global counts",
    "checkpoint": "januslm/training/checkpoint.py, which writes checkpoints atomically",
    "tensorboard": "januslm/training/tensorboard.py, which draws all curves of a run in its board/",
    "fp16": "nobody: the losses need the range of bf16 or fp32; use bf16",
}

_MONITOR = "DeepSpeed would give it the learning rate alone; all curves are in the run's board/"
_NVME = "needs libaio and an op that DeepSpeed compiles; a path that could not be written hung here"
_KERNELS = "needs CUDA kernels that DeepSpeed compiles, and was never run with this project"
_NOTHING = "changes nothing here"

# Keys that DeepSpeed knows and that are refused, and why; a dot leads into a table.
REFUSED = {
    "csv_monitor": f"{_MONITOR} and its train.jsonl",
    "wandb": _MONITOR,
    "comet": _MONITOR,
    "aio": f"NVMe {_NVME}",
    "compile": "DeepSpeed would compile the module as a whole, whose batches change shape with "
    "every update; DeepCompile's op does not build without CUDA",
    "timers": "the run's train.jsonl has seconds per update; wall_clock_breakdown has its parts",
    "dump_state": "the run's config.json has it",
    "disable_allgather": "DeepSpeed reads it and never uses it",
    "tensor_parallel": "the module's attention and losses are not split over processes",
    "sequence_parallel_size": "packed batches are not split along their slots (Ulysses, AutoSP)",
    "pipeline": "the module is no list of layers (PipelineModule)",
    "data_types.param_dtype": "bf16.enabled says it",
    "data_types.buffer_dtype": "the module has no buffer that is learnt",
    "data_types.keep_in_fp32_modules": "not tried: losses and norms are in fp32 already",
    "bf16.check_grad_overflow": "it finds the updates that are not finite",
    "bf16.immediate_grad_update": _NOTHING,
    "bf16.bf16_master_weights_and_grads": "an update below 1/256 of a weight would be lost",
    "bf16.bf16_optimizer_states": "an update below 1/256 of a weight would be lost",
    "zero_optimization.zenflow": "DeepSpeed 0.19.8 fails with any Adam but its own",
    "zero_optimization.zero_quantized_weights": _KERNELS,
    "zero_optimization.zero_quantized_nontrainable_weights": _KERNELS,
    "zero_optimization.zero_quantized_gradients": _KERNELS,
    "zero_optimization.stage3_module_granularity_threshold": "DeepSpeed 0.19.8 fails in the first "
    "forward: gradients of weights that are read in the loss meet empty shards",
    "zero_optimization.leaf_module": "it is for mixtures of experts",
    "zero_optimization.legacy_stage1": "DeepSpeed has it no more",
    "zero_optimization.cpu_offload": 'write "offload_optimizer": {"device": "cpu"}',
    "zero_optimization.cpu_offload_param": 'write "offload_param": {"device": "cpu"}',
    "zero_optimization.cpu_offload_use_pin_memory": "write pin_memory in the offload tables",
    "zero_optimization.mics_shard_size": "DeepSpeed has MiCS no more; use zero_hpz_partition_size",
    "zero_optimization.compute_grad_norm": "the norm finds the updates that are not finite",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": "exports have all weights",
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": "exports have all weights",
    "zero_optimization.elastic_checkpoint": "checkpoints move between numbers of processes already",
    "zero_optimization.load_from_fp32_weights": "a resumed run must go on from its fp32 weights",
    "zero_optimization.pipeline_loading_checkpoint": _NOTHING,
    "zero_optimization.parameter_alignment": _NOTHING,
    "zero_optimization.override_module_apply": _NOTHING,
    "zero_optimization.save_muon_momentum_buffer_in_memory": "not tried",
    "zero_optimization.offload_optimizer.ratio": "part of an update on each side: not tried",
    "zero_optimization.offload_optimizer.super_offload": "it is for NVIDIA superchips alone",
}
for _table in ("offload_optimizer", "offload_param"):
    for _key in ("nvme_path", "buffer_count", "buffer_size", "max_in_cpu", "fast_init"):
        REFUSED[f"zero_optimization.{_table}.{_key}"] = f"NVMe {_NVME}"


@dataclass(frozen=True)
class OffloadKeys:
    """Where weights or Adam's state wait between two uses."""

    device: Literal["none", "cpu"] = "none"  # in the memory of the host, or where it is used
    pin_memory: bool = False  # in memory that a GPU copies from faster


@dataclass(frozen=True)
class ZeroKeys:
    """zero_optimization.  Sizes are numbers of weights; DeepSpeed wants them whole, 5e8 is."""

    stage: int = setting(0, low=0, high=3)  # 1 shards the optimizer, 2 gradients too, 3 weights too
    contiguous_gradients: bool = True  # copy gradients into one block as they come
    reduce_scatter: bool = True  # each process gets its share of the sum alone
    reduce_bucket_size: float = setting(5e8, low=1)  # gradients that travel at once
    # one collective for the shares of several processes
    use_multi_rank_bucket_allreduce: bool = True
    allgather_partitions: bool = True  # gather weights in buckets rather than broadcast them
    allgather_bucket_size: float = setting(5e8, low=1)  # weights that are gathered at once
    overlap_comm: bool = False  # reduce gradients while the backward pass goes on
    # where the optimizer's state waits
    offload_optimizer: OffloadKeys = field(default_factory=OffloadKeys)
    # where weights wait, at stage 3
    offload_param: OffloadKeys = field(default_factory=OffloadKeys)
    round_robin_gradients: bool = False  # share the copying of offloaded gradients evenly
    ignore_unused_parameters: bool = True  # a weight without a gradient is no error
    enable_sanity_checks: bool = False  # DeepSpeed's own checks of its state, which cost time
    sub_group_size: float = setting(1e9, low=1)  # weights that are updated at once
    stage3_prefetch_bucket_size: float = setting(5e7, low=0)  # weights that are fetched ahead
    stage3_param_persistence_threshold: float = setting(1e5, low=0)  # smaller weights stay whole
    # how much may stay whole in all
    stage3_model_persistence_threshold: float = setting(1e9, low=0)
    stage3_max_live_parameters: float = setting(1e9, low=0)  # weights that are whole at a time
    # weights that are needed again sooner stay
    stage3_max_reuse_distance: float = setting(1e9, low=0)
    stage3_use_all_reduce_for_fetch_params: bool = False  # fetch with all_reduce, not all_gather
    stage3_allgather_sequential: bool = False  # fetch one weight after another
    # processes that keep a second share of weights (hpZ)
    zero_hpz_partition_size: int = setting(1, low=1)
    memory_efficient_linear: bool = True  # linear layers keep no copy of gathered weights
    log_trace_cache_warnings: bool = False  # say when the order of fetching changes


@dataclass(frozen=True)
class BF16Keys:
    """bf16: weights that are computed with; the optimizer's stay in fp32."""

    enabled: bool = False  # compute in it


@dataclass(frozen=True)
class AutocastKeys:
    """torch_autocast: weights in fp32, products in bf16."""

    enabled: bool = False  # compute under it
    dtype: Literal["bfloat16"] = "bfloat16"  # of the products
    # classes whose weights travel in it
    lower_precision_safe_modules: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DataTypeKeys:
    """data_types."""

    grad_accum_dtype: Literal["fp32", "bf16"] = "fp32"  # the sum over micro batches


@dataclass(frozen=True)
class CommsLoggerKeys:
    """comms_logger: every collective is timed; a table of them ends the run."""

    enabled: bool = False  # time them
    verbose: bool = False  # a line for each collective
    prof_all: bool = True  # all of them, or those of prof_ops
    prof_ops: list[str] = field(default_factory=list)  # names of collectives
    debug: bool = False  # with the name of the function that calls


@dataclass(frozen=True)
class FlopsProfilerKeys:
    """flops_profiler: prints one forward, module by module."""

    enabled: bool = False  # print it
    # forwards that are computed again in the backward
    recompute_fwd_factor: float = setting(0.0, low=0)
    profile_step: int = setting(1, low=1)  # the update whose forward is printed
    module_depth: int = setting(-1, low=-1)  # how deep modules are listed; -1: all the way
    top_modules: int = setting(1, low=1)  # how many are named at each depth
    detailed: bool = True  # the whole tree of modules
    output_file: str | None = None  # where it goes; else to the console


@dataclass(frozen=True)
class DeepSpeedKeys:
    """A DeepSpeed JSON."""

    zero_optimization: ZeroKeys = field(default_factory=ZeroKeys)  # what is sharded over processes
    bf16: BF16Keys = field(default_factory=BF16Keys)  # weights and activations in bfloat16
    # torch's autocast in the place of bf16
    torch_autocast: AutocastKeys = field(default_factory=AutocastKeys)
    data_types: DataTypeKeys = field(default_factory=DataTypeKeys)  # of sums
    communication_data_type: Literal["fp32", "bf16"] | None = None  # of gradients on their way
    prescale_gradients: bool = False  # divide gradients before they are summed up over processes
    # by how much, where they are prescaled
    gradient_predivide_factor: float = setting(1.0, above=0)
    comms_logger: CommsLoggerKeys = field(default_factory=CommsLoggerKeys)  # time what travels
    # count FLOPs by module
    flops_profiler: FlopsProfilerKeys = field(default_factory=FlopsProfilerKeys)
    wall_clock_breakdown: bool = False  # print the time of forward, backward and update
    memory_breakdown: bool = False  # print the memory at each part of a step
    # how much DeepSpeed says
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "error"
    disable_python_gc: bool = False  # no garbage collection within a step


ALLOWED = frozenset(one.name for one in fields(DeepSpeedKeys))


def check_keys(ds: Mapping, where: str) -> None:
    """Refuse a DeepSpeed JSON with a key that does not work, or with a value of a wrong type."""
    for key in ds:
        if key in OWNED:
            raise Refused(f"{where}: {key!r} belongs to {OWNED[key]}")
    for key, value in _dotted(ds):
        if key in REFUSED:
            raise Refused(f"{where}: {key} is not supported: {REFUSED[key]}")
        if key.endswith(".device") and value == "nvme":
            raise Refused(f'{where}: {key} = "nvme" is not supported: it {_NVME}')
    keys = build(DeepSpeedKeys, ds, where)
    meant = dict(_dotted(plain(keys)))
    for key, value in _dotted(ds):  # DeepSpeed reads the file as it stands
        if isinstance(value, float) and type(meant[key]) is int:
            raise Refused(f"{where}: {key} must be a whole number, got {value}")
    _check_together(keys, where)


def _dotted(table: Mapping, above: str = "") -> Iterator[tuple[str, object]]:
    """Every key of nested tables with its value; a table's own comes before those in it."""
    for key, value in table.items():
        yield above + key, value
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{above}{key}.")


def _check_together(keys: DeepSpeedKeys, where: str) -> None:
    """Refuse keys that do not go together."""
    zero, bf16, autocast = keys.zero_optimization, keys.bf16.enabled, keys.torch_autocast.enabled
    scaled = keys.prescale_gradients or keys.gradient_predivide_factor != 1
    wrong = {
        "bf16 needs zero_optimization.stage of at least 1: with stage 0 DeepSpeed takes one Adam "
        "step too many at the start, and trains differently": bf16 and zero.stage == 0,
        "torch_autocast keeps weights in fp32, bf16 does not: enable one of them": bf16
        and autocast,
        "offload_param needs zero_optimization.stage 3": zero.offload_param.device != "none"
        and zero.stage < 3,
        "offload_optimizer needs zero_optimization.stage of at least 1": (
            zero.offload_optimizer.device != "none" and zero.stage < 1
        ),
        "zero_hpz_partition_size needs zero_optimization.stage 3": zero.zero_hpz_partition_size > 1
        and zero.stage < 3,
        "prescale_gradients and gradient_predivide_factor need zero_optimization.stage 0 or 1": (
            scaled and zero.stage > 1
        ),
    }
    for why, is_so in wrong.items():
        if is_so:
            raise Refused(f"{where}: {why}")
