"""The soak: a bridge under churn for minutes, every delivery checked, and its memory drawn."""
