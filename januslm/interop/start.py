"""The model a run starts from: random weights, an export's, or another project's."""

from collections.abc import Callable

from torch import nn

from januslm.interop import native, weights
from januslm.interop.export_folder import FILES, ExportFacts
from januslm.model.config import ModelConfig
from januslm.model.transformer import Seq2Seq


def created(
    config: ModelConfig,
    start: ExportFacts | None,
    shard: Callable[[nn.Module], object] | None = None,
) -> Seq2Seq:
    """A model of `config` with the weights of `start`, or with random ones where there is none.

    shard: see Seq2Seq; a start's weights are whole in each process first.
    Raises Refused for weights that are damaged or do not fit.
    """
    if not start:
        return Seq2Seq(config, shard=shard)
    if start.foreign:
        return weights.load(start.folder, start.foreign, config, start.decoder)
    path = start.folder / FILES[0]
    return native.filled(config, native.load(path), path)
