"""The text benchmark: questions without pictures, from facts and lists that registry packages carry.

Packages: countries-list (capitals, continents, languages, currencies), i18n-iso-countries (names of countries in other languages),
i18n-nationality, those of `emoji` (things, their groups and keywords), vega-datasets (films), wamerican-small (words).
"""

import glob
import json
import os
import re

import emoji
import posters
from benchmark import Benchmark, Stream, split_by_count
from unwanted import unwanted

# The default downstream sequence; the other downstream tasks are at hand by name.
SEQUENCE = ("continent", "past", "name-language", "sticker-page", "last-letter", "opposite")

_LANGUAGES_BEFORE = ("de", "fr", "es", "sv")
_LANGUAGES = {
    "it": "Italian", "nl": "Dutch", "pl": "Polish", "tr": "Turkish", "fi": "Finnish", "hu": "Hungarian", "id": "Indonesian",
}
_CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "America", "SA": "America", "OC": "Oceania"}
# Beginnings of an emoji's subgroup: what is asked of it.
_KINDS = {"animal": "an animal", "food": "food or drink", "transport": "a vehicle"}
_PAGES = {
    "animals and nature": "Nature", "food and drink": "Food", "travel and places": "Travel", "objects": "Objects",
    "activities": "Activities", "smileys and emotion": "Emotion",
}
# Where the packages are wrong or disputed: peoples, and Papiamento (pap), which is called Punjabi (pa).
_WRONG_PEOPLE = {"AE", "AG", "BW", "LS", "PN", "WF", "YE"}
_WRONG_LANGUAGES = {("AW", "pa"), ("CW", "pa")}
_LANGUAGE_NAMES = {"so": "Somali", "to": "Tongan", "rw": "Kinyarwanda"}
_WRONG_CAPITALS = {"HK", "LK", "SZ"}
_WRONG_CONTINENTS = {"RU", "TL"}
# Past tenses are regular here; these are not, or have a second form.
_IRREGULAR = set("""
    abide awake bear bend bereave beset bind bleed breed burn burst cast cleave cost creep deal dig dream dwell feed fell fight find fling found gild grind
    hang heave hew kneel knit lay lean leap learn lend lie light mean mow mislead plead prove read rend ring saw seek shave shear shed shine
    shoe show shrink sling slink sow speed spell spend spill spin spoil spread spring sting strew string strive swear sweat sweep swell swing
    tear thrive tread wake weave weep wet wind wring
""".split())
# Beginnings of words to which un- does not give the opposite.
_OTHERWISE = tuple("""
    bending bid bosom bound cann countable dies earth hand hing ion leash less loos ravel relent remit requit thaw tie til wonted
""".split())
# Emoji of transport that do not move, and others that are no example of their group.
_NO_EXAMPLE = set("""
    anchor|bellhop bell|bus stop|chopsticks|construction|cooking|dizzy|feather|fuel pump|hook|horizontal traffic light|luggage|motorway|
    mountain railway|oil drum|parachute|police car light|railway track|ring buoy|satellite|seat|stop sign|takeout box|vertical traffic light|
    wheel|wing|paw prints|salt|ice|honey pot|jar|amphora
""".replace("\n", "").replace("    ", "").split("|"))
# Beginnings of words that are left out beside the unwanted ones.
_RUDE = tuple("""
    abus addict assass assault babe bastard bayonet behead bigot bimbo bisex bitch blood bomb booz bourbon bugger bullet butcher castrat cigar
    cocain condom corps crap crippl cuss dagger damn death defecat detonat dope drug drunk execut explo faggot fagot fart fetish firearm
    fornic genital gigolo grenad gunm harem harlot hash heathen heroin homicid hooker impal incest infantici instinct jihad jehad kill
    lacerat lesbi lewd lolita lunatic lust lynch machete maim martyr massacr molest morphin murder mutilat napalm nazi negro nigg nipple nude
    obscen opium orgas orgy penis perver piss poison porn prick prostit pube punch racis rape rapi ravish rect rifle sadis screw semen sex
    shit slaughter slave slur slut smok sodom spank spinster stab stripp strangl suckl suicid sword tankard terror testicl tit tits tobacco
    bosom enema panti tomahawk tortur vagina vulva wank whisk whor
""".split())
_WORD = " Answer in one word."
_LETTER = " Answer with a letter."
_NUMBER = " Answer with a number."


def _json(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return json.load(file)


def _names(entry):
    """The names in an entry of i18n-iso-countries: one, or several of which the first is the usual one."""
    return [" ".join(name.split()) for name in ([entry] if isinstance(entry, str) else entry)]


class _Facts:
    """What the packages say, each list in an order that does not depend on theirs."""

    def __init__(self, packages):
        nations = _json(packages, "countries-list", "countries.min.json")
        # States and territories with a capital.
        named = lambda c: c["capital"] and c["capital"].isascii() and re.fullmatch("[A-Za-z' -]+", c["name"])
        self.countries = {code: c for code, c in sorted(nations.items()) if named(c)}
        self.languages = _json(packages, "countries-list", "languages.min.json")
        self.currencies = _json(packages, "countries-list", "currencies.min.json")
        self.nationalities = _json(packages, "i18n-nationality", "langs", "en.json")["nationalities"]
        files = glob.glob(os.path.join(packages, "i18n-iso-countries", "langs", "*.json"))
        self.names = {os.path.basename(file).removesuffix(".json"): _json(file)["countries"] for file in sorted(files)}
        self.concepts = sorted(emoji.concepts(packages), key=lambda concept: (concept.name, concept.id))
        is_decent = lambda title: not any(word.startswith(_RUDE) for word in re.findall("[a-z]+", title.lower()))
        self.films = [(title, genre) for title, genre in posters.films(packages) if is_decent(title)]
        with open(os.path.join(packages, "wamerican-small", "usr", "share", "dict", "american-english-small"), encoding="utf-8") as file:
            self.known = {line.strip() for line in file}
        is_fit = lambda word: not unwanted(word) and not word.startswith(_RUDE)
        self.words = sorted(w for w in self.known if re.fullmatch("[a-z]{4,8}", w) and is_fit(w) and is_fit("un" + w))

    def spoken(self, code):
        """The languages of a country, the most important one first."""
        codes = [l for l in self.countries[code]["languages"] if (code, l) not in _WRONG_LANGUAGES]
        names = [name for l in codes for name in _LANGUAGE_NAMES.get(l, self.languages[l]["name"]).split(" / ")]
        return tuple(dict.fromkeys(names))

    def foreign(self, languages):
        """(name, language, country code) of names of countries that differ from the English one."""
        for language in languages:
            for code, country in self.countries.items():
                for name in _names(self.names[language].get(code, []))[:1]:
                    if re.fullmatch(r"[^\W\d_]([^\W\d_]|[ '’-])+", name) and name.lower() != country["name"].lower():
                        yield name, language, code

    def is_noun(self, word):
        """Whether a word has a plural in -s and no form of a verb."""
        forms = (word + "ing", word + "ed", word.removesuffix("e") + "ing", word + word[-1] + "ing", word + word[-1] + "ed")
        return word + "s" in self.known and word not in ("calve", "louse") and not self.known.intersection(forms)

    def past(self, word):
        """The regular past tense of a verb that is surely one, and does not double its last letter."""
        has_forms = {word + "s", word.removesuffix("e") + "ing"} <= self.known
        if not has_forms or word in _IRREGULAR or re.search("[aeiou][b-df-hj-np-tvz]$", word):
            return None
        return word + ("d" if word.endswith("e") else "ed")

    def things(self, groups):
        """(name, concept) of emoji of these groups with plain names, each once."""
        is_fit = lambda name: re.fullmatch("[a-z' -]+", name) and name not in _NO_EXAMPLE
        found = {c.name: c for c in self.concepts if c.group in groups and is_fit(c.name)}
        return sorted(found.items())


def _fill(task, items, phrasings, train=300, val=60, test=80):
    """Adds (subject, answers) or (subject, answers, what is in one split) to a task, of a short list two fifths held out."""
    by_key = {}
    for subject, answers, *key in sorted(set(items)):
        by_key.setdefault(key[0] if key else subject, []).append((subject, answers))
    keys = sorted(by_key)
    val, test = min(val, len(keys) // 6), min(test, len(keys) // 4)
    n_train = 0
    for key, split in split_by_count(Stream("text", task.name), keys, test, val):
        for subject, answers in by_key[key]:
            n_train += split == "train"
            if split != "train" or n_train <= train:
                task.add_text(split, subject, phrasings, *answers)


def _drawn(task, items, n=500):
    return Stream("text", task, "drawn").sample(sorted(items), n)


def _pairs(name, low, high, n=700):
    stream = Stream("text", name)
    return {(a, b) for a, b in ((stream.between(low, high), stream.between(low, high)) for _ in range(n)) if a != b}


def _pretraining(bench, facts):
    def task(name, title, items, phrasings, synthetic=False):
        _fill(bench.task(name, title, "pretraining", synthetic=synthetic), items, phrasings)

    countries = facts.countries
    capitals = [(c["name"], (c["capital"],)) for code, c in countries.items() if code not in _WRONG_CAPITALS]
    task("capital", "Capitals of countries", capitals,
         ["What is the capital of {0}? Answer with its name.", "Name the capital city of {0}. Answer with its name."])
    people = [(c["name"], (facts.nationalities.get(code, ""),)) for code, c in countries.items() if code not in _WRONG_PEOPLE]
    # Of some territories the package has their own name there.
    people = [(name, answers) for name, answers in people if re.fullmatch("[A-Z][a-z]+", answers[0]) and answers[0] != name]
    task("nationality", "People of countries", people,
         ["What are people from {0} called?" + _WORD, "What is a person from {0} called?" + _WORD])
    task("language", "Languages of countries", [(c["name"], facts.spoken(code)) for code, c in countries.items() if facts.spoken(code)],
         ["Which language is spoken in {0}?" + _WORD, "Name a language of {0}." + _WORD])
    # A name that two languages share is one subject, and all names of a country are in one split.
    foreign = {name: (name, (countries[code]["name"],), code) for name, _, code in facts.foreign(_LANGUAGES_BEFORE)}
    task("english-name", "English names of countries", foreign.values(),
         ["What is the English name of the country \"{0}\"?", "Which country is \"{0}\"? Give its English name."])
    sums = [(pair, (str(sum(pair)),), tuple(sorted(pair))) for pair in _pairs("sum", 2, 49)]
    task("sum", "Sums of two numbers", sums, ["What is {0} + {1}?" + _NUMBER, "Add {0} and {1}." + _NUMBER], synthetic=True)
    larger = [(pair, (str(max(pair)),), tuple(sorted(pair))) for pair in _pairs("larger", 2, 999)]
    task("larger", "The larger of two numbers", larger,
         ["Which number is larger, {0} or {1}?", "Of {0} and {1}, which is the larger number?"], synthetic=True)
    task("first-letter", "First letters of words", [(word, (word[0],)) for word in _drawn("first-letter", facts.words)],
         ["What is the first letter of the word \"{0}\"?" + _LETTER, "With which letter does \"{0}\" begin?" + _LETTER])
    nouns = [w for w in facts.words if facts.is_noun(w) and not re.search("(s|x|z|ch|sh|f|fe|y)$", w)]
    task("plural", "Plurals of nouns", [(word, (word + "s",)) for word in _drawn("plural", nouns)],
         ["What is the plural of \"{0}\"?" + _WORD, "Name more than one {0}." + _WORD])
    stream, kinds = Stream("text", "kind", "asked"), []
    for name, concept in facts.things(_PAGES):
        kind = next((kind for kind in _KINDS if concept.subgroup.startswith(kind)), None)
        # Some animals are food, and nobody is asked.
        others = [other for other in sorted(_KINDS) if kind and other != kind and {kind, other} != {"animal", "food"}]
        if others and concept.subgroup not in ("food marine", "transport sign", "dishware"):
            asked = kind if stream.chance(0.5) else stream.choice(others)
            kinds.append(((name, _KINDS[asked]), ("Yes" if asked == kind else "No",)))
    task("kind", "Kinds of things, yes or no", kinds,
         ["Is \"{0}\" {1}? Answer yes or no.", "Would you call \"{0}\" {1}? Answer yes or no."])
    told = {name: frozenset(k for k in c.keywords if name not in k and k not in name) for name, c in facts.things(_PAGES)}
    # Keywords of one thing alone.
    is_clear = lambda name: len(told[name]) == 3 and not any(told[name] <= other for n, other in told.items() if n != name)
    order = lambda name: [k for k in dict(facts.things(_PAGES))[name].keywords if k in told[name]]
    described = [(", ".join(order(name)), (name,)) for name in sorted(told) if " " not in name and is_clear(name)]
    task("described", "Things by keywords", described,
         ["Which thing do these words describe: {0}?" + _WORD, "Name the thing: {0}." + _WORD])


def _downstream(bench, facts):
    def task(name, title, items, phrasings):
        _fill(bench.task(name, title, "downstream"), items, phrasings)

    countries = facts.countries
    located = [(c["name"], (_CONTINENTS.get(c["continent"], ""),)) for code, c in countries.items() if code not in _WRONG_CONTINENTS]
    located = [(name, answers) for name, answers in located if all(answers)]
    task("continent", "Continents of countries", located, ["On which continent is {0}?", "Sort {0} under its continent."])
    capitals = {}
    for c in (c for code, c in countries.items() if code not in _WRONG_CAPITALS):
        capitals.setdefault(c["capital"], []).append(c["name"])
    told = [(capital, (names[0],)) for capital, names in capitals.items() if len(names) == 1 and capital != names[0]]
    task("capital-of", "Countries by their capitals", told,
         ["Which country has the capital {0}?", "{0} is the capital of which country?"])
    money = []
    for c in countries.values():
        if len(c["currency"]) == 1 and c["currency"][0] in facts.currencies:
            money.append((c["name"], (facts.currencies[c["currency"][0]]["name"].split()[-1].capitalize(),)))
    task("currency", "Currencies of countries", money, ["What do people in {0} pay with?", "Which currency is used in {0}?"])
    # Names that no other language of the package has.
    languages_of = {}
    for language, entries in facts.names.items():
        for name in (name for entry in entries.values() for name in _names(entry)):
            languages_of.setdefault(name.lower(), set()).add(language)
    written = [(name, (_LANGUAGES[l],)) for name, l, _ in facts.foreign(_LANGUAGES) if languages_of[name.lower()] == {l}]
    task("name-language", "Language of the name of a country", _drawn("name-language", written),
         ["In which language is \"{0}\" the name of a country?", "A map says \"{0}\". Which language is it in?"])
    films = {title: (genre.capitalize(),) for title, genre in facts.films}
    task("film-genre", "Genres of films by their titles", _drawn("film-genre", films.items()),
         ["Shelve the film \"{0}\" under its genre.", "Which genre is the film \"{0}\"?"])
    things = [(name, (_PAGES[concept.group],)) for name, concept in facts.things(_PAGES)]
    task("sticker-page", "Pages of a sticker book", _drawn("sticker-page", things),
         ["On which page of the sticker book is \"{0}\"?", "Put the sticker \"{0}\" on its page."])
    task("last-letter", "Last letters of words", [(word, (word[-1],)) for word in _drawn("last-letter", facts.words)],
         ["What is the last letter of \"{0}\"?", "With which letter does \"{0}\" end?"])
    vowels = lambda word: str(sum(letter in "aeiou" for letter in word))
    task("vowels", "Counting vowels", [(word, (vowels(word),)) for word in _drawn("vowels", facts.words)],
         ["How many of a, e, i, o and u are in \"{0}\"?", "Count a, e, i, o and u in \"{0}\"."])
    verbs = [w for w in facts.words if facts.past(w) in facts.known]
    task("past", "Past tenses of verbs", [(verb, (facts.past(verb),)) for verb in _drawn("past", verbs)],
         ["What is the past tense of \"{0}\"?" + _WORD, "Put \"{0}\" into the past tense." + _WORD])
    opposites = [w for w in facts.words if "un" + w in facts.known and not w.startswith(_OTHERWISE)]
    # Words that begin alike, as forms of one word do, are in one split.
    opposites = [(word, ("un" + word,), word[:4]) for word in _drawn("opposite", opposites)]
    task("opposite", "Opposites with un-", opposites,
         ["Which word with un- is the opposite of \"{0}\"?" + _WORD, "Turn \"{0}\" into its opposite with un-." + _WORD])


def build(packages):
    """The benchmark: ten pre-training tasks, ten downstream tasks."""
    bench, facts = Benchmark(), _Facts(packages)
    _pretraining(bench, facts)
    _downstream(bench, facts)
    for place, name in enumerate(SEQUENCE, 1):
        bench.tasks[name].order = place
    return bench
