"""Scenes of Fluent-3D emoji: how many things, and what is where (the pictures are real, the layout is synthetic).

The concepts are those that pre-training has seen in Noto's style.
"""

from PIL import Image

from benchmark import Stream, split_by_count
from counting import scatter
from fluent import known
from pictures import PASTELS, SIDE, sprite, webp

# Nothing of the wording is in the questions of pre-training: the skill has to be found under another name.
_COUNT = ["Tally the stickers on this tray.", "Sticker tally, please."]
_LEFT = ["What stands on the left?", "Which one is on the left side?"]
_RIGHT = ["What stands on the right?", "Which one is on the right side?"]
_IS_THERE = ["Is the {} in this scene?", "Do you see the {} here?"]
# Strong grounds, unlike those of pre-training.
_GROUNDS = [
    (255, 183, 77), (129, 199, 132), (100, 181, 246), (186, 104, 200), (240, 98, 146), (77, 182, 172), (255, 213, 79),
    (161, 136, 127), (144, 164, 174), (220, 231, 117),
]
# Things that most people know and that look alike in both styles: few enough to be seen several times each.
_SUBJECTS = """
    cat dog horse pig elephant lion tiger rabbit snake turtle fish octopus crab butterfly spider snail frog penguin owl
    rooster apple banana lemon pear cherries strawberry grapes pineapple watermelon carrot mushroom pizza hamburger bread egg
    house castle church bicycle bus automobile tractor rocket airplane sailboat ambulance key hammer scissors guitar trumpet
    drum violin camera television telephone book pencil umbrella crown hat chair door bed bell candle cactus tulip rose
    sunflower rainbow sun star snowman
""".split()


def build(bench, emoji):
    _build_count(bench, emoji)
    _build_find(bench, emoji)


def _build_count(bench, emoji):
    task = bench.task("scenes-count", "Counting different Fluent emoji", "downstream", synthetic=True)
    things = [concept for concept in known(emoji) if concept.is_thing]
    for i, split in split_by_count(Stream("scenes-count"), range(640), 120, 80):
        stream = Stream("scenes-count", str(i))
        number, side = 1 + i % 4, stream.between(32, 46)
        pictures = [sprite(concept.fluent, side) for concept in stream.sample(things, number)]
        key = bench.put(f"scenes/count-{i:03}", webp(scatter(stream, pictures, stream.choice(_GROUNDS), 2, side)))
        if key is not None:
            task.add(split, key, _COUNT, str(number))


def _build_find(bench, emoji):
    task = bench.task("scenes-find", "Finding Fluent emoji in a scene", "downstream", synthetic=True)
    things = [concept for concept in known(emoji) if concept.name in _SUBJECTS]
    for i, split in split_by_count(Stream("scenes-find"), range(340), 60, 35):
        stream = Stream("scenes-find", str(i))
        left, right, other = stream.sample(things, 3)
        image = Image.new("RGBA", (SIDE, SIDE), (*stream.choice(PASTELS), 255))
        for x, concept in ((0, left), (SIDE // 2, right)):
            side = stream.between(38, 46)
            image.alpha_composite(sprite(concept.fluent, side), (x + stream.between(0, 48 - side), stream.between(4, SIDE - side - 4)))
        key = bench.put(f"scenes/find-{i:03}", webp(image))
        if key is None:
            continue
        if stream.chance(0.5):
            task.add(split, key, _LEFT, left.name)
        else:
            task.add(split, key, _RIGHT, right.name)
        subject, answer = (stream.choice((left, right)), "yes") if i % 2 else (other, "no")
        task.add(split, key, stream.choice(_IS_THERE).format(subject.name), answer)
