"""usage: attention_in_torch.py [--tokens 8192,32768,131072] [--batches 1,8,32] [--repetitions 50]

Times PyTorch's scaled_dot_product_attention at the shapes of scripts/gpu_session.sh's attention tables:
one new token, 32 query heads over 8 kv heads of width 128 in bf16, every token kept. Prints a line of
JSON for each shape as `kvc-bench attention --json` names things: the median and the 10th and 90th
percentile of a launch in seconds, and GB/s of keys and values. The cache of the device is emptied before
each launch. Only a measurement: kvc needs no PyTorch. Ends with 77 where there is none with CUDA.
"""

import argparse
import json
import sys

HEADS, KV_HEADS, WIDTH = 32, 8, 128
COLD_BYTES = 256 << 20  # more than any device's L2


def measure(torch, tokens, batch, repetitions):
    """Seconds of each launch; None where the shape does not fit."""
    attend = torch.nn.functional.scaled_dot_product_attention
    try:
        q = torch.randn(batch, HEADS, 1, WIDTH, device="cuda", dtype=torch.bfloat16)
        k = torch.randn(batch, KV_HEADS, tokens, WIDTH, device="cuda", dtype=torch.bfloat16)
        v = torch.randn_like(k)
        cold = torch.empty(COLD_BYTES, device="cuda", dtype=torch.uint8)
        seconds = []
        for repetition in range(repetitions + 5):
            cold.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            attend(q, k, v, enable_gqa=True)
            end.record()
            torch.cuda.synchronize()
            if repetition >= 5:
                seconds.append(begin.elapsed_time(end) / 1e3)
        return sorted(seconds)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", default="8192,32768,131072")
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--repetitions", type=int, default=50)
    arguments = parser.parse_args()
    try:
        import torch
    except ImportError:
        torch = None
    if torch is None or not torch.cuda.is_available():
        print("attention_in_torch: skipped: expected PyTorch with CUDA, got none", file=sys.stderr)
        return 77
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name()}))
    for batch in map(int, arguments.batches.split(",")):
        for tokens in map(int, arguments.tokens.split(",")):
            seconds = measure(torch, tokens, batch, arguments.repetitions)
            line = {"tokens": tokens, "batch": batch}
            if seconds is None:
                line["skipped"] = "does not fit"
            else:
                middle = seconds[len(seconds) // 2]
                size = 2 * 2 * batch * KV_HEADS * tokens * WIDTH
                line |= {"median": middle, "p10": seconds[len(seconds) // 10],
                         "p90": seconds[len(seconds) * 9 // 10], "gb_per_s": size / middle / 1e9}
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
