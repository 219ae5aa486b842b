"""The one training loop, and what makes a run safe: checkpoints, logs, signals, DeepSpeed."""
