"""easy-vqa: one colored shape an image, with the package's own questions (synthetic, by its author)."""

import json
import os

import pretraining as ask
from benchmark import Stream

_TRAIN_IMAGES, _HELD_OUT_IMAGES = 2200, 125
_COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
_SHAPES = ("circle", "rectangle", "triangle")


def build(bench, packages):
    data = os.path.join(packages, "easy-vqa", "easy_vqa", "data")
    yes_no = {}
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
            _ask_attributes(bench, split, key, questions[image])
            for question, answer in questions[image]:
                if answer in ("yes", "no"):
                    yes_no.setdefault((split, *_meaning(question)), {}).setdefault(answer, []).append((key, question))
    _ask_yes_no(bench, yes_no)


def _ask_attributes(bench, split, key, questions):
    """One question about the color and one about the form."""
    stream = Stream("easy-vqa", "questions", key)
    for kind, more in (("color", ask.SHAPE_COLOR), ("shape", ask.SHAPE)):
        fitting = [qa for qa in questions if qa[1] not in ("yes", "no") and (qa[1] in _SHAPES) == (kind == "shape")]
        if fitting:
            question, answer = stream.choice(fitting)
            bench.tasks["attributes"].add(split, key, stream.choice(more) if stream.chance(0.4) else question, answer)


def _meaning(question):
    """(what is asked for, whether its absence is asked for)."""
    words = question.rstrip("?").split()
    subject = next(word for word in words if word in _SHAPES or word in _COLORS)
    return subject, "not" in words or "no" in words


def _ask_yes_no(bench, yes_no):
    """As many yes as no of each meaning: the package's own questions mostly ask for what is not there."""
    for meaning in sorted(yes_no):
        answers = yes_no[meaning]
        number = min(len(answers.get("yes", [])), len(answers.get("no", [])))
        for answer in ("no", "yes"):
            for key, question in Stream("yes-no", answer, *map(str, meaning)).sample(answers.get(answer, []), number):
                bench.tasks["yes-no"].add(meaning[0], key, question, answer)
