"""Flags: their colors, and their continent as a task of its own (package iso-flags-png-320x240; continents from tzdata).

Both are split by flag, in the same way.
"""

import os

import numpy as np

from benchmark import SPLITS, Stream, split_by_count
from pictures import colour_shares, load, on_ground, webp

_CONTINENTS = {"Africa": "africa", "America": "america", "Asia": "asia", "Europe": "europe", "Australia": "oceania", "Pacific": "oceania"}
_CONTAINS = ["Does the flag contain {}?", "Is there {} in the flag?", "Is any part of the flag {}?"]
_MAIN = ["Which color covers most of the flag?", "What is the largest color of the flag?"]
_CONTINENT = ["On which continent does this flag fly?", "Which continent is the country of this flag on?"]
# Flags have few hues: orange and pink are read as their neighbours, brown and gray hardly occur.
_COLORS = ("red", "yellow", "green", "blue", "black", "white")


def _continents(packages):
    """Country code -> continent, for countries whose time zones agree on one (islands of the oceans are left out)."""
    regions = {}
    with open(os.path.join(packages, "tzdata", "tzdata", "zoneinfo", "zone.tab"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                code, _, zone = line.strip().split("\t")[:3]
                regions.setdefault(code, set()).add(zone.split("/")[0])
    found = {code: {_CONTINENTS.get(region) for region in zones} for code, zones in regions.items()}
    return {code: zones.copy().pop() for code, zones in found.items() if len(zones) == 1 and None not in zones}


def build(bench, packages):
    colors = bench.task("flags", "Colors of flags", "downstream")
    continent = bench.task("flags-continent", "Continents of flags", "downstream")
    root = os.path.join(packages, "iso-flags-png-320x240", "usr", "share", "iso-flags-png-320x240")
    continents = _continents(packages)
    flags, thumbnails = [], []
    for name in sorted(os.listdir(root)):
        code = name.removesuffix(".png").upper()
        if code not in continents:
            continue
        picture = load(os.path.join(root, name))
        thumbnail = np.asarray(picture.convert("RGB").resize((24, 18)), dtype=np.float32)
        # Territories fly the flag of their country: one of each.
        if any(np.abs(thumbnail - other).mean() < 6 for other in thumbnails):
            continue
        thumbnails.append(thumbnail)
        flags.append((code, picture))
    asked = {(split, color): {"yes": [], "no": []} for split in SPLITS for color in _COLORS}
    for (code, picture), split in split_by_count(Stream("flags"), flags, 45, 25):
        key = bench.put(f"flags/{code.lower()}", webp(on_ground(picture)))
        shares = colour_shares(picture)
        shares["red"] += shares["orange"] * 0.5
        ranked = sorted(_COLORS, key=lambda c: -shares[c])
        if shares[ranked[0]] >= 0.4 and shares[ranked[0]] >= 1.3 * shares[ranked[1]]:
            colors.add(split, key, _MAIN, ranked[0])
        for color in _COLORS:
            if shares[color] >= 0.08:
                asked[split, color]["yes"].append(key)
            elif shares[color] < 0.005:
                asked[split, color]["no"].append(key)
        continent.add(split, key, _CONTINENT, continents[code])
    # Of each color, each wording has as many flags with it as without: the wording alone tells nothing.
    for (split, color), keys in sorted(asked.items()):
        number = min(len(keys["yes"]), len(keys["no"]))
        stream = Stream("flags", split, color)
        for pair in zip(stream.sample(keys["yes"], number), stream.sample(keys["no"], number)):
            question = stream.choice(_CONTAINS).format(color)
            for key, answer in zip(pair, ("yes", "no")):
                colors.add(split, key, question, answer)
