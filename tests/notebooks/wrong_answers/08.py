"""Wrong answers to the exercises of notebook 08, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_MERGING, _CONVOLUTION = "2 * (4 * c) + (4 * c) * out", "9 * c * out + 2 * out"
_ORIGINAL = 'design="original", head="conv"'

WRONG = {
    1: [
        (_MERGING, "(4 * c) * out", "merging from 96 to 192: yours says 73728, the module has 74,496"),
        (_MERGING, "2 * (4 * c) + (4 * c) * out + out", "merging from 96 to 192"),
        (_MERGING, "2 * c + (4 * c) * out", "merging from 96 to 192"),
        (_CONVOLUTION, "9 * c * out + 2 * out + out", "convolution from 96 to 192"),
        (_CONVOLUTION, "9 * c * out + 2 * c", "convolution from 96 to 192"),
        (_CONVOLUTION, "9 * c * out", "convolution from 96 to 192: yours says 165888, the module has 166,272"),
    ],
    2: [
        ('top1["unified"] - top1["block"]', 'top1["unified"] - top1["network"]', "taken last, of"),
        ('top1["network"] - top1["original"]', 'top1["block"] - top1["original"]', "taken first, of"),
        ("last - first", "first - last", "interaction, of"),
        ("last - first", "last + first", "interaction, of"),
        ("return first, last, last - first", "return None", "network_gains returns nothing yet"),
    ],
    3: [
        (_ORIGINAL, 'head="conv"', "stem is 'convs', should be 'patches'"),
        (_ORIGINAL, 'design="original"', "head is 'linear', should be 'conv'"),
        (_ORIGINAL, 'design="original", head="conv", stem="convs"', "stem is 'convs', should be 'patches'"),
        (_ORIGINAL, 'design="original", head="norm_linear"', "head is 'norm_linear', should be 'conv'"),
        (_ORIGINAL, 'design="original", head="conv", norm_eps=1e-6', "something else differs from the original, too"),
        ("return stm_lab.build_model(", "stm_lab.build_model(", "half_way returns None"),
    ],
    4: [
        ("<= budget", "< budget", "yours is"),
        ("count(d + 2)", "count(d)", "yours is"),
        ("num_classes=10", "num_classes=1000", "yours is"),
        ("4 * d, 8 * d)", "4 * d, 4 * d)", "yours is"),
        ("    return d\n", "    return d + 2\n", "yours is"),
    ],
}
