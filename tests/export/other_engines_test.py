"""OpenVINO and ONNX Runtime run the same bundles, and the guide's code works.

usage: other_engines_test.py KVC_EXPORT SOURCE_DIR WORK_DIR

onnx_runtime_test.py beside this file has the full set of checks for ONNX Runtime.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import unittest

KVC_EXPORT, SOURCE, WORK = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
sys.path.insert(0, str(SOURCE / "examples" / "engines"))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import openvino as ov  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

from bundle import Bundle, can_be_cut, cuts, padded_batch, read_golden  # noqa: E402
from inline_functions import inline_functions  # noqa: E402

GOLDEN = SOURCE / "tests" / "golden" / "models"
# Largest error of a logit: absolute, and relative to the largest logit (onnx_runtime_test.py).
TOLERANCES = {"f32": (1e-3, 0.0), "bf16": (0.0, 3e-2)}
# Between the engines, relative: sums in another order round some cached bf16 rows the other way (2.1e-2 measured).
AGREEMENT = {"f32": 1e-3, "bf16": 3e-2}


def export(name, dtype):
    target = WORK / f"{name}-{dtype}"
    shutil.rmtree(target, ignore_errors=True)
    command = [KVC_EXPORT, GOLDEN / name, "-o", target, "--dtype", dtype, "--quiet"]
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AssertionError(f"kvc-export {name}: exit {result.returncode}: {result.stderr}")
    return target


class OpenVinoBundle(Bundle):
    """The calls of Bundle in OpenVINO, in float: by itself it computes in bf16 where the processor can."""

    def __init__(self, directory):
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.model = ov.Core().compile_model(inline_functions(directory), "CPU", options)
        self.inputs = {i.get_any_name(): i for i in self.model.inputs}
        self.past = [n for n in self.inputs if n.startswith("past_key_values.")]
        self.outputs = [o.get_any_name() for o in self.model.outputs]

    def empty_past(self, batch):
        past = {}
        for name in self.past:
            _, groups, _, width = self.inputs[name].get_partial_shape()
            shape = ov.Shape([batch, groups.get_length(), 0, width.get_length()])
            past[name] = ov.Tensor(self.inputs[name].get_element_type(), shape)
        return past

    def run(self, ids, mask, positions, past=None):
        feed = dict(past if past is not None else self.empty_past(ids.shape[0]))
        for name, values in (("input_ids", ids), ("attention_mask", mask), ("position_ids", positions)):
            feed[name] = np.ascontiguousarray(values, np.int64)
        request = self.model.create_infer_request()
        request.infer(feed)
        present = {n.replace("present.", "past_key_values."): request.get_tensor(n) for n in self.outputs[1:]}
        return request.get_tensor("logits").data.copy(), present


class OtherEngines(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        names = sorted(p.name for p in GOLDEN.iterdir())
        cls.bundles = {(name, dtype): export(name, dtype) for dtype in TOLERANCES for name in names}

    def each(self, check):
        """Calls check(dtype, bundle's directory, ids, golden logits) for every bundle."""
        for (name, dtype), directory in self.bundles.items():
            with self.subTest(model=name, dtype=dtype):
                check(dtype, directory, *read_golden(GOLDEN / name))

    def assert_close(self, actual, expected, absolute, relative=0.0):
        self.assertEqual(actual.shape, expected.shape)
        error = np.abs(actual.astype(np.float64) - expected).max()
        self.assertLessEqual(error, max(absolute, relative * np.abs(expected).max()))  # a NaN fails

    def test_both_engines(self):
        def check(dtype, directory, ids, logits):
            in_openvino = OpenVinoBundle(directory)
            for bundle in (Bundle(directory), in_openvino):
                self.assert_close(bundle.whole(ids), logits, *TOLERANCES[dtype])
                if can_be_cut(directory.name):
                    steps = bundle.in_steps(ids, cuts(ids))
                    self.assert_close(steps, logits, *TOLERANCES[dtype])
            self.assert_close(in_openvino.whole(ids), Bundle(directory).whole(ids), 1e-3, AGREEMENT[dtype])
            for side in ("left", "right"):
                lengths = [len(ids) - 8, 7, 1]
                rows, mask, positions = padded_batch(ids, lengths, side)
                out, _ = in_openvino.run(rows, mask, positions)
                for b, length in enumerate(lengths):
                    self.assert_close(out[b][mask[b] == 1], logits[:length], *TOLERANCES[dtype])

        self.each(check)

    def test_every_value_has_a_shape(self):
        """Types and shapes of all values stand in the file, and onnx infers the same where it infers any."""

        def dims(value):
            return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]

        def check(dtype, directory, *_):
            model = onnx.load(directory / "model.onnx", load_external_data=False)
            written = {v.name: v for v in model.graph.value_info}
            outputs = {o.name for o in model.graph.output}
            values = [name for node in model.graph.node for name in node.output if name not in outputs]
            self.assertEqual(list(written), values)
            del model.graph.value_info[:]
            inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.value_info
            self.assertGreater(len(inferred), len(values) * 2 // 3)
            for value in inferred:
                ours = written[value.name]
                self.assertEqual(ours.type.tensor_type.elem_type, value.type.tensor_type.elem_type, value.name)
                self.assertEqual(len(dims(ours)), len(dims(value)), value.name)
                for mine, theirs in zip(dims(ours), dims(value)):
                    self.assertTrue(mine == theirs or str(theirs or "unk__").startswith("unk__"),
                                    f"{value.name}: {dims(ours)} and {dims(value)}")  # fmt: skip
                    self.assertTrue(mine, f"{value.name}: a dimension without a name")

        self.each(check)

    def test_why_inlined(self):
        """OpenVINO refuses the functions themselves. When it no longer does, the guide has a step too many."""
        directory = self.bundles[("gpt2", "f32")]
        with self.assertRaisesRegex(RuntimeError, "com.kvc.CompressedAttention"):
            ov.Core().compile_model(directory / "model.onnx", "CPU")


class Guide(unittest.TestCase):
    """The guide's Python, run one block after the other on a bundle."""

    def test_blocks(self):
        text = (SOURCE / "docs" / "guide" / "other-engines.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.assertGreaterEqual(len(blocks), 2)
        for name in ("llama", "llama-latent", "gpt2-absorb"):
            golden = load_file(GOLDEN / name / "golden.safetensors")
            with self.subTest(model=name):
                directory = export(name, "f32")
                inline_functions(directory)
                scope = {"bundle": str(directory), "prompt": golden["ids"].tolist()}
                results = []
                for block in blocks:
                    exec(block, scope)  # noqa: S102
                    self.assertEqual(len(scope["text"]), 16)
                    results.append(scope.pop("text"))
                self.assertEqual(results[0], results[1])
                self.assertEqual(results[0][0], golden["logits"][-1].argmax())


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
