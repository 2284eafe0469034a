"""One training run from data to report, by kind of input: images, texts, two kinds at once."""
