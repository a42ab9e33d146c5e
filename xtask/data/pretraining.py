"""The pre-training tasks and the phrasings of their instructions. Several sources feed one task."""

CAPTION = [
    "Describe the image.", "Write a short caption.", "What does the picture show?", "What is in the image?",
    "Give a short description of the picture.", "Name what you see.",
]
GROUP = [
    "Which group does this belong to?", "To which group does the picture belong?", "Name the group of this picture.",
    "In which group would you put this?",
]
SUBGROUP = [
    "What kind of thing is shown?", "What kind of thing is this?", "Which kind of thing do you see?",
    "Name the kind of thing in the picture.",
]
TOPIC = [
    "What is the topic of this drawing?", "Which topic does the drawing have?", "Name the topic of the drawing.",
    "What is this drawing about?",
]
KEYWORDS = [
    "List some keywords for the image.", "Give keywords for this picture.", "Which words describe the image?",
    "Tag the picture.",
]
SHAPE_COLOR = ["what color does the shape have?", "name the color of the shape.", "which color do you see?"]
SHAPE = ["which shape do you see?", "name the shape.", "what is the shape in the picture?"]
IS_THERE = [
    "is there a {}?", "is a {} present?", "does the image contain a {}?", "is there a {} in the image?",
]
WORDS = [
    "What word is written?", "Which word is shown?", "Read the word.", "What does the text say?", "What is written here?",
]
COUNT = [
    "How many things are there?", "Count the things in the picture.", "How many pictures do you see?",
    "What is the number of things?",
]
COUNT_NAMED = ["How many {} pictures are there?", "Count the {} pictures.", "How often does the {} appear?"]
MAIN_COLOR = [
    "What is the main color?", "Which color is the thing?", "Name the main color of the picture.",
    "What color does it have?",
]


def declare(bench):
    """Adds the empty tasks in the order of benchmark.json."""
    pre = "pretraining"
    bench.task("caption", "Captions of emoji, drawings and shapes", pre, "rouge-l")
    bench.task("group", "Group, kind or topic of emoji and drawings", pre)
    bench.task("keywords", "Keywords of emoji and drawings", pre, "rouge-l")
    bench.task("color", "Main color of emoji, drawings and sets, from their pixels", pre)
    bench.task("yes-no", "Yes/no questions about a colored shape", pre, synthetic=True)
    bench.task("attributes", "Color or form of a shape", pre, synthetic=True)
    bench.task("words", "Reading a rendered word", pre, synthetic=True)
    bench.task("counting", "Counting equal emoji", pre, synthetic=True)


def add_colors(bench, pictures):
    """Color questions on (key, split, picture), of each color at most `most` so that none is the safe guess."""
    from benchmark import Stream
    from pictures import main_colour

    most, by_color = 230, {}
    for key, split, picture in pictures:
        color = main_colour(picture)
        if color is not None:
            by_color.setdefault(color, []).append((key, split))
    for color in sorted(by_color):
        for key, split in Stream("color", color).sample(by_color[color], most):
            bench.tasks["color"].add(split, key, MAIN_COLOR, color)
