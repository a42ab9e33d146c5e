"""What is left out of the benchmark: weapons, drugs, alcohol, tobacco, rude or offensive content."""

import re

_WORDS = """
    abuse alcohol ammo ammunition army ass assault attack axe battle beer beers bikini bomb booze boob boobs bottom breast
    briefs bullet bullets butt cannabis champagne cigarette cocktail coffin condom crossbones cleavage corpse crap dagger dead
    death devil dick drug drugs drunk explosive fart fascist fuck gallows gambling genocide grenade gun guns hate hell hunter
    illuminati insecticide joint kill killer knife lingerie liquor marijuana martini middle military missile murder naked nazi
    nude nunchaku panties pantyhose penis pimp pistol poison poop porn punk rifle riffle sake scalpel sex sexy shit shot
    slut smoking smoke smoker soldier spirits stripper stupid suicide supervillain sword swords tank terrorist thong thongs
    tobacco trebuchet underwear violence virgin vodka war weapon weapons whiskey whore wine weed
 striptease showgirls massacre hookers bastards bitch killers kills slaughter rape stripped swordfish
"""
_PATTERN = re.compile(r"(?<![a-z])(" + "|".join(_WORDS.split()) + r")(?![a-z])")


def unwanted(text):
    """Whether a title, name or keyword names something that is left out."""
    return _PATTERN.search(text.lower().replace("_", " ").replace("-", " ")) is not None
