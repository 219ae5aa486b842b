"""One file per kind of corpus: `inputs(root, *, options) -> list[Input]`."""
