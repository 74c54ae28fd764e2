"""The folded network and its gradient in C++, for processors: see ``network.h``."""
