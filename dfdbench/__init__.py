"""dfdbench: the benchmark for few-step video distillation."""

__version__ = "0.1.0"
