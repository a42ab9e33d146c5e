"""README.md and LICENSE of each folder of pictures, and LICENSE of the text benchmark."""

import glob
import os
import textwrap

_MIT = """MIT License

Copyright (c) {holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

_PROJECT = """The pictures in this folder were drawn by this project's recipe (xtask/data). Like the project they may be used under the
MIT licence or the Apache License, Version 2.0, at your choice; both texts are in the root of the repository.
"""

_ART4APPS = """The pictures in this folder are adapted from Art4Apps.

"Art4Apps is a database of images and audio files of words created by Smart4Kids under a Creative Commons License (CC BY-SA)"
http://www.art4apps.org/

The pictures here are therefore under the same licence: Creative Commons Attribution-ShareAlike. The package that carries them
names no version of the licence; version 3.0 is at https://creativecommons.org/licenses/by-sa/3.0/legalcode.
You may share and adapt them if you name Art4Apps and Smart4Kids, say what you changed, and pass them on under the same licence.
Changed here: scaled to 96x96 pixels and saved as WebP.

This licence covers this folder only; the questions about the pictures and the program are not adapted from them.
"""


def _read(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


def _fonts(packages):
    names = sorted(os.path.basename(f) for f in glob.glob(os.path.join(packages, "fonts-*")) if os.path.isdir(f))
    return "Drawn with the fonts of the Debian 12 packages " + ", ".join(names) + ", which permit it."


def _folders(packages):
    """Folder -> (text of README.md, text of LICENSE)."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    apache = _read(root, "LICENSE-APACHE")
    noto = (
        "The pictures come from Noto Emoji, Copyright Google Inc., under the Apache License, Version 2.0, the text of which "
        "follows after the notices of the packages that carry the pictures (emoji-datasource-google), the names "
        "(unicode-emoji-json) and the keywords (emojilib)."
    )
    noto = textwrap.fill(noto, 120) + "\n\n"
    for package in ("emoji-datasource-google", "unicode-emoji-json", "emojilib"):
        noto += f"--- {package} ---\n\n{_read(packages, package, 'LICENSE').strip()}\n\n"
    noto += "--- Noto Emoji ---\n\n" + apache
    microsoft = "The pictures come from Fluent Emoji.\n\n" + _MIT.format(holder="Microsoft Corporation")
    doc = os.path.join("usr", "share", "doc")
    scaled = "Changed: flattened on white, scaled to 96x96 pixels, saved as WebP"
    return {
        "noto": (
            "Noto emoji of the npm package emoji-datasource-google 16.0.0 (Apache-2.0; the package itself MIT), with names of "
            "unicode-emoji-json 0.9.0 and keywords of emojilib 4.0.3 (both MIT). " + scaled + ". Weapons, alcohol, tobacco and "
            "rude gestures are left out.", noto),
        "openclipart": (
            "Drawings of the Open Clip Art Library, release 0.18, from the Debian 12 packages openclipart-png and "
            "openclipart-svg 1:0.18+dfsg-19 (titles, descriptions, keywords and licences from the SVG files). Only files that "
            "are dedicated to the public domain, with English titles. " + scaled + ", empty borders cut off.",
            _read(packages, "openclipart-svg", doc, "openclipart-svg", "copyright")),
        "easy-vqa": (
            "Images of the PyPI package easy-vqa 1.0 by Victor Zhou (MIT), unchanged. SYNTHETIC: one colored shape each, drawn "
            "by that package's author. Its yes/no questions are thinned out so that yes and no are equally frequent.",
            _read(packages, "easy-vqa", "easy_vqa-1.0.dist-info", "LICENSE")),
        "words": ("SYNTHETIC: words drawn by this project in two random colors. " + _fonts(packages), _PROJECT),
        "letters": ("SYNTHETIC: letters and words drawn by this project, white on black. " + _fonts(packages), _PROJECT),
        "posters": (
            "SYNTHETIC: film posters drawn by this project, with titles and genres of films (facts) from movies.json of the npm "
            "package vega-datasets 3.2.1. They are not the films' posters. " + _fonts(packages), _PROJECT),
        "counting": (
            "SYNTHETIC arrangements of real pictures: one to six equal Noto emoji (npm package emoji-datasource-google 16.0.0, "
            "Apache-2.0) on a light ground, placed by this project.", noto),
        "fluent": (
            "Fluent emoji, 3D style, by Microsoft (MIT), of the npm package @lobehub/fluent-emoji-3d 1.1.0. " + scaled + ". The "
            "concepts are those of the training pictures in `noto`.", microsoft),
        "scenes": (
            "SYNTHETIC arrangements of real pictures: Fluent emoji, 3D style, by Microsoft (MIT), of the npm package "
            "@lobehub/fluent-emoji-3d 1.1.0, placed by this project on a colored ground.", microsoft),
        "art4apps": (
            "Pictures of Art4Apps by Smart4Kids (CC BY-SA), from the Debian 12 package pysiogame 4.20.01-1. Changed: scaled to "
            "96x96 pixels, saved as WebP.", _ART4APPS),
        "flags": (
            "Flags of the Debian 12 package iso-flags-png-320x240 1.0.2-2 (public domain). " + scaled + ". Colors are computed "
            "from the pixels; continents come from the time zones of the PyPI package tzdata 2025.2 (public domain).",
            _read(packages, "iso-flags-png-320x240", doc, "iso-flags-png-320x240", "copyright")),
    }


def write(bench, packages, folder):
    written = _folders(packages)
    sources = {key.split("/")[0] for key in bench.used_by("pretraining") | bench.used_by("downstream")}
    assert sources == set(written), sources ^ set(written)
    for source, (readme, licence) in written.items():
        for name, text in (("README.md", f"# {source}\n\n{textwrap.fill(readme, 120, break_on_hyphens=False)}\n"), ("LICENSE", licence)):
            with open(os.path.join(folder, source, name), "w", encoding="utf-8", newline="\n") as out:
                out.write(text.rstrip("\n") + "\n")


def write_text(packages, folder):
    """LICENSE of the benchmark without pictures: the notices of the packages that its facts and words come from."""
    doc = os.path.join("usr", "share", "doc", "wamerican-small", "copyright")
    named = ("countries-list", "i18n-iso-countries", "i18n-nationality", "unicode-emoji-json", "emojilib", "emoji-datasource-google")
    files = [(package, "LICENSE") for package in named] + [("wamerican-small", doc)]
    text = (
        "Titles and genres of films are facts from vega-datasets 3.2.1. The notices of the other packages follow."
    )
    text = textwrap.fill(text, 120) + "\n\n"
    for package, file in files:
        text += f"--- {package} ---\n\n{_read(packages, package, file).strip()}\n\n"
    with open(os.path.join(folder, "LICENSE"), "w", encoding="utf-8", newline="\n") as out:
        out.write(text.rstrip("\n") + "\n")
