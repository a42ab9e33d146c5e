"""Pixels: bringing pictures to the benchmark's size, drawing words, naming colours."""

import functools
import io

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

SIDE = 96
WHITE = (255, 255, 255)

# Light grounds for drawn scenes.
PASTELS = [
    (255, 255, 255), (245, 245, 220), (230, 240, 255), (255, 235, 238), (232, 245, 233), (255, 249, 196),
    (243, 229, 245), (224, 247, 250), (238, 238, 238), (255, 236, 214),
]


def load(path):
    with Image.open(path) as image:
        return image.convert("RGBA")


def sides(path):
    """Width and height, without decoding the picture."""
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as image:
        return image.size


def trimmed(image):
    """The picture without the empty border that many drawings have."""
    flat = Image.new("RGBA", image.size, (*WHITE, 255))
    flat.alpha_composite(image)
    box = ImageChops.difference(flat.convert("RGB"), Image.new("RGB", image.size, WHITE)).point(lambda v: v > 12 and 255).getbbox()
    return image.crop(box) if box else image


def on_ground(image, side=SIDE, ground=WHITE, margin=0):
    """The whole picture, centred on a square of one colour."""
    image = image.convert("RGBA")
    longest = max(image.size)
    square = Image.new("RGBA", (longest, longest), (*ground, 255))
    square.alpha_composite(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    inner = side - 2 * margin
    scaled = square.convert("RGB").resize((inner, inner), Image.LANCZOS, reducing_gap=3.0)
    if margin == 0:
        return scaled
    framed = Image.new("RGB", (side, side), ground)
    framed.paste(scaled, (margin, margin))
    return framed


@functools.lru_cache(maxsize=None)
def _cut_out(path):
    image = load(path)
    return image.crop(image.getchannel("A").getbbox() or (0, 0, *image.size))


def sprite(path, side):
    """A picture with its transparency, empty borders cut off, fitted into a square of `side` pixels."""
    image = _cut_out(path)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    fitted = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    fitted.alpha_composite(image.resize(size, Image.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return fitted


def webp(image, quality=75):
    """The picture as WebP: lossless where that is the smaller file, as it is for flat drawings."""
    files = []
    for options in ({"quality": quality}, {"lossless": True, "quality": 20}):
        out = io.BytesIO()
        image.convert("RGB").save(out, "WEBP", method=6, **options)
        files.append(out.getvalue())
    return min(files, key=len)


@functools.lru_cache(maxsize=None)
def font(path, size):
    # The basic layout: the other one uses a library of the system, which differs between machines.
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def fit_font(path, text, width, height):
    """The largest size at which the text's ink is within width × height."""
    for size in range(72, 7, -1):
        candidate = font(path, size)
        left, top, right, bottom = candidate.getbbox(text)
        if right - left <= width and bottom - top <= height:
            return candidate
    raise ValueError(f"{text!r} does not fit into {width}x{height} in {path}")


def draw_centred(image, text, face, colour, centre):
    left, top, right, bottom = face.getbbox(text)
    x, y = centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2
    ImageDraw.Draw(image).text((round(x), round(y)), text, font=face, fill=colour)


def contrasting(stream):
    """A dark colour and a light one, in either order: ground and ink."""
    dark = tuple(stream.between(0, 95) for _ in range(3))
    light = tuple(stream.between(170, 255) for _ in range(3))
    return (light, dark) if stream.chance(0.7) else (dark, light)


COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "gray", "white")
# Hues in degrees at which a color begins.
_HUES = ((15, "orange"), (43, "yellow"), (72, "green"), (175, "blue"), (258, "purple"), (312, "pink"), (345, "red"))


def colour_shares(image):
    """The share of each named colour among the pixels that are not transparent; unclear colours have no name.

    Hue, saturation and value decide, with borders chosen by eye.
    """
    rgba = np.asarray(image.convert("RGBA").resize((48, 48), Image.NEAREST), dtype=np.float32)
    rgb = rgba[rgba[..., 3] > 128][:, :3] / 255
    if len(rgb) == 0:
        return dict.fromkeys(COLOURS, 0.0)
    high, low = rgb.max(1), rgb.min(1)
    chroma = high - low
    safe = np.where(chroma == 0, 1, chroma)
    r, g, b = rgb.T
    hue = np.where(high == r, (g - b) / safe % 6, np.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4)) * 60
    saturation = np.where(high == 0, 0, chroma / np.where(high == 0, 1, high))
    names = np.full(len(rgb), "unclear")
    names[hue < 15] = "red"
    for start, name in _HUES:
        names[hue >= start] = name
    warm = (hue < 15) | (hue >= 330)
    names[warm & (saturation < 0.55) & (high > 0.75)] = "pink"
    earthy = (hue < 43) & (hue >= 12)
    names[earthy & (saturation < 0.65)] = "unclear"
    names[((hue < 43) & (high < 0.68) & (saturation < 0.9)) | (earthy & (high < 0.75))] = "brown"
    names[(saturation < 0.3) & (names != "pink") & (names != "brown")] = "unclear"
    gray = saturation < 0.12
    names[gray] = "gray"
    names[gray & (high > 0.88)] = "white"
    names[high < 0.2] = "black"
    return {name: float((names == name).mean()) for name in COLOURS}


def main_colour(image):
    """The colour that clearly dominates, or None.

    Outlines are black, lights white and shadows gray in any picture, so these need a larger share; a line drawing has none.
    """
    shares = colour_shares(image)
    name = max(COLOURS, key=lambda colour: shares[colour])
    if shares[name] < (0.75 if name in ("black", "gray", "white") else 0.6):
        return None
    coverage = float((np.asarray(image.convert("RGBA").getchannel("A")) > 128).mean())
    is_line_drawing = (name == "white" and shares["black"] > 0.03) or (name == "black" and coverage < 0.25)
    return None if is_line_drawing else name
