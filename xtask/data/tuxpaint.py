"""Tux Paint stamps: photos and drawings with captions by people, a further downstream task that is not committed.

Package: tuxpaint-stamps-default (GPL-2 as a whole, each picture with its own licence; see the package's documentation).
"""

import glob
import os

from benchmark import Benchmark, Stream, split_by_count
from pictures import load, on_ground, trimmed, webp
from unwanted import unwanted

_CAPTION = ["Write a caption for this stamp.", "Describe the stamp.", "What does the stamp show?"]


def _caption(path):
    """The English caption: the first line of the text beside the picture."""
    with open(path.removesuffix(".png") + ".txt", encoding="utf-8", errors="replace") as file:
        return file.readline().strip()


def build(packages, out):
    """Writes a benchmark of its own: benchmark.json, tasks/tuxpaint.jsonl and tuxpaint/images.pack."""
    bench = Benchmark()
    task = bench.task("tuxpaint", "Captions of Tux Paint stamps", "downstream", "rouge-l")
    root = os.path.join(packages, "tuxpaint-stamps-default", "usr", "share", "tuxpaint", "stamps")
    by_caption = {}
    for path in sorted(glob.glob(os.path.join(root, "**", "*.png"), recursive=True)):
        if "alphabets" in path or not os.path.exists(path.removesuffix(".png") + ".txt"):
            continue
        caption = _caption(path)
        if caption and not unwanted(caption):
            by_caption.setdefault(caption, []).append(path)
    # Stamps with one caption are views of one thing: they are in one split.
    for caption, split in split_by_count(Stream("tuxpaint"), sorted(by_caption), 100, 50):
        for path in by_caption[caption]:
            name = os.path.relpath(path, root).removesuffix(".png")
            key = bench.put(f"tuxpaint/{name}", webp(on_ground(trimmed(load(path)), margin=3)))
            if key is not None:
                task.add(split, key, _CAPTION, caption.lower().rstrip("."))
    bench.write(out)
