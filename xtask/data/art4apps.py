"""art4apps pictures (package pysiogame): one of 12 categories for each."""

import glob
import os

from benchmark import Stream, split_by_count
from pictures import load, on_ground, webp
from unwanted import unwanted

# In words that pre-training has as answers or parts of answers.
_CATEGORIES = {
    "actions": "action", "animals": "animal", "body": "body", "clothes_n_accessories": "clothing", "construction": "building",
    "food": "food", "fruit_n_veg": "fruit", "jobs": "role", "nature": "nature", "people": "person", "sport": "sport",
    "transport": "transport",
}
_CATEGORY = ["Which page of the picture dictionary is this on?", "Pick the chapter of the picture dictionary."]
_LEFT_OUT = {"breast", "bottom", "hunter", "soldier", "punch", "smooch", "thigh", "carpet", "tribe", "torch", "cobra", "slam", "beat", "hip"}


def build(bench, packages):
    task = bench.task("art4apps", "Category of art4apps pictures", "downstream")
    root = os.path.join(packages, "pysiogame", "usr", "share", "games", "pysiogame", "res", "images", "art4apps")
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
