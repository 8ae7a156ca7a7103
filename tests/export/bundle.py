"""A bundle in ONNX Runtime: sessions, feeds and padded batches."""

import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file

ONNX_TYPES = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(bfloat16)": 16}


class Bundle:
    """Runs model.onnx; past and present stay in their own dtype as OrtValues."""

    def __init__(self, directory):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(
            str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.past = [n for n in self.inputs if n.startswith("past_key_values.")]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def empty_past(self, batch):
        past = {}
        for name in self.past:
            info = self.inputs[name]
            shape = [batch, info.shape[1], 0, info.shape[3]]
            kind = ONNX_TYPES[info.type]
            bits = np.zeros(shape, np.float32 if kind == 1 else np.uint16)
            past[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)
        return past

    def run(self, ids, mask, positions, past=None):
        """ids, positions [B, S], mask [B, P+S] -> logits [B, S, V] and the present as past."""
        feed = dict(past if past is not None else self.empty_past(ids.shape[0]))
        for name, values in (
            ("input_ids", ids),
            ("attention_mask", mask),
            ("position_ids", positions),
        ):
            feed[name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values, np.int64))
        outputs = self.session.run_with_ort_values(self.outputs, feed)
        present = {
            name.replace("present.", "past_key_values."): value
            for name, value in zip(self.outputs[1:], outputs[1:])
        }
        return outputs[0].numpy(), present

    def whole(self, ids):
        """Logits [T, V] of one sequence in one call."""
        ids = np.asarray(ids, np.int64)[None]
        return self.run(ids, np.ones_like(ids), np.arange(ids.shape[1])[None])[0][0]

    def in_steps(self, ids, steps):
        """The same in calls of `steps` tokens, each with the past of those before."""
        ids = np.asarray(ids, np.int64)[None]
        past, logits, done = None, [], 0
        for count in steps:
            span = slice(done, done + count)
            done += count
            mask = np.ones((1, done), np.int64)
            out, past = self.run(ids[:, span], mask, np.arange(span.start, done)[None], past)
            logits.append(out[0])
        return np.concatenate(logits)


def read_golden(directory):
    """ids [T] and logits [T, V] of a golden model: those of the prompt that its context has room for."""
    short = directory / "short.safetensors"
    golden = load_file(short if short.exists() else directory / "golden.safetensors")
    return golden["ids"], golden["logits"]


def can_be_cut(name):
    """Longrope turns a token by the length of the call that brings it: parts of a prompt are not the prompt."""
    return "longrope" not in name


def cuts(ids):
    """A prompt in four calls."""
    first = min(20, len(ids) - 4)
    return [first, 1, 1, len(ids) - first - 2]


def padded_batch(ids, lengths, side):
    """The first `lengths[b]` of `ids` for each row, padded to the longest: ids, mask, positions."""
    width = max(lengths)
    rows = np.zeros((len(lengths), width), np.int64)
    mask = np.zeros_like(rows)
    for b, length in enumerate(lengths):
        first = width - length if side == "left" else 0
        rows[b, first : first + length] = ids[:length]
        mask[b, first : first + length] = 1
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return rows, mask, positions
