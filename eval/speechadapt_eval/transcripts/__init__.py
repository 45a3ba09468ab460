"""Error rates of transcripts: normalisers and the aligner."""
