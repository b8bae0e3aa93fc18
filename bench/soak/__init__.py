"""The soak test: a server under churn for minutes, every delivery checked, and a chart of its memory."""
