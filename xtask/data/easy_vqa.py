"""easy-vqa: one colored shape an image, with questions in the package's own words (synthetic, by its author)."""

import json
import os

import pretraining as ask
from benchmark import Stream

_TRAIN_IMAGES, _HELD_OUT_IMAGES = 2200, 125
_COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
_SHAPES = ("circle", "rectangle", "triangle")
# The share of the images that are captioned.
_CAPTIONED = 0.35


def build(bench, packages):
    data = os.path.join(packages, "easy-vqa", "easy_vqa", "data")
    for folder, wanted in (("train", ("train",) * _TRAIN_IMAGES + ("val",) * _HELD_OUT_IMAGES), ("test", ("test",) * _HELD_OUT_IMAGES)):
        with open(os.path.join(data, folder, "questions.json"), encoding="utf-8") as file:
            questions = {}
            for question, answer, image in json.load(file):
                questions.setdefault(image, []).append((question, answer))
        order = iter(Stream("easy-vqa", folder).shuffled(sorted(questions)))
        for split in wanted:
            key = None
            while key is None:  # the package draws some images twice
                image = next(order)
                with open(os.path.join(data, folder, "images", f"{image}.png"), "rb") as file:
                    key = bench.put(f"easy-vqa/{folder}{image}", file.read())
            color, shape = _attribute(questions[image], _COLORS), _attribute(questions[image], _SHAPES)
            stream = Stream("easy-vqa", "questions", key)
            _ask_attributes(bench, stream, split, key, questions[image])
            _ask_yes_no(bench, stream, split, key, color, _COLORS, "{} shape")
            _ask_yes_no(bench, stream, split, key, shape, _SHAPES, "{}")
            if color and shape and stream.chance(_CAPTIONED):
                bench.tasks["caption"].add(split, key, ask.CAPTION, f"a {color} {shape}")


def _attribute(questions, values):
    """What the package's questions say of the color or the form; None if they leave it open."""
    for question, answer in questions:
        words = question.rstrip("?").split()
        named = [word for word in words if word in values]
        if answer in values:
            return answer
        if named and answer == ("no" if "not" in words or "no" in words else "yes"):
            return named[0]
    return None


def _ask_attributes(bench, stream, split, key, questions):
    """One question about the color and one about the form."""
    for kind, more in (("color", ask.SHAPE_COLOR), ("shape", ask.SHAPE)):
        fitting = [qa for qa in questions if qa[1] not in ("yes", "no") and (qa[1] in _SHAPES) == (kind == "shape")]
        if fitting:
            question, answer = stream.choice(fitting)
            bench.tasks["attributes"].add(split, key, stream.choice(more) if stream.chance(0.4) else question, answer)


def _ask_yes_no(bench, stream, split, key, value, values, thing):
    """One question for what is there and one for what is not, in the package's words.

    The package asks mostly for what is not there, and half of its questions are negated: what "yes" means to "is there not a
    circle?" is anyone's guess, so these are left out.
    """
    if value is None:
        return
    other = stream.choice([v for v in values if v != value])
    for named, answer in ((value, "yes"), (other, "no")):
        bench.tasks["yes-no"].add(split, key, stream.choice(ask.IS_THERE).format(thing.format(named)), answer)
