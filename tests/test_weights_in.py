"""Weights of other projects mean here what their own classes compute of them."""

import numpy as np
import pytest
import torch

from januslm.data.tokenizer import Special
from januslm.interop import native, start
from januslm.interop.export_folder import read_start
from januslm.layout import Example
from januslm.model.packing import Packer
from januslm.objective import LossSettings, resolve_objective
from tests import plain_fairseq
from tests.hf_models import converted, encoder_of, prophetnet, transformers

SEEDS = range(4)


def texts(special: Special, rng, source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Words that are all different, so that one tells its place."""
    found = rng.permutation(special.words)
    cut = [[special.bos, *found[:n], special.eos] for n in (source, target)]
    return np.array(cut[0]), np.array(cut[1])


def logits(facts, model, source, target, **changes) -> dict[tuple[str, int], torch.Tensor]:
    """Ours for each word that is asked for, by the name of its distribution and its place."""
    table = {"name": facts.objective, **facts.options, **changes}
    special = facts.tokenizer.special
    objective = resolve_objective(table, {"name": "none"}, LossSettings(), "nmt", special, "test")
    objective.check_fit(model.config, "test")
    none = np.zeros(len(target), bool)
    layout = objective.layout(target, none, np.random.default_rng(0))
    batch = Packer(objective.loss.weights)([Example(source, target, layout)])
    place = {int(word): at for at, word in enumerate(target)}
    with torch.inference_mode():
        found = model(batch)[0] @ model.vocabulary_weight().t()
    return {
        (name, place[int(word)]): found[row]
        for group in batch.loss_groups
        for name, rows in zip(group.distributions, group.rows, strict=True)
        for row, word in zip(rows, group.target, strict=True)
    }


HF_NAMES = (  # transformers' -> fairseq's
    ("word_embeddings", "embed_tokens"),
    ("position_embeddings", "embed_positions"),
    ("embeddings_layer_norm", "emb_layer_norm"),
    ("ngram_embeddings", "ngram_input_embed"),
    ("self_attn.relative_pos_embeddings", "ngram_self_attn.relative_linear"),
    ("cross_attn", "encoder_attn"),
    ("feed_forward_layer_norm", "final_layer_norm"),
    ("feed_forward.intermediate", "fc1"),
    ("feed_forward.output", "fc2"),
)


def fairseq_names(model, whole: bool = False) -> dict[str, torch.Tensor]:
    """A ProphetNet's tensors by the names of its own code; whole: one matrix for q, k and v."""
    found = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("prophetnet.")
        if not name.startswith(("encoder.", "decoder.")):
            continue
        for theirs, own in HF_NAMES:
            name = name.replace(theirs, own)
        if name.startswith("decoder") and "relative" not in name:
            name = name.replace(".self_attn.", ".ngram_self_attn.")
        for part in ("query", "key", "value"):
            name = name.replace(f".{part}_proj.", f".{part[0]}_proj.")
        found[name] = tensor.clone()
    if whole:
        for name in [n for n in found if ".q_proj." in n]:
            parts = [found.pop(name.replace(".q_proj.", f".{p}_proj.")) for p in "qkv"]
            place, kind = name.split(".q_proj.")
            found[f"{place}.in_proj_{kind}"] = torch.cat(parts)
    return found


STREAMS = ("ar", "ahead2", "ahead3", "ahead4", "ahead5")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_prophetnets_streams_are_those_of_its_description(tmp_path, seed):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    theirs = prophetnet(tmp_path, rng, **({"pad_token_id": 1} if seed == 3 else {}))
    facts = read_start(f"hf:{tmp_path}")
    ahead, pad = theirs.config.ngram, theirs.config.pad_token_id
    assert (facts.objective, facts.options) == ("prophetnet", {"ahead": ahead, "prefix": "eos"})
    model = start.created(facts.config, facts).eval()
    source, target = texts(facts.tokenizer.special, rng, 9, 30)
    mine = logits(facts, model, source, target)
    read = torch.from_numpy(np.r_[facts.tokenizer.special.eos, target[1:-1]])
    heads = theirs.config.num_encoder_attention_heads
    with torch.no_grad():
        state = fairseq_names(theirs)
        want = plain_fairseq.streams(state, heads, torch.from_numpy(source), read, ahead, pad)
    asked = 0
    for stream, rows in zip(STREAMS, want, strict=False):
        for slot, row in enumerate(rows):
            # A stream that would have to read from before the text asks for nothing here.
            if slot >= STREAMS.index(stream):
                torch.testing.assert_close(mine[stream, slot + 1], row, atol=1e-5, rtol=1e-5)
                asked += 1
    assert asked == len(mine)


def corrected(self, hidden_states, attn_weights, position_ids, buckets):
    """transformers' own function with the axes of its gather in the order of its index."""
    batch = len(hidden_states)
    found = self.relative_pos_embeddings(hidden_states.transpose(1, 2))  # [B, N, T, buckets * H]
    found = found.unflatten(-1, (self.num_buckets, self.num_attn_heads)).permute(0, 1, 4, 2, 3)
    index = buckets.long()[:, None, None].expand(batch, self.ngram, self.num_attn_heads, -1, -1)
    return found.gather(-1, index)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_prophetnets_first_stream_is_transformers_where_its_axes_are_in_order(
    tmp_path, monkeypatch, seed
):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    theirs = prophetnet(tmp_path, rng, ngram=2 + seed % 2)
    facts = read_start(f"hf:{tmp_path}")
    model = start.created(facts.config, facts).eval()
    source, target = texts(facts.tokenizer.special, rng, 9, 20)
    mine = logits(facts, model, source, target)
    first = torch.stack([mine["ar", at] for at in range(1, len(target))])
    ids = torch.from_numpy(source)[None]
    read = torch.from_numpy(np.r_[facts.tokenizer.special.eos, target[1:-1]])[None]
    with torch.no_grad():
        stock = theirs(ids, decoder_input_ids=read)
        assert (stock.logits[0] - first).abs().max() > 0.01  # else transformers has mended it
        # A single word, and words one by one out of the cache, are right.
        one = theirs(ids, decoder_input_ids=read[:, :1])
        torch.testing.assert_close(one.logits[0], first[:1], atol=1e-5, rtol=1e-5)
        memory, cache, steps = theirs.get_encoder()(ids), None, []
        for at in range(read.shape[1]):
            word = read[:, at : at + 1]
            out = theirs(encoder_outputs=memory, decoder_input_ids=word, cache=cache)
            cache = out.cache
            steps.append(out.logits[0, 0])
        torch.testing.assert_close(torch.stack(steps), first, atol=1e-5, rtol=1e-5)
        attention = transformers.models.prophetnet.modeling_prophetnet.ProphetNetNgramSelfAttention
        monkeypatch.setattr(attention, "get_predict_relative_pos_embeddings", corrected)
        right = theirs(ids, decoder_input_ids=read)
    torch.testing.assert_close(right.logits[0], first, atol=1e-5, rtol=1e-5)
    for n, rows in enumerate(right.logits_ngram[0], 1):
        second = torch.stack([mine[STREAMS[n], at] for at in range(1 + n, len(target))])
        torch.testing.assert_close(rows[n:], second, atol=1e-5, rtol=1e-5)


def memory_of(facts, model, source) -> torch.Tensor:
    """What our encoder makes of a source."""
    target = np.array([facts.tokenizer.special.bos, 10, facts.tokenizer.special.eos])
    objective = resolve_objective(
        {"name": "ar"}, {}, LossSettings(), "nmt", facts.tokenizer.special, "test"
    )
    batch = Packer({"ce/ar": 1.0})([objective.example(source, target, np.random.default_rng(0))])
    with torch.inference_mode():
        return model.encode(batch.source)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["random", "encoder"])
@pytest.mark.parametrize("kind", ["bert", "mpnet"])
@pytest.mark.parametrize("seed", SEEDS)
def test_an_encoders_states_are_those_of_transformers(tmp_path, kind, seed, decoder):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    theirs = encoder_of(kind, tmp_path, rng)
    facts = read_start(f"hf:{tmp_path}", decoder)
    assert facts.objective == {"bert": "mlm", "mpnet": "mpnet"}[kind]
    model = start.created(facts.config, facts).eval()
    for length in (1, 30, 180):  # beyond the last bucket of MPNet's
        size = theirs.config.vocab_size
        source = rng.choice(facts.tokenizer.special.words, length) % size
        with torch.no_grad():
            want = theirs(torch.from_numpy(source)[None]).last_hidden_state[0]
        torch.testing.assert_close(memory_of(facts, model, source), want, atol=1e-5, rtol=1e-5)
    state = model.state_dict()
    both = [n for n in state if n.startswith("encoder.")]
    same = [torch.equal(state[n], state[n.replace("encoder.", "decoder.", 1)]) for n in both]
    apart = [n for n, one in zip(both, same, strict=True) if not one]
    assert not apart if decoder == "encoder" else len(apart) >= 7
    fresh = state["decoder.layers.0.encoder_attn.q_proj.weight"]
    assert fresh.std() < 0.05  # theirs have 0.2


def bang(path, rng, rows: int = 1, whole: bool = False, **changes):
    """A checkpoint of BANG's own code, with random weights; returns tensors, heads, tokenizer."""
    model = prophetnet(path.parent / "aside", rng, ngram=rows)
    state = fairseq_names(model, whole)
    state["decoder.embed_positions.weight"] = torch.cat(  # one row more than the encoder's
        [state["decoder.embed_positions.weight"], torch.randn(1, model.config.hidden_size)]
    )
    for side in ("encoder", "decoder"):
        state[f"{side}.version"] = torch.tensor([3.0])
    torch.save(changes | {"model": state}, path)
    tokenizer = path.parent / "aside" / "tokenizer.json"
    return state, model.config.num_encoder_attention_heads, tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_bangs_checkpoint_writes_as_its_description_says(tmp_path, monkeypatch, seed):
    from argparse import Namespace

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    path = tmp_path / "bang.pt"
    beside = {"args": Namespace(arch="bang", ngram=1)} if seed % 2 else {}
    state, heads, tokenizer = bang(path, rng, whole=seed > 1, **beside)
    line = ("bang", path, tmp_path / "out", "--tokenizer", tokenizer)
    assert converted(monkeypatch, *line) == 0
    saved = native.read(tmp_path / "out")
    facts = read_start(str(tmp_path / "out"))
    source, target = texts(facts.tokenizer.special, rng, 9, 20)
    text, size = torch.from_numpy(source), len(target) - 1
    read = torch.from_numpy(np.r_[facts.tokenizer.special.eos, target[1:-1]])
    with torch.no_grad():
        ar = plain_fairseq.streams(state, heads, text, read, 1)[0]
        nar = plain_fairseq.all_at_once(state, heads, text, size)
    for way, name, want in (("ar", "ar", ar), ("nar", "nar", nar)):
        mine = logits(facts, saved.model, source, target, way=way)
        found = torch.stack([mine[name, at] for at in range(1, len(target))])
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
    # The chain behind the first word is NAR but for what stands before the text.
    assert facts.options["way"] == "streams"
    assert ("ahead9", 9) in logits(facts, saved.model, source, target)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_prophetnets_own_checkpoint_is_transformers_folder(tmp_path, monkeypatch, whole):
    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    _, _, tokenizer = bang(path, np.random.default_rng(0), rows=3, whole=whole)
    state = torch.load(path, weights_only=True)["model"]
    torch.save(state, path)  # tensors alone, as they may be published
    line = ("prophetnet", path, tmp_path / "out", "--tokenizer", tokenizer)
    assert converted(monkeypatch, *line) == 0
    assert converted(monkeypatch, "prophetnet", tokenizer.parent, tmp_path / "hf") == 0
    one, other = (native.read(tmp_path / name) for name in ("out", "hf"))
    assert (one.objective, one.options) == (other.objective, other.options)
    assert one.model.config == other.model.config
    theirs = other.model.state_dict()
    words = one.model.config.vocabulary + 3  # vectors of no stream of theirs are new
    for name, tensor in one.model.state_dict().items():
        rows = words if name == "embedding.weight" else len(tensor)
        new = name == "length_head.weight"
        assert torch.equal(tensor[:rows], theirs[name][:rows]) is not new, name
