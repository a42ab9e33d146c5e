"""The READMEs of the two benchmarks, with a table of their tasks."""

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

_TAIL = (
    "The tasks named after Fluent, and the scenes, show concepts that pre-training has seen in Noto's style: what is new in\n"
    "them is the style, the layout and the wording. Left out everywhere: weapons, drugs, alcohol, tobacco, rude content, and\n"
    "drawings whose titles are not English.\n"
)

_TEXT_HEAD = """# The text benchmark

Questions without pictures, for a language model alone. `cargo xtask data` builds this folder from packages of public
registries, byte for byte (`SHA256SUMS`); the recipe is `xtask/data/text.py`. This README is written by the recipe.

`benchmark.json` lists the tasks, `tasks/NAME.jsonl` holds one record a line. {records} records. What a question is about is in one
split of a task only; the same country or thing may be asked about in several tasks. "Majority" is the share of test records that
the most frequent answer in training gets right, "nearest" the share that the answer of the most similar training question gets
right (cosine of the counts of three letters in a row).

"""

_TEXT_TAIL = """Sources, by the packages' licences: countries and their capitals, continents, languages and currencies from the npm package
countries-list 3.4.1, names of countries in other languages from i18n-iso-countries 7.14.0, names of peoples from i18n-nationality
1.4.0, emoji names and groups from unicode-emoji-json 0.9.0, keywords from emojilib 4.0.3, kinds of emoji from emoji-datasource-google
16.0.0 (all MIT); films from vega-datasets 3.2.1 (BSD-3-Clause); words from Debian's wamerican-small 2020.12.07-2 (public domain and
permissive, see LICENSE). What the recipe knows to be wrong in them is left out; more may be. Forms of words are made by the recipe's
rules from words that the list has. Numbers and which words are drawn are this project's. Words of violence, drugs and rude content
are left out as far as a list of them goes.
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


def _nearest(task):
    """The share of test records, in percent, that the answer of the most similar training question gets right."""

    def trigrams(record):
        text = f"  {record['instruction'].lower()} "
        counts = Counter(text[i : i + 3] for i in range(len(text) - 2))
        length = sum(n * n for n in counts.values()) ** 0.5
        return {gram: n / length for gram, n in counts.items()}

    known = [(trigrams(r), r["answers"][0]) for r in task.records if r["split"] == "train"]
    test = [r for r in task.records if r["split"] == "test"]

    def answer(record):
        own = trigrams(record)
        return max(known, key=lambda other: sum(n * other[0].get(gram, 0.0) for gram, n in own.items()))[1]

    return 100 * sum(answer(r) in r["answers"] for r in test) / len(test)


_STAGES = (("pretraining", "Pre-training"), ("downstream", "Downstream"))


def _table(head, rows):
    return "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


def _common(task):
    sizes = Counter(record["split"] for record in task.records)
    answers = len({record["answers"][0] for record in task.records})
    return f"`{task.name}`", task.title, "yes" if task.synthetic else "no", " / ".join(str(sizes[s]) for s in SPLITS), str(answers)


def _sequence(bench):
    sequence = sorted((t for t in bench.tasks.values() if t.order is not None), key=lambda t: t.order)
    return "Default sequence: " + ", ".join(f"`{t.name}`" for t in sequence) + ".\n\n"


def _write(folder, text):
    with open(os.path.join(folder, "README.md"), "w", encoding="utf-8", newline="\n") as out:
        out.write(text)


def write(bench, folder):
    """The README of the benchmark of pictures."""
    used = bench.used_by("pretraining") | bench.used_by("downstream")
    text = _HEAD.format(images=len(used), records=sum(len(t.records) for t in bench.tasks.values()))
    head = ("task", "what", "synthetic", "metric", "train / val / test", "pictures", "answers", "majority, global / per instruction", "example")
    for stage, title in _STAGES:
        rows = []
        for task in (t for t in bench.tasks.values() if t.stage == stage):
            name, what, synthetic, sizes, answers = _common(task)
            pictures = str(len({record["image"] for record in task.records}))
            overall, informed = _majority(task)
            rows.append((name, what, synthetic, task.metric, sizes, pictures, answers, f"{overall:.0f} / {informed:.0f} %", _example(task)))
        text += f"## {title}\n\n" + _table(head, rows)
    _write(folder, text + _sequence(bench) + _TAIL)


def write_text(bench, folder):
    """The README of the benchmark without pictures."""
    text = _TEXT_HEAD.format(records=sum(len(t.records) for t in bench.tasks.values()))
    head = ("task", "what", "synthetic", "train / val / test", "answers", "majority", "nearest", "example")
    for stage, title in _STAGES:
        tasks = [t for t in bench.tasks.values() if t.stage == stage]
        rows = [(*_common(t), f"{_majority(t)[0]:.0f} %", f"{_nearest(t):.0f} %", _example(t)) for t in tasks]
        text += f"## {title}\n\n" + _table(head, rows)
    _write(folder, text + _sequence(bench) + _TEXT_TAIL)
