"""One file per noise: `hide(source, target, special, rng, *, options) -> (source, hidden)`."""
