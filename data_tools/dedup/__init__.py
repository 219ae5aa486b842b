"""One file per way to find duplicates: `deduplicator(*, options)` gives an Equal or a Similar."""
