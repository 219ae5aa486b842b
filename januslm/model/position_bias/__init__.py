"""One file per bias on attention scores that depends on the distance between query and key.

A module `PositionBias(config, layers)` with `bucket(distance)`, int64 -> int64, and
`values(layer, query, attention)`: [Q, D], which the layer's own attention reads -> [Q or 1, H, B].
The score of head h between a query q and a key k gains values[q, h, bucket(k's place - q's place)].
One table for all queries is T5's; ProphetNet's and XLNet's are made from each query.  A file whose
ENCODER is False is for the decoder alone.
"""
