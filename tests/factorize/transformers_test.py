"""Hugging Face transformers runs thin checkpoints by the file that kvc-factorize writes beside them.

usage: transformers_test.py KVC_BIN SOURCE_DIR WORK_DIR

Golden thin models (tests/golden) get the file from its template, and have the logits that transformers computed for
the dense equivalent. What kvc-factorize itself writes is compared with kvc's own runtime.
"""

import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

BIN, SOURCE, WORK = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
os.environ["HF_MODULES_CACHE"] = str(WORK / "modules")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

GOLDEN = SOURCE / "tests" / "golden" / "models"
CLASSES = {"gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3",
           "smollm3": "SmolLM3", "stablelm": "StableLm", "olmo2": "Olmo2"}  # fmt: skip
VOCABULARY = 96
TOLERANCE = 1e-3
BF16_TOLERANCE = 3e-2  # of the largest logit: weights and activations are rounded to 8 bits


def thin_names():
    return sorted(p.name for p in GOLDEN.iterdir() if "kvc" in json.loads((p / "config.json").read_text()))


def stage(name):
    """A copy of a golden thin checkpoint, as kvc-factorize would have described it."""
    target = WORK / "golden" / name.replace("-", "_")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(GOLDEN / name, target)
    config = json.loads((target / "config.json").read_text())
    family = config["model_type"]
    config["kvc"]["family"] = family
    config.update(
        model_type="kvc",
        architectures=["KvcForCausalLM"],
        auto_map={"AutoConfig": "modeling_kvc.KvcConfig", "AutoModelForCausalLM": "modeling_kvc.KvcForCausalLM"},
    )
    (target / "config.json").write_text(json.dumps(config))
    template = SOURCE / "factorize" / "modeling" / ("gpt2.py" if family == "gpt2" else "rotary.py")
    text = template.read_text().replace("@MODULE@", family).replace("@CLASS@", CLASSES[family])
    (target / "modeling_kvc.py").write_text(text)
    return target


def load(directory, **options):
    options = {"dtype": torch.float32, "attn_implementation": "eager", **options}
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, **options)
    return model.eval()


def run_tool(name, *arguments):
    command = [str(BIN / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit {result.returncode}: {result.stderr}")


class ThinTest(unittest.TestCase):
    def assert_close(self, actual, expected, tolerance=TOLERANCE):
        self.assertEqual(tuple(actual.shape), tuple(expected.shape))
        error = np.abs(actual.detach().float().numpy().astype(np.float64) - np.asarray(expected)).max()
        self.assertLessEqual(error, tolerance)  # a NaN fails


class GoldenModels(ThinTest):
    @classmethod
    def setUpClass(cls):
        cls.directories = {name: stage(name) for name in thin_names()}
        cls.golden = {name: load_file(GOLDEN / name / "golden.safetensors") for name in thin_names()}
        cls.models = {}

    def each(self, check, parts=False, **options):
        """Calls check(model, ids [T], golden logits [T, V]) for every model; `parts`: where a sequence may be cut,
        which longrope forbids, as it turns a token by the length of the call that brings it."""
        for name, directory in self.directories.items():
            if parts and "longrope" in name:
                continue
            key = (name, *options.values())
            if key not in self.models:
                self.models[key] = load(directory, **options)
            with self.subTest(model=name, **options), torch.no_grad():
                check(self.models[key], torch.tensor(self.golden[name]["ids"]), self.golden[name]["logits"])

    def test_logits(self):
        def check(model, ids, logits):
            self.assert_close(model(ids[None]).logits[0], logits)

        for attention in ("eager", "sdpa"):
            self.each(check, attn_implementation=attention)

    def test_bf16(self):
        def check(model, ids, logits):
            self.assertEqual(model.dtype, torch.bfloat16)
            factors = [p.dtype for n, p in model.named_parameters() if "reduce" in n or "rebuild" in n]
            self.assertLessEqual(set(factors), {torch.float32})
            self.assert_close(model(ids[None]).logits[0], logits, BF16_TOLERANCE * np.abs(logits).max())

        self.each(check, dtype=torch.bfloat16)

    def test_steps(self):
        """The cache is one of transformers' own and holds the thin keys."""

        def check(model, ids, logits):
            cache = transformers.DynamicCache(config=model.config)
            parts, begin = [], 0
            for count in (20, 1, 1, len(ids) - 22):
                parts.append(model(ids[None, begin : begin + count], past_key_values=cache).logits[0])
                begin += count
            self.assert_close(torch.cat(parts), logits)
            for layer, ranks in zip(cache.layers, model.config.kvc["ranks"], strict=True):
                shape = (1, len(ranks), layer.keys.shape[2] if layer.is_sliding else len(ids), max(ranks))
                self.assertEqual(tuple(layer.keys.shape), shape)

        self.each(check, parts=True)

    def test_padded(self):
        """Sequences of different length, padded on either side, and two more calls on their cache."""

        def check(model, ids, logits):
            for left in (True, False):
                self.check_padded(model, ids, logits, left)

        for attention in ("eager", "sdpa"):
            self.each(check, parts=True, attn_implementation=attention)

    def check_padded(self, model, ids, logits, left):
        lengths = [40, 7, 1]
        rows, mask = (torch.zeros(3, 40, dtype=torch.long) for _ in range(2))
        for b, n in enumerate(lengths):
            where = slice(40 - n, 40) if left else slice(0, n)
            rows[b, where], mask[b, where] = ids[:n], 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        out = model(rows, attention_mask=mask, position_ids=positions, use_cache=True)
        for b, n in enumerate(lengths):
            self.assert_close(out.logits[b][mask[b] == 1], logits[:n])
        if not left and getattr(model.config, "sliding_window", None):
            return  # a window counts slots, paddings in the middle included
        done = torch.tensor(lengths)
        for count in (1, 3):
            positions = done[:, None] + torch.arange(count)
            mask = torch.cat([mask, torch.ones(3, count, dtype=torch.long)], dim=1)
            past = out.past_key_values
            out = model(ids[positions], attention_mask=mask, position_ids=positions, past_key_values=past)
            for b in range(3):
                self.assert_close(out.logits[b], logits[positions[b].numpy()])
            done += count

    def test_generate(self):
        """Greedy text of a padded batch is each sequence's own, whatever the cache."""

        def check(model, ids, _):
            alone = []
            for n in (12, 5):
                past = ids[None, :n]
                for _ in range(8):  # without a cache
                    past = torch.cat([past, model(past, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
                alone.append(past[0, n:].tolist())
            rows = torch.stack([ids[:12], torch.cat([torch.zeros(7, dtype=torch.long), ids[:5]])])
            mask = torch.ones_like(rows)
            mask[1, :7] = 0
            sliding = getattr(model.config, "sliding_window", None) and model.config.kvc["layout"] == "latent"
            for cache in ("dynamic",) if sliding else ("dynamic", "static"):
                out = model.generate(rows, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0,
                                     eos_token_id=VOCABULARY, cache_implementation=cache,
                                     disable_compile=True)  # fmt: skip
                self.assertEqual(out[:, 12:].tolist(), alone, cache)

        self.each(check, parts=True)

    def test_training(self):
        """Every parameter of the attention has a gradient, and steps along them lower the loss."""

        def check(model, ids, _):
            model = copy.deepcopy(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            losses = []
            for _ in range(4):
                with torch.enable_grad():
                    loss = model(ids[None], labels=ids[None]).loss
                    optimizer.zero_grad()
                    loss.backward()
                for name, parameter in model.named_parameters():
                    if ".attn." in name or "self_attn" in name:
                        self.assertGreater(parameter.grad.abs().max(), 0.0, name)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                losses.append(loss.item())
            self.assertLess(losses[-1], losses[0])

        self.each(check)

    def test_directional_derivative(self):
        """The gradient says how the loss changes along a random direction of the attention's parameters."""

        def check(model, ids, _):
            model = copy.deepcopy(model).double()
            parameters = {n: p for n, p in model.named_parameters() if ".attn." in n or "self_attn" in n}
            generator = torch.Generator().manual_seed(1)
            steps = {n: torch.randn(p.shape, generator=generator).double() for n, p in parameters.items()}
            with torch.enable_grad():
                model(ids[None], labels=ids[None]).loss.backward()
            slope = sum((p.grad * steps[n]).sum().item() for n, p in parameters.items())
            losses = []
            for factor in (1e-3, -2e-3):
                for n, p in parameters.items():
                    p += factor * steps[n]
                losses.append(model(ids[None], labels=ids[None]).loss.item())
            self.assertLessEqual(abs((losses[0] - losses[1]) / 2e-3 - slope), 0.02 * abs(slope) + 1e-2)

        self.each(check)

    def test_saved(self):
        """What transformers saves is again a thin checkpoint, for it and for kvc."""

        def check(model, ids, logits):
            target = WORK / "saved" / pathlib.Path(model.config._name_or_path).name
            shutil.rmtree(target, ignore_errors=True)
            model.save_pretrained(target)
            self.assert_close(load(target)(ids[None]).logits[0], logits)
            run_tool("kvc-export", target, "-o", WORK / "bundle", "--dtype", "f32", "--quiet", "--force")

        self.each(check)

    def test_refused_without_trust(self):
        """Without leave to run the file nothing is loaded, and the message names the argument."""
        for directory in self.directories.values():
            for kind in (transformers.AutoModelForCausalLM, transformers.AutoConfig):
                with self.assertRaisesRegex(ValueError, "trust_remote_code"):
                    kind.from_pretrained(directory, trust_remote_code=False)


class WrittenByTheTool(ThinTest):
    """kvc-factorize's own output in transformers and in kvc's runtime, for the layouts that need no calibration text (the
    golden models have no tokenizer); the file is the same for all."""

    def check(self, name, layout):
        thin = WORK / "tool" / f"{name}_{layout}".replace("-", "_").replace(":", "_")
        bundle = WORK / "bundle"
        run_tool("kvc-factorize", GOLDEN / name, "-o", thin, "--layout", layout, "--rank", "50%", "--objective", "weight",
                 "--held-back", "0", "--quiet", "--force")  # fmt: skip
        run_tool("kvc-export", thin, "-o", bundle, "--dtype", "f32", "--quiet", "--force")
        ids = load_file(GOLDEN / name / "golden.safetensors")["ids"].tolist()
        (WORK / "ids.txt").write_text(" ".join(map(str, ids)) + "\n")
        run_tool("kvc-eval", "logits", bundle, "--ids", WORK / "ids.txt", "-o", WORK / "logits.npy")
        with torch.no_grad():
            logits = load(thin)(torch.tensor([ids])).logits[0]
        self.assert_close(logits, np.load(WORK / "logits.npy"))

    def test_absorb(self):
        for name in ("gpt2", "gpt2-bare"):
            with self.subTest(model=name):
                self.check(name, "absorb")

    def test_families_with_rotation(self):
        for name in ("llama", "llama-bias", "mistral", "qwen2", "qwen3"):
            kv_heads = json.loads((GOLDEN / name / "config.json").read_text())["num_key_value_heads"]
            layouts = ["latent:1", "latent:heads"]
            layouts += ["latent:2"] if kv_heads == 4 else []
            layouts += ["rope-pairs"] if name != "qwen3" else []
            for layout in layouts:
                with self.subTest(model=name, layout=layout):
                    self.check(name, layout)

    def test_other_families(self):
        layouts = {"smollm3": ("latent:1", "rope-pairs"), "stablelm": ("latent:1",)}
        for name in layouts:
            for layout in layouts[name]:
                with self.subTest(model=name, layout=layout):
                    self.check(name, layout)


if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
