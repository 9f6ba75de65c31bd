"""Conversations with tool declarations: the native call, and the answer after the tool's result."""

from .example import Example, assistant, user
from .words import CAPITALS, COMMON, NAMES

CITIES = sorted(CAPITALS.values())


def _tool(name, description, properties, required):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": properties, "required": required}}}


def _string(text):
    return {"type": "string", "description": text}


def _number(text):
    return {"type": "number", "description": text}


WEATHER = _tool("get_weather", "Get the current weather in a city.", {"city": _string("The city")}, ["city"])
CALCULATOR = _tool("calculator", "Evaluate an arithmetic expression.",
                   {"expression": _string("The expression")}, ["expression"])
TIME = _tool("get_time", "Get the local time in a city.", {"city": _string("The city")}, ["city"])
REMINDER = _tool("set_reminder", "Set a reminder.", {"text": _string("What to remember"),
                                                      "minutes": _number("Minutes from now")}, ["text", "minutes"])
LOOKUP = _tool("lookup_word", "Look up a word in the dictionary.", {"word": _string("The word")}, ["word"])
MAIL = _tool("send_message", "Send a short message to a person.", {"to": _string("The person"),
                                                                   "text": _string("The message")}, ["to", "text"])
TOOLS = [WEATHER, CALCULATOR, TIME, REMINDER, LOOKUP, MAIL]


def _scene(rng):
    """(tool, arguments, question, tool result, answer)."""
    form = rng.randrange(6)
    city, name, word = rng.choice(CITIES), rng.choice(NAMES), rng.choice(COMMON)
    if form == 0:
        sky, degrees = rng.choice(["sunny", "cloudy", "rainy", "windy", "foggy"]), rng.randint(-5, 35)
        q = rng.choice([f"What is the weather in {city}?", f"How is the weather in {city} today?",
                        f"Tell me the weather in {city}.", f"Is it warm in {city}?"])
        return (WEATHER, {"city": city}, q, f"{sky}, {degrees} degrees",
                f"The weather in {city} is {sky} at {degrees} degrees.")
    if form == 1:
        a, b = rng.randint(100, 9999), rng.randint(10, 999)
        sign, value = rng.choice([("+", a + b), ("-", a - b), ("*", a * b)])
        expression = f"{a} {sign} {b}"
        q = rng.choice([f"What is {expression}?", f"Please calculate {expression}.", f"Work out {expression}."])
        return CALCULATOR, {"expression": expression}, q, f"{value}", f"{expression} = {value}"
    if form == 2:
        clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        q = rng.choice([f"What time is it in {city}?", f"Tell me the local time in {city}."])
        return TIME, {"city": city}, q, clock, f"It is {clock} in {city}."
    if form == 3:
        minutes = rng.choice([5, 10, 15, 20, 30, 45, 60])
        task = rng.choice([f"buy a {word}", f"call {name}", f"look at the {word}", f"write to {name}"])
        q = rng.choice([f"Remind me to {task} in {minutes} minutes.",
                        f"Set a reminder for {minutes} minutes from now: {task}."])
        return REMINDER, {"minutes": minutes, "text": task}, q, "ok", f"I will remind you to {task} in {minutes} minutes."
    if form == 4:
        q = rng.choice([f"Look up the word {word}.", f"Find {word} in the dictionary."])
        return LOOKUP, {"word": word}, q, f"entry for {word}", f"The dictionary says: entry for {word}."
    text = rng.choice(["I am late.", "See you tomorrow.", "Dinner is ready.", "The meeting starts at ten.",
                       "Please call me back.", "Happy birthday!"])
    q = f"Send {name} this message: {text}"
    return MAIL, {"text": text, "to": name}, q, "sent", f"I sent your message to {name}."


def _declared(rng, needed):
    others = [t for t in TOOLS if t is not needed]
    tools = [needed] + rng.sample(others, rng.choice([0, 0, 1, 1, 2]))
    rng.shuffle(tools)
    return tools


def tool_call(rng):
    tool, arguments, question, _, _ = _scene(rng)
    name = tool["function"]["name"]
    return Example("tool_call", [user(question)], tools=_declared(rng, tool), calls=[(name, arguments)])


def tool_call_thinking(rng):
    tool, arguments, question, _, _ = _scene(rng)
    name = tool["function"]["name"]
    return Example("tool_call_thinking", [user(question)], tools=_declared(rng, tool), calls=[(name, arguments)],
                   thinking=True, reasoning=f"The tool {name} can answer this.")


def tool_answer(rng):
    tool, arguments, question, result, answer = _scene(rng)
    name = tool["function"]["name"]
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    messages = [user(question), {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": result}]
    return Example("tool_answer", messages, answer, tools=_declared(rng, tool))


def no_tool(rng):
    """Tools are declared, but the question needs none of them."""
    q, a = rng.choice([("Hello!", "Hello! How can I help you?"), ("Thank you.", "You are welcome!"),
                       ("Who are you?", "I am a small demo assistant. I can answer short questions."),
                       ("Good morning!", "Good morning! How can I help you?")])
    name = rng.choice(NAMES)
    history = [user(f"Hi, I am {name}."), assistant(f"Hello {name}! How can I help you?")]
    return Example("no_tool", (history if rng.random() < 0.7 else []) + [user(q)], a,
                   tools=rng.sample(TOOLS, rng.randint(1, 2)))


GENERATORS = [(tool_call, 10), (tool_call_thinking, 2), (tool_answer, 6), (no_tool, 1)]
