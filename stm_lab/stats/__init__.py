"""Statistics of few numbers: intervals of means, paired differences, correlations."""

from stm_lab.util.modules import lazily

__all__ = [
    "CONFIDENCE",
    "chance_of",
    "half_interval",
    "interval_over_seeds",
    "kendall",
    "paired_difference",
    "pearson",
    "pearson_interval",
    "spearman",
    "spearman_interval",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "correlations": (
            "chance_of",
            "interval_over_seeds",
            "kendall",
            "pearson",
            "pearson_interval",
            "spearman",
            "spearman_interval",
        ),
        "intervals": ("CONFIDENCE", "half_interval", "paired_difference"),
    },
)
