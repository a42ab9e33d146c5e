"""Emoji concepts: names, groups and keywords, each with a Noto picture and mostly a Fluent one.

Packages: emoji-datasource-google (pictures), unicode-emoji-json (names), emojilib (keywords),
@lobehub/fluent-emoji-3d (the same concepts in another drawing style).
"""

import json
import os
import re
from dataclasses import dataclass

from benchmark import split_by_name
from unwanted import unwanted

# Names that say nothing about what the picture shows, and concepts that the word list does not catch.
_LEFT_OUT = {
    "clinking glasses", "bottle with popping cork", "tumbler glass", "middle finger", "bow and arrow", "crossed swords",
    "shield", "boomerang", "skull and crossbones", "pile of poo", "water pistol", "syringe", "drop of blood", "love hotel",
    "no one under eighteen", "face with symbols on mouth", "kiss mark", "angry face with horns", "funeral urn", "headstone",
    "slot machine", "military helmet", "firecracker", "hole", "ox", "biting lip", "bikini", "briefs", "chains",
    "smiling face with horns", "people with bunny ears", "women with bunny ears", "men with bunny ears", "no smoking",
}


@dataclass(frozen=True)
class Concept:
    """One emoji."""

    id: str
    name: str
    group: str
    subgroup: str
    keywords: tuple
    noto: str
    fluent: str | None

    @property
    def split(self):
        """Pre-training split: all pictures of a concept are in one, with its variants ("man biking", "woman biking")."""
        return split_by_name("emoji", re.sub(r"^(woman|women|man|men|person|people|mrs\.|mx) ", "", self.name))

    @property
    def is_thing(self):
        """Whether it is an animal, plant, food, object or vehicle with a short name: a sprite for scenes."""
        groups = ("animals and nature", "food and drink", "objects", "travel and places")
        return self.group in groups and self.subgroup != "time" and re.fullmatch(r"[a-z]+( [a-z]+)?", self.name) is not None


def _plain(text):
    """Lower case, plain apostrophes; None for what is not plain English letters and digits."""
    text = text.lower().replace("’", "'").replace("“", "").replace("”", "").replace("ñ", "n")
    return text if text.isascii() else None


def concepts(packages):
    """All concepts, sorted by id."""
    noto = os.path.join(packages, "emoji-datasource-google")
    fluent = os.path.join(packages, "lobehub-fluent-emoji-3d", "assets")
    with open(os.path.join(noto, "emoji.json"), encoding="utf-8") as file:
        entries = json.load(file)
    with open(os.path.join(packages, "unicode-emoji-json", "data-by-emoji.json"), encoding="utf-8") as file:
        names = json.load(file)
    with open(os.path.join(packages, "emojilib", "dist", "emoji-en-US.json"), encoding="utf-8") as file:
        keywords = json.load(file)
    found = []
    for entry in sorted(entries, key=lambda e: e["image"]):
        character = "".join(chr(int(code, 16)) for code in entry["unified"].split("-"))
        picture = os.path.join(noto, "img", "google", "64", entry["image"])
        if entry["category"] in ("Flags", "Component") or character not in names or not os.path.exists(picture):
            continue
        name = _plain(names[character]["name"])
        if name is None or name in _LEFT_OUT or unwanted(name) or "facing right" in name:
            continue
        words = [_plain(word) for word in keywords.get(character, [])]
        words = [w for w in words if w and re.fullmatch(r"[a-z]{3,}", w) and w != name and not unwanted(w)]
        style = os.path.join(fluent, entry["image"].removesuffix(".png") + ".webp")
        found.append(Concept(
            id=entry["image"].removesuffix(".png"),
            name=name,
            group=names[character]["group"].lower().replace("&", "and"),
            subgroup=entry["subcategory"].replace("-", " ").replace("&", "and"),
            keywords=tuple(dict.fromkeys(words))[:3],
            noto=picture,
            fluent=style if os.path.exists(style) else None,
        ))
    return found
