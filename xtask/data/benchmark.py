"""The benchmark under construction: images, tasks, splits, and how they are written.

Everything random comes from a `Stream`, which is seeded by names alone, so that adding one task changes no other.
"""

import hashlib
import json
import os
import random
import struct

SPLITS = ("train", "val", "test")


class Stream:
    """Random choices from a generator seeded by names.

    Built on `random.Random.random`, the one method whose sequence Python promises to keep between versions.
    """

    def __init__(self, *names):
        seed = hashlib.sha256("/".join(names).encode()).digest()
        self._unit = random.Random(int.from_bytes(seed, "big")).random

    def below(self, n):
        """A whole number from 0 to n - 1."""
        return int(self._unit() * n)

    def between(self, low, high):
        """A whole number from low to high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability):
        return self._unit() < probability

    def choice(self, items):
        return items[self.below(len(items))]

    def shuffled(self, items):
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def sample(self, items, n):
        return self.shuffled(items)[:n]


def split_by_name(*names, val=0.05, test=0.05):
    """The split of a concept: its name alone decides, whatever else the source holds."""
    digest = hashlib.sha256(("split/" + "/".join(names)).encode()).digest()
    unit = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if unit < test else "val" if unit < test + val else "train"


def split_by_count(stream, items, test, val):
    """Shuffles the items and pairs each with its split: `test`, then `val` of them, the rest for training."""
    items = stream.shuffled(items)
    assert len(items) > val + test, f"{len(items)} items are too few for {test} + {val} held out"
    return [(item, "test" if i < test else "val" if i < test + val else "train") for i, item in enumerate(items)]


class Task:
    """One task: what it is, and its records in the order they were added."""

    def __init__(self, name, title, stage, metric, synthetic):
        self.name, self.title, self.stage, self.metric, self.synthetic = name, title, stage, metric, synthetic
        self.order = None
        self.records = []
        self._phrasing = Stream("phrasing", name)
        self._seen = set()
        self._split_of = {}

    def add(self, split, image, instruction, *answers):
        """Adds a record; of several phrasings the task's own stream draws one."""
        assert image, (self.name, instruction)
        self._add(split, image, {"image": image}, instruction, answers)

    def add_text(self, split, subject, phrasings, *answers):
        """Adds a record without a picture: a question about a subject, whose parts a phrasing names as {0}, {1} and so on."""
        parts = subject if isinstance(subject, tuple) else (subject,)
        self._add(split, "/".join(map(str, parts)), {}, self._phrasing.choice(phrasings).format(*parts), answers)

    def _add(self, split, subject, picture, instruction, answers):
        assert split in SPLITS and all(answers) and answers, (self.name, split, subject, answers)
        if not isinstance(instruction, str):
            instruction = self._phrasing.choice(instruction)
        if (subject, instruction) in self._seen:
            return
        self._seen.add((subject, instruction))
        before = self._split_of.setdefault(subject, split)
        assert before == split, f"{self.name}: {subject} is in {before} and {split}"
        self.records.append({"split": split, **picture, "instruction": instruction, "answers": list(answers)})


class Benchmark:
    """All images and tasks. An image is kept once, however often its content comes."""

    def __init__(self):
        self.images = {}
        self.tasks = {}
        self._key_of_content = {}

    def task(self, name, title, stage, metric="exact", synthetic=False):
        assert name not in self.tasks, name
        self.tasks[name] = Task(name, title, stage, metric, synthetic)
        return self.tasks[name]

    def put(self, key, content):
        """Keeps an image. Returns None, and keeps nothing, if the same content is there under another key."""
        digest = hashlib.sha256(content).hexdigest()
        if self._key_of_content.setdefault(digest, key) != key:
            return None
        assert self.images.setdefault(key, content) == content, f"two images under the key {key}"
        return key

    def used_by(self, stage):
        return {r["image"] for t in self.tasks.values() if t.stage == stage for r in t.records if "image" in r}

    def verify(self):
        """What must hold before anything is written."""
        for task in self.tasks.values():
            assert all(r["image"] in self.images for r in task.records if "image" in r), task.name
            assert {r["split"] for r in task.records} == set(SPLITS), f"{task.name} lacks a split"
        shared = self.used_by("pretraining") & self.used_by("downstream")
        assert not shared, f"in pre-training and downstream: {sorted(shared)[:5]}"

    def write(self, folder):
        """Writes benchmark.json, tasks/NAME.jsonl and FOLDER/images.pack; images that no record uses are left out."""
        self.verify()
        used = self.used_by("pretraining") | self.used_by("downstream")
        packs = {}
        for key in sorted(used):
            packs.setdefault(key.split("/")[0], []).append(key)
        for source, keys in packs.items():
            os.makedirs(os.path.join(folder, source), exist_ok=True)
            with open(os.path.join(folder, source, "images.pack"), "wb") as pack:
                pack.write(b"FWDPACK1")
                for key in sorted(keys, key=lambda k: k.encode()):
                    name, content = key.encode(), self.images[key]
                    pack.write(struct.pack("<HI", len(name), len(content)) + name + content)
        os.makedirs(os.path.join(folder, "tasks"), exist_ok=True)
        for task in self.tasks.values():
            with open(os.path.join(folder, "tasks", task.name + ".jsonl"), "w", encoding="utf-8", newline="\n") as out:
                for record in sorted(task.records, key=lambda r: SPLITS.index(r["split"])):
                    record = dict(record)
                    answers = record.pop("answers")
                    record.update({"answer": answers[0]} if len(answers) == 1 else {"answers": answers})
                    out.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
        tasks = []
        for t in self.tasks.values():
            entry = {"name": t.name, "title": t.title, "stage": t.stage, "metric": t.metric, "synthetic": t.synthetic}
            tasks.append(entry if t.order is None else {**entry, "order": t.order})
        with open(os.path.join(folder, "benchmark.json"), "w", encoding="utf-8", newline="\n") as out:
            lines = ",\n".join("  " + json.dumps(task) for task in tasks)
            out.write('{"version": 1, "tasks": [\n' + lines + "\n]}\n")
