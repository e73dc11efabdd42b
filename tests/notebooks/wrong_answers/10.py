"""Wrong answers to the exercises of notebook 10, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_TOKENS = "(-(-H // w) * w) * (-(-W // w) * w)"
_SUM = "return 4 * H * W * C * C + 2 * tokens * w * w * C"
_RANK = "[[sum(other < value for other in values) for value in values] for values in (x, y)]"
_PEARSON = "float(np.corrcoef(*rank)[0, 1])"
_AT = "block.mixer.macs(side // 4 // 2**i, side // 4 // 2**i)"

WRONG = {
    1: [
        (_TOKENS, "H * W", "a map that does not divide (7x9"),  # never padded
        (_TOKENS, "(H // w * w) * (W // w * w)", "a map that does not divide"),  # cut off instead of padded
        ("4 * H * W", "4 * tokens", "a map that does not divide"),  # the projections see the true map
        ("4 * H * W", "3 * H * W", "one window (4x4, 32 channels, window 4): you return 65,536, should be 81,920"),
        ("2 * tokens", "tokens", "one window"),  # one product of two
        ("w * w * C", "w * C", "one window"),
        ("w * w * C", "tokens * C", "four windows"),  # every token meets every other
        (_SUM, "2 * (4 * H * W * C * C + 2 * tokens * w * w * C)", "window_macs returns None"),
        (_SUM, "return 2 * (4 * H * W * C * C + 2 * tokens * w * w * C)", "one window"),  # operations, not MACs
    ],
    2: [
        ("depth * 2 * 5 *", "depth * 5 *", "convnext, 64 pixels"),  # one norm a block
        ("depth * 2 * 5 *", "2 * 5 *", "convnext, 64 pixels"),  # one block a stage
        ("depth * 2 * 5 *", "depth * 2 *", "convnext, 64 pixels"),
        ("size**2 * dim", "size**2", "convnext, 64 pixels"),
        ("size**2", "size", "convnext, 64 pixels"),
        ("side // 4 // 2**stage", "side // 2 // 2**stage", "convnext, 64 pixels"),
        ("side // 4 // 2**stage", "side // 4", "convnext, 64 pixels"),
        ("return sum(", "sum(", "norm_charge returns None"),
    ],
    3: [
        (_RANK, "x, y", "the same order: "),  # Pearson's of the numbers themselves
        (_RANK, "[np.argsort(values) for values in (x, y)]", "numbers: "),  # who is at a rank, not who has which
        (_RANK, "[sorted(values) for values in (x, y)]", "only the order matters"),
        (_PEARSON, "np.corrcoef(*rank)", "should be one number"),
        (_PEARSON, "float(np.cov(*rank)[0, 1])", "numbers: "),
        (_PEARSON, "float(np.corrcoef(*rank)[0, 0])", "opposite orders: 1.000, should be -1"),
        (_PEARSON, "abs(np.corrcoef(*rank)[0, 1])", "opposite orders: 1.000, should be -1"),
        (_PEARSON, "float(np.corrcoef(*rank)[0, 1]) ** 2", "opposite orders: 1.000, should be -1"),
    ],
    4: [
        ("> mixers_macs(other, side)", "< mixers_macs(other, side)", "pixels: pvt's mixers do not cost more"),
        ("range(32, 4096, 32)", "range(64, 4096, 64)", "already at"),
        (_AT, "block.mixer.macs(side // 4, side // 4)", "'s mixers "),  # the map of stage 1 everywhere
        (_AT, "block.mixer.macs(side // 2**i, side // 2**i)", "'s mixers "),  # the stem forgotten
        ("in stage.blocks\n", "in stage.blocks[:1]\n", "'s mixers "),  # one block a stage
        ("enumerate(net.stages)", "enumerate(net.stages[:1])", "'s mixers "),
        ("return next(side for", "return next(side // 4 for", "should be a side of the image"),
        ("return next(", "next(", "you return None"),
    ],
}
