"""From files to token ids: the tokenizer, verified shards, the order of samples, prefetching."""
