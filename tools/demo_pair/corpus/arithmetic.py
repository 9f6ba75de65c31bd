"""Sums, differences, products, comparisons, number sequences and one-step word problems."""

from .example import Example, user
from .words import ITEMS, NAMES


def _number(rng, top=999):
    return rng.randint(0, top) if rng.random() < 0.75 else rng.randint(0, 99)


def _steps_add(a, b):
    """Column addition in words, from the ones to the hundreds."""
    out, carry, names = [], 0, ["ones", "tens", "hundreds"]
    for i in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**i % 10, b // 10**i % 10
        total = x + y + carry
        plus = f" + {carry}" if carry else ""
        out.append(f"{names[i]}: {x} + {y}{plus} = {total}")
        carry = total // 10
    return ", ".join(out) + f". The sum is {a + b}."


def addition(rng):
    a, b = _number(rng), _number(rng)
    form = rng.randrange(7)
    if form == 0:
        return Example("sum", [user(f"What is {a} + {b}?")], f"{a} + {b} = {a + b}")
    if form == 1:
        return Example("sum", [user(f"{a} + {b} =")], f"{a + b}")
    if form == 2:
        return Example("sum", [user(f"Add {a} and {b}.")], f"The sum of {a} and {b} is {a + b}.")
    if form == 3:
        return Example("sum", [user(f"Compute {a} plus {b}. Answer with the number only.")], f"{a + b}")
    if form == 4:
        return Example("sum", [user(f"Calculate {a}+{b}.")], f"{a} + {b} = {a + b}")
    return Example("sum_thinking", [user(f"What is {a} + {b}?")], f"{a} + {b} = {a + b}", thinking=True,
                   reasoning=_steps_add(a, b))


def subtraction(rng):
    a, b = _number(rng), _number(rng)
    a, b = max(a, b), min(a, b)
    form = rng.randrange(5)
    if form == 0:
        return Example("difference", [user(f"What is {a} - {b}?")], f"{a} - {b} = {a - b}")
    if form == 1:
        return Example("difference", [user(f"{a} - {b} =")], f"{a - b}")
    if form == 2:
        return Example("difference", [user(f"Subtract {b} from {a}.")], f"{a} - {b} = {a - b}")
    if form == 3:
        return Example("difference", [user(f"Compute {a} minus {b}. Answer with the number only.")], f"{a - b}")
    return Example("difference_thinking", [user(f"What is {a} - {b}?")], f"{a} - {b} = {a - b}", thinking=True,
                   reasoning=f"Check by adding: {b} + {a - b} = {a}. The difference is {a - b}.")


def product(rng):
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    form = rng.randrange(7)
    if form == 0:
        return Example("product", [user(f"What is {a} times {b}?")], f"{a} times {b} is {a * b}.")
    if form == 1:
        return Example("product", [user(f"What is {a} * {b}?")], f"{a} * {b} = {a * b}")
    if form == 2:
        return Example("product", [user(f"Multiply {a} by {b}.")], f"{a} * {b} = {a * b}")
    if form == 3:
        return Example("product", [user(f"{a} x {b} =")], f"{a * b}")
    if form == 4 and b:
        return Example("quotient", [user(f"What is {a * b} divided by {b}?")], f"{a * b} divided by {b} is {a}.")
    if form == 5:
        return Example("product", [user(f"Compute {a} times {b}. Answer with the number only.")], f"{a * b}")
    return Example("product_thinking", [user(f"What is {a} times {b}?")], f"{a} times {b} is {a * b}.", thinking=True,
                   reasoning=f"From the table of {b}: {a} * {b} = {a * b}.")


def comparison(rng):
    a, b = _number(rng), _number(rng)
    form = rng.randrange(6)
    if form == 0:
        text = "Yes" if a > b else "No"
        sign = ">" if a > b else ("=" if a == b else "<")
        return Example("compare", [user(f"Is {a} greater than {b}?")], f"{text}, {a} {sign} {b}.")
    if form == 1:
        text = "Yes" if a < b else "No"
        sign = ">" if a > b else ("=" if a == b else "<")
        return Example("compare", [user(f"Is {a} less than {b}?")], f"{text}, {a} {sign} {b}.")
    if form == 2:
        return Example("compare", [user(f"Which is larger, {a} or {b}?")], f"{max(a, b)} is larger.")
    if form == 3:
        return Example("compare", [user(f"Which is smaller, {a} or {b}?")], f"{min(a, b)} is smaller.")
    if form == 4:
        text = f"Yes, {a} is even." if a % 2 == 0 else f"No, {a} is odd."
        return Example("parity", [user(f"Is {a} an even number?")], text)
    word = "even" if a % 2 == 0 else "odd"
    return Example("parity", [user(f"Is {a} even or odd?")], f"{a} is {word}.")


def sequence(rng):
    start, step, n = rng.randint(1, 50), rng.choice([1, 2, 3, 5, 10]), rng.randint(3, 8)
    run = [start + i * step for i in range(n)]
    form = rng.randrange(4)
    if form == 0:
        return Example("count", [user(f"Count from {start} to {start + n}.")],
                       ", ".join(str(start + i) for i in range(n + 1)))
    if form == 1:
        return Example("count", [user(f"Count down from {start + n} to {start}.")],
                       ", ".join(str(start + n - i) for i in range(n + 1)))
    shown = ", ".join(map(str, run[:4]))
    if form == 2:
        return Example("sequence", [user(f"What comes next: {', '.join(str(start + i * step) for i in range(4))}?")],
                       f"{start + 4 * step}")
    return Example("sequence", [user(f"Continue with three more numbers: {shown if n > 3 else '2, 4, 6, 8'}")],
                   ", ".join(str(x) for x in ([run[0] + (i + 4) * step for i in range(3)] if n > 3 else [10, 12, 14])))


def extremes(rng):
    numbers = rng.sample(range(1, 100), rng.randint(3, 5))
    shown = ", ".join(map(str, numbers))
    form = rng.randrange(4)
    if form == 0:
        return Example("largest", [user(f"What is the largest of these numbers: {shown}?")], f"{max(numbers)}")
    if form == 1:
        return Example("smallest", [user(f"What is the smallest of these numbers: {shown}?")], f"{min(numbers)}")
    if form == 2:
        return Example("sort_numbers", [user(f"Sort these numbers: {shown}")], ", ".join(map(str, sorted(numbers))))
    return Example("sort_numbers", [user(f"Sort from largest to smallest: {shown}")],
                   ", ".join(map(str, sorted(numbers, reverse=True))))


def word_problem(rng):
    name, other = rng.sample(NAMES, 2)
    one, many = rng.choice(ITEMS)
    a, b = rng.randint(2, 60), rng.randint(2, 40)
    form = rng.randrange(5)
    reasoning = ""

    def count(n):
        return f"{n} {one if n == 1 else many}"

    if form == 0:
        q = f"{name} has {count(a)} and gets {count(b)} more. How many {many} does {name} have now?"
        calc, ans = f"{a} + {b} = {a + b}", f"{name} has {count(a + b)}"
    elif form == 1:
        a, b = max(a, b) + 1, min(a, b)
        q = f"{name} has {count(a)} and gives {count(b)} to {other}. How many {many} are left?"
        calc, ans = f"{a} - {b} = {a - b}", f"{name} has {count(a - b)} left"
    elif form == 2:
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        q = f"There are {a} boxes with {count(b)} each. How many {many} are there in total?"
        calc, ans = f"{a} * {b} = {a * b}", f"There are {count(a * b)}"
    elif form == 3:
        q = f"{name} finds {count(a)}, and {other} finds {count(b)}. How many {many} do they have together?"
        calc, ans = f"{a} + {b} = {a + b}", f"Together they have {count(a + b)}"
    else:
        a, b = rng.randint(2, 12), rng.randint(2, 10)
        q = f"{name} shares {count(a * b)} equally among {b} friends. How many {many} does each friend get?"
        calc, ans = f"{a * b} / {b} = {a}", f"Each friend gets {count(a)}"
    if rng.random() < 0.25:
        reasoning = f"The question needs one step: {calc}."
        return Example("word_problem_thinking", [user(q)], f"{ans}.", thinking=True, reasoning=reasoning)
    return Example("word_problem", [user(q)], f"{calc}. {ans}.")


GENERATORS = [(addition, 46), (subtraction, 40), (product, 6), (comparison, 8), (sequence, 6), (extremes, 9),
              (word_problem, 12)]
