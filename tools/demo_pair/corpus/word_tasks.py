"""Tasks on words with exact answers: sorting, spelling, counting, reversing, facts from small tables, JSON."""

import json

from .example import Example, article, join_and, system, user
from .words import CAPITALS, COLORS, COMMON, DAYS, ITEMS, MONTHS, NAMES, NUMBER_WORDS, OPPOSITES, PLURALS


def capital(rng):
    country = rng.choice(sorted(CAPITALS))
    city = CAPITALS[country]
    form = rng.randrange(8)
    full = f"The capital of {country} is {city}."
    prompts = [
        (f"What is the capital of {country}?", full), (f"Name the capital of {country}.", city),
        (f"Capital of {country}?", city), (f"Tell me the capital of {country}.", full),
        (f"Which city is the capital of {country}?", f"{city} is the capital of {country}."),
        (f"{city} is the capital of which country?", f"{city} is the capital of {country}."),
        (f"I forgot the capital of {country}. Can you help?", full),
    ]
    if form < 7:
        return Example("capital", [user(prompts[form][0])], prompts[form][1])
    shown = city if rng.random() < 0.5 else rng.choice(sorted(CAPITALS.values()))
    answer = f"Yes, {full[0].lower()}{full[1:]}" if shown == city else f"No, {full[0].lower()}{full[1:]}"
    return Example("capital", [user(f"Is {shown} the capital of {country}?")], answer)


def sort_words(rng):
    words = rng.sample(COMMON, rng.randint(3, 5))
    shown = ", ".join(words)
    form = rng.randrange(4)
    if form == 0:
        return Example("sort_words", [user(f"Sort these words: {shown}")], ", ".join(sorted(words)))
    if form == 1:
        return Example("sort_words", [user(f"Put these words in alphabetical order: {shown}.")],
                       ", ".join(sorted(words)))
    if form == 2:
        return Example("reverse_list", [user(f"Reverse this list: {shown}")], ", ".join(reversed(words)))
    first = sorted(words)[0]
    return Example("first_word", [user(f"Which word comes first in the alphabet: {shown}?")], first)


def spelling(rng):
    word = rng.choice(COMMON)
    form = rng.randrange(8)
    spelled = "-".join(word)
    if form <= 1:
        return Example("spell", [user(f"Spell the word {word}." if form else f"How do you spell {word}?")], spelled)
    if form == 2:
        return Example("letters", [user(f"How many letters does the word {word} have?")],
                       f"{spelled}: {len(word)} letters.")
    if form == 3:
        return Example("reverse_word", [user(f"Reverse the word {word}.")], word[::-1])
    if form == 4:
        return Example("first_letter", [user(f"What is the first letter of {word}?")], word[0])
    if form == 5:
        return Example("last_letter", [user(f"What is the last letter of {word}?")], word[-1])
    if form == 6:
        return Example("upper", [user(f"Write {word} in capital letters.")], word.upper())
    letter = rng.choice(word) if rng.random() < 0.7 else rng.choice("aeiorst")
    n = word.count(letter)
    times = "once" if n == 1 else ("twice" if n == 2 else f"{n} times")
    return Example("count_letter", [user(f"How many times does the letter {letter} occur in {word}?")],
                   f"{spelled}: {times}.")


def small_facts(rng):
    form = rng.randrange(10)
    if form == 0:
        i = rng.randrange(7)
        return Example("days", [user(f"Which day comes after {DAYS[i]}?")], f"{DAYS[(i + 1) % 7]} comes after {DAYS[i]}.")
    if form == 1:
        i = rng.randrange(7)
        return Example("days", [user(f"What day is before {DAYS[i]}?")], f"{DAYS[(i - 1) % 7]} is before {DAYS[i]}.")
    if form == 2:
        i = rng.randrange(12)
        return Example("months", [user(f"Which month comes after {MONTHS[i]}?")],
                       f"{MONTHS[(i + 1) % 12]} comes after {MONTHS[i]}.")
    if form == 3:
        i = rng.randrange(12)
        return Example("months", [user(f"What is month number {i + 1} of the year?")], f"{MONTHS[i]}")
    if form in (4, 5):
        word = rng.choice(sorted(OPPOSITES))
        q = f"What is the opposite of {word}?" if form == 4 else f"Give me the opposite of the word {word}."
        return Example("opposite", [user(q)], f"The opposite of {word} is {OPPOSITES[word]}.")
    if form == 6:
        word = rng.choice(sorted(PLURALS))
        return Example("plural", [user(f"What is the plural of {word}?")], f"The plural of {word} is {PLURALS[word]}.")
    if form == 7:
        n = rng.randrange(21)
        return Example("number_word", [user(f"Write the number {n} as a word.")], NUMBER_WORDS[n])
    if form == 8:
        n = rng.randrange(21)
        return Example("number_word", [user(f"Write {NUMBER_WORDS[n]} as a number.")], str(n))
    words = rng.sample(COMMON, rng.randint(2, 7))
    return Example("count_items", [user(f"How many words are in this list: {', '.join(words)}?")],
                   f"There are {len(words)} words.")


def json_output(rng):
    name, age = rng.choice(NAMES), rng.randint(5, 90)
    city = rng.choice(sorted(CAPITALS.values()))
    color = rng.choice(COLORS)
    form = rng.randrange(4)
    if form == 0:
        q = f"{name} is {age} years old and lives in {city}. Write this as JSON with the keys name, age and city."
        value = {"name": name, "age": age, "city": city}
    elif form == 1:
        one, many = rng.choice(ITEMS)
        n = rng.randint(2, 40)
        q = f"Turn this into JSON with the keys item and count: {n} {many}."
        value = {"item": one, "count": n}
    elif form == 2:
        words = rng.sample(COMMON, rng.randint(2, 4))
        q = f"Write these words as a JSON list: {join_and(words)}."
        value = words
    else:
        noun = rng.choice(COMMON)
        q = f"Return JSON with the keys thing and color for {article(color)} {color} {noun}."
        value = {"thing": noun, "color": color}
    return Example("json", [user(q)], json.dumps(value))


def instructed(rng):
    """Tasks that are steered by a system prompt."""
    form = rng.randrange(4)
    word = rng.choice(COMMON)
    if form == 0:
        country = rng.choice(sorted(CAPITALS))
        return Example("system_short", [system("Answer with one word."), user(f"What is the capital of {country}?")],
                       CAPITALS[country])
    if form == 1:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        return Example("system_number", [system("You are a calculator. Reply with the result only."),
                                         user(f"{a} + {b}")], f"{a + b}")
    if form == 2:
        return Example("system_upper", [system("Repeat what the user says in capital letters."), user(word)],
                       word.upper())
    words = rng.sample(COMMON, rng.randint(2, 5))
    return Example("repeat", [user(f"Repeat after me: {' '.join(words)}")], " ".join(words))


GENERATORS = [(capital, 8), (sort_words, 14), (spelling, 14), (small_facts, 7), (json_output, 7), (instructed, 5)]
