"""Wrong answers to the exercises of notebook 19, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_SCORE = "torch.nn.Linear(dim, 1, bias=False)"
_SHARES = "self.score(tokens).softmax(1)"
_FORMULA = "(dim + dim * dim + dim + dim * dim)"

WRONG = {
    1: [("mean(2, keepdim=True)", "mean(0, keepdim=True)", "images are mixed")],
    2: [(")[:, :H, :W]", ")", "crop the map")],
    3: [("2 * kernel * dim", "kernel * kernel * dim", "you count a square kernel")],
    4: [("1e-9 * weights.max()", "0", "rounding counts in your version")],
    5: [("(width - unit, width)", "(width,)", "you always go above the target")],
    6: [
        (_SCORE, "torch.nn.Linear(dim, 1)", "score.bias: the gradient is 0; it cancels (a bias before a softmax"),
        (_SHARES, "self.score(tokens).softmax(0)", "images hear each other"),
        (_SHARES, "self.score(tokens).softmax(2)", "score.weight: the gradient is 0; it cancels"),
        (_SHARES, "self.score(tokens).exp()", "give NaN or infinity"),
        ("shares.mT @ self.value(tokens)", "self.value(tokens)", "score.weight: never used in forward"),
        ("self.out(tokens * context)", "self.out(tokens * context.detach())", "never used in forward"),
        (".view_as(x)", "", "that is a sequence"),
        (_FORMULA, "2 * (2 * dim + 2 * dim * dim)", "twice as much; a multiply-add is 1"),
        (_FORMULA, "(2 * dim * dim)", "the counter finds"),
        ("def macs", "def cost", "write macs(H, W) too"),
        ("tokens = x.flatten(1, 2)", "tokens = (x + torch.linspace(0, 1, x.shape[1], dtype=x.dtype, device=x.device)"
         "[:, None, None]).flatten(1, 2)", "where a token stands should make no difference"),
    ],
}  # fmt: skip
