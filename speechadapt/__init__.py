"""speechadapt: one frozen speech encoder, many adapters."""
