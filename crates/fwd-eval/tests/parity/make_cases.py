"""Makes the cases of the parity tests with the reference scorers: python make_cases.py (Java needed for words.json.gz).

    pip install --no-deps pycocoevalcap==1.2 anls==0.0.2 lmms-eval==0.7.3 numpy

BLEU, ROUGE-L and CIDEr-D come from pycocoevalcap, ANLS from the anls package, the normal form of TextVQA from the answer processor
of M4C in lmms-eval, words from the Stanford tokenizer inside pycocoevalcap, called as its ptbtokenizer.py calls it. The official
VQA evaluator is no package; `vqa_normal` and `vqa_accuracy` below state its rules (vqaEval.py of GT-Vision-Lab/VQA) with its own
regular expressions, independently of the Rust code. So do `m4c_accuracy`, `gqa_accuracy` and `iou` for the published rules, and
`choice` for the rule in the documentation of `chosen_option`, which has no published counterpart.

Each file is a JSON array with one case a line, compressed (look with zcat):
    normalise.json  [text, normal form]
    vqa.json        [prediction, [[answer, how many annotators]...], accuracy]
    captions.json   [caption, [references...], ROUGE-L, CIDEr-D, [BLEU-1...4]], tokens separated by spaces, one corpus
    bleu.json       [how many captions, [BLEU-1...4]] of corpora from the front of captions.json, of any size
    anls.json       [prediction, [answers...], ANLS]
    words.json      [text, words separated by spaces]
    m4c.json        [text, normal form]
    textvqa.json    [prediction, [[answer, how many annotators]...], accuracy], answers as they were typed
    choice.json     [prediction, [options...], place from 0 or null]
    gqa.json        [prediction, answer, accuracy]
    grounding.json  [prediction, unit, answer in pixels, [width, height], IoU, accuracy]
"""

import gzip
import importlib.metadata
import importlib.util
import json
import random
import re
import subprocess
import tempfile
from pathlib import Path

from anls import anls_score
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

HERE = Path(__file__).parent
WORDS = """a the an one two three none ten zero four man woman dog cat bus red blue green table sits on in with near of plays ball
street sign park old young holding white black water boat train people standing next to field grass baseball bat kitchen phone
skateboard wave surf hill snow clock tower pizza plate""".split()
SPELLINGS = """dont isnt it's whats couldn'tve couldnt've couldntve somebody'd somebodyd twas oclock o'clock hes she's shes lets
let's weve yall'd've ow's'at Im I'm Id've youve won't wont cant thats theres""".split()
TIES = [" ", " ", " ", ", ", "-", "/", " - ", "; ", ". ", ".", ": ", "_", "+", " & ", "'s ", "? ", "!", " (", ") ", '"', "\n", "\t", "  "]
NUMBERS = ["1,000", "3.5", "2", "10", ".5", "5.", "1,2", "100%", "$5", "12:30", "3,", "1st", "20's"]


def write(name, cases):
    assert len(cases) >= 1000, (name, len(cases))
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    (HERE / f"{name}.gz").write_bytes(gzip.compress(f"[\n{lines}\n]\n".encode(), mtime=0))


# ---- the VQA evaluator's rules

ARTICLES = {"a", "an", "the"}
DIGITS = {word: str(i) for i, word in enumerate("zero one two three four five six seven eight nine ten".split())} | {"none": "0"}
MARKS = [*';/[]"{}()=+\\_-><@`,?!']
FULL = """ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't
'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've""".split()
CONTRACTIONS = {full[:i] + full[i + 1 :]: full for full in FULL for i, c in enumerate(full) if c == "'"} | {"somebody'd": "somebodyd"}


def vqa_punctuation(text):
    out = text
    for mark in MARKS:
        gone = mark + " " in text or " " + mark in text or re.search(r"(\d)(\,)(\d)", text) is not None
        out = out.replace(mark, "" if gone else " ")
    # The evaluator passes re.UNICODE where the count belongs.
    return re.sub(r"(?!<=\d)(\.)(?!\d)", "", out, count=int(re.UNICODE))


def vqa_normal(text):
    text = vqa_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction, answers):
    """The annotators' answers get the punctuation step alone, and only where they differ."""
    prediction = vqa_normal(prediction)
    if len(set(answers)) > 1:
        answers = [vqa_punctuation(answer) for answer in answers]
    total = 0.0
    for i in range(len(answers)):
        others = answers[:i] + answers[i + 1 :]
        total += min(1.0, sum(answer == prediction for answer in others) / 3.0)
    return total / len(answers)


def raw_text(rng, longest):
    text = ""
    for _ in range(rng.randint(1, longest)):
        pool = rng.choices([WORDS, SPELLINGS, NUMBERS], [6, 2, 2])[0]
        word = rng.choice(pool)
        text += rng.choice([word, word, word.upper(), word.capitalize()]) + rng.choice(TIES)
    return text


def normalise_cases(rng):
    cases = [raw_text(rng, 5) for _ in range(1000)]
    cases += ["", " ", "the", "A", ".", "." * 40, "...a", "1,0", "x,1", "É à", "(a) b", "a(b)c", "\\", "`x` `y`", "<unk>", "a@b.c"]
    cases += [word for pair in CONTRACTIONS.items() for word in pair]
    return [[text, vqa_normal(text)] for text in dict.fromkeys(cases)]


# Published answers of VQAv2, VizWiz and TextVQA that the evaluators do not take for what they look like.
PUBLISHED = """a|the|A|an|?|two|ten|none|Stop|STOP|stop|its|it's|hes|t-shirt|tshirt|red,blue|red blue|5'10|.5|10.30|10:30|$5|5%|blue & white|
answering does not require reading text in the image|unanswerable|unsuitable|on left|the left|2 o'clock|2 oclock|n/a|1,000|U.S.A.""".replace("\n", "").split("|")


def vqa_cases(rng):
    """Annotations of which the first half is normal already and the second as people type; predictions as models write them."""
    normal = [text for text in (vqa_normal(raw_text(rng, 2)) for _ in range(2000)) if text and vqa_normal(text) == text]
    cases = []
    for i in range(2000):
        known = normal if i < 1000 else PUBLISHED + [raw_text(rng, 2) for _ in range(20)]
        pool = rng.sample(known, rng.randint(1, 4))
        answers = sorted(rng.choices(pool, rng.choices(range(1, 9), k=len(pool)), k=10))
        gold = rng.choice(pool)
        worn = [gold, gold.upper(), f"The {gold}.", f" {gold}\n", f"{gold}!", rng.choice(known)]
        prediction = rng.choice(worn)
        if prediction.strip():
            counts = [[answer, answers.count(answer)] for answer in dict.fromkeys(answers)]
            cases.append([prediction, counts, round(vqa_accuracy(prediction, answers), 9)])
    return cases


# ---- captions


def caption(rng, longest=12):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))


def changed(rng, text):
    words = text.split()
    for _ in range(rng.randint(0, 4)):
        i = rng.randrange(len(words) + 1)
        words[i : i + rng.randint(0, 2)] = rng.choices(WORDS, k=rng.randint(0, 2))
    return " ".join(words) or "a"


def caption_cases(rng):
    references = {i: [caption(rng)] for i in range(1000)}
    for texts in references.values():
        texts += [changed(rng, texts[0]) for _ in range(rng.choice([0, 0, 1, 1, 2, 4]))]
    candidates = {}
    for i, texts in references.items():
        kind = rng.random()
        candidates[i] = [caption(rng) if kind < 0.1 else texts[0] if kind < 0.2 else changed(rng, rng.choice(texts))]
    rouge = Rouge().compute_score(references, candidates)[1]
    cider = Cider().compute_score(references, candidates)[1]
    bleu = list(zip(*Bleu().compute_score(references, candidates, verbose=0)[1]))
    return [
        [candidates[i][0], references[i], round(float(rouge[i]), 9), round(float(cider[i]), 9), [round(score, 9) for score in bleu[i]]]
        for i in references
    ]


def bleu_cases(captions):
    """The corpus grows by one caption a case, so that one pass of the scorer serves all."""
    scorer = BleuScorer()
    cases = []
    for n, (caption, references, *_) in enumerate(captions, 1):
        scorer += (caption, references)
        cases.append([n, [round(score, 9) for score in scorer.recompute_score("closest")[0]]])
    return cases


# ---- answers read from images


def misread(rng, text):
    letters = list(text)
    for _ in range(rng.randint(0, max(2, len(letters) // 2))):
        i = rng.randrange(len(letters) + 1)
        letters[i : i + rng.randint(0, 1)] = rng.choices("abcdeilo0 ßÉ", k=rng.randint(0, 1))
    return "".join(letters)


def anls_cases(rng):
    cases = []
    while len(cases) < 1000:
        answers = [rng.choice([str.upper, str.title, str])(caption(rng, 3)) for _ in range(rng.randint(1, 3))]
        prediction = misread(rng, rng.choice(answers))
        if prediction.strip():
            cases.append([prediction, answers, round(anls_score(prediction, answers), 9)])
    return cases


# ---- words

SUBJECTS = """A man|Two men|The woman|A group of people|Mr. Smith|Dr. Jones's dog|The boy's dog|The boys' dogs|An old-fashioned bus|A T-shirt|
Someone (a girl)|St. Mary's church|J. Smith|The U.S. flag|Five o'clock: it|"Stop" sign|A black-and-white cat|3 men|1,000 birds|A 3-year-old|
He|They|It|The café|A 'no parking' sign|The dog’s owner|“Pizza Hut”|The #5 train|A man/woman|Mrs. O'Brien|Who|There|No. 12|The fig.""".split("|")
VERBS = """isn't|is|can't see|cannot see|won't eat|'s holding|'re watching|'ve seen|'ll take|'d like|is gonna ride|wanna play|couldn't've seen|has 2.5 of|
says "hello" to|sits - quietly - by|sits--alone--by|plays; then eats|, near a lake, sees|costs $5.00 at|is 50% of|leaves at 3:30 p.m. near|
leaves at 10:30pm for|@ the|& also|and/or|rides in the 1990's on""".replace("\n", "").split("|")
OBJECTS = """a hot-dog|the St. Louis Ave. sign|Washington D.C.|an R&B band|the no. 5 bus|Apt. no|the cat's tail|1/2 of the pizza|[a ball]|a ball,
a bat, and a glove|St. Mary|etc.|the Inc. building|it...|what?!|so many!!|the Dr.|number 7|ma'am|the 2nd floor|a 4x4|a 10-foot wave|the men's room|
Coca-Cola Co. cans|a b|vitamin C|itself|a place called "home"|you|naïve people|e.g. a dog|i.e. this|the end""".replace("\n", " ").split("|")


def stanford(texts):
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        # The tokenizer looks ahead over line ends: a line between keeps the texts apart.
        file.write("".join(f"{text}\nx\n" for text in texts))
        file.flush()
        command = ["java", "-Dfile.encoding=UTF-8", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
        lines = subprocess.run([*command, file.name], capture_output=True, check=True, encoding="utf-8").stdout.split("\n")[:-1:2]
    assert len(lines) == len(texts)
    return [" ".join(word for word in line.split(" ") if word not in ptbtokenizer.PUNCTUATIONS) for line in lines]


def word_cases(rng):
    texts = set()
    while len(texts) < 1000:
        subject, verb, thing = (rng.choice(part).strip() for part in (SUBJECTS, VERBS, OBJECTS))
        start = f"{subject}{verb}" if verb[0] in "'," else f"{subject} {verb}"
        end = rng.choice(["", ".", ".", ".", "!", "?", " .", ";"])
        second = rng.choice([f" {rng.choice(SUBJECTS).strip()} waits"] + [""] * 9)
        texts.add(rng.choice([str, str, str, str.lower])(f"{start} {thing}{end}{second}"))
    texts = sorted(texts)
    return [[text, words] for text, words in zip(texts, stanford(texts))]



# ---- TextVQA


def m4c_processor():
    """The class alone, without the package around it and what that needs."""
    files = importlib.metadata.files("lmms-eval")
    path = next(file for file in files if file.name == "vqa_eval_metric.py").locate()
    spec = importlib.util.spec_from_file_location("vqa_eval_metric", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EvalAIAnswerProcessor()


def m4c_accuracy(normal, prediction, answers):
    """Each annotator is left out in turn; a third of a point for each other one who gave the answer, at most one."""
    prediction, answers = normal(prediction), [normal(answer) for answer in answers]
    return sum(min(1, (answers.count(prediction) - (answer == prediction)) / 3) for answer in answers) / len(answers)


def m4c_cases(rng, normal):
    texts = [raw_text(rng, 5) for _ in range(1000)] + ["", "the", "1,000", "1,5-6", "what's?", "dogs'", "'s", "?s's", "a,", "(a) b", "İ ß"]
    texts += [word for pair in CONTRACTIONS.items() for word in pair]
    return [[text, normal(text)] for text in dict.fromkeys(texts)]


def textvqa_cases(rng, normal):
    """A blank prediction is left out: it scores 0 in the crate, on purpose."""
    cases = []
    while len(cases) < 1500:
        pool = [rng.choice([raw_text(rng, 2), rng.choice(PUBLISHED)]) for _ in range(rng.randint(1, 4))]
        answers = sorted(rng.choices(pool, rng.choices(range(1, 9), k=len(pool)), k=10))
        gold = rng.choice(pool)
        prediction = rng.choice([gold, gold.upper(), f"The {gold}.", f" {gold}\n", f"{gold}!", raw_text(rng, 2)])
        if prediction.strip():
            counts = [[answer, answers.count(answer)] for answer in dict.fromkeys(answers)]
            cases.append([prediction, counts, round(m4c_accuracy(normal, prediction, answers), 9)])
    return cases


# ---- multiple choice

CAPITAL = r"(?<![^\s*\"':])([A-Z])"
MARKED = [
    r"[(\[]([A-Za-z])[)\]]",
    CAPITAL + r"(?=[.):,](?:[\s*\"']|$))",
    CAPITAL + r"(?=[\r\n]|$)",
    r"(?i:(?<![^\W_])(?:answer|option|choice)(?: is)?[\W_]*)" + CAPITAL + r"(?![\w'’-])",
]
JOINED = r"(?<![^\W_])([A-Z])(?:\s+(?:or|and)\s+|\s*[/&]\s*)(?!\1)(?![AI] )[A-Z](?![^\W_])"


def choice_text(text):
    """As in the exact match of the crate: an answer that is nothing but articles keeps them."""
    plain = vqa_normal(text)
    return plain or " ".join(vqa_punctuation(text).lower().split()) or text.strip().lower()


def choice(text, options):
    place = {chr(ord("A") + i): i for i in range(len(options))}
    bare = re.fullmatch(r"[\W_]*([A-Za-z])[\W_]*", text)
    if bare and bare[1].upper() in place:
        return place[bare[1].upper()]
    lead = re.match(r"\s*(?:(?:the )?(?:correct )?answer is|(?:the )?answer:)(?=.*\S)", text, re.I | re.S)
    said = choice_text(text[lead.end() if lead else 0 :])
    equal = [i for i, option in enumerate(options) if said and choice_text(option) == said]
    if equal:
        return equal[0] if len(equal) == 1 else None
    text = text.strip()
    marked = {letter.upper() for rule in MARKED for letter in re.findall(rule, text)}
    if len(marked) != 1 or re.search(JOINED, text):
        return None
    return place.get(marked.pop())


FRAMES = """{}|({})|[{}]|{}.|{})|{}:|**{}**|"{}"|{}. {text}|({}) {text}|{}: {text}|The answer is {}|The answer is {}.|the correct answer is ({}).|Answer: {}|
Answer: **{}**|Option {} is right|The best choice is {} because it fits|I think {}|I choose {}!|{} or {other}|{}/{other}|({}) and ({other})|{}, {other}|
{} & {other}|The answer is {}, not {other}.|It is\n{}\nas shown|{text}|The {text}.|The answer is {text}|the answer: {text}|not the {text}|{other}|{text}s|A {text}|
{} {text}|The U.S. {text}|{}'s {text}|I am sure, {}|vitamin {}|{text}, or {}|  {} |{}\n|...|answer|The answer is|option {} and I like it""".split("|")


def choice_cases(rng):
    cases = []
    for _ in range(1200):
        options = [" ".join(rng.choices(WORDS, k=rng.randint(1, 3))) for _ in range(rng.randint(2, 6))]
        if rng.random() < 0.1:
            options[-1] = f"the {options[0]}"
        place = rng.randrange(len(options) + 1)
        letter, other = (chr(ord("A") + i) for i in (place, rng.randrange(6)))
        text = options[place % len(options)]
        frame = rng.choice(FRAMES).strip("\n") if rng.random() < 0.97 else "{}\n"
        prediction = frame.format(rng.choice([letter] * 4 + [letter.lower()]), text=rng.choice([text, text, text.capitalize()]), other=other)
        cases.append([prediction, options, choice(prediction, options)])
    return cases


# ---- GQA


def gqa_accuracy(prediction, answer):
    """LLaVA's converter writes the first, GQA's eval.py compares."""
    return float(prediction.strip().rstrip(".").lower() == answer)


def gqa_cases(rng):
    cases = []
    for _ in range(1000):
        answer = " ".join(rng.choices(WORDS, k=rng.randint(1, 2)))
        other = " ".join(rng.choices(WORDS, k=rng.randint(1, 2)))
        frames = ["{}", "{}.", " {}.\n", "{}..", "{} .", "The {}", "{}!", ".{}", "{}. It is.", "{}s"]
        case = rng.choice([str, str, str.upper, str.capitalize])
        prediction = case(rng.choice(frames).format(rng.choice([answer, answer, answer, other])))
        cases.append([prediction, answer, gqa_accuracy(prediction, answer)])
    return cases


# ---- grounding

BOXES = ["[{},{},{},{}]", "[{}, {}, {}, {}]", "[[{}, {}, {}, {}]]", "({},{}),({},{})", "<box>({},{}),({},{})</box>", "{} {} {} {}",
         "{{<{}><{}><{}><{}>}}", "The box is [{}, {}, {}, {}].", '{{"x1": {}, "y1": {}, "x2": {}, "y2": {}}}',
         "<|box_start|>({},{}),({},{})<|box_end|>"]
UNPARSABLE = ["[{}, {}, {}]", "[{}, {}, {}, {}, 1]", "on the left", "", "[{2}, {1}, {0}, {3}]", "[{0}, {3}, {2}, {1}]", "[{0}, {1}, {0}, {3}]"]


def iou(a, b):
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def grounding_cases(rng):
    cases = []
    while len(cases) < 1000:
        size = [rng.randint(50, 1000), rng.randint(50, 1000)]
        left, top = rng.randint(0, size[0] - 20), rng.randint(0, size[1] - 20)
        gold = [left, top, rng.randint(left + 5, size[0]), rng.randint(top + 5, size[1])]
        spread = [rng.choice([0, 0.02, 0.2]) * (gold[i % 2 + 2] - gold[i % 2]) for i in range(4)]
        near = [min(max(0, x + rng.uniform(-3 * d, 3 * d)), size[i % 2]) for i, (x, d) in enumerate(zip(gold, spread))]
        if rng.random() < 0.03:
            # Half of the box to the last bit.
            near = [gold[0], gold[1], gold[2], (gold[1] + gold[3]) / 2]
        unit, whole, digits = rng.choice([("pixels", None, 0), ("pixels", None, 2), ("fractions", 1, 4), ("fractions", 1, 2), ("thousandths", 1000, 0)])
        said = [round(x / (size[i % 2] / whole) if whole else x, digits) for i, x in enumerate(near)]
        said = [int(x) if digits == 0 else x for x in said]
        if said[0] >= said[2] or said[1] >= said[3]:
            continue
        answer = rng.choice(["[{},{},{},{}]", "[{}, {}, {}, {}]"]).format(*gold)
        if rng.random() < 0.1:
            cases.append([rng.choice(UNPARSABLE).format(*said), unit, answer, size, 0.0, 0.0])
            continue
        pixels = [x * size[i % 2] / whole if whole else x for i, x in enumerate(said)]
        overlap = iou(pixels, gold)
        cases.append([rng.choice(BOXES).format(*said), unit, answer, size, round(overlap, 9), float(overlap >= 0.5)])
    return cases


if __name__ == "__main__":
    normal = m4c_processor()
    captions = caption_cases(random.Random(3))
    write("normalise.json", normalise_cases(random.Random(1)))
    write("vqa.json", vqa_cases(random.Random(2)))
    write("captions.json", captions)
    write("bleu.json", bleu_cases(captions))
    write("anls.json", anls_cases(random.Random(4)))
    write("words.json", word_cases(random.Random(5)))
    write("m4c.json", m4c_cases(random.Random(6), normal))
    write("textvqa.json", textvqa_cases(random.Random(7), normal))
    write("choice.json", choice_cases(random.Random(8)))
    write("gqa.json", gqa_cases(random.Random(9)))
    write("grounding.json", grounding_cases(random.Random(10)))
