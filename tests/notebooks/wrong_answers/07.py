"""Solutions of notebook 07 with one line wrong, and what is said of them."""

WRONG = {
    1: [
        ("reversed(layers)", "layers", "start at the token, and go through the *last* layer first"),
        ("reversed(layers)", "layers[-1:]", "that is one layer's window"),
        ("reversed(layers)", "layers[:1]", "that is the window of the first layer alone"),
        ("padding + kernel - 1", "padding + kernel", "your last place is one after the last"),
        (
            "first * stride - padding\n        last = last * stride - padding",
            "first * stride\n        last = last * stride",
            "the padding is not used",
        ),
        (
            "first * stride - padding\n        last = last * stride - padding",
            "first - padding\n        last = last - padding",
            "the strides are not used",
        ),
    ],
    2: [
        (" + eps).sqrt()", ").sqrt()", "eps is not used"),
        ("keepdim=True) + eps).sqrt()", "keepdim=True).sqrt() + eps)", "eps is added to the root"),
        (".sqrt()", "", "you divide by the variance"),
        ("* normed + bias[:, None, None]", "* (normed + bias[:, None, None])", "weight times (normed + bias)"),
        ("weight[:, None, None] * normed + bias[:, None, None]", "normed", "weight and bias are not used"),
        ("weight[:, None, None] * normed", "weight * normed", "raised RuntimeError"),
    ],
    3: [
        ("gamma1 * mixer(norm1(x))\n    return x + gamma2 * mlp", "mixer(norm1(x))\n    return x + mlp", "not used"),
        ("return x + gamma2", "return gamma2", "the MLP's branch is not added to what it reads"),
        ("norm2(x)", "norm1(x)", "norm1 is used twice"),
        (
            "mixer(norm1(x))\n    return x + gamma2 * mlp(norm2(x))",
            "norm1(mixer(x))\n    return x + gamma2 * norm2(mlp(x))",
            "the norms come after mixer and MLP",
        ),
        (
            "x = x + gamma1 * mixer(norm1(x))\n    return x + gamma2 * mlp(norm2(x))",
            "return norm2((x := norm1(x + gamma1 * mixer(x))) + gamma2 * mlp(x))",
            "post-norm",
        ),
        (
            "x = x + gamma1 * mixer(norm1(x))\n    return x +",
            "return x + gamma1 * mixer(norm1(x)) +",
            "both branches read the same x",
        ),
    ],
    4: [
        ("2 * (1 - each)", "1 - each", "you count blocks"),
        ("2 * (1 - each)", "2 * each", "you count the branches that are dropped"),
        ("2 * (1 - each)", "2", "all branches are on"),
        ("drop_rates(depths, rate)", "[[rate] * sum(depths)]", "every block has the full rate"),
        (
            "itertools.chain(*drop_rates(depths, rate))",
            "[rate * number / sum(depths) for number in range(sum(depths))]",
            "divide by N - 1",
        ),
    ],
    5: [
        ("5 * C + 4 * C + 2 * C", "5 * C + 4 * C", "the layer scales are missing"),
        ("total += 2 * C  #", "pass  #", "the norms at the end of the stages are missing"),
        ("hidden * classes + classes", "hidden * classes", "the classifier's bias is missing"),
        ("d * hidden + 2 * hidden", "d * hidden + 4 * hidden", "running mean and variance"),
        ("<= budget", "< budget", "at most"),
        ("(C // 2) * C + 2 * C", "(C // 2) * C + C + 2 * C", "your downsampling convolutions have a bias"),
        ("    return d, count(d)", "    return d + 2, count(d + 2)", "over the budget by one step"),
    ],
}
