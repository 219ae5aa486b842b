"""The module that is trained: the backbone and the loss of all its terms."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from januslm.model import losses
from januslm.model.packing import Batch
from januslm.model.transformer import Seq2Seq


class ModelWithLoss(nn.Module):
    """`module(batch, coefficients) -> (loss, sums of terms)`.

    loss: has smoothing, detach and chunk (januslm.objective.LossSettings).
    """

    def __init__(self, model: Seq2Seq, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(
        self, batch: Batch, coefficients: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """loss = sum of coefficients[name] * sums[name]; the sums carry no gradient."""
        hidden, length_logits = self.model(batch)
        loss, sums = losses.fused(
            hidden,
            self.model.vocabulary_weight(),
            batch.loss_groups,
            dict(coefficients),
            smoothing=self.loss.smoothing,
            detach=self.loss.detach,
            chunk=self.loss.chunk,
        )
        if "ce/length" in coefficients:
            assert length_logits is not None, "packed with other weights than these"
            last = length_logits.shape[-1] - 1
            wide = torch.promote_types(length_logits.dtype, torch.float32)
            term = cross_entropy(
                length_logits.to(wide), batch.lengths.clamp(max=last), reduction="sum"
            )
            loss = loss + coefficients["ce/length"] * term
            sums["ce/length"] = term.detach()
        return loss, sums
