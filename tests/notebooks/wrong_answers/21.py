"""Wrong answers to the exercises of notebook 21, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_PAIRS = "list(itertools.combinations(range(len(x)), 2))"
_SAME = "sum((x[i] - x[j]) * (y[i] - y[j]) > 0 for i, j in pairs)"
_TAU = "(2 * same - len(pairs)) / len(pairs)"
_MEAN = "mean = (only_first - only_second) / images"
_SQUARE = "square = (only_first + only_second) / images"
_ERROR = "math.sqrt((square - mean**2) / images)"
_SHARED = "set.intersection(*(set(scores[mixer]) for mixer in [*ahead, *behind]))"
_GROUP = "fmean(scores[m][s] for m in group)"
_ENDS = 'verdict["difference"], verdict["low"], verdict["high"]'
_BEATEN = "c <= cost and s >= score and (c, s) != (cost, score)"
_SORTED = "sorted((name for name, at in points.items() if not is_beaten(*at)), key=points.get)"

WRONG = {
    1: [
        (_TAU, "same / len(pairs)", "reversed: +0.000, should be -1.000"),
        (_TAU, "(len(pairs) - 2 * same) / len(pairs)", "the same order: -1.000, should be +1.000"),
        (_TAU, "(2 * same - len(pairs)) / len(x)", "2 random numbers: +0.500, should be +1.000"),
        (_TAU, "2 * same - len(pairs)", "the same order: +3.000, should be +1.000"),
        (_TAU, "(same - len(pairs)) / len(pairs)", "the same order: +0.000, should be +1.000"),
        (_PAIRS, "[(i, j) for i in range(len(x)) for j in range(len(x))]", "the same order: "),  # each with itself, too
        (_PAIRS, "list(itertools.pairwise(range(len(x))))", "one pair exchanged: "),  # neighbours only
        (_SAME, "sum(x[i] * y[i] > x[j] * y[j] for i, j in pairs)", "the same order: "),
        ("return (2 * same", "(2 * same", "tau_by_hand returns nothing"),
    ],
    2: [
        (_MEAN, "mean = (only_second - only_first) / images", "50000 images: difference -1.000, not 1.000"),
        (_SQUARE, "square = (only_first - only_second) / images", "standard error"),
        (_SQUARE, "square = 1", "50000 images: standard error"),  # the two disagree on some images only
        (_ERROR, "math.sqrt(square / images)", "1000 images: standard error"),  # the mean not taken off
        (_ERROR, "math.sqrt(square - mean**2)", "50000 images: standard error"),  # of one image, not of the mean
        (_ERROR, "math.sqrt(square - mean**2) / images", "50000 images: standard error"),
        (_ERROR, "(square - mean**2) / images", "50000 images: standard error"),  # the variance
        (_ERROR, "math.sqrt((square + mean**2) / images)", "1000 images: standard error"),
        ("return 100 * mean, 100 *", "return mean, ", "50000 images: difference 0.010, not 1.000"),
        ("return 100 * mean, ", "return ", "should be two numbers"),
    ],
    3: [
        (_SHARED, "set(scores[ahead[0]])", "a seed that only one has: no 7 there; if it is a seed"),
        (_SHARED, "set(scores[behind[0]])", "no 9 there; if it is a seed, not all of these mixers have it"),
        (_SHARED, _SHARED.replace("intersection", "union"), "there; if it is a seed, not all of these mixers have it"),
        (
            _SHARED,
            _SHARED.replace("[*ahead, *behind]", "ahead"),
            "no 7 there; if it is a seed, not all of these mixers have it",
        ),
        (_GROUP, "sum(scores[m][s] for m in group)", "groups of unequal size: mean is"),
        (_GROUP, "max(scores[m][s] for m in group)", "groups of unequal size: mean is"),
        (_GROUP, "scores[group[0]][s]", "groups of unequal size: mean is"),
        ("for group in (ahead, behind)", "for group in (behind, ahead)", "two groups of one: mean is -3.000"),
        (_ENDS, 'verdict["difference"], verdict["high"], verdict["low"]', "two groups of one: low is"),
        (_ENDS, 'verdict["difference"]', "should be three numbers"),
        ("return verdict", "verdict", "sentence gives None, should be three numbers"),
    ],
    4: [
        (_BEATEN, "c < cost and s > score", "as dear, but better: ['a', 'b'], should be ['b']"),
        (_BEATEN, "c <= cost and s > score", "as good, but dearer: ['a', 'b'], should be ['a']"),
        (_BEATEN, "c <= cost and s >= score", "one network: [], should be ['a']"),  # it beats itself
        (_BEATEN, _BEATEN.replace("s >=", "s <="), "should be ['a', 'b']"),  # a low score taken for a good one
        (_BEATEN, _BEATEN.replace("c <= cost and", "c <= cost or"), "one network: [], should be ['a']"),
        (", key=points.get)", ")", "at random: "),  # in order of the names
        (_SORTED, _SORTED.replace("points.get", "points.get, reverse=True"), "all on it: ['b', 'a'], should be"),
        (_SORTED, "[name for name, at in points.items() if not is_beaten(*at)]", "all on it: ['b', 'a'], should be"),
        (
            _SORTED,
            "sorted(at for at in points.values() if not is_beaten(*at))",
            "one network: [(1, 1)], should be ['a']",
        ),
        (_SORTED, "list({points[n]: n for n in " + _SORTED + "}.values())", "two equal networks: "),  # one of them lost
        ("return sorted(", "sorted(", "on_the_front returns nothing"),
    ],
}
