"""ONNX Runtime runs what kvc-export writes, and agrees with the source model.

usage: onnx_runtime_test.py KVC_EXPORT SOURCE_DIR WORK_DIR

Every golden model (tests/golden) is exported; its logits were computed by Hugging Face transformers.
"""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import unittest

import numpy as np
import onnx
from safetensors.numpy import load_file

from bundle import Bundle, can_be_cut, cuts, padded_batch, read_golden

KVC_EXPORT, SOURCE, WORK = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
GOLDEN = SOURCE / "tests" / "golden"
SHARED = SOURCE.parent / "shared"
SMOLLM2 = SOURCE / "build" / "models" / "smollm2"

TOLERANCE = 1e-3
# Relative to the largest logit: weights and cache are rounded to 11 and 8 bits.
ROUNDED_TOLERANCE = {"f16": 4e-3, "bf16": 3e-2}


def golden_models():
    return sorted(p.name for p in (GOLDEN / "models").iterdir())


def export(source, name, *options):
    """A bundle with the full cache; returns its directory."""
    target = WORK / name
    shutil.rmtree(target, ignore_errors=True)
    command = [KVC_EXPORT, source, "-o", target, "--quiet", "--json", *options]
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AssertionError(f"kvc-export {name}: exit {result.returncode}: {result.stderr}")
    return target


def key_ranks(config):
    """[L][n] true widths of the cached keys, from config.json."""
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads") or config["n_head"]
    queries = config.get("num_attention_heads") or config["n_head"]
    width = config.get("head_dim") or (config.get("hidden_size") or config["n_embd"]) // queries
    layers = config.get("num_hidden_layers") or config["n_layer"]
    if "kvc" in config:
        return config["kvc"]["ranks"]
    return [[width] * heads for _ in range(layers)]


class GoldenModels(unittest.TestCase):
    """One bundle in float for each golden model."""

    @classmethod
    def setUpClass(cls):
        cls.bundles, cls.golden = {}, {}
        for name in golden_models():
            cls.bundles[name] = export(GOLDEN / "models" / name, name, "--dtype", "f32")
            cls.golden[name] = read_golden(GOLDEN / "models" / name)

    def each(self):
        for name, directory in self.bundles.items():
            with self.subTest(model=name):
                yield directory, *self.golden[name]

    def assert_close(self, actual, expected, tolerance=TOLERANCE):
        self.assertEqual(actual.shape, expected.shape)
        error = np.abs(actual.astype(np.float64) - expected).max()
        self.assertLessEqual(error, tolerance)  # a NaN fails

    def test_checker_accepts(self):
        for directory, _, _ in self.each():
            onnx.checker.check_model(str(directory / "model.onnx"), full_check=True)

    def test_interface(self):
        for directory, _, _ in self.each():
            config = json.loads((GOLDEN / "models" / directory.name / "config.json").read_text())
            ranks = key_ranks(config)
            bundle = Bundle(directory)
            names = ["input_ids", "attention_mask", "position_ids"]
            present = ["logits"]
            for layer, widths in enumerate(ranks):
                names += [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
                present += [f"present.{layer}.key", f"present.{layer}.value"]
                shape = bundle.inputs[names[-2]].shape
                self.assertEqual(shape, ["batch", len(widths), "past_sequence", max(widths)])
            self.assertEqual(list(bundle.inputs), names)
            self.assertEqual(bundle.outputs, present)

    def test_model_file(self):
        for directory, _, _ in self.each():
            model = onnx.load(directory / "model.onnx", load_external_data=False)
            self.assertEqual(model.ir_version, 10)
            opsets = {o.domain: o.version for o in model.opset_import}
            self.assertEqual(opsets, {"": 23, "com.kvc": 1})
            self.assertEqual({f.domain for f in model.functions}, {"com.kvc"})
            called = {n.op_type for n in model.graph.node if n.domain == "com.kvc"}
            self.assertEqual(called, {f.name for f in model.functions})
            cache_nodes = [n for n in model.graph.node if n.op_type == model.functions[0].name]
            self.check_external_data(model, directory)
            self.check_metadata(model, directory, cache_nodes)

    def check_external_data(self, model, directory):
        end = 0
        for tensor in model.graph.initializer:
            if tensor.name.startswith(("const.", "mask.")) or tensor.name.endswith(".pairs"):
                continue
            place = {e.key: e.value for e in tensor.external_data}
            self.assertEqual(place["location"], "model.onnx.data")
            offset, length = int(place["offset"]), int(place["length"])
            self.assertEqual(offset % 4096, 0)
            self.assertGreaterEqual(offset, end)
            self.assertLess(offset - end, 4096)
            elements = int(np.prod(tensor.dims))
            self.assertEqual(length, elements * (4 if tensor.data_type == 1 else 2))
            end = offset + length
        self.assertEqual((directory / "model.onnx.data").stat().st_size, end)

    def check_metadata(self, model, directory, cache_nodes):
        manifest = json.loads((directory / "manifest.json").read_text())
        metadata = {p.key: p.value for p in model.metadata_props}
        cache = json.dumps(manifest["cache"], separators=(",", ":")).encode()
        self.assertEqual(metadata["kvc.cache_sha256"], hashlib.sha256(cache).hexdigest())
        ranks = json.loads(metadata["kvc.key_ranks"])
        for layer, node in enumerate(cache_nodes):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            self.assertEqual(attributes["layer"], layer)
            self.assertEqual(attributes["key_ranks"], ranks[layer])

    def test_tied_embeddings_are_stored_once(self):
        for directory, _, _ in self.each():
            config = json.loads((GOLDEN / "models" / directory.name / "config.json").read_text())
            tied = config.get("tie_word_embeddings", config["model_type"] == "gpt2")
            model = onnx.load(directory / "model.onnx", load_external_data=False)
            names = [t.name for t in model.graph.initializer]
            self.assertEqual("lm_head.weight" in names, not tied)

    def test_manifest_hashes(self):
        for directory, _, _ in self.each():
            files = json.loads((directory / "manifest.json").read_text())["files"]
            self.assertEqual(
                set(files), {p.name for p in directory.iterdir()} - {"manifest.json"}
            )
            for name, record in files.items():
                data = (directory / name).read_bytes()
                self.assertEqual(record["bytes"], len(data))
                self.assertEqual(record["sha256"], hashlib.sha256(data).hexdigest())

    def test_without_past(self):
        for directory, ids, logits in self.each():
            self.assert_close(Bundle(directory).whole(ids), logits)

    def test_with_past(self):
        for directory, ids, logits in self.each():
            if can_be_cut(directory.name):
                self.assert_close(Bundle(directory).in_steps(ids, cuts(ids)), logits)

    def test_longrope_with_past(self):
        """Cached keys stay as they were turned when the sequence outgrows the original context."""
        name = "mistral-longrope"
        cached = load_file(GOLDEN / "models" / name / "cached.safetensors")
        first = int(cached["first"][0])
        steps = [first] + [1] * (len(cached["ids"]) - first)
        self.assert_close(Bundle(self.bundles[name]).in_steps(cached["ids"], steps), cached["logits"])

    def test_padded_batches(self):
        for directory, ids, logits in self.each():
            lengths = [len(ids) - 8, 7, 1]
            bundle = Bundle(directory)
            for side in ("left", "right"):
                rows, mask, positions = padded_batch(ids, lengths, side)
                out, _ = bundle.run(rows, mask, positions)
                for b, length in enumerate(lengths):
                    self.assert_close(out[b][mask[b] == 1], logits[:length])

    def test_padded_batches_go_on(self):
        """Three sequences of different length get two more calls, of 1 and of 3 tokens."""
        for directory, ids, logits in self.each():
            lengths = [len(ids) - 8, 7, 1]
            bundle = Bundle(directory)
            for side in ("left", "right"):
                rows, mask, positions = padded_batch(ids, lengths, side)
                _, past = bundle.run(rows, mask, positions)
                done = np.array(lengths)
                for count in (1, 3):
                    positions = done[:, None] + np.arange(count)
                    mask = np.concatenate([mask, np.ones((3, count), np.int64)], axis=1)
                    out, past = bundle.run(ids[positions], mask, positions, past)
                    for b in range(3):
                        self.assert_close(out[b], logits[positions[b]])
                    done += count


class RoundedModels(unittest.TestCase):
    """f16 and bf16: weights and cache are rounded, sums stay in float."""

    def test_agrees(self):
        for dtype, tolerance in ROUNDED_TOLERANCE.items():
            for name in golden_models():
                with self.subTest(model=name, dtype=dtype):
                    ids, logits = read_golden(GOLDEN / "models" / name)
                    bundle = Bundle(export(GOLDEN / "models" / name, f"{name}-{dtype}", "--dtype", dtype))
                    kinds = {bundle.inputs[n].type for n in bundle.past}
                    self.assertEqual(kinds, {"tensor(float16)" if dtype == "f16" else "tensor(bfloat16)"})
                    whole = bundle.whole(ids)
                    error = np.abs(whole - logits).max()
                    self.assertLessEqual(error, tolerance * np.abs(logits).max())
                    if not can_be_cut(name):
                        continue
                    # New rows are rounded before they are used, so the past changes nothing.
                    steps = bundle.in_steps(ids, cuts(ids))
                    self.assertLessEqual(np.abs(whole - steps).max(), TOLERANCE)


class OwnTypes(unittest.TestCase):
    """Without --dtype, weights and cache are as in the checkpoint, and int8 is a cache of the kvc runtime alone."""

    NAMES = {"float32": "tensor(float)", "float16": "tensor(float16)", "bfloat16": "tensor(bfloat16)"}

    def check(self, name, directory, kind):
        ids, logits = read_golden(GOLDEN / "models" / name)
        bundle = Bundle(directory)
        self.assertEqual({bundle.inputs[n].type for n in bundle.past}, {self.NAMES[kind]})
        tolerance = {"float32": 0, "float16": ROUNDED_TOLERANCE["f16"], "bfloat16": ROUNDED_TOLERANCE["bf16"]}[kind]
        error = np.abs(bundle.whole(ids) - logits).max()
        self.assertLessEqual(error, max(TOLERANCE, tolerance * np.abs(logits).max()))

    def test_default(self):
        kinds = set()
        for name in golden_models():
            config = json.loads((GOLDEN / "models" / name / "config.json").read_text())
            kind = config.get("dtype") or config.get("torch_dtype")
            kinds.add(kind)
            with self.subTest(model=name, kind=kind):
                self.check(name, export(GOLDEN / "models" / name, f"{name}-auto"), kind)
        self.assertEqual(kinds, set(self.NAMES))

    def test_size(self):
        """Matrices of a 16-bit bundle take half of what they take in float."""
        sizes = []
        for dtype in ("f32", "bf16"):
            directory = export(GOLDEN / "models" / "llama", f"llama-size-{dtype}", "--dtype", dtype)
            model = onnx.load(directory / "model.onnx", load_external_data=False)
            lengths = [
                next(int(e.value) for e in t.external_data if e.key == "length")
                for t in model.graph.initializer
                if len(t.dims) == 2 and t.external_data and not t.name.startswith("rope.")
            ]
            sizes.append(sum(lengths))
        self.assertEqual(sizes[0], 2 * sizes[1])

    def test_int8_cache(self):
        directory = export(GOLDEN / "models" / "llama", "llama-int8", "--cache-dtype", "int8")
        self.check("llama", directory, "bfloat16")


class RealModels(unittest.TestCase):
    def test_stories260k(self):
        source = SHARED / "data" / "models" / "stories260k"
        if not source.is_dir():
            self.skipTest(f"expected {source}, got none")
        golden = load_file(GOLDEN / "stories260k" / "golden.safetensors")
        bundle = Bundle(export(source, "stories260k", "--dtype", "f32"))
        self.assertLessEqual(np.abs(bundle.whole(golden["ids"]) - golden["logits"]).max(), TOLERANCE)

    def test_smollm2(self):
        if not SMOLLM2.is_dir():
            self.skipTest(f"expected {SMOLLM2}, got none; run make smollm2")
        golden = load_file(GOLDEN / "smollm2" / "golden.safetensors")
        directory = export(SMOLLM2, "smollm2", "--no-verify", "--dtype", "f32")
        logits = Bundle(directory).whole(golden["ids"])
        shutil.rmtree(directory)
        sample = logits[golden["positions"]][:, golden["vocabulary_ids"]]
        error = np.abs(sample - golden["logits"]).max()
        print(f"SmolLM2, 512 tokens: max abs error {error:.2e}", file=sys.stderr)
        self.assertLessEqual(error, TOLERANCE)
        np.testing.assert_array_equal(
            logits[golden["positions"]].argmax(axis=1), golden["argmax"]
        )


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
