class InputError(ValueError):
    """What the user gave is wrong: a file, a folder, a setting.

    The message says what and how to mend it, so a command ends with it alone,
    without a traceback.
    """
