"""What turns encoder states into an answer: a CTC vocabulary, a classifier or a
regressor."""
