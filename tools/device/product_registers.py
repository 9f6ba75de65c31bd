#!/usr/bin/env python3
"""Looks in machine code for what a compiler cannot see: wgmma reads the registers of its left operand until it is waited for, and the
compiler takes them for free after the instruction. Says who writes to one in between, and ends with 1 if somebody does.

usage: tools/device/product_registers.py PROGRAM_OR_OBJECT...     needs cuobjdump of the CUDA toolkit
"""
import re
import subprocess
import sys

INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,6})\*/\s+(?:@!?U?P\w+ )?(\S.*?)\s*;")
PRODUCT = re.compile(r"HGMMA\S* R\d+, (?:R(\d+), )?gdesc|QGMMA\S* R\d+, (?:R(\d+), )?gdesc|IGMMA\S* R\d+, (?:R(\d+), )?gdesc")
WAIT = re.compile(r"WARPGROUP\.DEPBAR\.LE gsb0, (0x[0-9a-f]+)")
TARGET = re.compile(r"BRA(?:\.\S+)? .*?(0x[0-9a-f]+)")
# A first operand that is read, not written.
READERS = ("ST", "RED", "BAR", "BRA", "CALL", "EXIT", "SYNCS", "UBLKCP", "LDGSTS", "WARPSYNC", "R2UR")


def written(text: str) -> set[int]:
    operation, _, operands = text.partition(" ")
    if operation.startswith(READERS) or "SETP" in operation:
        return set()
    match = re.match(r"(?:P\w+, )*R(\d+)\b", operands)
    if match is None:
        return set()
    wide = 4 if ".128" in operation else 2 if ".64" in operation or ".WIDE" in operation else 1
    return {int(match.group(1)) + i for i in range(wide)}


class Products:
    """Registers that products on their way read, by groups in order."""

    def __init__(self) -> None:
        self.groups: list[set[int]] = [set()]

    def step(self, text: str) -> set[int]:
        """The registers in use that this instruction writes."""
        if wait := WAIT.match(text):
            pending = int(wait.group(1), 16)
            committed, current = self.groups[:-1], self.groups[-1]
            self.groups = committed[len(committed) - pending :] + [current] if pending else [current]
            return set()
        if product := PRODUCT.match(text):
            first = next((group for group in product.groups() if group), None)
            if first:
                self.groups[-1] |= {int(first) + i for i in range(4)}
            if "gsb0" in text:
                self.groups.append(set())
            return set()
        return written(text) & set().union(*self.groups)


def faults(code: list[tuple[int, str]]) -> list[str]:
    """Every loop is gone through twice, so that what its end leaves under way meets its beginning."""
    places = {address: i for i, (address, _) in enumerate(code)}
    products, found, repeated = Products(), {}, set()
    i = 0
    while i < len(code):
        address, text = code[i]
        for register in products.step(text):
            found[address] = f"{address:04x} {text}: R{register} is still being read"
        match = TARGET.match(text)
        target = int(match.group(1), 16) if match else address + 1
        if target < address and address not in repeated and target in places:
            repeated.add(address)
            i = places[target]
            continue
        i += 1
    return list(found.values())


def main() -> int:
    num_functions = num_products = num_faults = 0
    for path in sys.argv[1:]:
        listing = subprocess.run(["cuobjdump", "-sass", path], capture_output=True, text=True, check=True).stdout
        for part in listing.split("Function : ")[1:]:
            name = part.split("\n", 1)[0].strip()
            code = [(int(m.group(1), 16), m.group(2)) for m in map(INSTRUCTION.match, part.split("\n")) if m]
            count = sum(PRODUCT.match(text) is not None for _, text in code)
            num_functions += count > 0
            num_products += count
            for fault in faults(code) if count else []:
                num_faults += 1
                print(f"{path}: {name}: {fault}")
    print(f"product_registers.py: {num_products} products in {num_functions} kernels, {num_faults} writes to registers in use")
    return 1 if num_faults or num_products == 0 else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("product_registers.py: expected programs or objects, got none")
    sys.exit(main())
