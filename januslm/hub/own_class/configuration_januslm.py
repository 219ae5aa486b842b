"""What config.json of an exported januslm model says; see modeling_januslm.py."""

from transformers import PretrainedConfig


class JanusLMConfig(PretrainedConfig):
    """Sizes and style of the model, and how it writes."""

    model_type = "januslm"
    attribute_map = {  # noqa: RUF012  # transformers' way
        "vocab_size": "vocabulary",
        "hidden_size": "width",
        "num_attention_heads": "heads",
        "num_hidden_layers": "decoder_layers",
    }

    def __init__(
        self,
        vocabulary: int = 261,
        width: int = 256,
        ffn: int = 1024,
        heads: int = 4,
        encoder_layers: int = 3,
        decoder_layers: int = 3,
        dropout: float = 0.0,
        activation: str = "gelu",  # or relu
        norm: str = "post",  # or pre
        positions: str = "learned",  # or sinusoidal, rotary, rotary_cross, none
        position_bias: str = "",  # or prophetnet, t5, xlnet
        norm_eps: float = 1e-5,  # added to each LayerNorm's variance
        embedding_norm: bool = True,
        embedding_scale: bool = False,  # embeddings times the root of `width`
        tied: bool = True,  # the output matrix is the embedding
        max_positions: int = 1024,
        lengths: int = 256,  # that the length head tells, BOS and EOS counted
        length_offset: bool = False,  # it tells how much longer than the source a text is
        extra_vectors: int = 0,  # learned inputs after the vocabulary that are no words
        mask_token_id: int = 4,
        unk_token_id: int = 3,
        ar_prefix: list[int] | None = None,  # before the first word of AR; None: no AR
        asks: bool = False,  # AR is read from a slot beside each word, not from the word
        query_token_id: int = 4,  # what such a slot and the masks of a block or a row hold
        query_behind: int = 0,  # places that such a slot stands behind its word
        query_own: bool = False,  # such a slot reads itself, too
        block: int = 0,  # masks behind a word that draft what follows it; 0: it has not learnt to
        chain: bool = False,  # those masks read the ones before them; else each other
        row: bool = False,  # NAR from a row of masks that read the ones before them, BANG's
        template: dict | None = None,  # NAR: first (position), head, tail (tokens given); None: no
        **kwargs,
    ):
        for name, value in list(locals().items()):
            if name not in ("self", "kwargs", "__class__"):
                setattr(self, name, value)
        fixed = {"is_encoder_decoder": True, "tie_word_embeddings": False}  # `tied` says it
        super().__init__(**kwargs | fixed)
