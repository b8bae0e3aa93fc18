"""The load generator of `sockbridge bench` and of bench/: it loads a server and counts every delivery."""
