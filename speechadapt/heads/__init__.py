"""What turns encoder states into an answer: a CTC vocabulary or a classifier."""
