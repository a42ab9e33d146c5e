"""Counting: one to six equal Noto emoji on a light ground (real pictures, synthetic layout).

The color of what is counted is asked for as well, where it has one: known concepts, small, in new surroundings.
"""

from PIL import Image

import pretraining as ask
from benchmark import Stream, split_by_count
from pictures import PASTELS, SIDE, load, main_colour, sprite, webp

_IMAGES, _HELD_OUT = 3000, 125


def scatter(stream, sprites, ground, cells, side):
    """Places sprites into different cells of a `cells` × `cells` grid, each shifted a little."""
    image = Image.new("RGBA", (SIDE, SIDE), (*ground, 255))
    pitch = SIDE // cells
    for cell, picture in zip(stream.sample(range(cells * cells), len(sprites)), sprites):
        slack = pitch - side
        x = cell % cells * pitch + stream.between(0, slack)
        y = cell // cells * pitch + stream.between(0, slack)
        image.alpha_composite(picture, (x, y))
    return image.convert("RGB")


def build(bench, emoji):
    things = [concept for concept in emoji if concept.is_thing and concept.split == "train"]
    for i, split in split_by_count(Stream("counting"), range(_IMAGES), _HELD_OUT, _HELD_OUT):
        stream = Stream("counting", str(i))
        concept, number, side = stream.choice(things), 1 + i % 6, stream.between(23, 31)
        picture = scatter(stream, [sprite(concept.noto, side)] * number, stream.choice(PASTELS), 3, side)
        key = bench.put(f"counting/{i:04}", webp(picture))
        if key is not None:
            named = [phrase.format(concept.name) for phrase in ask.COUNT_NAMED]
            bench.tasks["counting"].add(split, key, ask.COUNT + named, str(number))
            color = main_colour(load(concept.noto))
            if color is not None:
                bench.tasks["color"].add(split, key, ask.MAIN_COLOR, color)
