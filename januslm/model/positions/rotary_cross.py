"""Rotary, in cross-attention too: how far a slot stands from a word of the source tells as well.

For tasks whose target follows its source nearly word by word: there a mask finds its word without
counting.  Our own; no paper's.
"""

from januslm.model.positions.rotary import Positions, rotate

__all__ = ["Positions", "rotate"]

TELLS_MASKS_APART = True
HEAD_MULTIPLE = 2
CROSS = True
