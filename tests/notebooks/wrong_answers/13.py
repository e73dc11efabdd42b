"""Wrong answers to the exercises of notebook 13, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_CE = "error.sum(axis=1) / baseline_error.sum(axis=1)"
_LOST = "(error - clean_error).sum(axis=1) / (baseline_error - baseline_clean_error).sum(axis=1)"
_CONTRAST = "(mean + kept * (images - mean)).clamp(0, 1)"
_SEED = "1_000_003 * seed + first + j"
_EACH = "torch.stack([torch.randn(images.shape[1:], generator=generator) for generator in generators])"
_LEFT_OUT = "min(error, key=lambda name: np.delete(error[name], i).mean()) != winner"

WRONG = {
    1: [
        (_CE, "(error / baseline_error).mean(axis=1)", "mCE of 1 corruption(s): "),  # divides before it sums
        (
            _CE,
            "error.sum() / baseline_error.sum()",
            "mCE of 2 corruption(s): ",
        ),  # sums over the corruptions, too
        (_CE, "error.sum(axis=0) / baseline_error.sum(axis=0)", "mCE of 1 corruption(s): "),
        (_LOST, "(error - clean_error).sum(axis=1) / baseline_error.sum(axis=1)", "relative mCE of 1 corruption(s)"),
        (_LOST, "(error - clean_error).sum() / (baseline_error - baseline_clean_error).sum()", "relative mCE of 2"),
        (_LOST, _LOST.replace("(error - clean_error)", "(error - baseline_clean_error)"), "relative mCE of 1"),
        ("return 100 * ce.mean(), 100 * lost.mean()", "return ce.mean(), lost.mean()", "mCE of 1 corruption(s)"),
        ("return 100 * ce.mean(), 100 * lost.mean()", "return 100 * lost.mean(), 100 * ce.mean()", "mCE of 1"),
        ("return 100 * ce.mean(), ", "return ", "should be two numbers"),
    ],
    2: [
        ("images.mean((2, 3), keepdim=True)", "images.mean()", "severity 1: a mean changes by"),  # of the whole batch
        ("images.mean((2, 3), keepdim=True)", "images.mean((1, 2, 3), keepdim=True)", "each image and colour keeps"),
        ("images.mean((2, 3), keepdim=True)", "images.mean((0, 2, 3), keepdim=True)", "severity 1: a mean changes by"),
        ("images.mean((2, 3), keepdim=True)", "0.5", "severity 1: a mean changes by"),
        (_CONTRAST, "(kept * images).clamp(0, 1)", "severity 1: a mean changes by"),  # darker, too
        (_CONTRAST, "kept * (images - mean)", "severity 1: a mean changes by"),
        (_CONTRAST, "images + kept * (mean - images)", "severity 1: 0.60 of the contrast is left, should be 0.4"),
        (_CONTRAST, "mean + kept**2 * (images - mean)", "severity 1: 0.16 of the contrast is left, should be 0.4"),
        ("return (mean", "(mean", "my_contrast returns None"),
    ],
    3: [
        (_EACH, "torch.randn(images.shape)", "two equal calls return different noise"),
        (_EACH, "torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))", "depends on its batch"),
        (_SEED, "1_000_003 * seed + j", "an image's noise depends on its batch"),  # the number in the batch
        (_SEED, "seed", "two images have the same noise: use the image's number"),
        (_SEED, "first + j", "two seeds give the same noise"),
        (_SEED, "seed + first + j", "image 1 of seed 0 and image 0 of seed 1 have the same noise"),
        ("torch.randn(images.shape[1:],", "torch.randn((1, *images.shape[2:]),", "two colours of one"),
        ("torch.randn(", "torch.rand(", "standard deviation 0.029, should be 0.1"),
        (_EACH, _EACH.replace("torch.randn(", "3.464 * torch.rand(") + " - 1.732", "Gaussian noise has 68%"),
        ("deviation * noise", "deviation**2 * noise", "standard deviation 0.010, should be 0.1"),
        (".clamp(0, 1)", "", "clip to [0, 1]"),
        ("return (images", "(images", "my_noise returns None"),
    ],
    4: [
        (_LEFT_OUT, "min(error, key=lambda name: error[name][i]) != winner", "you return"),  # that one alone
        ("!= winner", "== winner", "you return ['fog', 'snow', 'pixelate'], should be []"),
        ("winner = min(", "winner = max(", "you return ['fog', 'snow', 'pixelate'], should be []"),
        (
            "error[name].mean())",
            "error[name][0])",
            "you return ['fog', 'snow', 'pixelate'], should be []",
        ),  # who wins at the first
        ("        kind\n", "        i\n", "you return [0], should be ['fog']"),
        ("np.delete(error[name], i).mean()", "error[name][:i].sum() + error[name][i:].sum()", "you return []"),
        ("for i, kind in enumerate(kinds)\n", "for i, kind in enumerate(kinds[:1])\n", "should be ['fog', 'snow']"),
        ("return [", "[", "deciding returns None"),
    ],
}
