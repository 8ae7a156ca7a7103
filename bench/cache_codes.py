"""Other people's codes of cached keys and values, for bench/codes.py: what each does, and where it is kinder than its paper,
stands at its class. Rows are coded and decoded again, and what they would take is counted."""

import math
import zlib

import torch
from transformers.models.llama.modeling_llama import rotate_half

FULL_BITS = 16
SINKS = 4
WINDOW = 32


# ---- rows ----------------------------------------------------------------------------------------------------------

def grouped(x, size):
    """[..., D] -> [..., D / size, size]"""
    return x.unflatten(-1, (-1, size))


def q8_0(x):
    """ggml's block of 32: one f16 scale, 8 bits each."""
    blocks = grouped(x, 32)
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).half().float()
    return (torch.where(scale > 0, (blocks / scale).round().clamp(-127, 127), 0) * scale).flatten(-2)


def q4_0(x):
    """ggml's block of 32: one f16 scale, which sends the number of largest size to -8."""
    blocks = grouped(x, 32)
    at = blocks.abs().argmax(-1, keepdim=True)
    scale = blocks.gather(-1, at) / -8
    codes = torch.where(scale != 0, (blocks / scale + 8.5).floor().clamp(0, 15), 8)
    return ((codes - 8) * scale.half().float()).flatten(-2)


def hadamard(width):
    h = torch.ones(1, 1)
    while len(h) < width:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h / math.sqrt(width)


def min_max(x, bits):
    """Groups [..., size] between their least and largest number, in f16; 32 bits for each group."""
    low = x.amin(-1, keepdim=True).half().float()
    scale = ((x.amax(-1, keepdim=True) - low) / (2**bits - 1)).half().float()
    return torch.where(scale > 0, ((x - low) / scale).round().clamp(0, 2**bits - 1), 0) * scale + low


# ---- codes: code(layers, context) -> bits that a context's rows take; rows are changed in place ------------------------
# A layer has keys and values [B, G, T, D], queries [B, H, WINDOW, D] of the context's end, rotation (cos, sin) [T, D].

class Ggml:
    """--cache-type-k/-v of llama.cpp: every row in blocks of 32. It rotates rows by a Hadamard matrix before (PR 21038)
    where `rotate`. Rows of coming tokens are coded too."""

    def __init__(self, block, bits, rotate):
        self.block, self.bits, self.rotate = block, bits, rotate

    def row(self, x):
        if not self.rotate:
            return self.block(x)
        turn = hadamard(x.shape[-1])
        return self.block(x @ turn) @ turn.T

    def __call__(self, layers, context):
        bits = 0
        for layer in layers:
            for name in ("keys", "values"):
                x = getattr(layer, name)
                bits += x.numel() * self.bits
                setattr(layer, name, self.row(x))
        return bits


class Kivi:
    """KIVI (2402.02750): keys by channel in groups of 32 tokens, values by token in groups of 32 channels, least number
    and step in f16 for each group; the last tokens that fill no `residual` (keys) and the last `residual` ones (values)
    stay as they are. Kinder than the paper: values of the residual are not coded while the tokens behind the context
    push them out."""

    def __init__(self, bits, residual):
        self.bits, self.residual = bits, residual

    def __call__(self, layers, context):
        coded_keys = context - context % self.residual
        coded_values = max(0, context - self.residual)
        bits = 0
        for layer in layers:
            keys = layer.keys[:, :, :coded_keys].transpose(2, 3)
            layer.keys[:, :, :coded_keys] = min_max(grouped(keys, 32), self.bits).flatten(-2).transpose(2, 3)
            values = layer.values[:, :, :coded_values]
            layer.values[:, :, :coded_values] = min_max(grouped(values, 32), self.bits).flatten(-2)
            for x, coded in ((layer.keys, coded_keys), (layer.values, coded_values)):
                per_token = x.numel() // context
                bits += per_token * (coded * (self.bits + 1) + (context - coded) * FULL_BITS)
        return bits


# Best steps of a mid-rise quantizer of b bits for a normal number of deviation 1 (Max, 1960).
STEPS = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335, 5: 0.188, 6: 0.104, 7: 0.057, 8: 0.031}


def mid_rise(x, step, bits):
    """-> (codes, decoded numbers)"""
    codes = (x / step).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return codes, (codes + 0.5) * step


class Axis:
    """Principal axes of a layer's keys or values over its heads: mean, axes [D, D], and for each number of bits 0 .. 8 the
    step [9, D] of least squared error over calibration rows, with that error [9, D]."""

    def __init__(self, rows):
        self.mean = rows.mean(0)
        centred = (rows - self.mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        self.vectors = vectors.flip(1).float()
        y = (rows - self.mean) @ self.vectors
        deviation = y.std(0).clamp(min=1e-6)
        self.steps, self.errors = [deviation], [y.square().mean(0)]
        for bits, best in STEPS.items():
            steps = torch.stack([deviation * best * wider for wider in (0.8, 1.0, 1.26, 1.6, 2.0, 2.5, 3.2)])
            errors = torch.stack([(mid_rise(y, step, bits)[1] - y).square().mean(0) for step in steps])
            error, at = errors.min(0)
            self.steps.append(steps.gather(0, at[None])[0])
            self.errors.append(error)
        self.steps, self.errors = torch.stack(self.steps), torch.stack(self.errors)


class Kvtc:
    """In KVTC's manner (2511.01815): the rotation taken off the keys, principal axes over a layer's heads from
    calibration text, bits for each axis by its variance, codes packed by DEFLATE (zlib; the smaller of that and
    plain bits counts); sinks and the newest `window` tokens stay as they are. Other than the paper: axes over the heads
    of a layer and not over all layers, which some thousand calibration tokens cannot fill; steps by axis from calibration,
    none in the rows; bits by axis from one price over the layers for keys, and one for values, which get half of the
    bytes each, instead of a dynamic program; errors relative to a layer's variance (raw ones starve most layers: KLD
    0.37 instead of 0.085 at an eighth of the bytes). The share is met with DEFLATE's sizes on the first window; the others and
    needles have the same prices."""

    def __init__(self, share, window, calibration):
        self.share, self.window, self.axes = share, window, calibration
        self.prices = {}  # log2 of the loss that a bit must save

    def code(self, layer, index, name, theta, end, windows=None):
        """-> keys or values [B, G, T', D] after coding, and bits of the codes, of the first `windows` or all."""
        axis, size = self.axes[index][name], 0
        x = getattr(layer, name)[:windows, :, SINKS:end]
        if name == "keys":
            x = unrotate(x, layer.rotation, slice(SINKS, end))
        y = (x.transpose(1, 2).flatten(2) - axis.mean) @ axis.vectors
        bits = (axis.errors / axis.errors[0].sum() + theta * torch.arange(9)[:, None]).argmin(0)
        decoded = torch.zeros_like(y)
        for b in range(1, 9):
            at = bits == b
            if not at.any():
                continue
            codes, decoded[..., at] = mid_rise(y[..., at], axis.steps[b, at], b)
            for one in codes:
                packed = zlib.compress(one.T.contiguous().to(torch.int8).numpy().tobytes(), 6)
                size += 8 * min(len(packed), one.numel() * b / 8)
        rows = (decoded @ axis.vectors.T + axis.mean).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
        return (rotate(rows, layer.rotation, slice(SINKS, end)) if name == "keys" else rows), size

    def find_price(self, layers, name, end, wanted):
        low, high = -30.0, 6.0
        some = range(0, len(layers), 4)  # every fourth layer tells the size well enough
        for _ in range(8):
            price = 0.5 * (low + high)
            size = sum(self.code(layers[i], i, name, 2**price, end, 1)[1] for i in some)
            size *= len(layers) / len(some) * len(layers[0].keys)  # the first window stands for all
            low, high = (price, high) if size > wanted else (low, price)
        return high

    def __call__(self, layers, context):
        end = context - self.window
        per_token = sum(x.numel() // context for layer in layers for x in (layer.keys, layer.values))
        whole = per_token * (SINKS + self.window) * FULL_BITS
        wanted = self.share * per_token * context * FULL_BITS
        if whole > wanted:
            return None
        size = whole
        for name in ("keys", "values"):
            if name not in self.prices:
                self.prices[name] = self.find_price(layers, name, end, (wanted - whole) / 2)
            for index, layer in enumerate(layers):
                rows, bits = self.code(layer, index, name, 2 ** self.prices[name], end)
                getattr(layer, name)[:, :, SINKS:end] = rows
                size += bits
        return size


def rotate(x, rotation, at):
    cos, sin = (part[at] for part in rotation)
    return x * cos + rotate_half(x) * sin


def unrotate(x, rotation, at):
    cos, sin = (part[at] for part in rotation)
    return x * cos - rotate_half(x) * sin


class Rdkv:
    """In RDKV's manner (2605.08317, no public code: our reading of its abstract and summaries): every token of a head gets
    bits out of 0 (dropped), 2, 4, 8 and 16 by reverse water-filling once after the prefill, by the distortion that coding
    it induces on the attention's output under the queries of the context's end; one price for the model. The
    distortion of each width is measured, not modelled. Rows in bits are min-max by token in groups of 32 channels, a key
    and a value alike. Sinks and the newest tokens stay as they are; 4 bytes for a kept token's position in each head."""

    WIDTHS = (0, 2, 4, 8, 16)

    def __init__(self, share):
        self.share = share

    @staticmethod
    def distortions(layer, context):
        """-> loss [B, G, T, widths]"""
        b, g, t, d = layer.keys.shape
        queries = layer.queries.unflatten(1, (g, -1))  # [B, G, h, W, D]
        logits = torch.einsum("bghwd,bgtd->bghwt", queries, layer.keys) / math.sqrt(d)
        seen = torch.arange(t)[None] <= torch.arange(context - WINDOW, context)[:, None]
        a = logits.masked_fill(~seen, -math.inf).softmax(-1)
        output = torch.einsum("bghwt,bgtd->bghwd", a, layer.values)
        # |v_t - o|^2, in three terms.
        apart = (output.square().sum(-1)[..., None] + layer.values.square().sum(-1)[:, :, None, None]
                 - 2 * torch.einsum("bghwd,bgtd->bghwt", output, layer.values))
        losses = [(a.square() * apart).mean(3).sum(2)]
        for bits in Rdkv.WIDTHS[1:-1]:
            dk = min_max(grouped(layer.keys, 32), bits).flatten(-2) - layer.keys
            dv = min_max(grouped(layer.values, 32), bits).flatten(-2) - layer.values
            moved = torch.einsum("bghwd,bgtd->bghwt", queries, dk).square() / d
            losses.append((a.square() * (moved * apart + dv.square().sum(-1)[:, :, None, None])).mean(3).sum(2))
        return torch.stack(losses + [torch.zeros_like(losses[0])], -1)

    def __call__(self, layers, context):
        d = layers[0].keys.shape[-1]
        costs = torch.tensor([0.0] + [2 * d * (w + 1.0) + 32 for w in self.WIDTHS[1:-1]] + [2 * d * 16.0 + 32])
        batch, heads = layers[0].keys.shape[:2]
        losses = torch.stack([self.distortions(layer, context) for layer in layers])  # [L, B, G, T, widths]
        losses[..., :SINKS, :-1] = math.inf
        losses[..., context - WINDOW:, :-1] = math.inf
        wanted = self.share * len(layers) * heads * context * 2 * d * FULL_BITS  # of one sequence
        if (SINKS + WINDOW) / context > self.share:
            return None
        bits = 0
        choice = torch.empty(losses.shape[:-1], dtype=torch.long)
        for one in range(batch):  # a price for each sequence
            low, high = -60.0, 20.0
            for _ in range(40):
                theta = 0.5 * (low + high)
                choice[:, one] = (losses[:, one] + 2**theta * costs).argmin(-1)
                low, high = (theta, high) if costs[choice[:, one]].sum() > wanted else (low, theta)
            choice[:, one] = (losses[:, one] + 2**high * costs).argmin(-1)
            bits += costs[choice[:, one]].sum().item()
        for index, layer in enumerate(layers):
            for name in ("keys", "values"):
                x = getattr(layer, name)
                result = x.clone()
                for at, width in enumerate(self.WIDTHS[1:-1], 1):
                    coded = min_max(grouped(x, 32), width).flatten(-2)
                    result = torch.where((choice[index] == at)[..., None], coded, result)
                setattr(layer, name, result)
            layer.dropped = choice[index] == 0
        return bits


def all_codes(axes):
    codes = {
        "q8_0": Ggml(q8_0, 8.5, False),
        "q8_0, rotated": Ggml(q8_0, 8.5, True),
        "q4_0": Ggml(q4_0, 4.5, False),
        "q4_0, rotated": Ggml(q4_0, 4.5, True),
    }
    for bits in (4, 2):
        for residual in (128, 32):
            codes[f"KIVI {bits} bits, residual {residual}"] = Kivi(bits, residual)
    for share in (0.5, 0.25, 0.125, 0.0625):
        for window in (128, WINDOW):
            codes[f"KVTC's manner, window {window}, {100 * share:g} %"] = Kvtc(share, window, axes)
    for share in (0.5, 0.25, 0.125, 0.0625):
        codes[f"RDKV's manner, {100 * share:g} %"] = Rdkv(share)
    return codes
