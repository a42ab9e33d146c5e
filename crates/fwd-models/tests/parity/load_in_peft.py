#!/usr/bin/env python3
"""Loads adapters that this project wrote into PEFT, and compares losses and gradients.

    cargo run -p fwd-models --example adapters_for_peft -- OUT
    python crates/fwd-models/tests/parity/load_in_peft.py OUT

Fails if PEFT leaves a tensor of a file out, or if a loss is off by more than 1e-5 or a gradient by more than 1e-4 of its largest element.
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM


def check(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    is_t5 = json.loads((Path(expected["base"]) / "config.json").read_text())["model_type"] == "t5"
    kind = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    base = kind.from_pretrained(expected["base"], attn_implementation="eager", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(folder), is_trainable=True).eval()
    parameters = {name.replace(".default.", "."): p for name, p in model.named_parameters() if p.requires_grad}
    tensors = load_file(str(folder / "adapter_model.safetensors"))
    if set(parameters) != set(tensors):
        sys.exit(f"{folder}: PEFT trains {len(parameters)} tensors, the file has {len(tensors)}")
    for name, tensor in tensors.items():
        if not torch.equal(parameters[name].detach(), tensor):
            sys.exit(f"{folder}: PEFT has not loaded {name}")
    ids, labels = torch.tensor([expected["input_ids"]]), torch.tensor([expected["labels"]])
    if is_t5:
        loss = model(input_ids=ids, labels=labels).loss
    else:
        ignored = torch.full_like(ids, -100)
        loss = model(input_ids=torch.cat([ids, labels], 1), labels=torch.cat([ignored, labels], 1)).loss
    loss.backward()
    ours = torch.tensor(expected["gradient"])
    at, worst = 0, 0.0
    # Map by map in the order of adapter_config.json's target_modules: A, and then B.
    for module in json.loads((folder / "adapter_config.json").read_text())["target_modules"]:
        for part in ["A", "B"]:
            want = parameters[f"base_model.model.{module}.lora_{part}.weight"].grad.flatten()
            found = ours[at : at + want.numel()]
            at += want.numel()
            worst = max(worst, float((found - want).abs().max() / want.abs().max()))
    off = abs(float(loss) - expected["loss"])
    print(f"{folder.name}: loss {float(loss):.6f}, off by {off:.1e}; gradients off by {worst:.1e} of their largest elements")
    if at != ours.numel() or off > 1e-5 or worst > 1e-4:
        sys.exit(f"{folder}: not what PEFT computes")


folders = sorted(path.parent for path in Path(sys.argv[1]).glob("*/expected.json"))
if not folders:
    sys.exit(f"{sys.argv[1]} has no adapters; make them with `cargo run -p fwd-models --example adapters_for_peft -- {sys.argv[1]}`")
for folder in folders:
    check(folder)
