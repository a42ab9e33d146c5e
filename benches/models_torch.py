#!/usr/bin/env python3
"""What transformers needs for the work of `models` (benches/src/bin/models.rs), in one fresh process. Prints one JSON object.

    venv/bin/python benches/models_torch.py --model DIR --dtype bfloat16 --rows step,generate --batch 2 --input-len 80
    venv/bin/python benches/models_torch.py --model DIR --random ...      # weights made in place: DIR needs its config.json only

The language model of DIR alone is used: visual tokens are random vectors of its width, as in our program. `step` is one prompt-tuning step
(forward with labels, backward to the soft prompt, AdamW), `prefill` reads the input and gives the logits of the first new token,
`generate` is transformers' own greedy generate() of exactly --new-tokens tokens.

`--int8` replaces the linear maps by PyTorch's dynamically quantised ones. They have no backward, so there is no `step` with it.
"""
import argparse, json, os, statistics, sys, time

started = time.perf_counter()
p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
p.add_argument("--model", required=True)
p.add_argument("--random", action="store_true")
p.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
p.add_argument("--int8", action="store_true")
p.add_argument("--attn", default="sdpa", choices=["sdpa", "eager"])
p.add_argument("--rows", default="open,step,prefill,generate")
p.add_argument("--batch", type=int, default=16)
p.add_argument("--input-len", type=int, default=52, help="tokens of the input, the soft prompt among them")
p.add_argument("--prompt-len", type=int, default=16)
p.add_argument("--label-len", type=int, default=6)
p.add_argument("--new-tokens", type=int, default=32)
p.add_argument("--iters", type=int, default=5)
p.add_argument("--warmup", type=int, default=1)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--seed", type=int, default=1)
a = p.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(a.threads)
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, T5ForConditionalGeneration

transformers.logging.set_verbosity_error()
torch.set_num_threads(a.threads)
torch.set_num_interop_threads(1)
torch.manual_seed(a.seed)
imported = time.perf_counter()
dtype = getattr(torch, a.dtype)


def load():
    """The language model of the directory, and the width of its embeddings."""
    config = AutoConfig.from_pretrained(a.model)
    config._attn_implementation = a.attn
    text = getattr(config, "text_config", config)
    if text.model_type == "llama" and (text.pad_token_id or 0) < 0:
        text.pad_token_id, text.bos_token_id, text.eos_token_id = 0, 1, 2
    if a.random:
        cls = T5ForConditionalGeneration if text.model_type == "t5" else AutoModelForCausalLM._model_mapping[type(text)]
        with torch.device("meta"):
            lm = cls(text).to(dtype)
        lm = lm.to_empty(device="cpu")
        lm.tie_weights()
        for name, w in lm.named_parameters():
            w.data.fill_(1.0) if w.dim() == 1 else w.data.normal_(0, w.shape[-1] ** -0.5)
        for module in lm.modules():                          # what to_empty does not keep: frequencies of rotary positions
            if hasattr(module, "original_inv_freq"):
                half = text.head_dim // 2
                inv = text.rope_parameters["rope_theta"] ** (-torch.arange(half, dtype=torch.float32) / half)
                module.inv_freq, module.original_inv_freq = inv, inv
    elif hasattr(config, "text_config"):
        whole = transformers.AutoModelForImageTextToText.from_pretrained(a.model, dtype=dtype, attn_implementation=a.attn)
        if hasattr(whole, "language_model"):
            lm = whole.language_model
        else:                                                # LLaVA: the inner model and the head, as one causal model
            cls = AutoModelForCausalLM._model_mapping[type(text)]
            with torch.device("meta"):
                lm = cls(text).to(dtype)
            lm.model, lm.lm_head = whole.model.language_model, whole.lm_head
    else:
        cls = T5ForConditionalGeneration if text.model_type == "t5" else AutoModelForCausalLM
        lm = cls.from_pretrained(a.model, dtype=dtype, attn_implementation=a.attn)
    lm.eval().requires_grad_(False)
    return lm, text


lm, text = load()
opened = time.perf_counter()
if a.int8:
    lm = torch.ao.quantization.quantize_dynamic(lm, {torch.nn.Linear}, dtype=torch.qint8)
is_t5 = text.model_type == "t5"
d = text.d_model if is_t5 else text.hidden_size
B, L, P = a.batch, a.input_len, a.prompt_len
g = torch.Generator().manual_seed(a.seed)
embeds = torch.randn((B, L - P, d), generator=g).to(dtype)
labels = torch.randint(3, text.vocab_size - 12, (B, a.label_len), generator=g)
prompt = torch.nn.Parameter(torch.randn((P, d), generator=g).to(dtype))
optimiser = torch.optim.AdamW([prompt], lr=1e-3, weight_decay=0.0)
mask = torch.ones((B, L), dtype=torch.long)


def with_prompt():
    return torch.cat([prompt.unsqueeze(0).expand(B, -1, -1), embeds], 1)


def step():
    optimiser.zero_grad(set_to_none=True)
    if is_t5:
        loss = lm(inputs_embeds=with_prompt(), attention_mask=mask, labels=labels, use_cache=False).loss
    else:
        # Behind the input come the embeddings of the answer; its labels are shifted inside.
        answer = lm.get_input_embeddings()(labels)
        ignored = torch.full((B, L), -100)
        loss = lm(inputs_embeds=torch.cat([with_prompt(), answer], 1), labels=torch.cat([ignored, labels], 1), use_cache=False,
                  attention_mask=torch.ones((B, L + a.label_len), dtype=torch.long)).loss
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss) and prompt.grad is not None


@torch.no_grad()
def generate(n=None):
    n = n or a.new_tokens
    ids = lm.generate(inputs_embeds=with_prompt(), attention_mask=mask, max_new_tokens=n, min_new_tokens=n, do_sample=False, num_beams=1)
    assert ids.shape[1] in (n, n + 1)                         # T5 gives the start token too


@torch.no_grad()
def prefill():
    if is_t5:
        lm(inputs_embeds=with_prompt(), attention_mask=mask, decoder_input_ids=torch.zeros((B, 1), dtype=torch.long), use_cache=True)
    else:
        lm(inputs_embeds=with_prompt(), attention_mask=mask, use_cache=True, logits_to_keep=1)


def memory(key):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(key))


rows = {}
for name in a.rows.split(","):
    if name == "open":
        with torch.no_grad():
            generate(1)
        end = time.perf_counter()
        rows["open"] = {"median": (opened - imported) * 1e3}
        rows["import"] = {"median": (imported - started) * 1e3}
        rows["first_token"] = {"median": (end - imported) * 1e3}
        rows["resident_mib"] = {"median": memory("VmRSS:")}
        continue
    run = {"step": step, "prefill": prefill, "generate": generate}[name]
    if a.int8 and name == "step":
        continue
    for _ in range(a.warmup):
        run()
    ms = []
    for _ in range(a.iters):
        start = time.perf_counter()
        run()
        ms.append((time.perf_counter() - start) * 1e3)
    rows[name] = {"median": statistics.median(ms), "min": min(ms)}
print(json.dumps({"ms": rows, "peak_rss_mib": memory("VmHWM:"), "torch": torch.__version__, "transformers": transformers.__version__}))
