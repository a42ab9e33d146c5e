#!/usr/bin/env python3
"""Prefill and greedy generation of llama.cpp (llama-cpp-python) on a GGUF file, in one fresh process. Prints one JSON object.

    venv/bin/python benches/models_llama_cpp.py --gguf DIR/model.gguf --input-len 52 --new-tokens 32

One sequence of random token ids; every timed run begins with an empty cache. `generate` is prefill and all tokens, end tokens are ignored.
"""
import argparse, json, statistics, time

p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
p.add_argument("--gguf", required=True)
p.add_argument("--input-len", type=int, default=52)
p.add_argument("--new-tokens", type=int, default=32)
p.add_argument("--iters", type=int, default=5)
p.add_argument("--warmup", type=int, default=1)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--seed", type=int, default=1)
a = p.parse_args()
import llama_cpp
import numpy as np

n_ctx = 64 * ((a.input_len + a.new_tokens + 63) // 64)
lm = llama_cpp.Llama(a.gguf, n_ctx=n_ctx, n_batch=512, n_threads=a.threads, n_threads_batch=a.threads, verbose=False, seed=a.seed)
n_vocab = lm.n_vocab()
ids = [int(i) for i in np.random.default_rng(a.seed).integers(300, n_vocab - 100, a.input_len)]


def likeliest():
    logits = llama_cpp.llama_get_logits_ith(lm.ctx, -1)
    return int(np.ctypeslib.as_array(logits, shape=(n_vocab,)).argmax())


def prefill():
    lm.reset()
    lm.eval(ids)
    return likeliest()


def generate():
    token = prefill()
    for _ in range(a.new_tokens - 1):                         # the first token comes from the prefill
        lm.eval([token])
        token = likeliest()


rows = {}
for name, run in (("prefill", prefill), ("generate", generate)):
    for _ in range(a.warmup):
        run()
    ms = []
    for _ in range(a.iters):
        start = time.perf_counter()
        run()
        ms.append((time.perf_counter() - start) * 1e3)
    rows[name] = {"median": statistics.median(ms), "min": min(ms)}
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({"ms": rows, "peak_rss_mib": peak, "llama_cpp_python": llama_cpp.__version__}))
