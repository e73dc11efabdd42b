"""What few numbers can say: intervals of means, paired differences, correlations. Numbers in, numbers out."""

from stm_lab.stats.correlations import (
    chance_of,
    interval_over_seeds,
    kendall,
    pearson,
    pearson_interval,
    spearman,
    spearman_interval,
)
from stm_lab.stats.intervals import CONFIDENCE, half_interval, paired_difference

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
