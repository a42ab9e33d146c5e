"""Words drawn large in many fonts and colors: reading for pre-training, and signs as a downstream task (synthetic)."""

import glob
import os
import string

import pretraining as ask
from PIL import Image, ImageDraw

from benchmark import Stream, split_by_count
from pictures import SIDE, contrasting, draw_centred, fit_font, webp

# A closed vocabulary of common words of three to six letters; color, number and genre words among them.
VOCABULARY = """
    red blue green yellow black white pink orange
    one two three four five six seven eight nine ten
    drama comedy action horror
    cat dog cow pig horse sheep goat duck fish frog snake mouse lion tiger bear wolf fox monkey zebra whale bee ant owl
    apple pear lemon grape banana tomato bread cake egg cheese milk juice tea water soup rice pizza salad honey candy
    sun moon star sky cloud rain snow wind fire ice sea lake river beach forest tree leaf flower
    house door window roof room bed table chair sofa lamp clock mirror garden bridge church school shop market bank hotel street
    car bus train truck bike boat ship plane taxi rocket
    hat coat shirt shoe ring crown bag hand foot head eye ear nose
    ball doll toy game drum piano music book page pen paper map key box cup phone radio
    run walk jump swim open close big small hot cold old new day night left right
""".split()
VOCABULARY = sorted({word for word in VOCABULARY if 3 <= len(word) <= 6})
# Genres of films come twice as often, the longer ones too: they are asked for in posters.
GENRES = ["action", "adventure", "comedy", "drama", "horror", "musical", "romance", "thriller", "western"]

_IMAGES_PER_WORD, _HELD_OUT = 19, 165


def fonts(packages):
    """Upright text fonts of weights that stay legible, sorted by file name."""
    found = []
    for path in glob.glob(os.path.join(packages, "fonts-*", "**", "*.[to]tf"), recursive=True):
        name = os.path.basename(path)
        if any(part in name for part in ("Italic", "Oblique", "Thin", "Hairline", "Light")):
            continue
        found.append(path)
    return sorted(found, key=os.path.basename)


def word_picture(stream, faces, word):
    """The word over the full width, upright, in two colors that contrast."""
    ground, ink = contrasting(stream)
    image = Image.new("RGB", (SIDE, SIDE), ground)
    written = word if stream.chance(0.6) else word.upper() if stream.chance(0.6) else word.capitalize()
    face = fit_font(stream.choice(faces), written, SIDE - stream.between(6, 14), SIDE - 30)
    free = (SIDE - (face.getbbox(written)[3] - face.getbbox(written)[1])) // 2 - 3
    draw_centred(image, written, face, ink, (SIDE / 2, SIDE / 2 + stream.between(-free // 2, free // 2)))
    return image


def build(bench, packages):
    faces = fonts(packages)
    stream = Stream("words")
    often = {word: 2 * _IMAGES_PER_WORD for word in GENRES}
    wanted = [(word, i) for word in sorted({*VOCABULARY, *GENRES}) for i in range(often.get(word, _IMAGES_PER_WORD))]
    for (word, i), split in split_by_count(stream, wanted, _HELD_OUT, _HELD_OUT):
        picture = word_picture(Stream("words", word, str(i)), faces, word)
        key = bench.put(f"words/{word}-{i}", webp(picture))
        if key is not None:
            bench.tasks["words"].add(split, key, ask.WORDS, word)


def build_signs(bench, packages):
    """White on black with a frame: known words in a style of their own, and single letters, which are new."""
    task = bench.task("letters", "Letters and words on signs", "downstream", synthetic=True)
    faces = fonts(packages)
    texts = [("letter", letter) for letter in string.ascii_uppercase]
    texts += [("word", word) for word in Stream("letters", "words").sample(VOCABULARY, 60)]
    wanted = [(kind, text, i) for kind, text in texts for i in range(10 if kind == "letter" else 6)]
    for (kind, text, i), split in split_by_count(Stream("letters"), wanted, 120, 70):
        stream = Stream("letters", text, str(i))
        tone = stream.between(0, 40)
        image = Image.new("RGB", (SIDE, SIDE), (tone, tone, tone))
        inset = stream.between(3, 6)
        ImageDraw.Draw(image).rectangle((inset, inset, SIDE - 1 - inset, SIDE - 1 - inset), outline=(235, 235, 235), width=2)
        written = text.upper()
        size = stream.between(46, 64) if kind == "letter" else SIDE - 2 * inset - stream.between(10, 16)
        face = fit_font(stream.choice(faces), written, size, size)
        draw_centred(image, written, face, (255, 255, 255), (SIDE / 2 + stream.between(-2, 2), SIDE / 2 + stream.between(-8, 8)))
        key = bench.put(f"letters/{text.lower()}-{i}", webp(image))
        if key is not None:
            question = ["Which letter is on the sign?", "Name the letter on the sign."] if kind == "letter" else [
                "Read the sign.", "What does the sign say?"]
            task.add(split, key, question, text.lower())
