"""Noto emoji: captions, groups, keywords and colors for pre-training."""

import pretraining as ask
from pictures import load, on_ground, webp


def build(bench, emoji):
    """Returns (key, split, picture) of every emoji for the color questions."""
    pictures = []
    for concept in emoji:
        picture = load(concept.noto)
        key = bench.put(f"noto/{concept.id}", webp(on_ground(picture)))
        if key is None:
            continue
        split = concept.split
        bench.tasks["caption"].add(split, key, ask.CAPTION, concept.name)
        bench.tasks["group"].add(split, key, ask.GROUP, concept.group)
        bench.tasks["group"].add(split, key, ask.SUBGROUP, concept.subgroup)
        if len(concept.keywords) > 1:
            bench.tasks["keywords"].add(split, key, ask.KEYWORDS, ", ".join(concept.keywords))
        if concept.group != "smileys and emotion" and not concept.subgroup.startswith("person"):
            pictures.append((key, split, picture))
    return pictures
