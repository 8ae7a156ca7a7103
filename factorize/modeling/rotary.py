"""A @CLASS@ model whose cached keys are thin, for Hugging Face transformers 5.23 or later.

kvc-factorize wrote this file beside the weights, and config.json names it, so that

    AutoModelForCausalLM.from_pretrained(DIRECTORY, trust_remote_code=True)

is the model of these weights. A cache of transformers holds the thin keys: [batch, groups, tokens, rank], where a
group narrower than the layer's widest is filled up with zeros, and beside each group the values of its heads as one
row: [batch, groups, tokens, heads in the group * D]. Factors behind the projections stay in float32.
Shapes: B batch, S new tokens, T cached tokens with the new ones, H query heads, G key-value heads, D head width,
E model width, n groups of keys (G, or the number of latents), R largest rank of the layer.
"""

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.@MODULE@ import modeling_@MODULE@ as family
from transformers.models.@MODULE@.configuration_@MODULE@ import @CLASS@Config

if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23):
    raise ImportError(f"modeling_kvc.py: expected transformers 5.23 or later, got {transformers.__version__}")


class KvcConfig(@CLASS@Config):
    """The source model's configuration, and in `kvc` the layout and the ranks of the keys."""

    model_type = "kvc"
    base_model_tp_plan = None  # the source's plan would cut groups of keys apart


def split_groups(rows, widths):
    """Cuts rows [B, S, sum of widths] into groups: [B, n, S, R]."""
    parts = [F.pad(part, (0, max(widths) - part.shape[-1])) for part in rows.split(widths, dim=-1)]
    return torch.stack(parts, dim=1)


def split_blocks(weight, widths):
    """Cuts a matrix [sum of widths, D] into the blocks of its groups: [n, R, D]."""
    return torch.stack([F.pad(part, (0, 0, 0, max(widths) - part.shape[0])) for part in weight.split(widths)])


def rotate(rows, angles):
    """Turns heads [B, heads, S, D] by angles, cos and sin [B, S, r]: their first r dimensions; None turns nothing."""
    if angles is None:
        return rows
    cos, sin = (table.unsqueeze(1) for table in angles)
    turned, kept = rows.split((cos.shape[-1], rows.shape[-1] - cos.shape[-1]), dim=-1)
    return torch.cat((turned * cos + family.rotate_half(turned) * sin, kept), dim=-1)


def rotate_pairs(rows, cos, sin):
    """Turns dimensions 2i and 2i + 1 of rows [B, heads, S, R] by angles cos, sin [B, heads, S, R/2]."""
    even, odd = rows[..., 0::2], rows[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def key_positions(position_ids, mask, begin, slots):
    """Positions [B, T] of all keys of a layer, of which a call brings S with position_ids [B, S].

    New keys lie in the slots from `begin`; older ones count back from the first new position over the slots
    that are not padding, that is, those that some query of `mask` [B, 1, S, T] sees.
    """
    count = position_ids.shape[1]
    slot = torch.arange(slots, device=position_ids.device)
    old = slot < begin
    seen = old.unsqueeze(0)
    if mask is not None:
        mask = mask[:, 0, :, :slots]
        seen = seen & (mask.any(dim=1) if mask.dtype == torch.bool else mask.amax(dim=1) >= 0)
    number = seen.cumsum(dim=-1)
    counted = (position_ids[:, :1] - 1 + number - number[:, -1:]).clamp(min=0)
    given = position_ids[:, (slot - begin).clamp(0, count - 1)]
    return torch.where(old, counted, given)


class ThinAttention(family.@CLASS@Attention):
    """What the layouts have in common; each says how thin queries and keys are made and used."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        self.ranks = config.kvc["ranks"][layer_idx]
        self.num_kv_heads = config.num_key_value_heads

    def heads(self, rows, norm=None):
        """Splits rows [B, S, heads*D]; before, or in each head, comes the norm that the family has for them."""
        norm = getattr(self, norm, None) if norm else None
        of_heads = norm is not None and norm.weight.shape[0] == self.head_dim
        if norm is not None and not of_heads:
            rows = norm(rows)
        rows = rows.unflatten(-1, (-1, self.head_dim))
        return (norm(rows) if of_heads else rows).transpose(1, 2)

    def thin(self, hidden_states, angles):
        """Returns the queries [B, H, S, .] and the keys [B, n, S, R] to be cached."""
        raise NotImplementedError

    def usable(self, keys, position_ids, mask, begin):
        """Returns what queries meet, made from all cached keys [B, n, T, R]; the new ones lie from `begin` on."""
        return keys

    def forward(self, hidden_states, position_embeddings, attention_mask=None, **options):
        past = options.pop("past_key_values", None)  # its name up to transformers 5.23
        cache = options.pop("cache", past)
        rotated = getattr(self, "use_rope", True)  # some families leave some layers without rotation
        query, key = self.thin(hidden_states, position_embeddings if rotated else None)
        value = self.v_proj(hidden_states).unflatten(-1, (len(self.ranks), -1)).transpose(1, 2)  # [B, n, S, G/n*D]
        count, begin = key.shape[-2], 0
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
            # A static cache has slots behind the newest token.
            used = cache.get_seq_length(self.layer_idx) if cache.is_compileable else key.shape[-2]
            begin = None if cache.is_compileable and cache.is_sliding[self.layer_idx] else used - count
        key = self.usable(key, options.get("position_ids"), attention_mask, begin)
        value = self.heads(value.transpose(1, 2).flatten(2))  # [B, G, T, D]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, family.eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **options
        )
        return self.o_proj(output.reshape(*hidden_states.shape[:-1], -1)), weights


class LatentProjection(nn.Linear):
    """The projection onto the latents; its bias is that of the keys, added after the rebuild."""

    def __init__(self, inputs, outputs, key_width, has_bias):
        super().__init__(inputs, outputs, bias=False)
        if has_bias:
            self.bias = nn.Parameter(torch.zeros(key_width))

    def forward(self, hidden_states):
        return F.linear(hidden_states, self.weight)


class LatentAttention(ThinAttention):
    """latent: the cache holds c = x A before the rotation; keys are rebuilt as c B^T when they are used."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        width, has_bias = self.num_kv_heads * self.head_dim, self.k_proj.bias is not None
        self.k_proj = LatentProjection(config.hidden_size, sum(self.ranks), width, has_bias)
        self.k_rebuild = nn.Linear(max(self.ranks), width, bias=False)
        self.rotary_emb = family.@CLASS@RotaryEmbedding(config=config)

    def thin(self, hidden_states, angles):
        query = rotate(self.heads(self.q_proj(hidden_states), "q_norm"), angles)
        return query, split_groups(self.k_proj(hidden_states), self.ranks)

    def usable(self, keys, position_ids, mask, begin):
        blocks = self.k_rebuild.weight.float().unflatten(0, (len(self.ranks), -1))  # [n, G/n*D, R]
        rows = (keys.float() @ blocks.transpose(1, 2)).transpose(1, 2).flatten(2)  # [B, T, G*D]
        if self.k_proj.bias is not None:
            rows = rows + self.k_proj.bias
        rows = self.heads(rows, "k_norm")
        if not getattr(self, "use_rope", True):
            return rows.to(keys.dtype)
        if begin is None:
            raise NotImplementedError("latents: expected a dynamic cache for layers with a window, got a static one")
        positions = key_positions(position_ids, mask, begin, rows.shape[-2])
        return rotate(rows, self.rotary_emb(rows, positions)).to(keys.dtype)


class PostRopeAttention(ThinAttention):
    """post-rope: the cache holds k' = (k - mu) A of the rotated key; queries q' = q B meet it as it is."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        self.k_reduce = nn.Linear(self.head_dim, sum(self.ranks))
        self.q_reduce = nn.Linear(self.head_dim, sum(self.ranks), bias=False)

    def thin(self, hidden_states, angles):
        query = rotate(self.heads(self.q_proj(hidden_states), "q_norm"), angles)
        key = rotate(self.heads(self.k_proj(hidden_states), "k_norm"), angles)
        key_blocks = split_blocks(self.k_reduce.weight.float(), self.ranks)  # [G, R, D]
        query_blocks = split_blocks(self.q_reduce.weight.float(), self.ranks)
        offsets = split_blocks(self.k_reduce.bias.float()[:, None], self.ranks)  # [G, R, 1]
        key = key.float() @ key_blocks.transpose(1, 2) + offsets.transpose(1, 2)
        query = query.float().unflatten(1, (self.num_kv_heads, -1))  # [B, G, H/G, S, D]
        query = (query @ query_blocks.transpose(1, 2).unsqueeze(1)).flatten(1, 2)
        return query.to(hidden_states.dtype), key.to(hidden_states.dtype)


class RopePairsAttention(ThinAttention):
    """rope-pairs: queries and keys have some rotation pairs of the source's, two dimensions side by side."""

    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx)
        has_bias = self.k_proj.bias is not None
        self.query_ranks = [rank for rank in self.ranks for _ in range(self.num_key_value_groups)]
        self.q_proj = nn.Linear(config.hidden_size, sum(self.query_ranks), bias=has_bias)
        self.k_proj = nn.Linear(config.hidden_size, sum(self.ranks), bias=has_bias)
        pairs = config.kvc["pairs"][layer_idx]
        self.pairs = [kept + [0] * (max(self.ranks) // 2 - len(kept)) for kept in pairs]  # [G][R/2]

    def thin(self, hidden_states, angles):
        query = split_groups(self.q_proj(hidden_states), self.query_ranks)
        key = split_groups(self.k_proj(hidden_states), self.ranks)
        if angles is None:
            return query, key
        pairs = torch.tensor(self.pairs, device=key.device)
        of_keys = [table[..., pairs].transpose(1, 2) for table in angles]  # cos, sin [B, G, S, R/2]
        of_queries = [table.repeat_interleave(self.num_key_value_groups, dim=1) for table in of_keys]
        return rotate_pairs(query, *of_queries), rotate_pairs(key, *of_keys)


LAYOUTS = {"latent": LatentAttention, "post-rope": PostRopeAttention, "rope-pairs": RopePairsAttention}


class KvcForCausalLM(family.@CLASS@ForCausalLM):
    """The source model with thin keys in every layer."""

    config_class = KvcConfig
    _keep_in_fp32_modules_strict = ["k_rebuild", "k_reduce", "q_reduce"]
    _supports_flash_attn = False  # wants keys as wide as values
    _supports_flex_attn = False

    def __init__(self, config):
        super().__init__(config)
        attention = LAYOUTS[config.kvc["layout"]]
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = attention(config, index)
        self.post_init()
