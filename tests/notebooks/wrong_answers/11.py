"""Wrong answers to the exercises of notebook 11, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_STAGE = "[(3, 2)] + [(kernel, 1)] * depth"
_MIDDLE = "feature[0, :, height // 2, width // 2].relu().sum()"
_POSITIVE = "gradient.relu().sum((0, 1))"
_SHARE = "(np.searchsorted(held, threshold * held[-1]) + 1) / contribution.size"

WRONG = {
    1: [
        (
            _STAGE,
            "[(kernel, 1)] * depth + [(3, 2)]",
            "you return 123 pixels, the gradient has 183",
        ),  # a downsampling comes first
        ("[(kernel, 1)] * depth", "[(kernel, 1)]", "depths (2, 1, 1, 1), kernel 3: you return 183 pixels"),
        ("[(kernel, 1)] * depth", "[(7, 1)] * depth", "depths (1, 1, 1, 1), kernel 3: you return"),
        ("[(3, 2)] + [", "[(2, 2)] + [", "depths (1, 1, 1, 1), kernel 3: you return"),
        ("[(3, 2)] + [", "[", "depths (1, 1, 1, 1), kernel 3: you return"),  # no downsampling between the stages
        ("layers = [(3, 2)]\n", "layers = []\n", "depths (1, 1, 1, 1), kernel 3: you return"),  # no stem
        ("layers = [(3, 2)]\n", "layers = [(4, 4)]\n", "depths (1, 1, 1, 1), kernel 3: you return"),
        ("(kernel, 1)", "(kernel, 2)", "depths (1, 1, 1, 1), kernel 3: you return"),
        ("return reach(", "reach(", "you return None pixels, the gradient has 183"),
    ],
    2: [
        (_MIDDLE, _MIDDLE.replace(".relu()", ""), "stage 0: off by"),
        (_MIDDLE, "feature[0, :, 0, 0].relu().sum()", "stage 0: off by"),
        (_MIDDLE, "feature.relu().sum()", "is it the middle cell of this stage"),  # of all cells
        (_MIDDLE, _MIDDLE.replace("width", "height"), "stage 0: off by"),  # not the middle of a long map
        (_POSITIVE, "gradient.sum((0, 1))", "contributions below 0; keep only the gradient's positive part"),
        (_POSITIVE, "gradient.abs().sum((0, 1))", "stage 0: off by"),
        (_POSITIVE, "gradient.sum((0, 1)).relu()", "the gradient's positive part, then the sum over colours?"),
        (_POSITIVE, "gradient.relu().mean((0, 1))", "stage 0: off by"),
        (_POSITIVE, "gradient.relu().sum(0)", "stage 0: shape (3, 64, 96), should be (64, 96)"),
        ("indices=[stage]", "indices=[3]", "stage 0: off by"),
        ("return gradient", "gradient", "my_field returns None, should be a tensor"),
    ],
    3: [
        ("[::-1]", "", "a single pixel holds all, 1 of 100: should be 0.01, you return 1"),  # the weakest first
        ("np.sort(contribution.ravel())[::-1]", "contribution.ravel()", "a single pixel holds all"),  # not sorted
        (
            _SHARE,
            _SHARE.replace(" + 1", ""),
            "half of a flat map takes half of the pixels: should be 0.5, you return 0.49",
        ),
        (_SHARE, _SHARE.replace("held[-1])", "held[-1], side='right')"), "should be 0.5, you return 0.51"),
        (_SHARE, _SHARE.replace(" * held[-1]", ""), "half of a flat map takes half"),  # a share held against a sum
        (_SHARE, _SHARE.replace(" / contribution.size", ""), "should be 0.5, you return 50"),  # a number, not a share
        (_SHARE, "(contribution >= threshold * contribution.max()).mean()", "should be 0.5, you return 1"),
        (_SHARE, "100 * " + _SHARE, "should be 0.5, you return 50"),
        ("return (", "(", "smallest_share returns None"),
    ],
}
