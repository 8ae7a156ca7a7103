#!/usr/bin/env python3
"""kvc's runtime and ONNX Runtime on the same bundle, in turns, with the same number of threads.

usage: against_onnx_runtime.py BIN BUNDLE TEXT [--prompt 512] [--new 64] [--threads 2] [--rounds 3]

BUNDLE must be a full-cache one. Needs the tests' environment (tests/venv.sh). ONNX Runtime runs the
graph as it stands, so its prefill computes the logits of every token; kvc computes those of the last.
The second ONNX Runtime column therefore takes the head out of its time: prefill of the same graph cut
behind the final norm. Decoding feeds present tensors back as past ones without leaving the runtime.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from tokenizers import Tokenizer


ONNX_TYPES = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(bfloat16)": 16}


def session_of(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds_of(session, ids, past, length):
    """Ids [1, S] behind `length` cached tokens; past: name -> OrtValue."""
    tokens = np.array([ids], dtype=np.int64)
    feeds = {
        "input_ids": tokens,
        "attention_mask": np.ones((1, length + len(ids)), dtype=np.int64),
        "position_ids": np.arange(length, length + len(ids), dtype=np.int64)[None],
    }
    names = {i.name: i for i in session.get_inputs()}
    values = {n: ort.OrtValue.ortvalue_from_numpy(v) for n, v in feeds.items() if n in names}
    for name, info in names.items():
        if name.startswith("past_key_values."):
            kind = ONNX_TYPES[info.type]
            empty = np.zeros((1, info.shape[1], 0, info.shape[3]), dtype=np.float32 if kind == 1 else np.uint16)
            values[name] = past[name] if past else ort.OrtValue.ortvalue_from_numpy_with_onnx_type(empty, kind)
    return values


def run_ort(session, ids, new):
    """Seconds of prefill and of `new` - 1 decode steps, and the greedy tokens."""
    outputs = [o.name for o in session.get_outputs()]
    past, length, step, tokens = {}, 0, list(ids), []
    times = []
    for _ in range(new):
        start = time.perf_counter()
        results = session.run_with_ort_values(outputs, feeds_of(session, step, past, length))
        token = int(results[0].numpy()[0, -1].argmax())
        times.append(time.perf_counter() - start)
        length += len(step)
        past = {n.replace("present.", "past_key_values."): v for n, v in zip(outputs[1:], results[1:])}
        tokens.append(token)
        step = [token]
    return times[0], sum(times[1:]), tokens


def without_head(bundle, folder):
    """The same graph up to the final norm; its data file is linked, not copied."""
    model = onnx.load(os.path.join(bundle, "model.onnx"), load_external_data=False)
    norm = next(n for n in model.graph.node if n.name == "final_norm")
    keep = [n for n in model.graph.node if not n.name.startswith("lm_head")]
    del model.graph.node[:]
    model.graph.node.extend(keep)
    logits = model.graph.output[0]
    logits.name = norm.output[0]
    logits.type.tensor_type.shape.dim[2].Clear()
    path = os.path.join(folder, "model.onnx")
    onnx.save(model, path)
    os.link(os.path.join(bundle, "model.onnx.data"), os.path.join(folder, "model.onnx.data"))
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("bin", "bundle", "text"):
        parser.add_argument(name)
    for name, value in (("prompt", 512), ("new", 64), ("threads", 2), ("rounds", 3)):
        parser.add_argument("--" + name, type=int, default=value)
    args = parser.parse_args()

    tokenizer = Tokenizer.from_file(os.path.join(args.bundle, "tokenizer.json"))
    text = open(args.text, encoding="utf-8").read()[: 16 * args.prompt]
    text = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids[: args.prompt])
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    rows = {"kvc": [], "ort": [], "ort without head": []}
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(args.bundle))) as folder:
        prompt = os.path.join(folder, "prompt.txt")
        open(prompt, "w", encoding="utf-8").write(text)
        session = session_of(os.path.join(args.bundle, "model.onnx"), args.threads)
        headless = session_of(without_head(args.bundle, folder), args.threads)
        run_ort(session, ids[:8], 2)  # warm-up
        same = True
        for _ in range(args.rounds):
            prefill, decode, tokens = run_ort(session, ids, args.new)
            rows["ort"].append((len(ids) / prefill, (args.new - 1) / decode))
            start = time.perf_counter()
            outputs = [o.name for o in headless.get_outputs()]
            headless.run_with_ort_values(outputs, feeds_of(headless, ids, {}, 0))
            rows["ort without head"].append((len(ids) / (time.perf_counter() - start), None))
            command = [os.path.join(args.bin, "kvc-run"), args.bundle, "--prompt-file", prompt, "-n", str(args.new),
                       "--threads", str(args.threads), "--quiet", "--json"]
            result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            rows["kvc"].append((result["prefill_tokens_per_second"], result["decode_tokens_per_second"]))
            assert result["outputs"][0]["prompt_tokens"] == len(ids), result["outputs"][0]["prompt_tokens"]
            produced = result["outputs"][0]["token_ids"]
            same = same and produced == tokens[: len(produced)]
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    print(f"{cpu}, {args.threads} threads; {len(ids)} tokens of prompt, {args.new} new; ONNX Runtime {ort.__version__}; "
          f"median of {args.rounds}; greedy tokens {'agree' if same else 'DIFFER'}\n")
    print("| | prefill, tokens/s | decode, tokens/s |\n|---|---|---|")
    median = {n: [statistics.median(c) if c[0] is not None else None for c in zip(*r)] for n, r in rows.items()}
    for name, (prefill, decode) in median.items():
        print(f"| {name} | {prefill:.1f} | {'-' if decode is None else f'{decode:.1f}'} |")
    print(f"| kvc / ort | {median['kvc'][0] / median['ort'][0]:.2f} | {median['kvc'][1] / median['ort'][1]:.2f} |")
    print(f"| kvc / ort without head | {median['kvc'][0] / median['ort without head'][0]:.2f} | - |")


if __name__ == "__main__":
    main()
