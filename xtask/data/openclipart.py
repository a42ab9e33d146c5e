"""Openclipart drawings: captions, topics, keywords and colors for pre-training; described drawings as a downstream task.

Packages: openclipart-svg (titles, descriptions, keywords, licences), openclipart-png (pictures), wamerican (English words:
titles and descriptions with any other word are left out, as many drawings are titled in Italian or French).
"""

import html
import os
import re
from collections import Counter
from dataclasses import dataclass

import pretraining as ask
from benchmark import Stream, split_by_name
from pictures import load, on_ground, sides, trimmed, webp
from unwanted import unwanted

# Icons, patterns, flags and series whose titles do not say what a picture shows.
_SKIPPED_FOLDERS = (
    "computer/icons", "computer/buttons", "computer/folders", "shapes/", "special", "unsorted", "logos", "buttons",
    "signs_and_symbols/flags", "signs_and_symbols/led", "signs_and_symbols/map", "tools/weapons",
    "transportation/aiga", "transportation/roadsigns", "geography", "recreation/religion",
)
# English words as titles that are another language, a person, a series or a format.
_SKIPPED_TITLES = {
    "advertising", "al bar", "as pique", "autos", "az lizard", "b w tiger", "bad guy fr", "card", "discordian", "don't panic",
    "elder sign", "eris", "eris apple", "ex", "faces", "flan", "font samples", "hummer", "icons", "io", "karl", "lana", "m",
    "mascot", "olivier one", "otto", "ours", "panel", "pastas", "photo", "profile", "r general", "sim", "silvia", "sole",
    "etiquette icons", "pc connectors", "what's up doc", "people", "self portrait", "hide girl", "dossier", "crop marks",
    "color tiger", "lovely baby", "a youngster", "adult", "air", "chomper", "karate kick", "reaching", "running free", "quay sign",
    "creation day number", "close hauled", "route", "model view controller", "map symbols", "user", "jazz", "road signs",
    "trip to the beach", "reunion", "tamerlane chess", "female silhouette", "male silhouette", "elfish girl", "enthusiast",
    "electric lighter", "probability from to", "part of the flat icon collection", "menu clip art collection example",
    "diner menu collection", "tack diagram", "jibe diagram", "points of sail", "etiquette cd rom", "switch hp stack xx",
    "switch hp", "switch cisco", "router cisco", "boating rules illustration", "knot illustration", "linux powered", "the incredible tux",
    "card figures", "gnu linux disco dance", "hearth", "tree whit fruits", "network could", "envelop", "pan cakes", "pc box",
    "andalusia", "argentina", "armenia", "italy", "sweden", "denmark jutland", "pitcairn islands", "cartoon vgcats fanart",
    "for sale sign template", "natural gas pump well", "logic functions", "package handling symbols", "blazer", "green burner",
    "orange burner", "trumpet stylized symbol", "keep tidy inside", "keep tidy outside", "keep tidy empty", "rich young man counting",
    "rich young man going away sad", "half star rating", "one star rating", "two star rating", "one and a half star rating",
    "two and a half star rating", "zero stars", "three eyes", "yet another chess game", "canada new brunswick", "ex",
}
_NOT_A_DESCRIPTION = re.compile(
    r"[@:/\[\]\d]|hash|http|inkscape|sodipodi|created|clip ?art|icon|svg|vector|part of|collection|derived|traced|drawn|drew|"
    r"made|logo|licen[sc]e|\bmy\b|^for |www|version|based on|unused|\beps\b|public domain|flavor|malformed|\bhate\b|ideal|"
    r"\benjoy\b|detailed image|come back|good for|your?\b|add-these|appeared on|illustration \d|scientific|converted|"
    r"^symbol of|\bi\b|donna|known as|font samples|package|residential|different kind|blowing ball|close hauled|^normal |^generic "
)

# Drawn as "Linked Image Not Found".
_LINKED_PICTURE = re.compile(r"<image\b[^>]*href=\"(?!data:)")
# Some drawings unfold to gigabytes.
_LONGEST_SIDE = 3000


@dataclass(frozen=True)
class Drawing:
    """One picture of the collection."""

    path: str
    png: str
    title: str
    description: str
    keywords: tuple
    series: str
    topic: str


def _metadata(text):
    """Title, description, keywords and licence of an SVG file; tolerant, as many files are not well-formed."""
    block = re.search(r"<metadata.*?</metadata>", text, re.S)
    block = block.group(0) if block else ""
    work = re.search(r"<(?:cc:)?Work.*?</(?:cc:)?Work>", block, re.S)
    work = work.group(0) if work else block

    def field(pattern):
        found = re.search(pattern, work, re.S)
        return _spaces(html.unescape(re.sub("<[^>]+>", "", found.group(1)))) if found else ""

    keywords = [_spaces(html.unescape(word)) for word in re.findall(r"<rdf:li>(.*?)</rdf:li>", work, re.S)]
    licence = re.search(r'<(?:cc:)?license[^>]*rdf:resource="([^"]*)"', block)
    return (
        field(r"<dc:title>(.*?)</dc:title>"), field(r"<dc:description>(.*?)</dc:description>"), keywords,
        licence.group(1) if licence else "",
    )


def _spaces(text):
    return re.sub(r"\s+", " ", text).strip()


def _clean_title(title):
    title = re.sub(r"\(.*?\)", " ", re.sub(r"[_\-]+", " ", title))
    title = re.sub(r"([A-Za-z])\d+\b", r"\1", title)
    title = re.sub(r"\b(\d+|I{2,3}|IV|BW|bw|mo|jr|Jr|r[12])\b", " ", title)
    return _spaces(re.sub(r"[^A-Za-z' ]", " ", title)).lower()


def _clean_description(text, english):
    """A description of 2 to 12 English words, or nothing."""
    if not text.isascii():
        return ""
    text = re.sub(r"\(.*?\)", " ", re.split(r"(?<=[a-z])[.;!]+(?: |$)|\.\.\.", text)[0])
    text = _spaces(text).strip(" .!;,").lower()
    text = re.sub(r"^this is (the |an? )", r"\1", text)
    words = re.findall(r"[a-z']+", text)
    if not 2 <= len(words) <= 12 or _NOT_A_DESCRIPTION.search(text) or not all(word in english for word in words):
        return ""
    return text


def drawings(packages):
    """The drawings that may be used, sorted by path: public domain, an English title, nothing unwanted."""
    svg = os.path.join(packages, "openclipart-svg", "usr", "share", "openclipart", "svg")
    png = os.path.join(packages, "openclipart-png", "usr", "share", "openclipart", "png")
    with open(os.path.join(packages, "wamerican", "usr", "share", "dict", "american-english"), encoding="utf-8") as file:
        english = {word.strip().lower() for word in file}
    found = []
    for folder, _, names in os.walk(svg):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), svg).removesuffix(".svg")
            picture = os.path.join(png, path + ".png")
            if not name.endswith(".svg") or path.startswith(_SKIPPED_FOLDERS) or not os.path.exists(picture):
                continue
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                text = file.read()
            if _LINKED_PICTURE.search(text):
                continue
            title, description, keywords, licence = _metadata(text)
            keywords = [word.lower() for word in keywords]
            series = ", ".join(sorted(set(keywords)))
            title = _clean_title(title)
            known = title and all(word in english for word in title.split()) and title not in _SKIPPED_TITLES
            if not known or "publicdomain" not in licence.lower() or "/GPL" in licence:
                continue
            if unwanted(title) or unwanted(path) or unwanted(description) or any(map(unwanted, keywords)):
                continue
            if max(sides(picture)) > _LONGEST_SIDE:
                continue
            keywords = [w for w in keywords if re.fullmatch(r"[a-z]{3,}( [a-z]+)?", w) and w != title and "hash" not in w]
            keywords = [w for w in dict.fromkeys(keywords) if all(part in english for part in w.split())]
            topic = path.split("/")[0].replace("_", " ")
            found.append(Drawing(path, picture, title, _clean_description(description, english), tuple(keywords[:3]), series, topic))
    return sorted(found, key=lambda d: d.path)


def _distinct(found, text_of):
    """One drawing of each picture file and at most four of each text."""
    seen, texts, kept = set(), Counter(), []
    for drawing in found:
        with open(drawing.png, "rb") as file:
            content = file.read()
        text = text_of(drawing)
        if content in seen or texts[text] == 4:
            continue
        seen.add(content)
        texts[text] += 1
        kept.append(drawing)
    return kept


def _caption(drawing):
    """What a person wrote about the drawing beyond naming it: a description, or a title of three words and more."""
    if drawing.description:
        return drawing.description
    return drawing.title if len(drawing.title.split()) >= 3 else ""


def build(bench, packages):
    """Adds the pre-training records and the task `drawings`; returns (key, split, picture) for the color questions."""
    found = _distinct(drawings(packages), lambda d: (d.title, d.description))
    described, plain = [], []
    titles = Counter(d.title for d in found)
    for drawing in found:
        # A title that many drawings share stays in pre-training as a whole.
        held_out = _caption(drawing) and titles[drawing.title] <= 4
        (described if held_out else plain).append(drawing)
    _build_drawings(bench, described)
    splits = _series_splits(plain)
    pictures = []
    for drawing in plain:
        picture = trimmed(load(drawing.png))
        key = bench.put(f"openclipart/{drawing.path}", webp(on_ground(picture, margin=3)))
        if key is None:
            continue
        split = splits[drawing.path]
        bench.tasks["caption"].add(split, key, ask.CAPTION, drawing.title)
        bench.tasks["group"].add(split, key, ask.TOPIC, drawing.topic)
        if len(drawing.keywords) > 1:
            bench.tasks["keywords"].add(split, key, ask.KEYWORDS, ", ".join(drawing.keywords))
        pictures.append((key, split, picture))
    return pictures


def _series_splits(found):
    """Path -> split. Drawings with the same title or the same keywords are often variants of one: they stay together."""
    first = {}

    def root(name):
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    for drawing in found:
        names = ["title " + drawing.title]
        if drawing.series.count(",") >= 2:
            names.append("series " + drawing.series)
        roots = sorted(root(name) for name in names)
        for name in roots[1:]:
            first[name] = roots[0]
    return {drawing.path: split_by_name("openclipart", root("title " + drawing.title), val=0.08, test=0.08) for drawing in found}


def _build_drawings(bench, described):
    """All drawings with one title or one caption are in one split."""
    task = bench.task("drawings", "Captions of drawings by people", "downstream", "rouge-l")
    groups = {}
    for drawing in described:
        name = groups.get(("caption", _caption(drawing)), groups.get(("title", drawing.title), []))
        groups[("caption", _caption(drawing))] = groups[("title", drawing.title)] = name
        name.append(drawing)
    distinct = {id(group): group for group in groups.values()}
    together = sorted(distinct.values(), key=lambda group: group[0].path)
    total = len(described)
    limits = {"test": total // 4, "val": total // 8}
    filled = Counter()
    for group in Stream("drawings").shuffled(together):
        split = next((s for s in ("test", "val") if filled[s] < limits[s]), "train")
        for drawing in group:
            key = bench.put(f"openclipart/{drawing.path}", webp(on_ground(trimmed(load(drawing.png)), margin=3)))
            if key is not None:
                task.add(split, key, ["Tell in a few words what was drawn here.", "What did the artist draw?",
                                      "Put the drawing into words."], _caption(drawing))
                filled[split] += 1
