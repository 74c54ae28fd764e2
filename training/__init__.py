"""Training of JMP potentials: data sets, the fine-tuner and its recipes."""
