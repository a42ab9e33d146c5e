"""Film posters drawn from real titles and genres (package vega-datasets, movies; the posters are synthetic)."""

import json
import os
from collections import Counter

from PIL import Image, ImageDraw

from benchmark import Stream, split_by_count
from pictures import SIDE, contrasting, draw_centred, fit_font, webp
from unwanted import unwanted
from words import GENRES, fonts

_GENRE_WORDS = {
    "Drama": "drama", "Comedy": "comedy", "Action": "action", "Horror": "horror", "Adventure": "adventure",
    "Thriller/Suspense": "thriller", "Romantic Comedy": "romance", "Musical": "musical",
}
_QUESTIONS = ["Which genre is the film on this poster?", "What sort of film is advertised?", "Which shelf does this film go on?"]
_MOST, _LEAST = 85, 40


def films(packages):
    """(title, genre word) of films whose title is short enough to be drawn, sorted."""
    with open(os.path.join(packages, "vega-datasets", "data", "movies.json"), encoding="utf-8") as file:
        movies = json.load(file)
    found = set()
    for movie in movies:
        title, genre = movie.get("Title"), _GENRE_WORDS.get(movie.get("Major Genre"))
        if isinstance(title, str) and genre and title.isascii() and 2 <= len(title) <= 28 and not unwanted(title):
            found.add((title, genre))
    return sorted(found)


def _two_lines(title):
    words = title.split()
    best = min(range(1, len(words) + 1), key=lambda i: max(len(" ".join(words[:i])), len(" ".join(words[i:]))))
    return [line for line in (" ".join(words[:best]), " ".join(words[best:])) if line]


def _poster(stream, faces, title, genre):
    ground, ink = contrasting(stream)
    image = Image.new("RGB", (SIDE, SIDE), ground)
    if stream.chance(0.5):
        band = tuple(stream.between(60, 200) for _ in range(3))
        ImageDraw.Draw(image).rectangle((0, 40, SIDE, 43), fill=band)
    lines = _two_lines(title)
    face = stream.choice(faces)
    title_font = min((fit_font(face, line, SIDE - 8, 15) for line in lines), key=lambda f: f.size)
    for row, line in enumerate(lines):
        draw_centred(image, line, title_font, ink, (SIDE / 2, 12 + 17 * row + (8 if len(lines) == 1 else 0)))
    written = genre.upper() if stream.chance(0.5) else genre
    draw_centred(image, written, fit_font(stream.choice(faces), written, SIDE - 8, 34), ink, (SIDE / 2, 69 + stream.between(-4, 4)))
    return image


def build(bench, packages):
    assert set(_GENRE_WORDS.values()) <= set(GENRES)
    task = bench.task("posters", "Genre on film posters", "downstream", synthetic=True)
    faces = fonts(packages)
    all_films = films(packages)
    number = Counter(genre for _, genre in all_films)
    titles = Counter(title for title, _ in all_films)
    chosen = []
    for genre in sorted(g for g in number if number[g] >= _LEAST):
        of_genre = [film for film in all_films if film[1] == genre and titles[film[0]] == 1]
        chosen += Stream("posters", genre).sample(of_genre, _MOST)
    for i, ((title, genre), split) in enumerate(split_by_count(Stream("posters"), chosen, 120, 70)):
        picture = _poster(Stream("posters", title, genre), faces, title, genre)
        key = bench.put(f"posters/{i:04}", webp(picture, 70))
        if key is not None:
            task.add(split, key, _QUESTIONS, genre)
