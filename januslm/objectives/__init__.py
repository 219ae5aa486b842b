"""One file per objective: its streams, its rule, its slots, its noise and its loss weights."""
