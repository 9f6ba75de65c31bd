"""Ids with a fixed place: the real family's low ids, and the modality tokens at the end of our small table."""

VOCAB_SIZE = 4096
SPACE = "\u2581"
FIXED = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>",
         49: "<tool_call|>", 50: "<|tool_response>", 51: "<tool_response|>", 52: '<|"|>', 98: "<|think|>",
         100: "<|channel>", 101: "<channel|>", 105: "<|turn>", 106: "<turn|>"}
MODALITY = ["<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>"]
BYTE_BASE, FIRST_FREE = 238, 494
# Runs that are single tokens, at the ids they have in the real vocabulary: 106 + n newlines, 136 + n spaces.
NEWLINE_RUNS, SPACE_RUNS = range(1, 5), range(2, 5)


def special_ids() -> dict:
    ids = {text: i for i, text in FIXED.items()}
    ids.update({text: VOCAB_SIZE - len(MODALITY) + i for i, text in enumerate(MODALITY)})
    return ids
