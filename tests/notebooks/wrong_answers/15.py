"""Wrong answers to the exercises of notebook 15, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_NORM = "np.linalg.norm(places[:, None] - places, axis=2)"
_SHARES = "matrix / matrix.sum(axis=1, keepdims=True)"
_MEAN = "(shares * distances).sum(axis=1).mean()"
_KERNEL = "sum(len(diagonal) * diagonal.mean() ** 2 for diagonal in diagonals) / (matrix**2).sum()"
_NEAR = "nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 3, stride=1, padding=1).permute(0, 2, 3, 1)"
_BETWEEN = "near + torch.sigmoid(x.mean(-1, keepdim=True)) * far"

WRONG = {
    1: [
        (_SHARES, "matrix", "two tokens alike, half of each comes from 1 away: 1.0000, should be 0.5000"),
        (_SHARES, "matrix / matrix.sum()", "two tokens alike, half of each comes from 1 away: 0.2500"),
        (
            _SHARES,
            "matrix / matrix.sum(axis=0)",
            "2x4 tokens, 3/4 of the first from the end of its row",
        ),  # columns, not rows
        (_SHARES, "matrix / matrix.max(axis=1, keepdims=True)", "two tokens alike, half of each comes from 1 away"),
        (
            _NORM,
            "np.abs(places[:, None] - places).sum(axis=2)",
            "four tokens of a square, all alike: 1.0000, should be",
        ),
        (_NORM, _NORM + "**2", "four tokens of a square, all alike: 1.0000, should be 0.8536"),
        ("divmod(position, width)", "divmod(position, height)", "2x4 tokens, 3/4 of the first from the end of its row"),
        (_MEAN, "(shares * distances).sum()", "two tokens alike, half of each comes from 1 away: 1.0000"),
        (_MEAN, "(shares * distances).mean()", "two tokens alike, half of each comes from 1 away: 0.2500"),
        (_MEAN, "(shares * distances).sum(axis=1)", "should be one number"),
        ("return (shares", "(shares", "you give None, should be one number"),
    ],
    2: [
        ("(as_query + as_key_and_value)", "as_query", "1 token, p = 0: |J_pp| is"),
        (
            "(as_query + as_key_and_value)",
            "as_key_and_value",
            "1 token, p = 0: |J_pp| is",
        ),  # the rule for q other than p
        (" + torch.outer(one, one)\n", "\n", "1 token, p = 0: |J_pp| is"),
        ("(one @ one) * torch.eye(len(one), dtype=one.dtype) + ", "", "1 token, p = 0: |J_pp| is"),
        ("(one @ one) * torch.eye(len(one), dtype=one.dtype)", "(one @ one)", "1 token, p = 0: |J_pp| is"),
        (" / len(tokens)", "", "2 tokens, p = 0: |J_pp| is"),
        ("tokens.T @ tokens", "torch.outer(one, one)", "2 tokens, p = 0: |J_pp| is"),  # one term of P
        ("tokens.T @ tokens", "tokens @ tokens.T", "p = 0: "),
        ("return (as_query", "(as_query", "diagonal_block gives None, should be a tensor"),
    ],
    3: [
        (_KERNEL, _KERNEL.replace("len(diagonal) * ", ""), "a convolution: "),
        (_KERNEL, _KERNEL.replace("diagonal.mean()", "diagonal.sum()"), "a convolution: "),
        (_KERNEL, _KERNEL.replace("(matrix**2).sum()", "(matrix**2).mean()"), "a convolution: "),
        (_KERNEL, _KERNEL.replace("(matrix**2).sum()", "matrix.sum() ** 2"), "a convolution: "),
        (_KERNEL, "1 - " + _KERNEL, "0.0000, should be 1.0000"),  # what it misses
        ("range(-size + 1, size)", "range(size)", "a convolution: "),  # above the diagonal alone
        ("range(-size + 1, size)", "range(-size + 1, size - 1)", "a convolution: "),
        ("range(-size + 1, size)", "range(1)", "a convolution: "),
        ("** 2 for", "for", "a convolution: "),
        ("[np.diagonal(matrix, d)", "[np.diagonal(abs(matrix), d)", "noise: "),
        ("return sum(", "sum(", "explained_by_one_kernel returns nothing"),
    ],
    4: [
        (_BETWEEN, "near + far", "the gate is each token's own"),  # no gate
        (_BETWEEN, "near", "the gate is each token's own"),
        (
            _BETWEEN,
            "near + torch.sigmoid(x.mean((1, 2, 3), keepdim=True)) * far",
            "all tokens of an image take as much",
        ),
        (_BETWEEN, "torch.sigmoid(x.mean(-1, keepdim=True)) * far", "it is not the 3x3 average"),
        (_BETWEEN, "torch.sigmoid(x.mean(-1, keepdim=True)) * (near + far)", "it is not the 3x3 average"),  # gates both
        (
            _BETWEEN,
            "near + torch.sigmoid(x.mean(-1, keepdim=True)) * x",
            "it is not the 3x3 average",
        ),  # of itself, not of all
        (_NEAR, "x", "it is not the 3x3 average"),
        (
            _NEAR,
            "nn.functional.avg_pool2d(x, 3, stride=1, padding=1)",
            "it is not the 3x3 average",
        ),  # over width and channels
        (_NEAR, _NEAR.replace("3, stride=1, padding=1", "5, stride=1, padding=2"), "it is not the 3x3 average"),
        (_NEAR, _NEAR.replace("avg_pool2d", "max_pool2d"), "it is not the 3x3 average"),
        ("return near", "near", "forward returns nothing"),
    ],
}
