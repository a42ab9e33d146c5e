"""Makes digits.bin and sentences.tsv, byte for byte, out of two wheels:

    pip download --no-deps scikit-learn==1.9.1 django==5.2.19
    python make_data.py scikit_learn-*.whl django-*.whl
"""

import gzip
import html
import random
import re
import sys
import zipfile

LANGUAGES = "cs de es fr it nl pl sv".split()
# Fixed when the file was made: a sentence that also occurs in one of these catalogues is left to the first.
CATALOGUES = "cs da de es fi fr it pl pt sv nl hu tr ro".split()
PER_LANGUAGE = 170

sklearn, django = (zipfile.ZipFile(path) for path in sys.argv[1:3])

# 64 pixels from 0 to 16 and the label, a byte each.
digits = bytearray()
for line in gzip.decompress(sklearn.read("sklearn/datasets/data/digits.csv.gz")).decode().split():
    values = [int(float(x)) for x in line.split(",")]
    assert len(values) == 65 and max(values[:64]) <= 16 and values[64] < 10
    digits += bytes(values)
open("digits.bin", "wb").write(digits)


def unquote(text):
    return re.sub(r"\\(.)", lambda m: {"n": " ", "t": " "}.get(m[1], m[1]), text)


def messages(catalogue):
    """The translations of a .po file, without those marked fuzzy."""
    for block in re.split(r"\n\s*\n", catalogue):
        if re.search(r"^#,.*fuzzy", block, re.M):
            continue
        key, fields = None, {}
        for line in block.split("\n"):
            field = re.match(r'(msgid_plural|msgid|msgstr(?:\[\d\])?|msgctxt)\s+"(.*)"$', line.strip())
            if field:
                key = field[1]
                fields[key] = field[2]
            elif key and line.strip().startswith('"'):
                fields[key] += line.strip()[1:-1]
        if fields.get("msgid"):
            yield from (unquote(text) for key, text in fields.items() if key.startswith("msgstr"))


def clean(text):
    """Without markup, placeholders and addresses."""
    text = re.sub(r"<[^>]*>", " ", html.unescape(text))
    text = re.sub(r"%\([^)]*\)[a-z]|%[sdr]|\{[^}]*\}|%%", " ", text)
    text = re.sub(r"https?://\S+|\S*\.html\S*", " ", text)
    text = text.replace("\u2026", "...").replace("\u200b", "").replace("\xad", "")
    return re.sub(r"\s+", " ", text).strip()


def is_sentence(text):
    return 40 <= len(text) <= 400 and sum(c.isalpha() or c == " " for c in text) / len(text) >= 0.85


seen, sentences = set(), {}
for language in CATALOGUES:
    own = {}
    for name in sorted(django.namelist()):
        if name.endswith(f"/locale/{language}/LC_MESSAGES/django.po"):
            for text in filter(is_sentence, map(clean, messages(django.read(name).decode()))):
                key = re.sub(r"\W", "", text.lower())
                if key not in seen:
                    own.setdefault(key, text)
    seen |= own.keys()
    sentences[language] = list(own.values())

with open("sentences.tsv", "w", encoding="utf8") as out:
    for language in LANGUAGES:
        random.Random(1).shuffle(sentences[language])
        out.writelines(f"{language}\t{text}\n" for text in sentences[language][:PER_LANGUAGE])
