"""A fuzzer of every reader and of every verb's options: ``python -m tests.fuzz --minutes 20``.

Whatever is read or asked for, there is a result or one of our errors: nothing else is raised, no
input takes more than some seconds or some memory, and nothing is executed or overwritten.
"""
