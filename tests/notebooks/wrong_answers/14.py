"""Wrong answers to the exercises of notebook 14, as edits of its solutions; see `exercises.Found.wrong_answers`."""

_STEP = "(pixels + epsilon / 255 * gradient.sign()).clamp(0, 1)"
_LOSS = 'nn.functional.cross_entropy(model(x), labels, reduction="sum")'
_LENGTH = "way.flatten(1).norm(dim=1)[:, None, None, None]"
_BACK = "pixels + way * (epsilon / length.clamp(min=1e-30)).clamp(max=1)"
_STEEPEST = 'weight.abs().sum() if norm == "linf" else weight.square().sum().sqrt()'
_DISTANCE = "255 * value.abs() / steepest"
_SCALED = "(logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)"
_CROSS = 'nn.functional.cross_entropy(logits, labels, reduction="none")'

WRONG = {
    1: [
        (_STEP, _STEP.replace("pixels +", "pixels -"), "grey images: not every image's loss rises; step uphill"),
        (_STEP, _STEP.replace(".sign()", ""), "grey images: a value moved by 3.88/255, epsilon is 1/255"),
        (_STEP, _STEP.replace(" / 255", ""), "grey images: a value moved by"),
        (_STEP, _STEP.replace(".clamp(0, 1)", ""), "images with black and white in them: values from"),
        (_STEP, _STEP.replace("gradient.sign()", "gradient / gradient.norm()"), "is it a whole epsilon along the sign"),
        (_STEP, "(epsilon / 255 * gradient.sign()).clamp(0, 1)", "grey images: a value moved by"),  # the step alone
        (_LOSS, "model(x).sum()", "grey images: not every image's loss rises"),  # no loss at all
        (_LOSS, "nn.functional.cross_entropy(model(x), 0 * labels)", "grey images: not every image's loss rises"),
        (_LOSS, "nn.functional.cross_entropy(model(x), 1 - labels)", "by the gradient of labels' loss"),
        ("return (pixels", "(pixels", "my_fgsm gives None, should be the attacked images"),
    ],
    2: [
        (_BACK, _BACK.replace(".clamp(max=1)", ""), "ways (0.1, 0.2, 0.5), image 0: ends 1.00 from the middle"),
        (_BACK, "pixels + way.clamp(-epsilon, epsilon)", "ends 2.00 from the middle, should be 1.00"),  # of L-infinity
        (_BACK, "pixels + way / length * length.clamp(max=epsilon)", "not finite; what happens at length 0?"),
        (_BACK, "torch.where(length > epsilon, pixels, x)", "ends 0.00 from the middle, should be 1.00"),
        (_BACK, _BACK.replace("pixels + ", ""), "ways (0.1, 0.2, 0.5), image 0: ends"),  # the way alone
        (_BACK, _BACK.replace("epsilon /", "epsilon / 255 /"), "ends 0.00 from the middle, should be 0.10"),
        (_BACK, "x * (epsilon / length.clamp(min=1e-30)).clamp(max=1)", "from the middle, should be 1.00"),
        (_LENGTH, "way.norm()", "from the middle, should be 1.00"),  # one length for the whole batch
        (_LENGTH, "way.norm(dim=1, keepdim=True)", "from the middle, should be 1.00"),  # a length for each pixel
        ("return pixels +", "pixels +", "my_projection gives None"),
    ],
    3: [
        (_STEEPEST, _STEEPEST.replace('"linf"', '"l2"'), "linf, bias 0.0, image 0: "),  # the two norms exchanged
        (_STEEPEST, "weight.square().sum().sqrt()", "is too far: the answer turns before"),
        (_STEEPEST, _STEEPEST.replace(".sqrt()", ""), "l2, bias 0.0, image 0: "),
        (
            _STEEPEST,
            _STEEPEST.replace("weight.abs().sum()", "weight.abs().max()"),
            "further than from black to white",
        ),
        (
            _STEEPEST,
            _STEEPEST.replace("weight.abs().sum()", "weight.sum().abs()"),
            "is too far: the answer turns before",
        ),
        (_DISTANCE, "255 * value / steepest", "a distance is above 0, on both sides of the boundary"),
        (_DISTANCE, "value.abs() / steepest", "is too near: the answer still stands"),  # not in 1/255
        (_DISTANCE, "255 * value.abs().mean() / steepest", "should be (5,): one an image"),
        (" + bias", "", "linf, bias 1.5, image 0: "),
        ("return 255 *", "255 *", "boundary_distance gives None, should be a tensor"),
    ],
    4: [
        (_SCALED, "logits", "logits times 0.01: the loss changes by"),  # the usual loss
        (_SCALED, "logits - logits.mean(1, keepdim=True)", "logits times 0.01: the loss changes by"),
        (_SCALED, "logits / 10_000", "logits times 10000: the loss changes by"),  # for this network alone
        (_SCALED, "logits / logits.std()", "rescale each by itself"),
        (_SCALED, _SCALED.replace("1, keepdim", "0, keepdim"), "with fewer images beside it, an image's loss changes"),
        (_SCALED, "logits.sign()", "a lower right logit must make the loss higher"),
        (_CROSS, "nn.functional.cross_entropy(logits, labels)", "shape (), should be (6,): one loss an image"),
        (_CROSS, "-" + _CROSS, "a lower right logit must make the loss higher: attacks climb it"),
        (_CROSS, "logits.gather(1, labels[:, None])[:, 0]", "a lower right logit must make the loss higher"),
        ("return nn.", "nn.", "my_loss gives None, should be a tensor"),
    ],
}
