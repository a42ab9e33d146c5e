"""art4apps pictures (package pysiogame): one of 12 categories for each, and the word where pre-training knows it."""

import glob
import os

from benchmark import Stream, split_by_count
from pictures import load, on_ground, webp
from unwanted import unwanted

_CATEGORIES = {
    "actions": "action", "animals": "animal", "body": "body part", "clothes_n_accessories": "clothing",
    "construction": "building", "food": "meal", "fruit_n_veg": "fruit or vegetable", "jobs": "job", "nature": "landscape",
    "people": "people", "sport": "exercise", "transport": "transport",
}
_CATEGORY = ["Which page of the picture dictionary is this on?", "Pick the chapter of the picture dictionary."]
_WORD = ["Which word does this picture teach?", "What is the word for this picture?"]
_LEFT_OUT = {"breast", "bottom", "hunter", "soldier", "punch", "smooch", "thigh", "carpet", "tribe", "torch", "cobra", "slam", "beat", "hip"}


def build(bench, packages):
    task = bench.task("art4apps", "Category and word of art4apps pictures", "downstream")
    root = os.path.join(packages, "pysiogame", "usr", "share", "games", "pysiogame", "res", "images", "art4apps")
    known = {record["answers"][0] for record in bench.tasks["caption"].records if record["split"] == "train"}
    found = []
    for path in sorted(glob.glob(os.path.join(root, "*", "*.jpg"))):
        folder, name = path.split(os.sep)[-2:]
        word = name.removesuffix(".jpg").replace("_", " ")
        if word not in _LEFT_OUT and not unwanted(word):
            found.append((path, folder, word))
    words = sorted({word for _, _, word in found})
    split_of = dict(split_by_count(Stream("art4apps"), words, 120, 65))
    for path, folder, word in found:
        key = bench.put(f"art4apps/{folder}/{word.replace(' ', '_')}", webp(on_ground(load(path)), 70))
        if key is None:
            continue
        task.add(split_of[word], key, _CATEGORY, _CATEGORIES[folder])
        if word in known and folder not in ("actions", "sport"):
            task.add(split_of[word], key, _WORD, word)
