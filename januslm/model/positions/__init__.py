"""One file per position scheme: a module `Positions(config)` that adds to the embedded tokens.

A scheme that turns queries and keys instead has a function `rotate(x, position)`; where its CROSS
is true, those of cross-attention are turned as well.  Each file says what a check needs to know
before torch is imported: whether slots that all hold a mask can be told apart by it
(TELLS_MASKS_APART), and what a head's width must be a multiple of (HEAD_MULTIPLE).
"""
