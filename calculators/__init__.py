"""Force providers: JMP potentials for the engines of the field."""
