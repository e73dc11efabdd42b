"""Wrong answers to the exercises of notebook 20, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_QUANTILE = "0.05 / (2 * comparisons)"
_MIXERS = '[["swin"], ["identity"]]'
_SEEDS = "[0, 1, 2, 3, 4, 5]"

WRONG = {
    1: [
        (
            "[ours[seed] - theirs[seed] for seed in ours if seed in theirs]",
            "[a - b for a, b in zip(ours.values(), theirs.values())]",
            "seeds in another order: the low is",
        ),
        ("ours[seed] - theirs[seed]", "theirs[seed] - ours[seed]", "two seeds: the difference is"),
        ("0.975", "0.95", "two seeds: the low is"),
        ("n - 1)", "n)", "two seeds: the low is"),
        (" / math.sqrt(n)", "", "two seeds: the low is"),
        ("mean - half, mean + half", "mean + half, mean - half", "two seeds: the low is"),
    ],
    2: [
        (_QUANTILE, "0.05 / comparisons", "one comparison is the plain interval"),
        (_QUANTILE, "0.05 / 2", "more comparisons must make the interval wider"),
        (_QUANTILE, "0.05 * comparisons / 2", "more comparisons must make the interval wider"),
        (_QUANTILE, "0.05 / (2 * comparisons**3)", "far too strict"),
        ("math.sqrt(n)", "n", "one comparison is the plain interval"),
        ("n - 1", "n", "one comparison is the plain interval"),
    ],
    3: [
        ('"demo"', '"class"', "the profile should be demo"),
        ("[32, 64]", "[32]", "missing (mixers, size, seed)"),
        (_SEEDS, "[0, 1, 2]", "missing (mixers, size, seed)"),
        (_SEEDS, "[0, 1, 2, 3, 4, 5, 6]", "nobody asked for"),
        (_MIXERS, '[["swin"]]', "missing (mixers, size, seed)"),
        (_MIXERS, '[["swin", "identity"]]', "missing (mixers, size, seed)"),
        (_MIXERS, '[["swin"], ["identity"], ["halo"]]', "nobody asked for"),
    ],
}
