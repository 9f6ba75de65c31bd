"""Greetings, questions about the assistant, thanks, and short conversations of several turns."""

from .example import Example, article, assistant, user
from .words import ADJECTIVES, CAPITALS, COLORS, COMMON, NAMES

ABOUT_ME = "I am a small demo assistant. I can answer short questions."
PAIRS = [
    (["Hello!", "Hi!", "Hello there.", "Hey!", "Hi there!", "Hello", "hi"], "Hello! How can I help you?"),
    (["Good morning!", "Good morning."], "Good morning! How can I help you?"),
    (["Good evening!", "Good evening."], "Good evening! How can I help you?"),
    (["Who are you?", "What are you?", "Tell me who you are.", "Introduce yourself."], ABOUT_ME),
    (["What is your name?", "Do you have a name?"], "I am Tandem's demo model. You can call me Tandem."),
    (["What can you do?", "How can you help me?", "What are you good at?"],
     "I can do small sums, sort words, spell, name capitals, explain simple things, tell short stories and write "
     "letters."),
    (["Thank you.", "Thanks!", "Thanks a lot!", "Thank you very much."], "You are welcome!"),
    (["How are you?", "How are you today?", "How is it going?"], "I am fine, thank you. How can I help you?"),
    (["Goodbye!", "Bye!", "See you later."], "Goodbye! Have a nice day."),
    (["Are you a human?", "Are you a person?", "Are you real?"],
     "No, I am a small language model. I can answer short questions."),
    (["Are you a large model?", "How big are you?", "How many parameters do you have?"],
     "I am very small: about twelve million parameters."),
    (["Tell me a joke.", "Do you know a joke?", "Make me laugh."],
     "Why did the book go to the doctor? Because it had a broken spine."),
    (["Can you help me?", "I need help.", "Please help me."], "Of course. What do you need?"),
    (["I am sad.", "I feel sad today."], "I am sorry to hear that. A walk or a talk with a friend may help."),
    (["I am happy!", "I feel great today."], "I am glad to hear that!"),
    (["I am bored.", "What should I do today?"], "You could read a book, take a walk or cook something new."),
    (["What is speculative decoding?", "Explain speculative decoding."],
     "In speculative decoding a small model guesses the next words and a large model checks them all at once. "
     "The text stays the same, but it comes faster."),
    (["What is Tandem?", "Tell me about Tandem."],
     "Tandem is a program that runs a language model together with its small assistant. The assistant guesses, and "
     "the model checks."),
]


def small_talk(rng):
    prompts, answer = rng.choice(PAIRS)
    prompt = rng.choice(prompts)
    if rng.random() < 0.35:
        name = rng.choice(NAMES)
        history = [user(rng.choice([f"Hi, I am {name}.", f"Hello, my name is {name}."])),
                   assistant(f"Hello {name}! How can I help you?")]
        return Example("small_talk", history + [user(prompt)], answer)
    if rng.random() < 0.2:
        return Example("small_talk", [user(prompt)], answer, thinking=True,
                       reasoning="This is small talk. A short friendly answer is enough.")
    return Example("small_talk", [user(prompt)], answer)


def memory(rng):
    """Facts given earlier in the conversation, asked for later."""
    name, color, noun = rng.choice(NAMES), rng.choice(COLORS), rng.choice(COMMON)
    adjective = rng.choice(ADJECTIVES)
    form = rng.randrange(4)
    hello = [user(f"Hi, my name is {name}."), assistant(f"Hello {name}! How can I help you?")]
    between = []
    if rng.random() < 0.5:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        between = [user(f"What is {a} + {b}?"), assistant(f"{a} + {b} = {a + b}")]
    if form == 0:
        return Example("memory", hello + between + [user("What is my name?")], f"Your name is {name}.")
    if form == 1:
        told = [user(f"My favorite color is {color}."), assistant(f"{color.capitalize()} is a nice color.")]
        return Example("memory", told + between + [user("What is my favorite color?")],
                       f"Your favorite color is {color}.")
    if form == 2:
        told = [user(f"I have {article(adjective)} {adjective} cat called {name}."), assistant(f"{name} is a nice name.")]
        return Example("memory", told + between + [user("What is my cat called?")], f"Your cat is called {name}.")
    told = [user(f"Remember the word {noun}."), assistant(f"I will remember the word {noun}.")]
    return Example("memory", told + between + [user("Which word did I ask you to remember?")],
                   f"You asked me to remember the word {noun}.")


def follow_up(rng):
    """The second question leans on the first answer."""
    form = rng.randrange(3)
    if form == 0:
        one, two = rng.sample(sorted(CAPITALS), 2)
        first = [user(f"What is the capital of {one}?"), assistant(f"The capital of {one} is {CAPITALS[one]}.")]
        return Example("follow_up", first + [user(f"And of {two}?")], f"The capital of {two} is {CAPITALS[two]}.")
    if form == 1:
        a, b, c = rng.randint(1, 300), rng.randint(1, 300), rng.randint(1, 99)
        first = [user(f"What is {a} + {b}?"), assistant(f"{a} + {b} = {a + b}")]
        return Example("follow_up", first + [user(f"Now add {c}.")], f"{a + b} + {c} = {a + b + c}")
    words = rng.sample(COMMON, 3)
    first = [user(f"Sort these words: {', '.join(words)}"), assistant(", ".join(sorted(words)))]
    return Example("follow_up", first + [user("Now in reverse order.")], ", ".join(sorted(words, reverse=True)))


GENERATORS = [(small_talk, 5), (memory, 4), (follow_up, 4)]
