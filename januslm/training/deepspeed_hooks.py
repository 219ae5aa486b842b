"""What we replace or read inside DeepSpeed, where no public name does it: all of it, in one file.

READ says which of DeepSpeed's functions that rests on, as they stood in VERSION;
tests/test_deepspeed_hooks.py fails where an installed DeepSpeed has others.
"""

import logging
from collections.abc import Callable

import torch
from torch import nn

VERSION = "0.19.8"

# module:name -> xxh3_64 of its source, indented as it stands there.
READ = {
    "deepspeed.ops:__getattr__": "f624cbb82757d071",
    "deepspeed.comm.torch:build_shm_op": "d258c15b57601204",
    "deepspeed.utils.logging:LoggerFactory.create_logger": "f54f4065e587b2f2",
    "deepspeed:set_optimizer_flags": "6e2c137af5de9346",
    "deepspeed.ops.adam.cpu_adam:DeepSpeedCPUAdam.__init__": "cb91415b96442e9d",
    "deepspeed.ops.adam.cpu_adam:DeepSpeedCPUAdam.step": "f9f9e87363d2b134",
    "deepspeed.runtime.engine:DeepSpeedEngine.was_step_applied": "ec38e982d6cd6987",
    "deepspeed.runtime.engine:DeepSpeedEngine._copy_recovery_script": "b261771de01420cc",
    "deepspeed.runtime.engine:DeepSpeedEngine._save_zero_checkpoint": "6adbfa85443154d6",
    "deepspeed.runtime.engine:DeepSpeedEngine._save_checkpoint": "56ae8c5278be2516",
    "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine:"
    "TorchCheckpointEngine.save": "310cd522d31eeec2",
    "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine:"
    "TorchCheckpointEngine.load": "30de96d70b012cb2",
    "deepspeed.utils.zero_to_fp32:get_fp32_state_dict_from_zero_checkpoint": "451f1e47500ff1db",
    "deepspeed.comm.comm:log_summary": "d79b2c07a790d2ff",
    "deepspeed.runtime.zero.muon.original_muon:zeropower_via_newtonschulz5": "d2b8fd8125ed0482",
    "deepspeed.runtime.zero.muon.original_muon:zeropower_via_gram_newtonschulz": "ab60750880ddf4c3",
    "deepspeed.runtime.zero.muon.muon_optimizer:MuonWithAuxAdam.__init__": "ac86a29a39e0a9b3",
}


def quiet() -> None:
    """Errors alone from DeepSpeed's logger; `log_level` in a DeepSpeed JSON undoes it."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


def without_ops() -> None:
    """Probe for no op and compile none: else the process group starts with a minute of g++.

    __compatible_ops__ is filled on its first reading, and build_shm_op asks it.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def without_compiler() -> None:
    """Import DeepSpeed's Muon uncompiled on a CPU, where compiling would be of no use.

    DeepSpeed imports it to see that an optimizer is none, and torch.compile would bring
    torch._inductor along: a third of the time in which a rank starts.
    """
    if torch.cuda.is_available():
        return
    from deepspeed.runtime import compiler

    compiled = compiler.compile
    compiler.compile = lambda *options, **more: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = compiled


def saved_by(engine, write: Callable[[dict, str], None]) -> None:
    """Let write(state, path) write the files of a checkpoint, instead of torch.save."""
    engine.checkpoint_engine.save = lambda state_dict, path: write(state_dict, path)
    # DeepSpeed would also put scripts there, which fail on tied weights.
    engine._copy_recovery_script = lambda path: None


def loaded_by(engine, read: Callable) -> None:
    """Let read(path, map_location=...) read them: torch.load there runs what a pickle says."""
    engine.checkpoint_engine.load = read


def unpickled() -> list:
    """The classes that DeepSpeed's files hold beside tensors and plain values; no other is."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def full_weights(folder: str, tag: str) -> dict[str, torch.Tensor]:
    """All weights of a checkpoint of ZeRO 1 to 3, in fp32 on the CPU; reads any pickle."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    return get_fp32_state_dict_from_zero_checkpoint(folder, tag=tag)


def applied(engine) -> bool:
    """Whether the last engine.step() changed the weights: false where it found no finite norm."""
    return engine.was_step_applied()


def muon_takes(body: Callable[[str, nn.Parameter], bool]) -> None:
    """Let body(name, parameter) say which weights Muon updates; Adam has the others.

    DeepSpeed goes by names: all matrices without "embed" or "lm_head" in them, which would give
    Muon our tables of positions and the head that tells lengths.
    """
    import deepspeed

    if not torch.cuda.is_available():  # its products are decorated with torch.compile
        torch.compiler.set_stance("force_eager")
    by_name = deepspeed.set_optimizer_flags

    def ours(config, model: nn.Module) -> None:
        by_name(config, model)
        for name, parameter in model.named_parameters():
            if hasattr(parameter, "use_muon"):
                parameter.use_muon = body(name, parameter)

    if by_name.__name__ != ours.__name__:
        deepspeed.set_optimizer_flags = ours


def resumes_exactly(optimizer) -> None:
    """Make DeepSpeed's CPU Adam a pure function of its state, so that a resumed run repeats.

    Its C++ half keeps beta^t, which it multiplies from step to step but takes by pow() after a
    resume: they differ in the last bit.  A new half for each step takes pow() always.
    """

    def renew(adam, *_) -> None:
        group = adam.param_groups[0]
        numbers = (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
        adam.ds_opt_adam.create_adam(adam.opt_id, *numbers, adam.adam_w_mode, False)

    optimizer.register_step_pre_hook(renew)


def summarize_collectives() -> None:
    """Print comms_logger's table on rank 0.  All ranks call it."""
    import deepspeed.comm

    deepspeed.comm.log_summary()


def unbuilt_adam() -> str:
    """Why DeepSpeed's CPU Adam cannot be compiled or loaded, or "".  The first time: minutes."""
    from deepspeed.ops.op_builder import CPUAdamBuilder

    try:
        CPUAdamBuilder().load(verbose=False)
    except Exception as error:  # a compiler's, the linker's, torch's or DeepSpeed's own
        return " ".join(str(error).split())[:300] or type(error).__name__
    return ""
