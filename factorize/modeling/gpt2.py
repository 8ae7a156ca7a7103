"""A GPT-2 model whose cached keys are thin, for Hugging Face transformers 5.23 or later.

kvc-factorize wrote this file beside the weights, and config.json names it, so that

    AutoModelForCausalLM.from_pretrained(DIRECTORY, trust_remote_code=True)

is the model of these weights. A cache of transformers holds the thin keys: [batch, heads, tokens, rank], where a
head narrower than the layer's widest is filled up with zeros. Nothing stands between projection and dot product,
so both factors are inside `c_attn`, which gives thin queries, thin keys and full values.
"""

import torch
import transformers
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt2 import modeling_gpt2 as family
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.pytorch_utils import Conv1D

if tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23):
    raise ImportError(f"modeling_kvc.py: expected transformers 5.23 or later, got {transformers.__version__}")


class KvcConfig(GPT2Config):
    """The source model's configuration, and in `kvc` the layout and the ranks of the keys."""

    model_type = "kvc"


def split_heads(rows, widths):
    """Cuts rows [batch, tokens, sum of widths] into heads [batch, heads, tokens, largest width]."""
    parts = [F.pad(part, (0, max(widths) - part.shape[-1])) for part in rows.split(widths, dim=-1)]
    return torch.stack(parts, dim=1)


class AbsorbAttention(family.GPT2Attention):
    def __init__(self, config, layer_idx):
        super().__init__(config, layer_idx=layer_idx)
        self.ranks = config.kvc["ranks"][layer_idx]
        self.c_attn = Conv1D(2 * sum(self.ranks) + self.embed_dim, self.embed_dim)

    def forward(self, hidden_states, cache=None, attention_mask=None, **options):
        past = options.pop("past_key_values", None)  # its name up to transformers 5.23
        cache = past if cache is None else cache
        width = sum(self.ranks)
        query, key, value = self.c_attn(hidden_states).split((width, width, self.embed_dim), dim=-1)
        query, key = split_heads(query, self.ranks), split_heads(key, self.ranks)
        value = split_heads(value, [self.head_dim] * self.num_heads)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, family.eager_attention_forward
        )
        dropout = self.attn_dropout.p if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **options
        )
        output = self.c_proj(output.reshape(*hidden_states.shape[:-1], -1))
        return self.resid_dropout(output), weights


class KvcForCausalLM(family.GPT2LMHeadModel):
    """The source model with thin keys in every layer."""

    config_class = KvcConfig
    _supports_flash_attn = False  # wants keys as wide as values
    _supports_flex_attn = False

    def __init__(self, config):
        super().__init__(config)
        for index, block in enumerate(self.transformer.h):
            block.attn = AbsorbAttention(config, index)
        self.post_init()
