"""How fast a system is: real-time factor, latency of utterances and of streams, energy."""
