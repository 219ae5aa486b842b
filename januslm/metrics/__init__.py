"""One file per metric: `score(predictions, references, *, options) -> {name: value}`."""
