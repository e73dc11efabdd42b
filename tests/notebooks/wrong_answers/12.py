"""Wrong answers to the exercises of notebook 12, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_SHIFT = "min(strength, margin) + max(0, strength - margin) / 2"
_MIRROR = "torch.where(place < size, place, 2 * (size - 1) - place)"
_KAPPA = "0.0 if by_chance == 1 else (same - by_chance) / (1 - by_chance)"

WRONG = {
    1: [
        ("return 100 * float(same), 100 * float(", "return float(same), float(", "5 images: consistency is"),  # shares
        ("(answers == labels)", "(standard.argmax(-1) == labels)", "5 images: accuracy is"),  # of the standard views
        (
            "(answers == standard.argmax(-1)).",
            "((answers == standard.argmax(-1)) & (answers == labels)).",
            "consistency",
        ),
        ("(answers == standard.argmax(-1)).", "(answers == standard.argmax(-1)).all(0).", "5 images: consistency is"),
        ("answers = moved.argmax(-1)", "answers = moved[0].argmax(-1)", "5 images: consistency is"),  # one direction
        ("answers = moved.argmax(-1)", "answers = moved.mean(0).argmax(-1)", "5 images: consistency is"),
        (
            "return 100 * float(same), 100 * float((answers == labels).float().mean())",
            "return 100 * float((answers == labels).float().mean()), 100 * float(same)",
            "12 images: consistency is",
        ),
        ("return 100 * float(same), ", "return ", "should be two numbers"),
    ],
    2: [
        (_SHIFT, "strength", "a crop of 224, strength 64: the content moves by 40 pixels, you return 64"),
        (_SHIFT, "min(strength, margin)", "the content moves by 40 pixels, you return 16"),  # black, and no more
        (_SHIFT, "strength / 2", "the content moves by 40 pixels, you return 32"),
        (_SHIFT, "margin + (strength - margin) / 2", "strength 0: the content moved by 0, you return"),
        (_SHIFT, "min(strength, margin) - max(0, strength - margin) / 2", "you return -8"),
        (
            "(large - small) / 2",
            "large - small",
            "the content moves by 40 pixels, you return 48",
        ),  # the margins of both sides
        ("(large - small) / 2", "small / 2", "the content moves by 40 pixels, you return 64"),
        ("return min", "min", "you return None"),
    ],
    3: [
        (" - by)", " + by)", "0 1 2 3 4 moved right by 2: should be 2 1 0 1 2, you return 2 3 4 3 2"),
        (_MIRROR, "torch.where(place < size, place, 2 * size - 1 - place)", "moved left by 2: should be 2 3 4 3 2"),
        ("(torch.arange(size) - by).abs()", "(torch.arange(size) - by) % size", "you return 3 4 0 1 2"),  # wraps
        ("(torch.arange(size) - by).abs()", "(torch.arange(size) - by).clamp(min=0)", "you return 0 0 0 1 2"),
        (_MIRROR, "place.clamp(max=size - 1)", "moved left by 2: should be 2 3 4 3 2, you return 2 3 4 4 4"),
        ("places(image.shape[-2], down)", "places(image.shape[-2], right)", "moved down by 2"),
        ("[..., places(image.shape[-1], right)]", "", "moved right by 2"),
        ("[..., places(image.shape[-2], down), :]", "", "moved down by 2: should be 2 1 0 1 2, you return 0 1 2 3 4"),
        (
            "places(image.shape[-2], down)",
            "places(image.shape[-1], down)[: image.shape[-2]]",
            "6x5, 0 down, -3 right: shape (2, 3, 5, 5), should be (2, 3, 6, 5)",
        ),
        ("return image[", "image[", "shifted returns None"),
    ],
    4: [
        ("p @ q", "p @ p", "shares 3/4, 1/4, then 1/4, 3/4: chance and kappa are 0.375 and 0.2"),
        ("float(p @ q)", "1 / classes", "answers that vary and all stay: chance and kappa are 0.5 and 1"),
        (_KAPPA, "(same - by_chance) / (1 - by_chance)", "always one class: chance and kappa are 1 and 0, you return"),
        (_KAPPA, _KAPPA.replace("0.0", "1.0"), "always one class: chance and kappa are 1 and 0, you return (1.0, 1.0)"),
        (_KAPPA, "same - by_chance", "answers that vary and all stay: chance and kappa are 0.5 and 1"),
        (_KAPPA, "(same - by_chance) / max(same, 1e-9)", "answers that vary and all stay"),
        (" / len(answers)", "", "answers that vary and all stay"),  # numbers, not shares
        ("return by_chance, 0.0 if", "return 0.0 if", "you return"),
    ],
}
