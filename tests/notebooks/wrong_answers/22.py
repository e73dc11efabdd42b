"""Wrong answers to the exercises of notebook 22, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_RIGHT = "tokens.roll(1, 1)"

WRONG = {
    2: [
        (_RIGHT, "tokens", "identity solves it"),
        (_RIGHT, "(tokens + 1) % 8", "identity solves it"),
        (_RIGHT, "torch.zeros_like(tokens)", "identity solves it"),
        (_RIGHT, "(tokens + tokens.sum((1, 2), keepdim=True)) % 8", "pvt can solve it"),
        (_RIGHT, "tokens.sum((1, 2), keepdim=True).expand_as(tokens) % 8", "pvt can solve it"),
        (_RIGHT, "tokens[:, :-1]", "a label for each token"),
        (f"return {_RIGHT}", _RIGHT, "returns None"),
    ],
}
