"""Fluent-3D emoji: the concepts of pre-training in another drawing style.

`fluent-group` and `fluent-name` ask about concepts whose Noto picture is in the training split of pre-training, so that
what is new is the style and the wording, not the concept.
"""

from benchmark import Stream, split_by_count
from pictures import load, on_ground, webp

_GROUP = ["Sort this sticker: which section?", "Which section of the album is the sticker for?"]
_SUBGROUP = ["Which family does the sticker belong to?", "Name the family of the sticker."]
_NAME = ["What would you call this sticker?", "Give the sticker a name."]


def known(emoji):
    """Concepts with a Fluent picture that pre-training has seen."""
    return [concept for concept in emoji if concept.fluent and concept.split == "train"]


def build(bench, emoji):
    group = bench.task("fluent-group", "Group and kind of Fluent emoji", "downstream")
    name = bench.task("fluent-name", "Names of Fluent emoji", "downstream", "rouge-l")
    # Faces and people differ in details that the small pictures do not show.
    named = [c for c in known(emoji) if c.is_thing]
    grouped = [c for c in known(emoji) if not c.is_thing and c.subgroup not in ("alphanum", "keycap", "time")]
    # Both tasks put a concept into the same split.
    splits = dict(split_by_count(Stream("fluent", "things"), named, 120, 70))
    splits.update(split_by_count(Stream("fluent", "others"), Stream("fluent", "others", "which").sample(grouped, 260), 50, 30))
    for concept in sorted(splits, key=lambda c: c.id):
        key = bench.put(f"fluent/{concept.id}", webp(on_ground(load(concept.fluent))))
        if key is None:
            continue
        split, stream = splits[concept], Stream("fluent", "question", concept.id)
        if stream.chance(0.5):
            group.add(split, key, _GROUP, concept.group)
        else:
            group.add(split, key, _SUBGROUP, concept.subgroup)
        if concept.is_thing:
            name.add(split, key, _NAME, concept.name)
