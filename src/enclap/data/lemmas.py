"""From a caption to comparable word stems: tokens, lemmas, and compounds whose parts mean something else."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")

# Words whose stem the suffix rules would miss or spoil.
IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "kids": "child", "kid": "child", "feet": "foot",
    "hooves": "hoof", "leaves": "leaf", "knives": "knife", "geese": "goose", "mice": "mouse", "wolves": "wolf",
    "pennies": "penny", "babies": "baby", "puppies": "puppy", "people": "people", "persons": "person",
    "scissors": "scissors", "shears": "shears", "stairs": "stair", "glasses": "glass", "buses": "bus",
    "is": "be", "are": "be", "was": "be", "were": "be", "being": "be", "been": "be", "has": "have", "had": "have",
    "drawn": "draw", "drew": "draw", "torn": "tear", "tore": "tear", "broken": "break", "broke": "break",
    "blown": "blow", "blew": "blow", "rang": "ring", "rung": "ring", "sang": "sing", "sung": "sing",
    "spoken": "speak", "spoke": "speak", "spokes": "spoke", "said": "say", "struck": "strike", "shook": "shake",
    "shaken": "shake", "fell": "fall", "fallen": "fall", "flew": "fly", "flown": "fly", "flies": "fly",
    "drove": "drive", "driven": "drive", "ran": "run", "rode": "ride", "swam": "swim", "ate": "eat",
    "eaten": "eat", "wrote": "write", "written": "write", "lit": "light", "dug": "dig", "wound": "wind",
    "rewound": "rewind", "spun": "spin", "spat": "spit", "bit": "bite", "bitten": "bite", "slid": "slide",
    "burnt": "burn", "burst": "burst", "left": "leave", "ground": "ground", "shot": "shot", "shots": "shot",
    "building": "building", "ceiling": "ceiling", "evening": "evening", "morning": "morning",
    "something": "something", "someone": "someone", "nothing": "nothing", "string": "string",
    "strings": "string", "spring": "spring", "during": "during", "bearings": "bearing", "casings": "casing",
    "casing": "casing", "bearing": "bearing", "wing": "wing", "king": "king", "thing": "thing",
    "phone": "telephone", "phones": "telephone", "zipper": "zip", "zippers": "zip", "bike": "bicycle",
    "motorbike": "motorcycle", "plane": "airplane", "planes": "airplane", "aeroplane": "airplane",
    "automobile": "car", "wooden": "wood", "metallic": "metal", "outdoor": "outdoors", "hens": "hen",
    "bus": "bus", "gas": "gas", "grass": "grass", "brass": "brass", "hiss": "hiss", "moss": "moss",
    "this": "this", "his": "his", "its": "its", "us": "us", "santa": "santa", "claus": "claus",
    "swords": "sword", "sax": "saxophone", "aluminium": "aluminum", "tyre": "tire", "tyres": "tire",
    "microphone": "microphone", "laughter": "laughter", "footfall": "footstep", "footfalls": "footstep",
    "seed": "seed", "speed": "speed", "reed": "reed", "feed": "feed", "bleed": "bleed", "need": "need",
    "shed": "shed", "bed": "bed", "red": "red", "sled": "sled", "siren": "siren", "dice": "dice",
    "drums": "drum", "series": "series", "always": "always", "sometimes": "sometimes", "towards": "towards",
}  # fmt: skip

# Compounds and what they are allowed to name: an alarm clock does not tick, a sea lion is no lion, a train station
# is no train. Parts that stay fair are listed behind the compound.
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
    """Lower-case words of a text in order; punctuation and hyphens part words, a possessive ending is dropped."""
    return [token.removesuffix("'s") for token in TOKEN.findall(text.lower())]


def _stems(word: str) -> list[str]:
    """Stems that the English suffix rules allow for a word, the likeliest first; the word itself when no rule fits."""
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
        stems += [body[:-1]] if doubled else [body, body + "e"]
    return stems or [word]


def lemma(word: str, known: AbstractSet[str]) -> str:
    """The stem of one lower-case word; among the possible stems one in `known` wins, so that "closing" is "close"."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in known:
        return word
    stems = _stems(word)
    return next((stem for stem in stems if stem in known), stems[0])


def lemmas_of(text: str, known: AbstractSet[str], limit: int | None = None) -> list[str]:
    """Lemmas of a text in order, compounds replaced by what they may name; only the first `limit` words are read."""
    stems = [_plain_lemma(word, known) for word in words_of(text)[:limit]]
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


def _plain_lemma(word: str, known: AbstractSet[str]) -> str:
    """The stem of a word, where parts of compounds ("shopping", "washing") are left as they stand."""
    return word if word in COMPOUND_PARTS else lemma(word, known)
