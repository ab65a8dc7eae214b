"""From a caption to comparable word stems: tokens, lemmas, and compounds whose parts mean something else."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")

# Stems with forms that the suffix rules would miss, and words that the rules would spoil.
IRREGULAR_FORMS = {
    "airplane": "plane planes aeroplane", "aluminum": "aluminium", "baby": "babies",
    "be": "is are was were being been", "bearing": "bearings", "bicycle": "bike", "bite": "bit bitten",
    "blow": "blown blew", "break": "broken broke", "burn": "burnt", "bus": "buses", "car": "automobile",
    "casing": "casings", "child": "children kids kid", "dig": "dug", "draw": "drawn drew",
    "drive": "drove driven", "drum": "drums", "eat": "ate eaten", "fall": "fell fallen",
    "fly": "flew flown flies", "foot": "feet", "footstep": "footfall footfalls", "glass": "glasses",
    "goose": "geese", "have": "has had", "hen": "hens", "hoof": "hooves", "knife": "knives",
    "leaf": "leaves", "leave": "left", "light": "lit", "man": "men", "metal": "metallic",
    "motorcycle": "motorbike", "mouse": "mice", "outdoors": "outdoor", "penny": "pennies",
    "person": "persons", "puppy": "puppies", "rewind": "rewound", "ride": "rode", "ring": "rang rung",
    "run": "ran", "saxophone": "sax", "say": "said", "shake": "shook shaken", "shot": "shots",
    "sing": "sang sung", "slide": "slid", "speak": "spoken spoke", "spin": "spun", "spit": "spat",
    "stair": "stairs", "strike": "struck", "string": "strings", "swim": "swam",
    "sword": "swords", "tear": "torn tore", "telephone": "phone phones", "tire": "tyre tyres",
    "wind": "wound", "wolf": "wolves", "woman": "women", "wood": "wooden", "write": "wrote written",
    "zip": "zipper zippers",
}  # fmt: skip
UNCHANGED = """
    always bearing bed bleed brass building burst bus casing ceiling claus dice during evening feed gas
    grass ground his hiss its king laughter microphone morning moss need nothing people red reed santa
    scissors seed series shears shed shot siren sled someone something sometimes speed spring string thing
    spokes this towards us wing
"""
IRREGULAR = {form: stem for stem, forms in IRREGULAR_FORMS.items() for form in forms.split()} | {
    word: word for word in UNCHANGED.split()
}

# Compounds and what they are allowed to name: an alarm clock does not tick, a sea lion is no lion, a train
# station is no train. Parts that stay fair are listed after the compound.
COMPOUNDS = {
    ("alarm", "clock"): ("alarm_clock", "alarm"),
    ("baby", "chick"): ("chick",),
    ("baby", "raccoon"): ("raccoon",),
    ("bass", "drum"): ("bass_drum", "drum"),
    ("big", "cat"): ("big_cat",),
    ("bottle", "cap"): ("bottle_cap", "cap"),
    ("bubble", "wrap"): ("bubble_wrap",),
    ("car", "alarm"): ("alarm",),
    ("car", "door"): ("car_door", "car", "door"),
    ("chain", "saw"): ("chainsaw",),
    ("copy", "machine"): ("photocopier",),
    ("cow", "bell"): ("cowbell",),
    ("door", "bell"): ("doorbell",),
    ("double", "bass"): ("double_bass", "bass"),
    ("egg", "beater"): ("egg_beater", "beater"),
    ("egg", "shaker"): ("shaker",),
    ("fire", "alarm"): ("alarm",),
    ("fire", "cracker"): ("firecracker",),
    ("fire", "engine"): ("fire_engine", "engine"),
    ("fire", "hose"): ("fire_hose", "hose"),
    ("fire", "place"): ("fireplace",),
    ("fire", "truck"): ("fire_engine", "truck"),
    ("fish", "tank"): ("fish_tank",),
    ("foot", "step"): ("footstep",),
    ("french", "horn"): ("french_horn",),
    ("garbage", "can"): ("trash_can",),
    ("garbage", "truck"): ("garbage_truck", "truck"),
    ("guinea", "pig"): ("guinea_pig",),
    ("gun", "shot"): ("gunshot",),
    ("hair", "dryer"): ("hair_dryer", "dryer"),
    ("hand", "drum"): ("hand_drum", "drum"),
    ("hi", "hat"): ("hi_hat",),
    ("jaw", "harp"): ("jaw_harp",),
    ("machine", "gun"): ("machine_gun", "gun"),
    ("music", "box"): ("music_box", "music"),
    ("paper", "fan"): ("paper_fan", "paper"),
    ("ping", "pong"): ("ping_pong",),
    ("power", "tool"): ("power_tool",),
    ("rain", "stick"): ("rainstick",),
    ("rubber", "band"): ("rubber_band",),
    ("sea", "animal"): ("sea_animal", "animal"),
    ("sea", "gull"): ("seagull",),
    ("sea", "lion"): ("sea_lion",),
    ("shopping", "cart"): ("shopping_cart", "cart"),
    ("shot", "gun"): ("shotgun",),
    ("splash", "cymbal"): ("cymbal",),
    ("steam", "engine"): ("steam_engine", "steam"),
    ("storm", "water"): ("water",),
    ("tape", "measure"): ("tape_measure",),
    ("tap", "water"): ("tap_water", "water", "run"),
    ("thumb", "piano"): ("kalimba",),
    ("toy", "airplane"): ("toy_plane", "toy"),
    ("toy", "truck"): ("toy_truck", "toy"),
    ("train", "station"): ("train_station", "station"),
    ("trash", "can"): ("trash_can",),
    ("tuning", "fork"): ("tuning_fork",),
    ("washing", "machine"): ("washing_machine",),
    ("water", "balloon"): ("water_balloon", "balloon"),
    ("water", "pump"): ("pump",),
    ("wind", "chime"): ("wind_chime", "chime"),
    ("wind", "instrument"): ("wind_instrument",),
    ("wind", "up"): ("wind_up",),
    ("wine", "glass"): ("wine_glass", "glass"),
    ("wood", "block"): ("wood_block", "wood"),
}  # fmt: skip

VOWELS = "aeiou"


def words_of(text: str) -> list[str]:
    """Lower-case words of a text in order; punctuation and hyphens part words, a possessive ending goes."""
    return [token.removesuffix("'s") for token in TOKEN.findall(text.lower())]


def _stems(word: str) -> list[str]:
    """Stems that the English suffix rules allow for a word, likeliest first; else the word itself."""
    stems: list[str] = []
    if word.endswith("ies") and len(word) > 4:
        stems += [word[:-3] + "y", word[:-1]]
    elif word.endswith("es") and word[:-2].endswith(("s", "x", "z", "ch", "sh", "o")):
        stems += [word[:-2], word[:-1]]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        stems += [word[:-1]]
    for suffix in ("ing", "ed"):
        body = word.removesuffix(suffix)
        if body == word or len(body) < 2 or not any(letter in "aeiouy" for letter in body):
            continue
        doubled = len(body) > 2 and body[-1] == body[-2] and body[-1] not in VOWELS + "ls" + "z"
        if suffix == "ed" and body.endswith("i"):
            stems += [body[:-1] + "y"]
        stems += [body[:-1], body] if doubled else [body, body + "e"]
    return stems or [word]


def lemma(word: str, known: AbstractSet[str]) -> str:
    """The stem of one lower-case word; of several possible stems one in `known` wins (closing, close)."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in known:
        return word
    stems = _stems(word)
    return next((stem for stem in stems if stem in known), stems[0])


def lemmas_of(text: str, known: AbstractSet[str], limit: int | None = None) -> list[str]:
    """Lemmas of the first `limit` words of a text, in order, compounds replaced by what they may name."""
    words = words_of(text)[:limit]
    stems = [word if word in COMPOUND_PARTS else lemma(word, known) for word in words]  # "washing" stays as it is
    found: list[str] = []
    position = 0
    while position < len(stems):
        pair = tuple(stems[position : position + 2])
        if pair in COMPOUNDS:
            found.extend(COMPOUNDS[pair])
            position += 2
        else:
            found.append(stems[position])
            position += 1
    return found


COMPOUND_PARTS = frozenset(part for pair in COMPOUNDS for part in pair)
