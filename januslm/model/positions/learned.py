"""A learned vector for each place (BERT, BART)."""

from torch import Tensor, nn

TELLS_MASKS_APART = True
HEAD_MULTIPLE = 1


class Positions(nn.Module):
    """Adds a row of a table to each token."""

    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.max_positions, config.width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x: [..., D]; position: int64 [...]."""
        return x + self.table(position)
