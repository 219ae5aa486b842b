"""One file per architecture that weights come from: its name is config.json's `model_type`.

`sizes(config)`: keys of our ModelConfig, from config.json; KeyError for what is missing there.
`taught(config, special)`: what it was trained for, an objective here and its options.
`names(config)`: {our tensor: theirs}; several of theirs lie one below the other in ours.
`prepare(tensors, config, where)`: changes theirs so that this holds.
PREFIX: stands before theirs where the model is a part of a larger one.  WORDS: all that the
embedding is called.  HEAD: the output matrix, which is the embedding where it is tied.  LEFT: how
tensors begin that have no place in ours.  ENCODER: there is an encoder alone.  IDS: keys of
config.json and the special token each must be.  RENAMED: parts of names in old files, and new ones.
ADDED: tensors that `prepare` adds to others.  Nothing here imports torch.
"""
