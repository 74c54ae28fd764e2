"""Errors meant for users: each message names the offending value and the remedy."""


class JMPError(Exception):
    """Base of every error jmp-md raises on purpose."""


class InputError(JMPError, ValueError):
    """A structure, option or data file that cannot be used as given."""


class CheckpointError(JMPError):
    """A checkpoint that is broken, unsafe or of an unknown layout."""


class ModelNotFoundError(JMPError, LookupError):
    """A model name that is unknown, or known but not at hand."""


class DomainWarning(UserWarning):
    """A structure lies outside of what a model was trained on."""
