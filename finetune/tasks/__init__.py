"""One file per task: `read(root, split, skipped) -> pairs`, its metrics, its decoding defaults."""
