"""Engines that generate on the processor, behind one call: tokens/s of a prompt and of decoding behind it.

Every engine is a function (options, lengths, new) -> one JSON object on stdout:
{"load_seconds", "peak_rss_bytes", "runs": [{"prompt", "prefill", "decode"}]}, speeds in tokens/s. Prompts are
fresh random tokens, because some engines keep the prefixes that they have seen.
"""
import json
import os
import random
import resource
import subprocess
import time


def prompts_of(lengths, vocabulary, seed):
    draw = random.Random(seed)
    return [[draw.randrange(1000, vocabulary - 1000) for _ in range(length)] for length in lengths]


def report(load, runs):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"load_seconds": load, "peak_rss_bytes": peak, "runs": runs}))


def llama_cpp(options, lengths, new):
    """options: model (GGUF), threads, flash, cache (ggml type of keys and values)."""
    import xllamacpp

    start = time.perf_counter()
    params = xllamacpp.CommonParams()
    params.model.path = options["model"]
    params.n_ctx = max(lengths) + new + 64
    params.n_batch, params.n_ubatch, params.n_parallel = 2048, 512, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    params.flash_attn_type = (xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED if options["flash"]
                              else xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED)
    kind = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + options["cache"].upper())
    params.cache_type_k = params.cache_type_v = kind
    params.cache_ram_mib = 0
    params.verbosity = -1
    server = xllamacpp.Server(params)
    load = time.perf_counter() - start
    runs = []
    for ids in prompts_of(lengths, options["vocabulary"], options["seed"]):
        result = server.handle_completions({"prompt": ids, "n_predict": new, "ignore_eos": True, "cache_prompt": False,
                                            "temperature": 0.0})
        timings = result["timings"]
        assert timings["prompt_n"] >= len(ids) - 1 and timings["predicted_n"] == new, timings
        runs.append({"prompt": len(ids), "prefill": timings["prompt_per_second"],
                     "decode": timings["predicted_per_second"]})
    report(load, runs)
    os._exit(0)  # the server's threads would wait for more


def openvino(options, lengths, new):
    """options: model (GGUF), threads, precision."""
    import numpy
    import openvino
    import openvino_genai

    start = time.perf_counter()
    pipeline = openvino_genai.LLMPipeline(options["model"], "CPU", INFERENCE_NUM_THREADS=options["threads"],
                                          INFERENCE_PRECISION_HINT=options["precision"])
    load = time.perf_counter() - start
    config = openvino_genai.GenerationConfig(max_new_tokens=new, ignore_eos=True, do_sample=False,
                                             apply_chat_template=False)
    runs = []
    for ids in prompts_of(lengths, options["vocabulary"], options["seed"]):
        tokens = openvino.Tensor(numpy.array([ids], dtype=numpy.int64))
        mask = openvino.Tensor(numpy.ones((1, len(ids)), dtype=numpy.int64))
        metrics = pipeline.generate(openvino_genai.TokenizedInputs(tokens, mask), config).perf_metrics
        assert metrics.get_num_generated_tokens() == new
        runs.append({"prompt": len(ids), "prefill": 1000 * len(ids) / metrics.get_ttft().mean,
                     "decode": 1000 / metrics.get_tpot().mean})
    report(load, runs)


def onnx_runtime(options, lengths, new):
    """options: model (a full-cache bundle in f32), threads."""
    import numpy
    import onnxruntime

    start = time.perf_counter()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options["threads"]
    session = onnxruntime.InferenceSession(os.path.join(options["model"], "model.onnx"), settings,
                                           providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = [o.name for o in session.get_outputs()]
    empty = {name: onnxruntime.OrtValue.ortvalue_from_numpy(
                 numpy.zeros((1, info.shape[1], 0, info.shape[3]), numpy.float32))
             for name, info in inputs.items() if name.startswith("past_key_values.")}

    def step(ids, past, length):
        feeds = {"input_ids": numpy.array([ids], numpy.int64),
                 "attention_mask": numpy.ones((1, length + len(ids)), numpy.int64),
                 "position_ids": numpy.arange(length, length + len(ids), dtype=numpy.int64)[None]}
        values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in feeds.items() if n in inputs}
        results = session.run_with_ort_values(outputs, values | past)
        fresh = {n.replace("present.", "past_key_values."): v for n, v in zip(outputs[1:], results[1:])}
        return int(results[0].numpy()[0, -1].argmax()), fresh

    runs = []
    for ids in prompts_of(lengths, options["vocabulary"], options["seed"]):
        begin = time.perf_counter()
        token, past = step(ids, empty, 0)
        middle = time.perf_counter()
        for i in range(new):
            token, past = step([token], past, len(ids) + i)
        end = time.perf_counter()
        runs.append({"prompt": len(ids), "prefill": len(ids) / (middle - begin), "decode": new / (end - middle)})
    report(load, runs)


def kvc(options, lengths, new):
    """options: bin, model (a bundle), threads. Lengths are depths of kvc-bench, which draws random tokens."""
    command = [os.path.join(options["bin"], "kvc-bench"), options["model"], "--json", "--quiet", "--repetitions", "1",
               "--decode", str(new), "--prompt", "16", "--threads", str(options["threads"]), "--seed",
               str(options["seed"]), "--depths", ",".join(str(n + new) for n in lengths)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    runs = []
    for length, depth in zip(lengths, result["depths"]):
        runs.append({"prompt": length, "prefill": depth["prefill_tokens_per_second"],
                     "decode": depth["decode_tokens_per_second"]["mean"]})
    print(json.dumps({"load_seconds": None, "peak_rss_bytes": result["peak_rss_bytes"], "runs": runs}))
