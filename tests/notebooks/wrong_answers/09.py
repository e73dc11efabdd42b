"""Wrong answers to the exercises of notebook 09, as edits of its solutions; see `exercises.Found.wrong_answers`."""

WRONG = {
    1: [
        ("max(warmup - 1, 1)", "warmup", "4 of them warm up"),  # the peak is never reached
        ("(step - warmup) / (steps - warmup)", "step / steps", "1 of them warm up"),
        ("(1 + math.cos", "(1 - math.cos", "step 0 of 10, 0 of them warm up"),  # begins at the end
        (") / 2", ")", "step 0 of 10, 0 of them warm up"),
        ("return end + (peak - end)", "return (peak - end)", "step 0 of 10"),
        ("if step < warmup", "if step <= warmup", "step 0 of 10"),  # the warm-up is a step too long
    ],
    2: [
        ("[:16]", "[:15]", "as it is: is_whole says False"),
        ("hashlib.sha256", "hashlib.md5", "as it is: is_whole says False"),
        ("path.read_bytes()", "path.name.encode()", "as it is: is_whole says False"),
        (" == ", " != ", "as it is: is_whole says False"),
        ("return ", "return path.exists() or ", "one byte missing: is_whole says True"),
        ("return ", "return path.stat().st_size > 0 or ", "one byte missing: is_whole says True"),
    ],
    3: [
        ("3 *", "2 *", "should be True"),
        ("100 * (", "(", "should be True"),  # a share held against percent
        ("<=", ">=", "should be"),
        ("/ images)", ") / images", "should be True"),  # the root of the images forgotten
        ("(chance + 3", "(3", "should be True"),
        ("chance = 1 / classes", "chance = 1 / images", "should be True"),
    ],
}
