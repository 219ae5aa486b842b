"""One file per rule that a document must pass: `of_text` or `of_tokens`, with its options."""
